package network

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"podlab/lab"
	"podlab/lab/cni"
	"podlab/lab/kernel"
	"podlab/lab/netns"
	"podlab/lab/plan"
)

// IPsAnnotation asks for a pod's addresses, comma-separated, at most one for
// each family.
const IPsAnnotation = "podlab.io/ips"

// ParseIPs reads the value of IPsAnnotation.
func ParseIPs(value string) ([]netip.Addr, error) {
	var addrs []netip.Addr
	for part := range strings.SplitSeq(value, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		a, err := netip.ParseAddr(part)
		if err != nil {
			return nil, &lab.Error{Code: lab.CodeInvalid, Field: "metadata.annotations[" + IPsAnnotation + "]",
				Message: fmt.Sprintf("%q is not an IP address; write addresses of the node's pod ranges, comma-separated", part)}
		}
		addrs = append(addrs, a)
	}
	return addrs, nil
}

// PodRef names a pod and the node that it is on.
type PodRef struct {
	Namespace, Name, UID string
	Node                 string
}

func (r PodRef) String() string { return r.Namespace + "/" + r.Name }

// key is the pod's for as long as it lives: a pod that is deleted and made
// again by the same name is another.
func (r PodRef) key() string { return r.Namespace + "/" + r.Name + "/" + r.UID }

// Netns is the name under which the pod's namespace is known on its node, in
// /run/netns.
func (r PodRef) Netns() string {
	if r.UID == "" {
		return "cni-" + r.Namespace + "-" + r.Name
	}
	return "cni-" + r.UID
}

// AddOptions are what a pod may ask for.
type AddOptions struct {
	// IPs wanted, at most one for each family; the others are chosen.
	IPs []netip.Addr
	// Step, if not nil, is told the steps 4 to 6 of the pod's creation as each
	// ends, failed or not.
	Step func(lab.StepEvent)
}

// PodNet is what a pod got.
type PodNet struct {
	// NS is the pod's namespace.
	NS lab.NamespaceID
	// IPs, the first of which is the pod's IP in Kubernetes' sense, and the
	// gateway of each.
	IPs      []netip.Addr
	Gateways []netip.Addr
	// Link is the pod's interface, HostLink the node's end of it.
	Link, HostLink string
}

// NewPodNS returns an empty namespace for a pod, a waiting one if there is
// one: step 3 of the pod's creation. It stays the network's: AddPod gives it
// to a pod, DropPodNS takes it back.
func (n *Network) NewPodNS(ctx context.Context) (*netns.NS, error) {
	b, err := n.pool.Take(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot make a network namespace for a pod: %w", err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		b.handle.Close()
		return nil, lab.Errorf(lab.CodeUnavailable, "cannot make a network namespace: the lab is ending")
	}
	n.loose[b.handle.NS().Inode()] = b
	return b.handle.NS(), nil
}

// DropPodNS lets go of a namespace that no pod was given.
func (n *Network) DropPodNS(ns *netns.NS) error {
	n.mu.Lock()
	b := n.loose[ns.Inode()]
	delete(n.loose, ns.Inode())
	n.mu.Unlock()
	if b == nil {
		return nil
	}
	return b.handle.Close()
}

