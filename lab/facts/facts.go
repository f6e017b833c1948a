// Package facts reads lab.Facts for the checks of exercises: what runs in each
// pod, in which namespaces, what listens there, and the outcome of probes that
// are run for real from a place in the lab. It reads the kernel and the lab's
// API at the moment of the call and keeps nothing.
//
// What it reads belongs to the learner and may be hostile: every read is
// bounded in size, every probe in time and number. A Collector is safe for
// concurrent use.
package facts

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"sync"
	"time"

	"podlab/lab"
	"podlab/lab/agentapi"
	"podlab/lab/kernel"
	"podlab/lab/netns"
)

const (
	maxText     = 4 << 10 // bytes of a body, an output, a command line
	parallel    = 8       // probes at once, of all requests together
	collectTime = 3 * time.Second
)

// PodProcesses are the processes that hold a pod, by process id as the agent
// sees it; a process that does not run is 0 or absent.
type PodProcesses struct {
	// Pause holds the pod's namespaces.
	Pause int
	// Containers by name, each with its first process.
	Containers map[string]int
}

// Processes says which processes the lab's pods and nodes are.
type Processes interface {
	// PodProcesses by "namespace/name".
	PodProcesses() map[string]PodProcesses
	// NodeProcesses by name: the process that holds the node's namespaces.
	NodeProcesses() map[string]int
}

// Runner runs a command in a place, without a terminal, until it ends or ctx
// does. Writers may be written to from several goroutines, one each.
type Runner interface {
	Run(ctx context.Context, target lab.Target, command []string, stdout, stderr io.Writer) (exitCode int, err error)
}

// Logs opens what a container has written, oldest first.
type Logs interface {
	OpenLog(place lab.TargetParts) (io.ReadCloser, error)
}

// Deps is what a Collector reads from. All are needed.
type Deps struct {
	State     func() lab.State
	Processes Processes
	Runner    Runner
	Logs      Logs
}

// Collector reads facts.
type Collector struct {
	deps  Deps
	slots chan struct{}
}

// New makes a Collector.
func New(deps Deps) *Collector {
	return &Collector{deps: deps, slots: make(chan struct{}, parallel)}
}

// Collect reads all facts and runs the probes that are asked for. It fails
// only when the request is wrong or ctx ends; what cannot be read is left out.
func (c *Collector) Collect(ctx context.Context, req agentapi.FactsRequest) (lab.Facts, error) {
	if len(req.Probes) > lab.MaxProbes {
		return lab.Facts{}, lab.Errorf(lab.CodeLimit, "%d probes asked for; at most %d are allowed", len(req.Probes), lab.MaxProbes)
	}
	for id, p := range req.Probes {
		if err := p.Validate(); err != nil {
			return lab.Facts{}, &lab.Error{Code: lab.CodeInvalid, Field: "probes." + id, Message: err.Error()}
		}
	}
	facts := lab.Facts{
		State: c.deps.State(), Pods: map[string]lab.PodFacts{}, Nodes: map[string]lab.ProcessFacts{},
		Probes: map[string]lab.ProbeResult{},
	}
	places := c.places(facts.State)
	facts.Probes = c.probes(ctx, places, req.Probes)
	// Probes first: an expression should see the sockets as they are after a
	// probe's effect, and the state not older than both.
	if len(req.Probes) > 0 {
		facts.State = c.deps.State()
		places = c.places(facts.State)
	}
	c.processes(ctx, places, &facts)
	if err := context.Cause(ctx); err != nil {
		return lab.Facts{}, fmt.Errorf("cannot read facts: %w", err)
	}
	return facts, nil
}

// places is where things run, as of one moment.
type places struct {
	state lab.State
	pods  map[string]PodProcesses
	nodes map[string]int
}

func (c *Collector) places(state lab.State) places {
	return places{state: state, pods: c.deps.Processes.PodProcesses(), nodes: c.deps.Processes.NodeProcesses()}
}

