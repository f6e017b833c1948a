// Package network is a lab's network, live: the underlay, the nodes' and the
// pods' network namespaces and all links between them. It joins the pure
// packages that say what is to be done (plan, fabric, cni) with the one that
// does it (kernel), and tells the lab's log each change that it makes, as the
// command that it equals.
//
// A Network is safe for concurrent use. It owns every namespace that it makes;
// who gets one lent hands it on as an open file and does not close it.
package network

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"podlab/lab"
	"podlab/lab/cni"
	"podlab/lab/fabric"
	"podlab/lab/kernel"
	"podlab/lab/netns"
	"podlab/lab/observe"
	"podlab/lab/plan"
)

// flavour is a kind of `spec.cni`.
type flavour interface {
	plan.Flavour
	// Birth is done in a pod's namespace before it belongs to a pod: settings,
	// then the rest.
	Birth() (settings []plan.Sysctl, rest []plan.Op)
	// Interface and Routes plug a pod in: steps 5 and 6 of its creation.
	Interface(cni.Pod) []plan.Step
	Routes(cni.Pod) []plan.Step
}

// flavours are the kinds of `spec.cni`, by the MTU of the pods' links.
var flavours = map[string]func(mtu int) flavour{
	"bridge": func(mtu int) flavour { return cni.Bridge{MTU: mtu} },
}

// Config is what a network is made of.
type Config struct {
	Spec lab.Spec
	// Underlay is the namespace of the lab's physical network: the sandbox's
	// own. The network does not close it.
	Underlay *netns.NS
	// Log gets what the network does and what the kernel says of it.
	Log *observe.Log
	// Warm is how many empty namespaces wait for pods; 0 makes each when it is
	// asked for.
	Warm int
}

// Network is a lab's network.
type Network struct {
	cfg     Config
	flavour flavour
	overlay plan.Overlay
	pool    *netns.Pool[*born]
	watcher *observe.Watcher
	// busy bounds how many pods are plugged in at a time: the kernel does it
	// under one lock for the whole host, which other labs want too.
	busy chan struct{}

	mu      sync.Mutex
	closed  bool
	handles map[lab.NamespaceID]*kernel.Handle
	loose   map[uint64]*born // made for pods, by inode, and not given to one yet
	nodes   map[string]*node
	pods    map[string]*pod // by PodRef.key
}

type node struct {
	spec lab.NodeSpec
	ipam *cni.IPAM
}

type pod struct {
	ref  PodRef
	id   lab.NamespaceID
	net  PodNet
	node *node
}

// born is an empty namespace for a pod and what was done to it at its birth.
type born struct {
	handle *kernel.Handle
	took   time.Duration // of making the namespace itself
	done   []kernel.Done
}

// New returns the network of a lab whose manifest is valid; nothing is made yet
// but the empty namespaces that wait for pods.
func New(cfg Config) (*Network, error) {
	overlay := fabric.Overlays[cfg.Spec.Overlay.Kind]
	newFlavour := flavours[cfg.Spec.CNI]
	if overlay == nil || newFlavour == nil {
		return nil, lab.Errorf(lab.CodeNotSupported, "cannot make a network of flavour %q and overlay %q", cfg.Spec.CNI, cfg.Spec.Overlay.Kind)
	}
	n := &Network{
		cfg: cfg, overlay: overlay, flavour: newFlavour(overlay.PodMTU(cfg.Spec)),
		busy:    make(chan struct{}, 2),
		handles: map[lab.NamespaceID]*kernel.Handle{},
		loose:   map[uint64]*born{},
		nodes:   map[string]*node{},
		pods:    map[string]*pod{},
	}
	watcher, err := observe.NewWatcher(observe.WatcherConfig{Log: cfg.Log, Known: n.known})
	if err != nil {
		return nil, err
	}
	n.watcher = watcher
	n.pool = netns.NewPool(cfg.Warm, n.bear, func(b *born) { b.handle.Close() })
	return n, nil
}

