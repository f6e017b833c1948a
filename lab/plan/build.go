package plan

import (
	"podlab/lab"
)

// Underlay is the namespace of the lab's "physical" network.
const Underlay lab.NamespaceID = "underlay"

// NodeID returns the id of a node's namespace.
func NodeID(name string) lab.NamespaceID { return lab.NamespaceID("node/" + name) }

// PodID returns the id of a pod's namespace.
func PodID(namespace, name string) lab.NamespaceID {
	return lab.NamespaceID("pod/" + namespace + "/" + name)
}

// ByHandID returns the id of a namespace that a learner made on a node.
func ByHandID(node, name string) lab.NamespaceID {
	return lab.NamespaceID("netns/" + node + "/" + name)
}

// Wire plans the underlay and each node's place in it.
type Wire interface {
	// Underlay is done in the underlay's own namespace.
	Underlay(lab.Spec) []Op
	// Birth is done in the node's namespace while it is still empty: settings
	// that each later link copies.
	Birth(lab.Spec, lab.NodeSpec) []Op
	// Uplink is done in the underlay's namespace: the node's link to it.
	Uplink(lab.Spec, lab.NodeSpec) []Op
	// Node is done in the node's namespace, once the uplink is there.
	Node(lab.Spec, lab.NodeSpec) []Op
}

// Flavour plans the part of pod networking that is inside a node.
type Flavour interface {
	// Node is done in the node's namespace, before its first pod.
	Node(lab.Spec, lab.NodeSpec) []Op
}

// Overlay plans the part of pod networking that is between the nodes.
type Overlay interface {
	// Node is done in the node's namespace: the way to all other nodes' pods.
	Node(lab.Spec, lab.NodeSpec) []Op
	// PodMTU is what is left of the underlay's MTU for pods, in bytes.
	PodMTU(lab.Spec) int
}

// Build plans the network of a lab that has no pods yet.
func Build(spec lab.Spec, wire Wire, flavour Flavour, overlay Overlay) []Step {
	var steps []Step
	in := func(ns lab.NamespaceID, ops []Op) {
		for _, op := range ops {
			steps = append(steps, Step{NS: ns, Op: op})
		}
	}
	in(Underlay, wire.Underlay(spec))
	for _, node := range spec.Nodes {
		ns := NodeID(node.Name)
		in(ns, []Op{AddNetns{Name: node.Name}})
		in(ns, wire.Birth(spec, node))
		in(Underlay, wire.Uplink(spec, node))
		in(ns, wire.Node(spec, node))
		in(ns, flavour.Node(spec, node))
		in(ns, overlay.Node(spec, node))
	}
	return steps
}
