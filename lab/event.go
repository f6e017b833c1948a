package lab

import "time"

// EventKind says which of an Event's typed fields is set.
type EventKind string

// The kinds of events. Verbs: "set" means added or changed (the field holds
// the new value whole), "gone" means removed.
const (
	EventNamespaceSet  EventKind = "namespace.set"  // NetNS
	EventNamespaceGone EventKind = "namespace.gone" // NetNS
	EventLinkSet       EventKind = "link.set"       // Link
	EventLinkGone      EventKind = "link.gone"      // Link
	EventRouteSet      EventKind = "route.set"      // Route
	EventRouteGone     EventKind = "route.gone"     // Route
	EventNeighSet      EventKind = "neigh.set"      // Neigh
	EventNeighGone     EventKind = "neigh.gone"     // Neigh
	EventFDBSet        EventKind = "fdb.set"        // FDB
	EventFDBGone       EventKind = "fdb.gone"       // FDB
	EventPodSet        EventKind = "pod.set"        // Pod
	EventPodGone       EventKind = "pod.gone"       // Pod (namespace and name)
	EventOp            EventKind = "op"             // Op: podlab changed the kernel
	EventStep          EventKind = "step"           // Step: a step of a pod's creation or termination
	EventKube          EventKind = "kube"           // Kube: a Kubernetes Event
	EventPhase         EventKind = "phase"          // Phase: the lab's phase changed
	EventTerminal      EventKind = "terminal"       // Terminal: a shell started or ended
)

// Event is one entry of a lab's ordered log. Exactly one of the typed
// pointers is set, the one that its Kind names.
type Event struct {
	// Seq grows by one with each event of the lab, from 1.
	Seq uint64 `json:"seq"`
	// Time the agent learned of it, UTC.
	Time time.Time `json:"time"`
	Kind EventKind `json:"kind"`
	// NS is the network namespace that it happened in, where there is one.
	NS NamespaceID `json:"ns,omitempty"`

	NetNS    *Namespace     `json:"netns,omitempty"` // with empty lists; the contents follow as events
	Link     *Link          `json:"link,omitempty"`
	Route    *Route         `json:"route,omitempty"`
	Neigh    *Neigh         `json:"neigh,omitempty"`
	FDB      *FDBEntry      `json:"fdb,omitempty"`
	Pod      *Pod           `json:"pod,omitempty"`
	Op       *OpEvent       `json:"op,omitempty"`
	Step     *StepEvent     `json:"step,omitempty"`
	Kube     *KubeEvent     `json:"kube,omitempty"`
	Phase    *PhaseEvent    `json:"phase,omitempty"`
	Terminal *TerminalEvent `json:"terminal,omitempty"`
}

// OpEvent is a change that podlab made to the kernel.
type OpEvent struct {
	// Command is the ip, bridge, sysctl, nft or iptables command it equals,
	// to be run in the event's namespace.
	Command string `json:"command"`
	// Pod that it was done for ("default/pod-a"), or empty.
	Pod string `json:"pod,omitempty"`
	// Duration in microseconds of the request, or of its share in a batch.
	Micros int64 `json:"micros"`
	// Error is the kernel's answer, empty when done.
	Error string `json:"error,omitempty"`
}

// StepEvent is the end of one of the eight steps of a pod's creation or
// termination, as the course numbers them.
type StepEvent struct {
	Pod string `json:"pod"` // "default/pod-a"
	// Course is "create" or "terminate".
	Course string `json:"course"`
	// Number of the step, 1 to 8, and its short name in English.
	Number int    `json:"number"`
	Name   string `json:"name"`
	// StartedAt and Micros: when the step began and how long it took.
	StartedAt time.Time `json:"startedAt"`
	Micros    int64     `json:"micros"`
	// Detail says what was done: the node chosen, the address given.
	Detail string `json:"detail,omitempty"`
	Error  string `json:"error,omitempty"`
}

// KubeEvent is a Kubernetes Event of the lab's API.
type KubeEvent struct {
	Type      string `json:"type"` // "Normal" or "Warning"
	Reason    string `json:"reason"`
	Message   string `json:"message"`
	Object    string `json:"object"` // "Pod/default/pod-a"
	Component string `json:"component"`
	Count     int32  `json:"count"`
}

// PhaseEvent is a change of the lab's phase.
type PhaseEvent struct {
	Phase  Phase  `json:"phase"`
	Reason string `json:"reason,omitempty"`
}

// TerminalEvent is a shell's start or end.
type TerminalEvent struct {
	ID     string `json:"id"`
	Target string `json:"target"` // as in Target
	Ended  bool   `json:"ended"`
	// ExitCode of the shell when ended.
	ExitCode int `json:"exitCode"`
}

// EventKinds are all kinds, in the order above.
func EventKinds() []EventKind {
	return []EventKind{
		EventNamespaceSet, EventNamespaceGone, EventLinkSet, EventLinkGone, EventRouteSet, EventRouteGone,
		EventNeighSet, EventNeighGone, EventFDBSet, EventFDBGone, EventPodSet, EventPodGone,
		EventOp, EventStep, EventKube, EventPhase, EventTerminal,
	}
}
