package kubelet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"podlab/lab"
	"podlab/lab/netns"
	"podlab/lab/network"
	"podlab/lab/plan"
)

// LabNetwork is the lab's network as kubelets see it.
type LabNetwork struct{ *network.Network }

var _ PodNetwork = LabNetwork{}

// NewPodNS returns an empty namespace.
func (n LabNetwork) NewPodNS(ctx context.Context) (NetNS, error) {
	ns, err := n.Network.NewPodNS(ctx)
	if err != nil {
		return nil, err // not a nil pointer in an interface
	}
	return ns, nil
}

// DropPodNS lets go of a namespace that was not given to a pod.
func (n LabNetwork) DropPodNS(ns NetNS) error {
	own, ok := ns.(*netns.NS)
	if !ok {
		return fmt.Errorf("cannot drop a network namespace of type %T", ns)
	}
	return n.Network.DropPodNS(own)
}

// AddPod plugs a pod in.
func (n LabNetwork) AddPod(ctx context.Context, ref PodRef, annotations map[string]string, ns NetNS, step func(lab.StepEvent)) ([]netip.Addr, error) {
	own, ok := ns.(*netns.NS)
	if !ok {
		return nil, fmt.Errorf("cannot plug in a network namespace of type %T", ns)
	}
	wanted, err := network.ParseIPs(annotations[network.IPsAnnotation])
	if err != nil {
		return nil, err
	}
	got, err := n.Network.AddPod(ctx, network.PodRef(ref), own, network.AddOptions{IPs: wanted, Step: step})
	return got.IPs, err
}

// WaitRunning waits until packets pass through the pod's link.
func (n LabNetwork) WaitRunning(ctx context.Context, ref PodRef) error {
	return n.Network.WaitRunning(ctx, network.PodRef(ref))
}

// DelPod unplugs a pod.
func (n LabNetwork) DelPod(ctx context.Context, ref PodRef, step func(lab.StepEvent)) error {
	return n.Network.DelPod(ctx, network.PodRef(ref), network.DelOptions{Step: step})
}

// Netns is the name of a pod's namespace on its node.
func (n LabNetwork) Netns(ref PodRef) string { return network.PodRef(ref).Netns() }

// NodeNS is a node's namespace.
func (n LabNetwork) NodeNS(node string) NetNS {
	if ns := n.Network.NodeNS(node); ns != nil {
		return ns
	}
	return nil
}

// Dial connects to a port of the pod's localhost: IPv4 first, then IPv6. Its
// socket is made in the pod's namespace, and stays there.
func (n LabNetwork) Dial(ctx context.Context, ref PodRef, hostNetwork bool, port uint16) (net.Conn, error) {
	id := plan.PodID(ref.Namespace, ref.Name)
	if hostNetwork {
		id = plan.NodeID(ref.Node)
	}
	ns := n.NS(id)
	if ns == nil {
		return nil, fmt.Errorf("pod %s has no network", ref)
	}
	var conn net.Conn
	err := ns.Do(func() error {
		var d net.Dialer
		var errs []error
		for _, host := range []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()} {
			c, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(host, port).String())
			if err == nil {
				conn = c
				return nil
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
	return conn, err
}
