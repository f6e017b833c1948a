package observe

import (
	"maps"
	"slices"

	"podlab/lab"
	"podlab/lab/kernel"
)

// limit bounds each list of a namespace, and linkAddrs the addresses of a link
// in an event: learners may make as many as they like, and the agent's memory
// is not theirs. What is beyond is not shown.
const (
	limit     = 1000
	linkAddrs = 64
)

// table is what the kernel said a namespace has.
type table struct {
	// cut says that something is beyond the limit: when something else goes, it
	// takes a look at all to know what is left.
	cut    bool
	links  map[int]kernel.Link
	addrs  []kernel.Addr
	routes []kernel.Route
	neighs []kernel.Neigh
	fdb    []kernel.FDBEntry
}

func (t *table) replace(k kernel.Table) {
	t.cut = false
	t.links = k.Links
	for index := range t.links {
		if len(t.links) <= limit {
			break
		}
		delete(t.links, index)
		t.cut = true
	}
	t.addrs, t.routes, t.neighs, t.fdb = cut(t, k.Addrs), cut(t, k.Routes), cut(t, k.Neighs), cut(t, k.FDB)
}

// cut shortens a list to the limit.
func cut[T any](t *table, list []T) []T {
	if len(list) <= limit {
		return list
	}
	t.cut = true
	return slices.Clone(list[:limit])
}

// news says what has to be read again after a change.
type news int

const (
	allKnown news = iota
	routesUnknown
	nothingKnown
)

// change takes one change in. The routes have to be read again when a link
// goes down or an address goes: the kernel then drops IPv4 routes without a
// word.
func (t *table) change(c kernel.Change) news {
	if c.Gone && t.cut {
		return nothingKnown
	}
	switch {
	case c.Link != nil && c.Gone:
		t.dropLink(c.Link.Index)
		return routesUnknown
	case c.Link != nil:
		return t.setLink(*c.Link)
	case c.Addr != nil:
		t.addrs = change(t, t.addrs, *c.Addr, c.Gone, func(a kernel.Addr) kernel.Addr {
			return kernel.Addr{Index: a.Index, Addr: lab.Addr{Prefix: a.Prefix}}
		})
		if c.Gone {
			return routesUnknown
		}
	case c.Routes != nil:
		t.changeRoutes(c)
	case c.Neigh != nil:
		t.neighs = change(t, t.neighs, *c.Neigh, c.Gone, func(n kernel.Neigh) kernel.Neigh {
			return kernel.Neigh{Index: n.Index, Neigh: lab.Neigh{Addr: n.Addr}}
		})
	case c.FDB != nil:
		t.fdb = change(t, t.fdb, *c.FDB, c.Gone, func(f kernel.FDBEntry) kernel.FDBEntry {
			return kernel.FDBEntry{Index: f.Index, Master: f.Master, FDBEntry: lab.FDBEntry{MAC: f.MAC, Dst: f.Dst}}
		})
	}
	return allKnown
}

func (t *table) setLink(l kernel.Link) news {
	old, known := t.links[l.Index]
	switch {
	case !known && len(t.links) >= limit:
		t.cut = true
		return allKnown
	case t.links == nil:
		t.links = map[int]kernel.Link{}
	}
	t.links[l.Index] = l
	if known && old.Up && !l.Up {
		return routesUnknown
	}
	return allKnown
}

func (t *table) dropLink(index int) {
	delete(t.links, index)
	t.addrs = slices.DeleteFunc(t.addrs, func(a kernel.Addr) bool { return a.Index == index })
	t.neighs = slices.DeleteFunc(t.neighs, func(n kernel.Neigh) bool { return n.Index == index })
	t.fdb = slices.DeleteFunc(t.fdb, func(f kernel.FDBEntry) bool { return f.Index == index })
}

func (t *table) changeRoutes(c kernel.Change) {
	first := c.Routes[0]
	if c.Replace && !c.Gone {
		t.routes = slices.DeleteFunc(t.routes, func(r kernel.Route) bool {
			return r.Dst == first.Dst && r.Table == first.Table && r.Metric == first.Metric
		})
	}
	for _, r := range c.Routes {
		t.routes = change(t, t.routes, r, c.Gone, func(r kernel.Route) kernel.Route {
			return kernel.Route{Index: r.Index, Route: RouteKey(r.Route)}
		})
	}
}

// change sets or drops the element with the key of v, in place.
func change[T any, K comparable](t *table, list []T, v T, gone bool, key func(T) K) []T {
	i := slices.IndexFunc(list, func(o T) bool { return key(o) == key(v) })
	switch {
	case i < 0 && gone:
		return list
	case i < 0 && len(list) >= limit:
		t.cut = true
		return list
	case i < 0:
		return append(list, v)
	case gone:
		return slices.Delete(list, i, i+1)
	}
	list[i] = v
	return list
}

// told is what the log was told of a namespace, in the domain's words.
type told struct {
	links  map[int]lab.Link
	routes []lab.Route
	neighs []lab.Neigh
	fdb    []lab.FDBEntry
}

