// Package plan says, as data, what has to be done to the kernel so that a lab
// gets the network that its manifest wants.
//
// An Op is one change to one network namespace. It is inert: it prints as the
// ip, bridge or sysctl command that it equals, and package kernel can apply
// it. The golden tests, the event log and the "show me the command" panel are
// therefore the same strings. Nothing here touches a kernel or a clock; the
// same manifest gives the same Ops on any machine.
package plan

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"podlab/lab"
)

// Op is one change to a network namespace. Its dynamic type is one of the
// structs of this package.
type Op interface {
	// String is the command that the Op equals, run in the Op's namespace.
	fmt.Stringer
	// Inverse is the Op that takes this one back.
	Inverse() Op
}

// Step is an Op and the namespace that it happens in.
type Step struct {
	NS lab.NamespaceID
	Op Op
}

// AddNetns makes the namespace of the Step, empty. Name is the name that
// commands run on the node know it by.
type AddNetns struct{ Name string }

// DelNetns drops a namespace and all that is in it.
type DelNetns AddNetns

func (o AddNetns) String() string { return "ip netns add " + o.Name }
func (o DelNetns) String() string { return "ip netns del " + o.Name }

// Inverse drops the namespace.
func (o AddNetns) Inverse() Op { return DelNetns(o) }

// Inverse makes the namespace again, empty.
func (o DelNetns) Inverse() Op { return AddNetns(o) }

// Sysctl sets Key, in dots as sysctl(8) has it, from Was to Value.
type Sysctl struct{ Key, Value, Was string }

func (o Sysctl) String() string {
	if strings.ContainsAny(o.Value, " \t") {
		return fmt.Sprintf("sysctl -w %s=%q", o.Key, o.Value)
	}
	return "sysctl -w " + o.Key + "=" + o.Value
}

// Inverse sets the value that was there before.
func (o Sysctl) Inverse() Op { return Sysctl{Key: o.Key, Value: o.Was, Was: o.Value} }

// AddBridge makes a bridge and sets it up. Spanning tree and multicast
// snooping are off: a lab's bridge forwards at once and sends nothing itself.
type AddBridge struct {
	Name string
	MTU  int
	// MAC fixes the bridge's address, which would otherwise be the lowest of
	// its ports' and change as they come and go. Empty leaves it to the kernel.
	MAC string
}

func (o AddBridge) String() string {
	return words("ip link add", o.Name, "mtu", o.MTU, opt("address", o.MAC), "up type bridge stp_state 0 mcast_snooping 0")
}

// Inverse removes the bridge.
func (o AddBridge) Inverse() Op { return DelLink{Link: o} }

// AddVeth makes a pair of virtual Ethernet devices: one end here, up and,
// unless Master is empty, a port of that bridge; the other end, down, straight
// in another namespace.
type AddVeth struct {
	Name   string
	MTU    int
	Master string
	Peer   VethPeer
}

// VethPeer is the far end of a pair.
type VethPeer struct {
	Name string
	// MAC of the end; empty leaves it to the kernel.
	MAC string
	// NS is where the end is born; Netns is that namespace's name in commands.
	NS    lab.NamespaceID
	Netns string
}

// String says one queue for each end: more cost time and memory, and a lab's
// links gain nothing by them.
func (o AddVeth) String() string {
	const oneQueue = "numtxqueues 1 numrxqueues 1"
	return words("ip link add", o.Name, oneQueue, "mtu", o.MTU, opt("master", o.Master), "up type veth",
		"peer name", o.Peer.Name, oneQueue, "mtu", o.MTU, opt("address", o.Peer.MAC), "netns", o.Peer.Netns)
}

// Inverse removes the pair.
func (o AddVeth) Inverse() Op { return DelLink{Link: o} }

// AddVXLAN makes a VXLAN device that learns nothing: each destination is told
// to it. It is up.
type AddVXLAN struct {
	Name  string
	VNI   uint32
	Local netip.Addr
	Port  uint16
	// Dev is the link that the tunnel's packets leave by.
	Dev string
	MTU int
	MAC string
}

func (o AddVXLAN) String() string {
	return words("ip link add", o.Name, "mtu", o.MTU, opt("address", o.MAC), "up type vxlan id", o.VNI,
		"local", o.Local, "dev", o.Dev, "dstport", o.Port, "nolearning")
}

// Inverse removes the device.
func (o AddVXLAN) Inverse() Op { return DelLink{Link: o} }

// DelLink removes the link that Link, an AddBridge, AddVeth or AddVXLAN, made.
type DelLink struct{ Link Op }

// Name returns the name of the link.
func (o DelLink) Name() string {
	switch l := o.Link.(type) {
	case AddBridge:
		return l.Name
	case AddVeth:
		return l.Name
	case AddVXLAN:
		return l.Name
	}
	return ""
}

func (o DelLink) String() string { return "ip link del " + o.Name() }

// Inverse makes the link again.
func (o DelLink) Inverse() Op { return o.Link }

// LinkUp sets a link up.
type LinkUp struct{ Name string }

// LinkDown sets a link down.
type LinkDown LinkUp