// bear makes an empty namespace for a pod.
func (n *Network) bear() (*born, error) {
	b := &born{}
	record := func(d kernel.Done) { b.done = append(b.done, d) }
	settings, rest := n.flavour.Birth()
	start := time.Now()
	handle, err := kernel.New(func() error {
		b.took = time.Since(start)
		return kernel.Sysctls(settings, record)
	})
	if err != nil {
		return nil, err
	}
	b.handle = handle
	if err := handle.Apply(rest, nil, record); err != nil {
		handle.Close()
		return nil, err
	}
	return b, nil
}

// Start makes the underlay and the nodes and joins them. When it fails, what
// it made is gone again.
func (n *Network) Start(ctx context.Context) error {
	under, err := n.cfg.Underlay.Dup()
	if err != nil {
		return err
	}
	handle, err := kernel.Open(under)
	if err != nil {
		under.Close()
		return err
	}
	n.add(plan.Underlay, handle)
	if err := handle.ChooseIndexes(); err != nil {
		return err
	}
	n.mu.Lock()
	for _, spec := range n.cfg.Spec.Nodes {
		n.nodes[spec.Name] = &node{spec: spec, ipam: cni.NewIPAM(spec.PodCIDRs)}
	}
	n.mu.Unlock()
	t := n.begin("")
	defer t.fail()
	if err := t.apply(ctx, plan.Build(n.cfg.Spec, fabric.Wire{}, n.flavour, n.overlay)); err != nil {
		return err
	}
	t.success()
	n.watcher.Add(lab.Namespace{ID: plan.Underlay, Kind: lab.NamespaceUnderlay, Name: string(plan.Underlay)}, handle)
	for _, spec := range n.cfg.Spec.Nodes {
		id := plan.NodeID(spec.Name)
		h, err := n.handle(id)
		if err != nil {
			return err
		}
		n.watcher.Add(lab.Namespace{ID: id, Kind: lab.NamespaceNode, Name: spec.Name, Node: spec.Name}, h)
	}
	return nil
}

// WatchNode begins to watch for namespaces that learners make on a node with
// `ip netns add`. proc is the directory in /proc of a process of the node,
// such as "/proc/7".
func (n *Network) WatchNode(name, proc string) error { return n.watcher.WatchNode(name, proc) }

// Settle waits until all that the kernel has said so far is in the log.
func (n *Network) Settle(ctx context.Context) error { return n.watcher.Settle(ctx) }

// WaitWarm waits until all of Config.Warm namespaces are there.
func (n *Network) WaitWarm(ctx context.Context) error { return n.pool.WaitFull(ctx) }

// known says whether a namespace is one that the network made.
func (n *Network) known(inode uint64) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.loose[inode] != nil {
		return true
	}
	for _, h := range n.handles {
		if h.NS().Inode() == inode {
			return true
		}
	}
	return false
}

// add makes a namespace's handle known under its id.
func (n *Network) add(id lab.NamespaceID, h *kernel.Handle) {
	h.Name(id)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.handles[id] = h
}

// remove forgets a namespace and lets go of it.
func (n *Network) remove(id lab.NamespaceID) error {
	n.watcher.Remove(id)
	n.mu.Lock()
	h := n.handles[id]
	delete(n.handles, id)
	n.mu.Unlock()
	if h == nil {
		return nil
	}
	return h.Close()
}

// handle finds a namespace of the lab.
func (n *Network) handle(id lab.NamespaceID) (*kernel.Handle, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if h := n.handles[id]; h != nil {
		return h, nil
	}
	return nil, lab.Errorf(lab.CodeNotFound, "cannot find network namespace %s", id)
}

// NodeNS returns a node's namespace, or nil if there is no such node. It stays
// the network's.
func (n *Network) NodeNS(name string) *netns.NS {
	h, err := n.handle(plan.NodeID(name))
	if err != nil {
		return nil
	}
	return h.NS()
}

// NS returns a namespace of the lab by its id, or nil. It stays the network's.
func (n *Network) NS(id lab.NamespaceID) *netns.NS {
	h, err := n.handle(id)
	if err != nil {
		return nil
	}
	return h.NS()
}