// update makes told what the table has and returns the events that say so.
// What goes is told first, from the inside out, and what comes from the
// outside in: a route never refers to a link that was not told yet.
func (d *told) update(t *table, peer func(kernel.Link) *lab.LinkRef) []lab.Event {
	names := make(map[int]string, len(t.links))
	for i, l := range t.links {
		names[i] = l.Name
	}
	links, routes, neighs, fdb := t.domainLinks(peer), t.domainRoutes(names), d.domainNeighs(t, names), t.domainFDB(names)

	var events []lab.Event
	for _, f := range missing(d.fdb, fdb, FDBKey) {
		events = append(events, lab.Event{Kind: lab.EventFDBGone, FDB: &f})
	}
	for _, n := range missing(d.neighs, neighs, NeighKey) {
		events = append(events, lab.Event{Kind: lab.EventNeighGone, Neigh: &n})
	}
	for _, r := range missing(d.routes, routes, RouteKey) {
		events = append(events, lab.Event{Kind: lab.EventRouteGone, Route: &r})
	}
	for _, index := range slices.Sorted(maps.Keys(d.links)) {
		if _, ok := links[index]; !ok {
			l := d.links[index]
			events = append(events, lab.Event{Kind: lab.EventLinkGone, Link: &l})
		}
	}
	for _, index := range slices.Sorted(maps.Keys(links)) {
		l := links[index]
		if old, ok := d.links[index]; !ok || !equalLinks(old, l) {
			events = append(events, lab.Event{Kind: lab.EventLinkSet, Link: &l})
		}
	}
	for _, r := range missing(routes, d.routes, itself) {
		events = append(events, lab.Event{Kind: lab.EventRouteSet, Route: &r})
	}
	for _, n := range missing(neighs, d.neighs, itself) {
		events = append(events, lab.Event{Kind: lab.EventNeighSet, Neigh: &n})
	}
	for _, f := range missing(fdb, d.fdb, itself) {
		events = append(events, lab.Event{Kind: lab.EventFDBSet, FDB: &f})
	}
	d.links, d.routes, d.neighs, d.fdb = links, routes, neighs, fdb
	return events
}

// peerless says whether a veth's other end is not known.
func (d *told) peerless() bool {
	for _, l := range d.links {
		if l.Kind == "veth" && l.Peer == nil {
			return true
		}
	}
	return false
}

func itself[T any](v T) T { return v }

// missing are the elements of list whose keys others has not.
func missing[T any, K comparable](list, others []T, key func(T) K) []T {
	if len(list) == 0 {
		return nil
	}
	have := make(map[K]struct{}, len(others))
	for _, o := range others {
		have[key(o)] = struct{}{}
	}
	var gone []T
	for _, v := range list {
		if _, ok := have[key(v)]; !ok {
			gone = append(gone, v)
		}
	}
	return gone
}

func equalLinks(a, b lab.Link) bool {
	if !slices.Equal(a.Addrs, b.Addrs) || !equalPointers(a.Peer, b.Peer) || !equalPointers(a.VXLAN, b.VXLAN) {
		return false
	}
	return a.Index == b.Index && a.Name == b.Name && a.Kind == b.Kind && a.MAC == b.MAC && a.MTU == b.MTU &&
		a.Up == b.Up && a.Running == b.Running && a.Master == b.Master
}

func equalPointers[T comparable](a, b *T) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

func (t *table) domainLinks(peer func(kernel.Link) *lab.LinkRef) map[int]lab.Link {
	links := make(map[int]lab.Link, len(t.links))
	for index, k := range t.links {
		l := k.Link
		l.Peer = peer(k)
		l.Addrs = []lab.Addr{}
		for _, a := range t.addrs {
			if a.Index == index && len(l.Addrs) < linkAddrs {
				l.Addrs = append(l.Addrs, a.Addr)
			}
		}
		links[index] = l
	}
	return links
}

func (t *table) domainRoutes(names map[int]string) []lab.Route {
	var list []lab.Route
	for _, k := range t.routes {
		r := k.Route
		r.Dev = names[k.Index]
		// The last word on a link may come after its routes' first.
		if k.Index != 0 && r.Dev == "" {
			continue
		}
		list = append(list, r)
	}
	return list
}

// domainNeighs leaves out the states that an entry only passes through while
// the kernel asks for it again: it stays what it was until there is an answer.
func (d *told) domainNeighs(t *table, names map[int]string) []lab.Neigh {
	var list []lab.Neigh
	for _, k := range t.neighs {
		n := k.Neigh
		if n.Dev = names[k.Index]; n.Dev == "" {
			continue
		}
		switch n.State {
		case "INCOMPLETE", "DELAY", "PROBE":
			i := slices.IndexFunc(d.neighs, func(o lab.Neigh) bool { return NeighKey(o) == NeighKey(n) })
			switch {
			case i >= 0:
				n = d.neighs[i]
			case n.State == "INCOMPLETE":
				continue
			default:
				n.State = "STALE"
			}
		}
		list = append(list, n)
	}
	return list
}

func (t *table) domainFDB(names map[int]string) []lab.FDBEntry {
	var list []lab.FDBEntry
	for _, k := range t.fdb {
		f := k.FDBEntry
		f.Dev, f.Master = names[k.Index], names[k.Master]
		if f.Dev == "" {
			continue
		}
		list = append(list, f)
	}
	return list
}
