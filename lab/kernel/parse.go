package kernel

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"

	"podlab/lab"

	"golang.org/x/sys/unix"
)

// What follows is what a namespace's kernel tables have, with links by index
// where the domain's types have names: names are the reader's to fill in.

// Link is a link without its addresses.
type Link struct {
	lab.Link
	// PeerIndex is the index of a veth's other end in its own namespace, and
	// PeerNSID what this namespace calls that one (`link-netnsid`), or -1 when
	// it is this very namespace.
	PeerIndex, PeerNSID int
}

// Addr is an address of the link with Index.
type Addr struct {
	Index int
	lab.Addr
}

// Route is a route, or one next hop of one.
type Route struct {
	Index int // of the outgoing link, 0 for none
	lab.Route
}

// Neigh is a neighbour.
type Neigh struct {
	Index int
	lab.Neigh
}

// FDBEntry is an entry of a bridge's or VXLAN device's forwarding table.
type FDBEntry struct {
	Index, Master int // Master is 0 for the device's own entries
	lab.FDBEntry
}

// Change is one thing set or gone; one of the pointers is set, or Routes.
type Change struct {
	Gone bool
	// Replace says that Routes take the place of those with the same
	// destination, table and metric.
	Replace bool
	Link    *Link
	Addr    *Addr
	Routes  []Route // the next hops of one route
	Neigh   *Neigh
	FDB     *FDBEntry
}

// parse reads a message of a dump or of a notification. It reports false for
// what a lab does not show.
func parse(kind, flags uint16, body []byte) (Change, bool) {
	c := Change{Replace: flags&unix.NLM_F_REPLACE != 0}
	switch kind {
	case unix.RTM_DELLINK, unix.RTM_DELADDR, unix.RTM_DELROUTE, unix.RTM_DELNEIGH:
		c.Gone = true
	}
	switch kind {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		c.Link = parseLink(body)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		c.Addr = parseAddr(body)
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		c.Routes = parseRoute(body)
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		c.Neigh, c.FDB = parseNeigh(body)
	}
	return c, c.Link != nil || c.Addr != nil || c.Routes != nil || c.Neigh != nil || c.FDB != nil
}

// parseLink reads an ifinfomsg. A bridge's own messages about its ports
// (AF_BRIDGE) say nothing that the port's do not.
func parseLink(b []byte) *Link {
	if len(b) < unix.SizeofIfInfomsg || b[0] == unix.AF_BRIDGE {
		return nil
	}
	flags := order.Uint32(b[8:])
	l := &Link{PeerNSID: -1}
	l.Index = int(int32(order.Uint32(b[4:])))
	l.Up = flags&unix.IFF_UP != 0
	l.Running = flags&unix.IFF_RUNNING != 0
	l.Addrs = []lab.Addr{}
	if flags&unix.IFF_LOOPBACK != 0 {
		l.Kind = "loopback"
	}
	link := 0
	eachAttr(b[unix.SizeofIfInfomsg:], func(kind uint16, v []byte) {
		switch kind {
		case unix.IFLA_IFNAME:
			l.Name = cString(v)
		case unix.IFLA_MTU:
			l.MTU = int(u32(v))
		case unix.IFLA_ADDRESS:
			l.MAC = mac(v)
		case unix.IFLA_MASTER:
			l.Master = int(u32(v))
		case unix.IFLA_LINK:
			link = int(u32(v))
		case unix.IFLA_LINK_NETNSID:
			l.PeerNSID = int(int32(u32(v)))
		case unix.IFLA_LINKINFO:
			parseLinkInfo(l, v)
		}
	})
	if l.Kind == "veth" {
		l.PeerIndex = link
	}
	return l
}

func parseLinkInfo(l *Link, b []byte) {
	var data []byte
	eachAttr(b, func(kind uint16, v []byte) {
		switch kind {
		case unix.IFLA_INFO_KIND:
			l.Kind = cString(v)
		case unix.IFLA_INFO_DATA:
			data = v
		}
	})
	if l.Kind != "vxlan" {
		return
	}
	l.VXLAN = &lab.VXLAN{}
	eachAttr(data, func(kind uint16, v []byte) {
		switch kind {
		case vxlanID:
			l.VXLAN.VNI = u32(v)
		case vxlanLocal, vxlanLocal6:
			l.VXLAN.Local, _ = netip.AddrFromSlice(v)
		case vxlanPort:
			if len(v) >= 2 {
				l.VXLAN.Port = binary.BigEndian.Uint16(v)
			}
		}
	})
}