// Close lets go of all namespaces. The kernel removes those that no process
// is in, with their links, in the background. It is idempotent.
func (n *Network) Close() error {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return nil
	}
	n.closed = true
	handles := n.handles
	loose := n.loose
	n.handles, n.loose = map[lab.NamespaceID]*kernel.Handle{}, map[uint64]*born{}
	n.pods = map[string]*pod{}
	n.mu.Unlock()
	n.watcher.Close()
	n.pool.Close()
	var errs []error
	for _, h := range handles {
		errs = append(errs, h.Close())
	}
	for _, b := range loose {
		errs = append(errs, b.handle.Close())
	}
	return errors.Join(errs...)
}

// publish tells the log of one op.
func (n *Network) publish(ns lab.NamespaceID, pod string, d kernel.Done) {
	e := &lab.OpEvent{Command: d.Op.String(), Pod: pod, Micros: d.Took.Microseconds()}
	if d.Err != nil {
		e.Error = d.Err.Error()
	}
	n.cfg.Log.Publish(lab.Event{Kind: lab.EventOp, NS: ns, Op: e})
}

// transaction does steps and, unless it ends with success, takes them back.
type transaction struct {
	n    *Network
	pod  string
	done []plan.Step
}

// begin starts a transaction for a pod, or for the lab itself.
func (n *Network) begin(pod string) *transaction { return &transaction{n: n, pod: pod} }

// apply does steps in order, those that follow each other in a namespace
// together.
func (t *transaction) apply(ctx context.Context, steps []plan.Step) error {
	for len(steps) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		k := 1
		for k < len(steps) && steps[k].NS == steps[0].NS {
			k++
		}
		if err := t.applyIn(steps[0].NS, steps[:k]); err != nil {
			return err
		}
		steps = steps[k:]
	}
	return nil
}

func (t *transaction) applyIn(ns lab.NamespaceID, steps []plan.Step) error {
	if op, ok := steps[0].Op.(plan.AddNetns); ok {
		if err := t.makeNetns(ns, op); err != nil {
			return err
		}
		steps = steps[1:]
	}
	if len(steps) == 0 {
		return nil
	}
	h, err := t.n.handle(ns)
	if err != nil {
		return err
	}
	ops := make([]plan.Op, 0, len(steps))
	for _, s := range steps {
		ops = append(ops, s.Op)
	}
	return h.Apply(ops, t.n.handle, func(d kernel.Done) { t.record(ns, d) })
}

func (t *transaction) makeNetns(ns lab.NamespaceID, op plan.AddNetns) error {
	start := time.Now()
	h, err := kernel.New(nil)
	if err == nil {
		t.n.add(ns, h)
	}
	t.record(ns, kernel.Done{Op: op, Took: time.Since(start), Err: err})
	return err
}

func (t *transaction) record(ns lab.NamespaceID, d kernel.Done) {
	if d.Err == nil {
		t.done = append(t.done, plan.Step{NS: ns, Op: d.Op})
	}
	t.n.publish(ns, t.pod, d)
}

// success keeps what was done.
func (t *transaction) success() { t.done = nil }

// fail takes back what was done, the last first and to the end; what cannot
// be taken back is in the log.
func (t *transaction) fail() {
	done := t.done
	t.done = nil
	for _, s := range slices.Backward(done) {
		inverse := s.Op.Inverse()
		if op, ok := inverse.(plan.DelNetns); ok {
			start := time.Now()
			err := t.n.remove(s.NS)
			t.n.publish(s.NS, t.pod, kernel.Done{Op: op, Took: time.Since(start), Err: err})
			continue
		}
		h, err := t.n.handle(s.NS)
		if err != nil {
			continue // gone with its namespace
		}
		// Apply reports the outcome to the log itself.
		_ = h.Apply([]plan.Op{inverse}, t.n.handle, func(d kernel.Done) { t.n.publish(s.NS, t.pod, d) })
	}
}
