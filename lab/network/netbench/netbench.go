// Package netbench measures a pod's network beside the least that a kernel
// needs for it, in one run. `podlab bench` calls Run inside a sandbox.
package netbench

import (
	"context"
	"fmt"
	"slices"
	"time"

	"podlab/lab"
	"podlab/lab/kernel"
	"podlab/lab/netns"
	"podlab/lab/network"
	"podlab/lab/observe"
)

// Result are medians over N pods of the time from nothing to a pod's network:
// namespace, veth, bridge port, an address and a default route of each family.
type Result struct {
	N int `json:"n"`
	// Bare is done by hand-made batched requests and nothing else; Cold by a
	// Network as a lab has it, with its log and its watch; Warm likewise, with
	// a namespace that was waiting.
	Bare time.Duration `json:"bare"`
	Cold time.Duration `json:"cold"`
	Warm time.Duration `json:"warm"`
}

// Run makes n pods each way, by turns, so that what else the machine does
// falls on all alike.
func Run(ctx context.Context, n int) (Result, error) {
	if n < 1 || n > 200 {
		return Result{}, lab.Errorf(lab.CodeInvalid, "cannot measure %d pods: 1 to 200 are allowed", n)
	}
	bare, err := kernel.NewBarePods()
	if err != nil {
		return Result{}, err
	}
	defer bare.Close()
	cold, err := newSubject(ctx, 0)
	if err != nil {
		return Result{}, err
	}
	defer cold.close()
	warm, err := newSubject(ctx, n)
	if err != nil {
		return Result{}, err
	}
	defer warm.close()
	if err := warm.network.WaitWarm(ctx); err != nil {
		return Result{}, err
	}
	var bareTook, coldTook, warmTook []time.Duration
	var start time.Time
	err = bare.Make(n,
		func(i int) error {
			for _, s := range []struct {
				*subject
				took *[]time.Duration
			}{{cold, &coldTook}, {warm, &warmTook}} {
				took, err := s.pod(ctx, i)
				if err != nil {
					return err
				}
				*s.took = append(*s.took, took)
			}
			start = time.Now()
			return nil
		},
		func(int) { bareTook = append(bareTook, time.Since(start)) })
	if err != nil {
		return Result{}, err
	}
	return Result{N: n, Bare: median(bareTook), Cold: median(coldTook), Warm: median(warmTook)}, nil
}

// subject is a network under measurement.
type subject struct {
	underlay *netns.NS
	network  *network.Network
}

func newSubject(ctx context.Context, warm int) (*subject, error) {
	spec := lab.DefaultLab().Spec
	underlay, err := netns.New(nil)
	if err != nil {
		return nil, err
	}
	nw, err := network.New(network.Config{Spec: spec, Underlay: underlay, Log: observe.NewLog(spec, time.Now), Warm: warm})
	if err != nil {
		underlay.Close()
		return nil, err
	}
	s := &subject{underlay: underlay, network: nw}
	if err := nw.Start(ctx); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *subject) pod(ctx context.Context, i int) (time.Duration, error) {
	// What the watch of the pod before still has to do is that pod's.
	if err := s.network.Settle(ctx); err != nil {
		return 0, err
	}
	name := fmt.Sprintf("pod-%d", i)
	ref := network.PodRef{Namespace: "default", Name: name, UID: name, Node: "node1"}
	start := time.Now()
	ns, err := s.network.NewPodNS(ctx)
	if err != nil {
		return 0, err
	}
	_, err = s.network.AddPod(ctx, ref, ns, network.AddOptions{})
	return time.Since(start), err
}

func (s *subject) close() {
	s.network.Close()
	s.underlay.Close()
}

func median(list []time.Duration) time.Duration {
	slices.Sort(list)
	return list[len(list)/2]
}