// parseAddr reads an ifaddrmsg.
func parseAddr(b []byte) *Addr {
	if len(b) < unix.SizeofIfAddrmsg {
		return nil
	}
	a := &Addr{Index: int(int32(order.Uint32(b[4:])))}
	a.Scope = scopeName(b[3])
	var local, address netip.Addr
	eachAttr(b[unix.SizeofIfAddrmsg:], func(kind uint16, v []byte) {
		switch kind {
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(v)
		case unix.IFA_ADDRESS:
			address, _ = netip.AddrFromSlice(v)
		}
	})
	// IFA_ADDRESS is the far end's on a point-to-point link, rtnetlink(7).
	if !local.IsValid() {
		local = address
	}
	if !local.IsValid() {
		return nil
	}
	a.Prefix = netip.PrefixFrom(local, int(b[1]))
	return a
}

// parseRoute reads an rtmsg. Routes that the kernel keeps for its own
// addresses (table local, multicast, anycast) and clones are left out, as by
// `ip route`.
func parseRoute(b []byte) []Route {
	if len(b) < unix.SizeofRtMsg || order.Uint32(b[8:])&unix.RTM_F_CLONED != 0 {
		return nil
	}
	fam := b[0]
	if fam != unix.AF_INET && fam != unix.AF_INET6 {
		return nil
	}
	kind := b[7]
	if kind == unix.RTN_LOCAL || kind == unix.RTN_BROADCAST || kind == unix.RTN_MULTICAST || kind == unix.RTN_ANYCAST {
		return nil
	}
	var r Route
	r.Table = int(b[4])
	r.Protocol = protocolName(b[5])
	r.Scope = scopeName(b[6])
	r.Type = routeTypeName(kind)
	r.OnLink = order.Uint32(b[8:])&unix.RTNH_F_ONLINK != 0
	all := netip.IPv4Unspecified()
	if fam == unix.AF_INET6 {
		all = netip.IPv6Unspecified()
	}
	r.Dst = netip.PrefixFrom(all, 0)
	var hops []byte
	eachAttr(b[unix.SizeofRtMsg:], func(attr uint16, v []byte) {
		switch attr {
		case unix.RTA_DST:
			if a, ok := netip.AddrFromSlice(v); ok {
				r.Dst = netip.PrefixFrom(a, int(b[1]))
			}
		case unix.RTA_GATEWAY:
			r.Gateway, _ = netip.AddrFromSlice(v)
		case unix.RTA_VIA: // a gateway of the other family: its family, its bytes
			if len(v) > 2 {
				r.Gateway, _ = netip.AddrFromSlice(v[2:])
			}
		case unix.RTA_OIF:
			r.Index = int(u32(v))
		case unix.RTA_PREFSRC:
			r.Src, _ = netip.AddrFromSlice(v)
		case unix.RTA_TABLE:
			r.Table = int(u32(v))
		case unix.RTA_PRIORITY:
			r.Metric = int(u32(v))
		case unix.RTA_MULTIPATH:
			hops = v
		}
	})
	if r.Table == unix.RT_TABLE_LOCAL {
		return nil
	}
	if hops == nil {
		return []Route{r}
	}
	return parseHops(r, hops)
}

// parseHops reads the rtnexthops of a multipath route.
func parseHops(r Route, b []byte) []Route {
	var list []Route
	for len(b) >= unix.SizeofRtNexthop {
		n := int(order.Uint16(b))
		if n < unix.SizeofRtNexthop || n > len(b) {
			break
		}
		hop := r
		hop.OnLink = b[2]&unix.RTNH_F_ONLINK != 0
		hop.Index = int(int32(order.Uint32(b[4:])))
		eachAttr(b[unix.SizeofRtNexthop:n], func(attr uint16, v []byte) {
			switch attr {
			case unix.RTA_GATEWAY:
				hop.Gateway, _ = netip.AddrFromSlice(v)
			case unix.RTA_VIA:
				if len(v) > 2 {
					hop.Gateway, _ = netip.AddrFromSlice(v[2:])
				}
			}
		})
		list = append(list, hop)
		b = b[min((n+3)&^3, len(b)):]
	}
	return list
}

