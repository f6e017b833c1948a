package lab

import "strings"

// Target names a place in a lab where a command can run:
// "pod-a", "pod-a/app", "kube-system/coredns/dns" (namespace/pod/container)
// or "node:node1". Without a namespace it is "default", without a container
// the first one.
type Target string

// TargetParts is a Target taken apart; Node is empty for a pod, and Pod for a node.
type TargetParts struct {
	Node                      string
	Namespace, Pod, Container string
}

// Parse takes the target apart, or says with CodeInvalid what is wrong.
func (t Target) Parse() (TargetParts, error) {
	s := string(t)
	if node, ok := strings.CutPrefix(s, "node:"); ok {
		if node == "" || strings.Contains(node, "/") {
			return TargetParts{}, Errorf(CodeInvalid, "target %q: a node is written node:NAME", s)
		}
		return TargetParts{Node: node}, nil
	}
	parts := strings.Split(s, "/")
	for _, p := range parts {
		if p == "" {
			return TargetParts{}, Errorf(CodeInvalid, "target %q: allowed are POD, POD/CONTAINER, NAMESPACE/POD/CONTAINER and node:NAME", s)
		}
	}
	switch len(parts) {
	case 1:
		return TargetParts{Namespace: "default", Pod: parts[0]}, nil
	case 2:
		return TargetParts{Namespace: "default", Pod: parts[0], Container: parts[1]}, nil
	case 3:
		return TargetParts{Namespace: parts[0], Pod: parts[1], Container: parts[2]}, nil
	}
	return TargetParts{}, Errorf(CodeInvalid, "target %q: allowed are POD, POD/CONTAINER, NAMESPACE/POD/CONTAINER and node:NAME", s)
}