func (o LinkUp) String() string   { return "ip link set " + o.Name + " up" }
func (o LinkDown) String() string { return "ip link set " + o.Name + " down" }

// Inverse sets the link down.
func (o LinkUp) Inverse() Op { return LinkDown(o) }

// Inverse sets the link up.
func (o LinkDown) Inverse() Op { return LinkUp(o) }

// Hairpin lets a bridge send a packet back out of the port that it came in by,
// as a pod that reaches itself through a service needs it.
type Hairpin struct {
	Port string
	On   bool
}

func (o Hairpin) String() string {
	state := "off"
	if o.On {
		state = "on"
	}
	return "bridge link set dev " + o.Port + " hairpin " + state
}

// Inverse switches it back.
func (o Hairpin) Inverse() Op { return Hairpin{Port: o.Port, On: !o.On} }

// AddAddr gives a link an address. An IPv6 address is usable at once, without
// duplicate address detection.
type AddAddr struct {
	Dev    string
	Prefix netip.Prefix
}

// DelAddr takes an address from a link.
type DelAddr AddAddr

func (o AddAddr) String() string {
	if o.Prefix.Addr().Is6() {
		return words("ip addr add", o.Prefix, "dev", o.Dev, "nodad")
	}
	if o.Prefix.IsSingleIP() {
		return words("ip addr add", o.Prefix, "dev", o.Dev)
	}
	return words("ip addr add", o.Prefix, "brd + dev", o.Dev)
}

func (o DelAddr) String() string { return words("ip addr del", o.Prefix, "dev", o.Dev) }

// Inverse takes the address away.
func (o AddAddr) Inverse() Op { return DelAddr(o) }

// Inverse gives the address again.
func (o DelAddr) Inverse() Op { return AddAddr(o) }

// AddRoute adds a route to the main table.
type AddRoute struct {
	Dst netip.Prefix
	// Via is the next hop; the zero Addr means that Dst is on the link itself.
	Via netip.Addr
	Dev string
	// OnLink takes Via as reachable on Dev though no address of Dev says so.
	OnLink bool
}

// DelRoute removes a route.
type DelRoute AddRoute

func (o AddRoute) String() string { return "ip route add " + o.words() }
func (o DelRoute) String() string { return "ip route del " + o.words() }

func (o AddRoute) words() string {
	var via, onlink string
	if o.Via.IsValid() {
		via = "via " + o.Via.String()
	}
	if o.OnLink {
		onlink = "onlink"
	}
	dst := o.Dst.String()
	if o.Dst.Bits() == 0 {
		dst = "default"
	}
	return words(dst, via, "dev", o.Dev, onlink)
}

func (o DelRoute) words() string { return AddRoute(o).words() }

// Inverse removes the route.
func (o AddRoute) Inverse() Op { return DelRoute(o) }

// Inverse adds the route again.
func (o DelRoute) Inverse() Op { return AddRoute(o) }

// AddNeigh fixes which MAC address a neighbour has.
type AddNeigh struct {
	Addr netip.Addr
	MAC  string
	Dev  string
}

// DelNeigh removes a neighbour.
type DelNeigh AddNeigh

func (o AddNeigh) String() string {
	return words("ip neigh add", o.Addr, "lladdr", o.MAC, "dev", o.Dev, "nud permanent")
}

func (o DelNeigh) String() string { return words("ip neigh del", o.Addr, "dev", o.Dev) }

// Inverse removes the neighbour.
func (o AddNeigh) Inverse() Op { return DelNeigh(o) }

// Inverse adds the neighbour again.
func (o DelNeigh) Inverse() Op { return AddNeigh(o) }

// AddFDB tells a VXLAN device which tunnel end point has a MAC address.
type AddFDB struct {
	MAC string
	Dev string
	Dst netip.Addr
}

// DelFDB removes such an entry.
type DelFDB AddFDB

func (o AddFDB) String() string {
	return words("bridge fdb add", o.MAC, "dev", o.Dev, "dst", o.Dst, "self permanent")
}

func (o DelFDB) String() string {
	return words("bridge fdb del", o.MAC, "dev", o.Dev, "dst", o.Dst, "self")
}

// Inverse removes the entry.
func (o AddFDB) Inverse() Op { return DelFDB(o) }

// Inverse adds the entry again.
func (o DelFDB) Inverse() Op { return AddFDB(o) }

// MAC returns the address that a lab's interface with this IP address has:
// 0a:58 (locally administered) and the IPv4 address, so that a learner sees in
// a capture whose it is; or the four words of the IPv6 address, XORed.
func MAC(addr netip.Addr) string {
	mac := net.HardwareAddr{0x0a, 0x58, 0, 0, 0, 0}
	for i, b := range addr.AsSlice() {
		mac[2+i%4] ^= b
	}
	return mac.String()
}

// opt is a command's option with its value, or nothing without a value.
func opt(name, value string) string {
	if value == "" {
		return ""
	}
	return name + " " + value
}

// words joins what is not empty with spaces.
func words(parts ...any) string {
	var b strings.Builder
	for _, p := range parts {
		s := fmt.Sprint(p)
		if s == "" {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(s)
	}
	return b.String()
}