// parseNeigh reads an ndmsg: a neighbour, or an entry of a forwarding table.
// Neighbours that the kernel needs no resolution for (NOARP) and addresses of
// groups are left out, as by `ip neigh`.
func parseNeigh(b []byte) (*Neigh, *FDBEntry) {
	if len(b) < unix.SizeofNdMsg {
		return nil, nil
	}
	fam, index, state := b[0], int(int32(order.Uint32(b[4:]))), order.Uint16(b[8:])
	var dst netip.Addr
	var hw []byte
	master := 0
	eachAttr(b[unix.SizeofNdMsg:], func(attr uint16, v []byte) {
		switch attr {
		case unix.NDA_DST:
			dst, _ = netip.AddrFromSlice(v)
		case unix.NDA_LLADDR:
			hw = v
		case unix.NDA_MASTER:
			master = int(u32(v))
		}
	})
	switch {
	case fam == unix.AF_BRIDGE:
		// The groups that a device listens to are not forwarding entries.
		if len(hw) != 6 || hw[0]&1 != 0 || (master == 0 && !dst.IsValid()) {
			return nil, nil
		}
		e := &FDBEntry{Index: index, Master: master}
		e.MAC, e.Dst, e.State = mac(hw), dst, fdbState(state)
		return nil, e
	case fam != unix.AF_INET && fam != unix.AF_INET6, !dst.IsValid(), dst.IsMulticast(),
		state&unix.NUD_NOARP != 0, state == unix.NUD_NONE:
		return nil, nil
	}
	n := &Neigh{Index: index}
	n.Addr, n.MAC, n.State = dst, mac(hw), neighState(state)
	return n, nil
}

func u32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return order.Uint32(b)
}

func cString(b []byte) string { return string(bytes.TrimRight(b, "\x00")) }

func mac(b []byte) string {
	if len(b) != 6 { // a tunnel's address is an IP address
		return ""
	}
	return net.HardwareAddr(b).String()
}

// The names of iproute2: /etc/iproute2/rt_scopes, rt_protos; ip-neighbour(8).

func scopeName(s uint8) string {
	switch s {
	case unix.RT_SCOPE_UNIVERSE:
		return "global"
	case unix.RT_SCOPE_SITE:
		return "site"
	case unix.RT_SCOPE_LINK:
		return "link"
	case unix.RT_SCOPE_HOST:
		return "host"
	case unix.RT_SCOPE_NOWHERE:
		return "nowhere"
	}
	return strconv.Itoa(int(s))
}

func protocolName(p uint8) string {
	switch p {
	case unix.RTPROT_REDIRECT:
		return "redirect"
	case unix.RTPROT_KERNEL:
		return "kernel"
	case unix.RTPROT_BOOT:
		return "boot"
	case unix.RTPROT_STATIC:
		return "static"
	case unix.RTPROT_RA:
		return "ra"
	case unix.RTPROT_BIRD:
		return "bird"
	case unix.RTPROT_ZEBRA:
		return "zebra"
	case unix.RTPROT_BGP:
		return "bgp"
	case unix.RTPROT_OSPF:
		return "ospf"
	case unix.RTPROT_RIP:
		return "rip"
	}
	return strconv.Itoa(int(p))
}

func routeTypeName(t uint8) string {
	switch t {
	case unix.RTN_UNICAST:
		return "unicast"
	case unix.RTN_BLACKHOLE:
		return "blackhole"
	case unix.RTN_UNREACHABLE:
		return "unreachable"
	case unix.RTN_PROHIBIT:
		return "prohibit"
	case unix.RTN_THROW:
		return "throw"
	}
	return strconv.Itoa(int(t))
}

func neighState(s uint16) string {
	switch {
	case s&unix.NUD_PERMANENT != 0:
		return "PERMANENT"
	case s&unix.NUD_REACHABLE != 0:
		return "REACHABLE"
	case s&unix.NUD_STALE != 0:
		return "STALE"
	case s&unix.NUD_DELAY != 0:
		return "DELAY"
	case s&unix.NUD_PROBE != 0:
		return "PROBE"
	case s&unix.NUD_FAILED != 0:
		return "FAILED"
	case s&unix.NUD_INCOMPLETE != 0:
		return "INCOMPLETE"
	}
	return strconv.Itoa(int(s))
}

func fdbState(s uint16) string {
	switch {
	case s&unix.NUD_PERMANENT != 0:
		return "permanent"
	case s&unix.NUD_STALE != 0:
		return "stale"
	}
	return "reachable"
}
