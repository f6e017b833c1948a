package exercises

import "slices"

// Row is one point of the course.
type Row struct {
	ID    string
	Point string
}

// Rows are the points of the course, in its order. The ids are stable: an
// exercise names those it covers.
func Rows() []Row {
	return []Row{
		{"P1", "one network namespace for all containers of a pod"},
		{"P2", "eth0: cluster address, veth to the node, default route"},
		{"P3", "lo: localhost between containers"},
		{"P4", "further interfaces: multi-network, macvlan, tunnel, host network"},
		{"P5", "port conflicts and how ports are given"},
		{"P6", "bind patterns"},
		{"P7", "port practice: standard ports, scans, policy"},
		{"P8", "container to container: sockets, Unix sockets, volumes, environment"},
		{"P9", "IPC between processes"},
		{"P10", "shared resources: namespaces, volumes, environment"},
		{"P11", "creation of a pod in eight steps"},
		{"P12", "running: connectivity, counters, policy, probes, events"},
		{"P13", "termination of a pod in eight steps"},
		{"P14", "network failures and their repair"},
		{"R1", "pod to pod on one node"},
		{"R2", "the bridge: learning, broadcast, VLAN, STP, mirroring"},
		{"R3", "performance on one node"},
		{"R4", "bridge CNI"},
		{"R5", "routed on a node, as Calico does it"},
		{"R6", "eBPF on a node, as Cilium does it"},
		{"R7", "monitoring and debugging"},
		{"R8", "VXLAN"},
		{"R9", "GRE"},
		{"R10", "IPsec"},
		{"R11", "the cost of encapsulation"},
		{"R12", "BGP, static and hybrid routing"},
		{"R13", "policy filters"},
		{"R14", "who keeps the routes: plugin, controller, agent"},
		{"R15", "OSPF, BGP, RIP"},
		{"R16", "routing optimisation"},
		{"I1", "what a network namespace isolates"},
		{"I2", "network namespaces made and managed"},
		{"I3", "between namespaces"},
		{"I4", "pods isolated from each other, containers not"},
		{"I5", "ingress and egress control"},
		{"I6", "segmentation: VLAN, subnets, firewall, IDS"},
		{"I7", "micro-segmentation"},
		{"I8", "encryption and authentication"},
		{"D1", "CoreDNS"},
		{"D2", "CoreDNS plugins"},
		{"D3", "several DNS instances"},
		{"D4", "service records"},
		{"D5", "pod records"},
		{"D6", "special and custom domains"},
		{"D7", "dnsPolicy"},
		{"D8", "dnsConfig"},
		{"D9", "DNS performance"},
		{"T1", "task 1: the three-container pod"},
		{"T2", "task 2: DNS discovery for four services"},
		{"X1", "discussion: localhost, Unix socket or shared volume"},
		{"X2", "discussion: the cost of micro-segmentation"},
		{"X3", "discussion: the limits of DNS discovery"},
		{"N1", "preview: Services"},
	}
}

// RowIDs are the ids of Rows.
func RowIDs() []string {
	var ids []string
	for _, r := range Rows() {
		ids = append(ids, r.ID)
	}
	return ids
}

// KnownRow reports whether id is a point of the course.
func KnownRow(id string) bool { return slices.Contains(RowIDs(), id) }

// Uncovered are the points that no exercise covers.
func (c *Course) Uncovered() []Row {
	var out []Row
	for _, r := range Rows() {
		if !slices.ContainsFunc(c.Exercises, func(e *Exercise) bool { return slices.Contains(e.Covers, r.ID) }) {
			out = append(out, r)
		}
	}
	return out
}
