// Package kubelet makes pods run: one Kubelet for each node watches the pods
// that are bound to it, makes their network and containers, restarts them,
// ends them, and keeps their status in the lab's API as a kubelet of
// Kubernetes does, events and back-offs included.
//
// Each pod has one goroutine, its worker; nothing is polled. The agent starts
// the package and hands it the runtime, the network and a client of the lab's
// API; the API server calls the streams (exec, attach, logs, port-forward).
// All exported methods are safe for concurrent use.
package kubelet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"

	"podlab/lab"
	"podlab/lab/image"
	"podlab/lab/runtime"
)

// PodRef names a pod for the network.
type PodRef struct {
	Namespace, Name, UID, Node string
}

// String is "namespace/name".
func (r PodRef) String() string { return r.Namespace + "/" + r.Name }

// NetNS is a network namespace that the network lends.
type NetNS interface {
	// File stays the network's.
	File() *os.File
}

// PodNetwork plugs pods in.
type PodNetwork interface {
	// NewPodNS returns an empty namespace: step 3 of a pod's creation.
	NewPodNS(ctx context.Context) (NetNS, error)
	// DropPodNS lets go of a namespace that was not given to a pod.
	DropPodNS(ns NetNS) error
	// AddPod plugs a pod in and returns its addresses; step is told steps 4 to
	// 6. A pod may ask for addresses by its annotations.
	AddPod(ctx context.Context, ref PodRef, annotations map[string]string, ns NetNS, step func(lab.StepEvent)) ([]netip.Addr, error)
	// WaitRunning waits until packets pass through the pod's link, or for ctx.
	WaitRunning(ctx context.Context, ref PodRef) error
	// DelPod unplugs it; step is told steps 4 to 7 of the termination.
	DelPod(ctx context.Context, ref PodRef, step func(lab.StepEvent)) error
	// Netns is the name of a pod's namespace on its node.
	Netns(ref PodRef) string
	// Dial connects to a TCP port of the pod's (or, with hostNetwork, its
	// node's) localhost.
	Dial(ctx context.Context, ref PodRef, hostNetwork bool, port uint16) (net.Conn, error)
	// NodeNS is a node's namespace, nil for an unknown node. It stays the network's.
	NodeNS(node string) NetNS
}

// Config is what kubelets are made of.
type Config struct {
	Spec    lab.Spec
	Client  corev1client.CoreV1Interface
	Runtime *runtime.Runtime
	Network PodNetwork
	Images  *image.Catalogue
	// ImagesDir holds the layers that the catalogue names.
	ImagesDir string
	// Version of podlab, for the nodes' status.
	Version string
	// NodeFiles are files that each node has, by path, such as root's kubeconfig.
	NodeFiles map[string]string
	// Steps is told each step of a pod's creation and termination; it must not block.
	Steps func(lab.StepEvent)
	Log   *slog.Logger
	// Clock and Backoff are for tests; zero values are the real ones.
	Clock   clock.WithTicker
	Backoff Backoff
}

// Backoff is how restarts and image pulls are spaced out.
type Backoff struct {
	// Base is the first delay, Max the longest; each is twice the one before.
	Base, Max time.Duration
}

// defaultBackoff is a kubelet's: 10 seconds to 5 minutes.
var defaultBackoff = Backoff{Base: 10 * time.Second, Max: 5 * time.Minute}

// Kubelets are the kubelets of a lab's nodes.
type Kubelets struct {
	cfg         Config
	broadcaster record.EventBroadcaster
	nodes       map[string]*Kubelet
	cancel      context.CancelFunc
	wg          sync.WaitGroup
}

// Kubelet is one node's.
type Kubelet struct {
	cfg      Config
	node     lab.NodeSpec
	recorder record.EventRecorder
	wg       sync.WaitGroup

	mu      sync.Mutex
	workers map[types.UID]*worker
}

// Start starts the lab's nodes and a kubelet for each: it registers the nodes
// with the API and then runs the pods that are bound to them. It returns when
// all nodes are registered; Stop ends it.
func Start(ctx context.Context, cfg Config) (*Kubelets, error) {
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	if cfg.Backoff == (Backoff{}) {
		cfg.Backoff = defaultBackoff
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Steps == nil {
		cfg.Steps = func(lab.StepEvent) {}
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	k := &Kubelets{cfg: cfg, nodes: map[string]*Kubelet{}, cancel: cancel}
	k.broadcaster = record.NewBroadcaster(record.WithContext(ctx))
	k.broadcaster.StartRecordingToSink(&corev1client.EventSinkImpl{Interface: cfg.Client.Events("")})
	errs := make([]error, len(cfg.Spec.Nodes))
	var starting sync.WaitGroup
	for i, spec := range cfg.Spec.Nodes {
		n := &Kubelet{
			cfg: cfg, node: spec, workers: map[types.UID]*worker{},
			recorder: k.broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "kubelet", Host: spec.Name}),
		}
		k.nodes[spec.Name] = n
		starting.Go(func() { errs[i] = n.startNode(ctx) })
	}
	starting.Wait()
	if err := errors.Join(errs...); err != nil {
		k.Stop()
		return nil, err
	}
	for _, n := range k.nodes {
		k.wg.Go(func() { n.run(ctx) })
	}
	return k, nil
}

// Stop ends the kubelets and waits for them. Pods run on: they end with the
// runtime.
func (k *Kubelets) Stop() {
	k.cancel()
	k.wg.Wait()
	k.broadcaster.Shutdown()
}

// startNode starts the node's processes and registers it.
func (k *Kubelet) startNode(ctx context.Context) error {
	ns := k.cfg.Network.NodeNS(k.node.Name)
	if ns == nil {
		return fmt.Errorf("cannot start node %s: it has no network", k.node.Name)
	}
	_, err := k.cfg.Runtime.StartNode(ctx, runtime.NodeSpec{
		Name: k.node.Name, NetNS: ns.File(),
		Hosts: nodeHosts(k.cfg.Spec), ResolvConf: resolvConf(nil, nil, nil),
		Files: k.cfg.NodeFiles,
	})
	if err != nil {
		return err
	}
	return k.register(ctx)
}

// worker lookup by name: the newest of that name, which a pod that is being
// removed by force may share with its successor.
func (k *Kubelets) worker(pod types.NamespacedName) (*worker, error) {
	var found *worker
	for _, n := range k.nodes {
		n.mu.Lock()
		for _, w := range n.workers {
			if w.name == pod && (found == nil || w.born.After(found.born)) {
				found = w
			}
		}
		n.mu.Unlock()
	}
	if found == nil {
		return nil, lab.Errorf(lab.CodeNotFound, "pod %q does not run on any node", pod)
	}
	return found, nil
}
