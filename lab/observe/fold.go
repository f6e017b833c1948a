package observe

import (
	"cmp"
	"maps"
	"slices"

	"podlab/lab"
)

// state is lab.State in a form that events change quickly. The values in it
// are never changed in place, so that a snapshot can share them.
type state struct {
	spec   lab.Spec
	phase  lab.Phase
	reason string
	spaces map[lab.NamespaceID]*space
	pods   map[podKey]lab.Pod
}

type podKey struct{ namespace, name string }

// space is one network namespace.
type space struct {
	ns     lab.Namespace // without lists
	links  map[int]lab.Link
	routes []lab.Route
	neighs []lab.Neigh
	fdb    []lab.FDBEntry
}

func newState(spec lab.Spec) state {
	return state{
		spec: spec, phase: lab.PhaseCreating,
		spaces: map[lab.NamespaceID]*space{}, pods: map[podKey]lab.Pod{},
	}
}

// fold changes the state as the event says. Events of a namespace that is not
// there are left alone.
func (s *state) fold(e lab.Event) {
	switch e.Kind {
	case lab.EventPhase:
		s.phase, s.reason = e.Phase.Phase, e.Phase.Reason
		return
	case lab.EventPodSet:
		s.pods[podKey{e.Pod.Namespace, e.Pod.Name}] = *e.Pod
		return
	case lab.EventPodGone:
		delete(s.pods, podKey{e.Pod.Namespace, e.Pod.Name})
		return
	case lab.EventNamespaceSet:
		sp := s.spaces[e.NetNS.ID]
		if sp == nil {
			sp = &space{links: map[int]lab.Link{}}
			s.spaces[e.NetNS.ID] = sp
		}
		sp.ns = *e.NetNS
		return
	case lab.EventNamespaceGone:
		delete(s.spaces, e.NetNS.ID)
		return
	}
	if sp := s.spaces[e.NS]; sp != nil {
		sp.fold(e)
	}
}

func (sp *space) fold(e lab.Event) {
	switch e.Kind {
	case lab.EventLinkSet:
		sp.links[e.Link.Index] = *e.Link
	case lab.EventLinkGone:
		delete(sp.links, e.Link.Index)
	case lab.EventRouteSet:
		sp.routes = set(sp.routes, *e.Route, RouteKey)
	case lab.EventRouteGone:
		sp.routes = drop(sp.routes, *e.Route, RouteKey)
	case lab.EventNeighSet:
		sp.neighs = set(sp.neighs, *e.Neigh, NeighKey)
	case lab.EventNeighGone:
		sp.neighs = drop(sp.neighs, *e.Neigh, NeighKey)
	case lab.EventFDBSet:
		sp.fdb = set(sp.fdb, *e.FDB, FDBKey)
	case lab.EventFDBGone:
		sp.fdb = drop(sp.fdb, *e.FDB, FDBKey)
	}
}

// RouteKey is what makes two routes of a namespace the same one: a route.set
// with the key of a known route takes its place. The browser does likewise.
func RouteKey(r lab.Route) lab.Route {
	return lab.Route{Dst: r.Dst, Gateway: r.Gateway, Dev: r.Dev, Table: r.Table, Type: r.Type, Metric: r.Metric}
}

// NeighKey is what makes two neighbours of a namespace the same one.
func NeighKey(n lab.Neigh) lab.Neigh { return lab.Neigh{Addr: n.Addr, Dev: n.Dev} }

// FDBKey is what makes two forwarding entries of a namespace the same one.
func FDBKey(f lab.FDBEntry) lab.FDBEntry {
	return lab.FDBEntry{MAC: f.MAC, Dev: f.Dev, Master: f.Master, Dst: f.Dst}
}

// set puts v in the place of the element with its key, or at the end. The
// old list is left as it is.
func set[T any, K comparable](list []T, v T, key func(T) K) []T {
	i := slices.IndexFunc(list, func(t T) bool { return key(t) == key(v) })
	if i < 0 {
		return append(slices.Clip(list), v)
	}
	list = slices.Clone(list)
	list[i] = v
	return list
}

// drop removes the element with the key of v. The old list is left as it is.
func drop[T any, K comparable](list []T, v T, key func(T) K) []T {
	i := slices.IndexFunc(list, func(t T) bool { return key(t) == key(v) })
	if i < 0 {
		return list
	}
	return slices.Concat(list[:i], list[i+1:])
}

// kindOrder is the order of namespaces in a State.
var kindOrder = map[lab.NamespaceKind]int{
	lab.NamespaceUnderlay: 0, lab.NamespaceNode: 1, lab.NamespacePod: 2, lab.NamespaceByHand: 3,
}

// snapshot returns the state as of event seq. Lists are never nil, so that
// they are [] in JSON.
func (s *state) snapshot(seq uint64) lab.State {
	out := lab.State{
		Seq: seq, Spec: s.spec, Phase: s.phase, Reason: s.reason,
		Namespaces: make([]lab.Namespace, 0, len(s.spaces)),
		Pods:       make([]lab.Pod, 0, len(s.pods)),
	}
	for _, sp := range s.spaces {
		ns := sp.ns
		ns.Links = make([]lab.Link, 0, len(sp.links))
		for _, index := range slices.Sorted(maps.Keys(sp.links)) {
			ns.Links = append(ns.Links, sp.links[index])
		}
		ns.Routes = orEmpty(sp.routes)
		ns.Neighbours = orEmpty(sp.neighs)
		ns.FDB = orEmpty(sp.fdb)
		out.Namespaces = append(out.Namespaces, ns)
	}
	slices.SortFunc(out.Namespaces, func(a, b lab.Namespace) int {
		return cmp.Or(cmp.Compare(kindOrder[a.Kind], kindOrder[b.Kind]), cmp.Compare(a.ID, b.ID))
	})
	for _, p := range s.pods {
		out.Pods = append(out.Pods, p)
	}
	slices.SortFunc(out.Pods, func(a, b lab.Pod) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return out
}

func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return slices.Clip(list)
}