// process is the first process of a place: of a node, of a container, or of
// the pod where no container is named.
func (p places) process(t lab.Target) (int, error) {
	parts, err := t.Parse()
	if err != nil {
		return 0, err
	}
	if parts.Node != "" {
		if pid := p.nodes[parts.Node]; pid > 0 {
			return pid, nil
		}
		return 0, fmt.Errorf("node %s is not running", parts.Node)
	}
	name := parts.Namespace + "/" + parts.Pod
	pod, ok := p.pods[name]
	switch {
	case !p.known(parts):
		return 0, fmt.Errorf("there is no pod %s", name)
	case !ok || pod.Pause <= 0:
		return 0, fmt.Errorf("pod %s is not running", name)
	case parts.Container == "":
		return pod.Pause, nil
	case pod.Containers[parts.Container] <= 0:
		return 0, fmt.Errorf("container %s of pod %s is not running", parts.Container, name)
	}
	return pod.Containers[parts.Container], nil
}

// known reports whether the lab's API has the pod.
func (p places) known(t lab.TargetParts) bool {
	return slices.ContainsFunc(p.state.Pods, func(pod lab.Pod) bool { return pod.Namespace == t.Namespace && pod.Name == t.Pod })
}

// address of a pod or node, for the {ip4 …} holes of probes.
func (p places) address(t lab.Target, v6 bool) (netip.Addr, error) {
	parts, err := t.Parse()
	if err != nil {
		return netip.Addr{}, err
	}
	var addrs []netip.Addr
	if parts.Node != "" {
		for _, n := range p.state.Spec.Nodes {
			if n.Name == parts.Node {
				addrs = n.Addresses
			}
		}
	}
	for _, pod := range p.state.Pods {
		if parts.Node == "" && pod.Namespace == parts.Namespace && pod.Name == parts.Pod {
			addrs = pod.IPs
		}
	}
	if parts.Node == "" && !p.known(parts) {
		return netip.Addr{}, fmt.Errorf("there is no pod %s/%s", parts.Namespace, parts.Pod)
	}
	for _, a := range addrs {
		if a.Is6() == v6 {
			return a, nil
		}
	}
	family := "IPv4"
	if v6 {
		family = "IPv6"
	}
	return netip.Addr{}, fmt.Errorf("%s has no %s address", t, family)
}

// processes fills in the pods and nodes.
func (c *Collector) processes(ctx context.Context, p places, facts *lab.Facts) {
	ctx, cancel := context.WithTimeout(ctx, collectTime)
	defer cancel()
	owners := newOwners()
	sockets := map[string][]kernel.ListeningSocket{}
	for _, pod := range p.state.Pods {
		name := pod.Namespace + "/" + pod.Name
		procs := p.pods[name]
		f := lab.PodFacts{Pod: pod, Containers: map[string]lab.ProcessFacts{}, Sockets: []lab.Socket{}}
		for container, pid := range procs.Containers {
			f.Containers[container] = readProcess(pid)
		}
		facts.Pods[name] = f
		if procs.Pause <= 0 || ctx.Err() != nil {
			continue
		}
		listening, err := listeningIn(procs.Pause)
		if err != nil {
			continue // the pod ended just now
		}
		sockets[name] = listening
		owners.want(f, listening)
	}
	owners.find(ctx)
	for name, listening := range sockets {
		f := facts.Pods[name]
		for _, s := range listening {
			f.Sockets = append(f.Sockets, owners.named(s))
		}
		facts.Pods[name] = f
	}
	for name, pid := range p.nodes {
		facts.Nodes[name] = readProcess(pid)
	}
}

// listeningIn reads the listening sockets of a process's network namespace.
func listeningIn(pid int) (out []kernel.ListeningSocket, err error) {
	err = inNetNS(pid, func() (err error) {
		out, err = kernel.ListeningSockets()
		return err
	})
	return out, err
}

// inNetNS runs f with its thread in the network namespace of a process; what
// f opens stays there.
func inNetNS(pid int, f func() error) error {
	ns, err := netns.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return err
	}
	defer ns.Close()
	return ns.Do(f)
}

// probes runs the probes, some at a time, each within its own time.
func (c *Collector) probes(ctx context.Context, p places, probes map[string]lab.Probe) map[string]lab.ProbeResult {
	var mu sync.Mutex
	var wg sync.WaitGroup
	results := make(map[string]lab.ProbeResult, len(probes))
	for id, probe := range probes {
		wg.Go(func() {
			var r lab.ProbeResult
			select {
			case c.slots <- struct{}{}:
				r = c.probe(ctx, p, probe)
				<-c.slots
			case <-ctx.Done():
				r.Skipped = context.Cause(ctx).Error()
			}
			mu.Lock()
			results[id] = r
			mu.Unlock()
		})
	}
	wg.Wait()
	return results
}