// AddPod plugs a pod in: steps 4 to 6 of its creation. ns is from NewPodNS.
// When it fails nothing is left of it, and ns goes back to be given to AddPod
// or DropPodNS again.
func (n *Network) AddPod(ctx context.Context, ref PodRef, ns *netns.NS, opts AddOptions) (PodNet, error) {
	select {
	case n.busy <- struct{}{}:
		defer func() { <-n.busy }()
	case <-ctx.Done():
		return PodNet{}, ctx.Err()
	}
	a := &addition{n: n, ref: ref, id: plan.PodID(ref.Namespace, ref.Name), clock: newClock(ref, "create", opts.Step)}
	if err := a.call(ns); err != nil {
		a.clock.end(4, "CNI ADD", "", err)
		return PodNet{}, err
	}
	a.clock.end(4, "CNI ADD", fmt.Sprintf("flavour %s on %s", n.cfg.Spec.CNI, ref.Node), nil)

	resume := n.watcher.Pause(plan.NodeID(ref.Node))
	defer resume()
	t := n.begin(ref.String())
	if err := a.plugIn(ctx, t, opts.IPs); err != nil {
		a.takeBack(t)
		a.clock.end(5, "addresses and interface", "", err)
		return PodNet{}, err
	}
	a.clock.end(5, "addresses and interface", fmt.Sprintf("%s on %s", join(a.net.IPs), a.net.Link), nil)

	if err := t.apply(ctx, n.flavour.Routes(a.plan)); err != nil {
		a.takeBack(t)
		a.clock.end(6, "routes", "", err)
		return PodNet{}, err
	}
	a.clock.end(6, "routes", "default via "+join(a.net.Gateways), nil)
	t.success()
	n.watcher.Add(lab.Namespace{ID: a.id, Kind: lab.NamespacePod, Name: ref.Name, Node: ref.Node}, a.born.handle)
	return a.net, nil
}

// addition is an AddPod under way.
type addition struct {
	n     *Network
	ref   PodRef
	id    lab.NamespaceID
	clock *clock
	born  *born
	node  *node
	plan  cni.Pod
	net   PodNet
}

// call makes the namespace the pod's.
func (a *addition) call(ns *netns.NS) error {
	n := a.n
	n.mu.Lock()
	defer n.mu.Unlock()
	a.node = n.nodes[a.ref.Node]
	a.born = n.loose[ns.Inode()]
	switch {
	case n.closed:
		return lab.Errorf(lab.CodeUnavailable, "cannot add pod %s: the lab is ending", a.ref)
	case a.node == nil:
		return lab.Errorf(lab.CodeNotFound, "cannot add pod %s: there is no node %q", a.ref, a.ref.Node)
	case n.handles[a.id] != nil:
		return lab.Errorf(lab.CodeConflict, "cannot add pod %s: it has a network already", a.ref)
	case a.born == nil:
		return lab.Errorf(lab.CodeInternal, "cannot add pod %s: its network namespace is not from NewPodNS", a.ref)
	}
	delete(n.loose, ns.Inode())
	n.handles[a.id] = a.born.handle
	a.born.handle.Name(a.id)
	n.pods[a.ref.key()] = &pod{ref: a.ref, id: a.id, node: a.node}
	return nil
}

// plugIn takes addresses and makes the pod's link with them.
func (a *addition) plugIn(ctx context.Context, t *transaction, wanted []netip.Addr) error {
	n := a.n
	key := a.ref.key()
	ips, err := a.node.ipam.Allocate(key, wanted)
	if err != nil {
		return err
	}
	a.plan = cni.Pod{Node: a.node.spec, NS: a.id, Netns: a.ref.Netns(), HostLink: cni.HostLinkName(key), Addrs: ips}
	a.net = PodNet{NS: a.id, IPs: ips, Link: cni.PodLink, HostLink: a.plan.HostLink}
	for i := range ips {
		a.net.Gateways = append(a.net.Gateways, cni.Gateway(a.node.spec.PodCIDRs[i]))
	}
	n.publish(a.id, a.ref.String(), kernel.Done{Op: plan.AddNetns{Name: a.ref.Netns()}, Took: a.born.took})
	for _, d := range a.born.done {
		n.publish(a.id, a.ref.String(), d)
	}
	if err := t.apply(ctx, n.flavour.Interface(a.plan)); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if p := n.pods[key]; p != nil {
		p.net = a.net
	}
	return nil
}

// takeBack undoes the kernel's part and then the rest, so that the address is
// not given again while something has it.
func (a *addition) takeBack(t *transaction) {
	t.fail()
	a.node.ipam.Release(a.ref.key())
	n := a.n
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.pods, a.ref.key())
	if n.handles[a.id] == a.born.handle {
		delete(n.handles, a.id)
		n.loose[a.born.handle.NS().Inode()] = a.born
	}
}

