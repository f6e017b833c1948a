// Package labbench measures the lab's side of podlab where labs run: as PID 1
// of a sandbox, in the agent's place. `podlab bench` starts the sandbox and
// reads what Main leaves in its directory.
package labbench

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"podlab/lab/agentapi"
	"podlab/lab/netns"
	"podlab/lab/network/netbench"
	"podlab/lab/runtime"
)

// ResultFile holds the Result as JSON, in the lab's directory.
const ResultFile = "bench.json"

// How often each thing is done.
const (
	pods       = 50
	containers = 100
)

// timeout bounds the whole run.
const timeout = 60 * time.Second

// Result is what was measured.
type Result struct {
	Network netbench.Result `json:"network"`
	// Container starts in an existing pod, and those of a C program that does
	// no more than the kernel's own calls.
	Ours      []time.Duration `json:"ours"`
	Reference []time.Duration `json:"reference"`
}

// Main measures and returns the exit code.
func Main() int {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "podlab bench:", err)
		return 1
	}
	return 0
}

func run(ctx context.Context) error {
	var result Result
	var err error
	if result.Network, err = netbench.Run(ctx, pods); err != nil {
		return fmt.Errorf("cannot measure pod networks: %w", err)
	}
	times, err := starts(ctx)
	if err != nil {
		return fmt.Errorf("cannot measure container starts: %w", err)
	}
	result.Ours, result.Reference = times.Ours, times.Reference
	text, err := json.Marshal(result)
	if err != nil {
		return err
	}
	// In place in one step: the reader waits for the name.
	path := filepath.Join(agentapi.RunDir, ResultFile)
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// starts measures containers in a pod on a node, both without links.
func starts(ctx context.Context) (runtime.StartTimes, error) {
	rt, err := runtime.Start(runtime.Options{
		Root: agentapi.RootDir, Scratch: agentapi.ScratchDir, Hidden: []string{agentapi.RunDir},
	})
	if err != nil {
		return runtime.StartTimes{}, err
	}
	defer rt.Close()
	node, err := netns.New(nil)
	if err != nil {
		return runtime.StartTimes{}, err
	}
	defer node.Close()
	if _, err := rt.StartNode(ctx, runtime.NodeSpec{Name: "node1", NetNS: node.File()}); err != nil {
		return runtime.StartTimes{}, err
	}
	ns, err := netns.New(nil)
	if err != nil {
		return runtime.StartTimes{}, err
	}
	defer ns.Close()
	pod, err := rt.StartPod(ctx, runtime.PodSpec{
		PodKey: runtime.PodKey{Namespace: "default", Name: "bench"}, UID: "bench", Node: "node1", Hostname: "bench", NetNS: ns.File(),
	}, nil)
	if err != nil {
		return runtime.StartTimes{}, err
	}
	return rt.BenchStart(ctx, pod, containers)
}
