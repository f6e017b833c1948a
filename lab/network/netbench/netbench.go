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
// namespace, veth, bridge port, an address and a default route of each family,
// and no duplicate address detection or router solicitation.
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
	for _, s := range []*subject{cold, warm} {
		if err := s.network.Settle(ctx); err != nil {
			return Result{}, err
		}
	}
	// The bare pods have a thread of their own and wait there for their turn:
	// what a Network does must not run on it, since a thread that is not free
	// makes each change of goroutine one of threads.
	turn, bareTook := make(chan struct{}), make([]time.Duration, 0, n)
	ended := make(chan error, 1)
	made := make(chan struct{})
	go func() {
		var start time.Time
		ended <- bare.Make(n,
			func(int) error {
				if _, ok := <-turn; !ok {
					return context.Canceled
				}
				start = time.Now()
				return nil
			},
			func(int) {
				bareTook = append(bareTook, time.Since(start))
				made <- struct{}{}
			})
	}()
	coldTook, warmTook, err := rounds(ctx, n, cold, warm, func() error {
		select {
		case turn <- struct{}{}:
			<-made
			return nil
		case err := <-ended: // it could not make the one before
			ended <- err
			return err
		}
	})
	close(turn)
	if bareErr := <-ended; err == nil {
		err = bareErr
	}
	if err != nil {
		return Result{}, err
	}
	return Result{N: n, Bare: median(bareTook), Cold: median(coldTook), Warm: median(warmTook)}, nil
}

// rounds makes n pods each way, by turns.
func rounds(ctx context.Context, n int, cold, warm *subject, bare func() error) (coldTook, warmTook []time.Duration, err error) {
	for i := range n {
		if err := bare(); err != nil {
			return nil, nil, err
		}
		took, err := cold.pod(ctx, i)
		if err != nil {
			return nil, nil, err
		}
		coldTook = append(coldTook, took)
		if took, err = warm.pod(ctx, i); err != nil {
			return nil, nil, err
		}
		warmTook = append(warmTook, took)
	}
	return coldTook, warmTook, nil
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
	name := fmt.Sprintf("pod-%d", i)
	ref := network.PodRef{Namespace: "default", Name: name, UID: name, Node: "node1"}
	start := time.Now()
	ns, err := s.network.NewPodNS(ctx)
	if err != nil {
		return 0, err
	}
	if _, err = s.network.AddPod(ctx, ref, ns, network.AddOptions{}); err != nil {
		return 0, err
	}
	took := time.Since(start)
	// What the watch still has to do for this pod must not fall on the next
	// one, made another way.
	return took, s.network.Settle(ctx)
}

func (s *subject) close() {
	s.network.Close()
	s.underlay.Close()
}

func median(list []time.Duration) time.Duration {
	slices.Sort(list)
	return list[len(list)/2]
}