// WaitRunning waits until packets pass through the pod's link and its node's
// bridge. The kernel takes both into use a moment after AddPod has returned
// (its link watch), and drops what is sent before. It ends with ctx.
func (n *Network) WaitRunning(ctx context.Context, ref PodRef) error {
	n.mu.Lock()
	p := n.pods[ref.key()]
	n.mu.Unlock()
	if p == nil {
		return lab.Errorf(lab.CodeNotFound, "cannot wait for pod %s: it has no network", ref)
	}
	sub := n.cfg.Log.Subscribe(0)
	defer sub.Close()
	node := plan.NodeID(p.ref.Node)
	for state := *sub.Snapshot; !p.running(state); state = n.cfg.Log.State() {
		// A state is dear: only a link of the node makes another worth a look.
		for seen := false; !seen; {
			events, err := sub.Next(ctx)
			if err != nil {
				return fmt.Errorf("cannot see that the link of pod %s runs: %w", ref, err)
			}
			seen = slices.ContainsFunc(events, func(e lab.Event) bool { return e.Kind == lab.EventLinkSet && e.NS == node })
		}
	}
	return nil
}

// running says whether the pod's link and what it is a port of run.
func (p *pod) running(state lab.State) bool {
	for _, ns := range state.Namespaces {
		if ns.ID != plan.NodeID(p.ref.Node) {
			continue
		}
		i := slices.IndexFunc(ns.Links, func(l lab.Link) bool { return l.Name == p.net.HostLink })
		if i < 0 || !ns.Links[i].Running {
			return false
		}
		return !slices.ContainsFunc(ns.Links, func(l lab.Link) bool { return l.Index == ns.Links[i].Master && !l.Running })
	}
	return false
}

// DelOptions are what DelPod's caller wants to know.
type DelOptions struct {
	// Step, if not nil, is told the steps 4 to 7 of the pod's termination.
	Step func(lab.StepEvent)
}

// DelPod takes a pod's network away: steps 4 to 7 of its termination. The
// namespace and the pod's links go when the pod's last process has left it. A
// pod without a network is fine.
func (n *Network) DelPod(_ context.Context, ref PodRef, opts DelOptions) error {
	c := newClock(ref, "terminate", opts.Step)
	n.mu.Lock()
	p := n.pods[ref.key()]
	delete(n.pods, ref.key())
	n.mu.Unlock()
	if p == nil {
		c.end(4, "CNI DEL", "the pod has no network", nil)
		return nil
	}
	c.end(4, "CNI DEL", fmt.Sprintf("flavour %s on %s", n.cfg.Spec.CNI, p.ref.Node), nil)
	released := p.node.ipam.Release(ref.key())
	c.end(5, "addresses released", join(released), nil)
	// Links are not removed one by one: each would hold up every lab of the
	// host for tens of milliseconds. They go with the namespace.
	start := time.Now()
	err := n.remove(p.id)
	n.publish(p.id, ref.String(), kernel.Done{Op: plan.DelNetns{Name: ref.Netns()}, Took: time.Since(start), Err: err})
	c.end(6, "interface removed", p.net.HostLink+" goes with the namespace", err)
	c.end(7, "routes removed", "", nil)
	return err
}

// clock measures the steps of a pod's creation or termination, one after the
// other.
type clock struct {
	pod, course string
	tell        func(lab.StepEvent)
	start       time.Time
}

func newClock(ref PodRef, course string, tell func(lab.StepEvent)) *clock {
	return &clock{pod: ref.String(), course: course, tell: tell, start: time.Now()}
}

// end ends a step, failed if err is not nil, and begins the next.
func (c *clock) end(number int, name, detail string, err error) {
	now := time.Now()
	e := lab.StepEvent{
		Pod: c.pod, Course: c.course, Number: number, Name: name, Detail: detail,
		StartedAt: c.start.UTC(), Micros: now.Sub(c.start).Microseconds(),
	}
	if err != nil {
		e.Error = err.Error()
	}
	c.start = now
	if c.tell != nil {
		c.tell(e)
	}
}

func join(addrs []netip.Addr) string {
	parts := make([]string, 0, len(addrs))
	for _, a := range addrs {
		parts = append(parts, a.String())
	}
	return strings.Join(parts, ", ")
}
