package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"podlab/lab"
	"podlab/lab/plan"

	"golang.org/x/sys/unix"
)

// Done is an Op that was tried: how long it took, or its share of a batch,
// and the kernel's answer.
type Done struct {
	Op   plan.Op
	Took time.Duration
	Err  error
}

// Peers finds the handle of another namespace of the lab, for the far end of
// a pair of links.
type Peers func(lab.NamespaceID) (*Handle, error)

// Apply does the ops in order and reports each to record, if not nil. At the
// first failure it stops after the batch that failed; what was done of it
// stays, and the caller takes it back with Undo.
func (h *Handle) Apply(ops []plan.Op, peers Peers, record func(Done)) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.sock == nil {
		return errClosed
	}
	if record == nil {
		record = func(Done) {}
	}
	for len(ops) > 0 {
		n := h.runLocked(ops)
		var err error
		if _, ok := ops[0].(plan.Sysctl); ok {
			settings := make([]plan.Sysctl, n)
			for i := range settings {
				settings[i] = ops[i].(plan.Sysctl)
			}
			err = h.ns.Do(func() error { return Sysctls(settings, record) })
		} else {
			err = h.batchLocked(ops[:n], peers, record)
		}
		if err != nil {
			if h.id != "" {
				return fmt.Errorf("%s: %w", h.id, err)
			}
			return err
		}
		ops = ops[n:]
	}
	return nil
}

// maxBatch bounds the messages of one sendmsg, so that the answers to all of
// them fit the socket's receive buffer.
const maxBatch = 64

// runLocked is how many of the ops can be done together: settings, or
// requests. A link whose index the kernel chooses has none to refer to until
// its batch is done.
func (h *Handle) runLocked(ops []plan.Op) int {
	_, sysctl := ops[0].(plan.Sysctl)
	made := map[string]bool{}
	n := 0
	for n < len(ops) && n < maxBatch {
		if _, s := ops[n].(plan.Sysctl); s != sysctl {
			break
		}
		if h.next == 0 {
			if made[refersTo(ops[n])] {
				break
			}
			if name := (plan.DelLink{Link: ops[n]}).Name(); name != "" {
				made[name] = true
			}
		}
		n++
	}
	return n
}

// refersTo is the link whose index an op's request needs.
func refersTo(op plan.Op) string {
	switch o := op.(type) {
	case plan.AddVeth:
		return o.Master
	case plan.AddVXLAN:
		return o.Dev
	case plan.AddAddr:
		return o.Dev
	case plan.AddRoute:
		return o.Dev
	case plan.AddNeigh:
		return o.Dev
	case plan.AddFDB:
		return o.Dev
	}
	return ""
}

// Sysctls writes settings in the calling thread's namespace.
func Sysctls(ops []plan.Sysctl, record func(Done)) error {
	for _, op := range ops {
		start := time.Now()
		err := writeSysctl(op.Key, op.Value)
		record(Done{Op: op, Took: time.Since(start), Err: err})
		if err != nil {
			return fmt.Errorf("cannot run %q: %w", op, err)
		}
	}
	return nil
}

// writeSysctl writes a value under /proc/sys/net, which shows the settings of
// the thread that opens it.
func writeSysctl(key, value string) error {
	path := "/proc/sys/" + strings.ReplaceAll(key, ".", "/")
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(value)); err != nil {
		return &os.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}

// batchLocked does the ops in one sendmsg. Each op is one message.
func (h *Handle) batchLocked(ops []plan.Op, peers Peers, record func(Done)) error {
	start := time.Now()
	failed, err := h.sendLocked(ops, peers)
	if err == nil && h.indexTaken(ops, failed) {
		h.next = 0
		failed, err = h.sendLocked(ops, peers)
	}
	if err != nil {
		return err
	}
	share := time.Since(start) / time.Duration(len(ops))
	// What follows a failed op in a batch fails for want of it: the first error
	// is the one to tell.
	var first error
	for i, op := range ops {
		err := failed[i]
		if err != nil && removes(op) && isGone(err) {
			err = nil
		}
		if err != nil {
			h.forgetLocked(op)
			if first == nil {
				first = fmt.Errorf("cannot run %q: %w", op, err)
			}
		}
		record(Done{Op: op, Took: share, Err: err})
	}
	return first
}

// sendLocked sends the ops and returns the kernel's errors by place in ops.
func (h *Handle) sendLocked(ops []plan.Op, peers Peers) (map[int]error, error) {
	h.buf.buf = h.buf.buf[:0]
	// The numbers are taken first: to look up a link takes one of its own.
	first := h.sock.seq + 1
	h.sock.seq += uint32(len(ops))
	last := uint32(0)
	for i, op := range ops {
		err := h.encodeLocked(&h.buf, first+uint32(i), op, peers)
		if err != nil && removes(op) && isGone(err) {
			continue // its link is gone, and it with the link
		}
		if err != nil {
			return nil, fmt.Errorf("cannot run %q: %w", op, err)
		}
		h.buf.end()
		last = first + uint32(i)
	}
	if last == 0 {
		return nil, nil
	}
	h.buf.acknowledge()
	errs, err := h.sock.do(&h.buf, first, last)
	if err != nil || len(errs) == 0 {
		return nil, err
	}
	failed := make(map[int]error, len(errs))
	for seq, err := range errs {
		failed[int(seq-first)] = err
	}
	return failed, nil
}

// indexTaken says whether nothing was done, perhaps because somebody else has
// a link with the index that was chosen for the first op's; or with its name:
// the kernel's answer is the same (older kernels: EBUSY).
func (h *Handle) indexTaken(ops []plan.Op, failed map[int]error) bool {
	return h.next != 0 && len(failed) == len(ops) &&
		(errors.Is(failed[0], unix.EEXIST) || errors.Is(failed[0], unix.EBUSY))
}

// removes says whether an op takes something away, so that its absence is as
// good as done.
func removes(op plan.Op) bool {
	switch o := op.(type) {
	case plan.Hairpin:
		return !o.On
	case plan.DelLink, plan.DelAddr, plan.DelRoute, plan.DelNeigh, plan.DelFDB, plan.LinkDown:
		return true
	}
	return false
}

func isGone(err error) bool {
	for _, gone := range []error{unix.ENOENT, unix.ESRCH, unix.ENODEV, unix.EADDRNOTAVAIL} {
		if errors.Is(err, gone) {
			return true
		}
	}
	return false
}

// create are the flags of a request that makes something new.
const create = unix.NLM_F_CREATE | unix.NLM_F_EXCL

// Numbers of the kernel that x/sys does not have.
const (
	vethInfoPeer    = 1  // VETH_INFO_PEER, linux/veth.h
	ifaFlagNoDAD    = 2  // IFA_F_NODAD, linux/if_addr.h
	brSTPState      = 5  // IFLA_BR_STP_STATE, linux/if_link.h
	brMcastSnooping = 23 // IFLA_BR_MCAST_SNOOPING
	brportMode      = 4  // IFLA_BRPORT_MODE: hairpin
	vxlanID         = 1  // IFLA_VXLAN_ID
	vxlanLink       = 3  // IFLA_VXLAN_LINK
	vxlanLocal      = 4  // IFLA_VXLAN_LOCAL
	vxlanLearning   = 7  // IFLA_VXLAN_LEARNING
	vxlanPort       = 15 // IFLA_VXLAN_PORT
	vxlanLocal6     = 17 // IFLA_VXLAN_LOCAL6
)

// encodeLocked appends the message of an op, without end.
func (h *Handle) encodeLocked(b *batch, seq uint32, op plan.Op, peers Peers) error {
	switch o := op.(type) {
	case plan.AddBridge:
		return h.addBridge(b, seq, o)
	case plan.AddVeth:
		return h.addVeth(b, seq, o, peers)
	case plan.AddVXLAN:
		return h.addVXLAN(b, seq, o)
	case plan.DelLink: // ip link del
		delete(h.links, o.Name())
		b.begin(unix.RTM_DELLINK, 0, seq, ifinfomsg(unix.AF_UNSPEC, 0, 0, 0))
		b.string(unix.IFLA_IFNAME, o.Name())
	case plan.LinkUp: // ip link set up
		b.begin(unix.RTM_NEWLINK, 0, seq, ifinfomsg(unix.AF_UNSPEC, 0, unix.IFF_UP, unix.IFF_UP))
		b.string(unix.IFLA_IFNAME, o.Name)
	case plan.LinkDown: // ip link set down
		b.begin(unix.RTM_NEWLINK, 0, seq, ifinfomsg(unix.AF_UNSPEC, 0, 0, unix.IFF_UP))
		b.string(unix.IFLA_IFNAME, o.Name)
	case plan.Hairpin:
		h.hairpin(b, seq, o)
	case plan.AddAddr:
		return h.addr(b, seq, unix.RTM_NEWADDR, create, o)
	case plan.DelAddr:
		return h.addr(b, seq, unix.RTM_DELADDR, 0, plan.AddAddr(o))
	case plan.AddRoute:
		return h.route(b, seq, unix.RTM_NEWROUTE, create, o)
	case plan.DelRoute:
		return h.route(b, seq, unix.RTM_DELROUTE, 0, plan.AddRoute(o))
	case plan.AddNeigh:
		return h.neigh(b, seq, unix.RTM_NEWNEIGH, create, o)
	case plan.DelNeigh:
		return h.neigh(b, seq, unix.RTM_DELNEIGH, 0, plan.AddNeigh(o))
	case plan.AddFDB:
		return h.fdb(b, seq, unix.RTM_NEWNEIGH, create, o)
	case plan.DelFDB:
		return h.fdb(b, seq, unix.RTM_DELNEIGH, 0, plan.AddFDB(o))
	default:
		return fmt.Errorf("package kernel does not know %T", op)
	}
	return nil
}

// newLink begins a link that is up and has these common attributes.
// It equals `ip link add NAME mtu MTU address MAC up`.
func (h *Handle) newLink(b *batch, seq uint32, name string, mtu int, mac string) error {
	b.begin(unix.RTM_NEWLINK, create, seq, ifinfomsg(unix.AF_UNSPEC, h.chooseIndex(name), unix.IFF_UP, unix.IFF_UP))
	return linkAttrs(b, name, mtu, mac)
}

func linkAttrs(b *batch, name string, mtu int, mac string) error {
	b.string(unix.IFLA_IFNAME, name)
	b.u32(unix.IFLA_MTU, uint32(mtu))
	if mac == "" {
		return nil
	}
	return lladdr(b, unix.IFLA_ADDRESS, mac)
}

// chooseIndex picks the index of a new link where the handle may, else 0.
func (h *Handle) chooseIndex(name string) int {
	if h.next == 0 {
		delete(h.links, name)
		return 0
	}
	index := h.next
	h.next++
	h.links[name] = index
	return index
}

// forgetLocked drops the index of a link that could not be made.
func (h *Handle) forgetLocked(op plan.Op) {
	switch op.(type) {
	case plan.AddBridge, plan.AddVeth, plan.AddVXLAN:
		delete(h.links, plan.DelLink{Link: op}.Name())
	}
}

func lladdr(b *batch, kind uint16, mac string) error {
	hw, err := net.ParseMAC(mac)
	if err != nil {
		return err
	}
	b.bytes(kind, hw)
	return nil
}

// addBridge equals `ip link add NAME up type bridge stp_state 0 mcast_snooping 0`.
func (h *Handle) addBridge(b *batch, seq uint32, o plan.AddBridge) error {
	if err := h.newLink(b, seq, o.Name, o.MTU, o.MAC); err != nil {
		return err
	}
	b.nest(unix.IFLA_LINKINFO, func() {
		b.string(unix.IFLA_INFO_KIND, "bridge")
		b.nest(unix.IFLA_INFO_DATA, func() {
			b.u32(brSTPState, 0)
			b.u8(brMcastSnooping, 0)
		})
	})
	return nil
}

// addVeth equals `ip link add NAME master BRIDGE up type veth peer name PEER
// netns NS`, one queue each. The peer comes into being in its namespace: to
// move it there later costs the kernel 50 times as much.
func (h *Handle) addVeth(b *batch, seq uint32, o plan.AddVeth, peers Peers) error {
	if peers == nil {
		return fmt.Errorf("no way to find namespace %s", o.Peer.NS)
	}
	peer, err := peers(o.Peer.NS)
	if err != nil {
		return err
	}
	master := 0
	if o.Master != "" {
		if master, err = h.indexLocked(o.Master); err != nil {
			return err
		}
	}
	if err := h.newLink(b, seq, o.Name, o.MTU, ""); err != nil {
		return err
	}
	index := h.links[o.Name] // 0 unless chosen
	oneQueue(b)
	if master != 0 {
		b.u32(unix.IFLA_MASTER, uint32(master))
	}
	b.nest(unix.IFLA_LINKINFO, func() {
		b.string(unix.IFLA_INFO_KIND, "veth")
		b.nest(unix.IFLA_INFO_DATA, func() {
			b.nest(vethInfoPeer, func() {
				// IFF_UP is refused here.
				b.buf = append(b.buf, ifinfomsg(unix.AF_UNSPEC, peer.bear(o.Peer.Name, index != 0), 0, 0)...)
				err = linkAttrs(b, o.Peer.Name, o.MTU, o.Peer.MAC)
				oneQueue(b)
				b.u32(unix.IFLA_NET_NS_FD, uint32(peer.ns.Fd()))
			})
		})
	})
	return err
}

// bear is chooseIndex for a link that another handle's request makes here. The
// kernel takes an index for the far end only with one for the near end
// (veth_newlink), so that here, too, it has to be left to the kernel else.
func (h *Handle) bear(name string, chosen bool) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !chosen {
		h.next = 0
	}
	return h.chooseIndex(name)
}

func oneQueue(b *batch) {
	b.u32(unix.IFLA_NUM_TX_QUEUES, 1)
	b.u32(unix.IFLA_NUM_RX_QUEUES, 1)
}

// addVXLAN equals `ip link add NAME up type vxlan id VNI local ADDR dev DEV
// dstport PORT nolearning`.
func (h *Handle) addVXLAN(b *batch, seq uint32, o plan.AddVXLAN) error {
	dev, err := h.indexLocked(o.Dev)
	if err != nil {
		return err
	}
	if err := h.newLink(b, seq, o.Name, o.MTU, o.MAC); err != nil {
		return err
	}
	b.nest(unix.IFLA_LINKINFO, func() {
		b.string(unix.IFLA_INFO_KIND, "vxlan")
		b.nest(unix.IFLA_INFO_DATA, func() {
			b.u32(vxlanID, o.VNI)
			b.u32(vxlanLink, uint32(dev))
			if o.Local.Is4() {
				b.addr(vxlanLocal, o.Local)
			} else {
				b.addr(vxlanLocal6, o.Local)
			}
			b.u8(vxlanLearning, 0)
			b.u16be(vxlanPort, o.Port)
		})
	})
	return nil
}

// hairpin equals `ip link set PORT type bridge_slave hairpin on`, which does
// what `bridge link set` does and finds the port by name.
func (h *Handle) hairpin(b *batch, seq uint32, o plan.Hairpin) {
	var on uint8
	if o.On {
		on = 1
	}
	b.begin(unix.RTM_NEWLINK, 0, seq, ifinfomsg(unix.AF_UNSPEC, 0, 0, 0))
	b.string(unix.IFLA_IFNAME, o.Port)
	b.nest(unix.IFLA_LINKINFO, func() {
		b.string(unix.IFLA_INFO_SLAVE_KIND, "bridge")
		b.nest(unix.IFLA_INFO_SLAVE_DATA, func() { b.u8(brportMode, on) })
	})
}

// addr equals `ip addr add|del PREFIX dev DEV`.
func (h *Handle) addr(b *batch, seq uint32, kind, flags uint16, o plan.AddAddr) error {
	dev, err := h.indexLocked(o.Dev)
	if err != nil {
		return err
	}
	a := o.Prefix.Addr()
	var ifaFlags uint8
	if a.Is6() {
		ifaFlags = ifaFlagNoDAD
	}
	b.begin(kind, flags, seq, ifaddrmsg(family(a), uint8(o.Prefix.Bits()), ifaFlags, unix.RT_SCOPE_UNIVERSE, dev))
	b.addr(unix.IFA_LOCAL, a)
	b.addr(unix.IFA_ADDRESS, a)
	if a.Is4() && o.Prefix.Bits() < 31 {
		b.addr(unix.IFA_BROADCAST, lastAddr(o.Prefix))
	}
	return nil
}

// lastAddr is the broadcast address of an IPv4 prefix.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	return netip.AddrFrom4(b)
}

// route equals `ip route add|del DST via VIA dev DEV [onlink]`.
func (h *Handle) route(b *batch, seq uint32, kind, flags uint16, o plan.AddRoute) error {
	dev, err := h.indexLocked(o.Dev)
	if err != nil {
		return err
	}
	var scope uint8 = unix.RT_SCOPE_UNIVERSE
	if !o.Via.IsValid() && o.Dst.Addr().Is4() {
		scope = unix.RT_SCOPE_LINK
	}
	var rtFlags uint32
	if o.OnLink {
		rtFlags = unix.RTNH_F_ONLINK
	}
	b.begin(kind, flags, seq, rtmsg(family(o.Dst.Addr()), uint8(o.Dst.Bits()), scope, unix.RTN_UNICAST, unix.RTPROT_BOOT, rtFlags))
	if o.Dst.Bits() > 0 {
		b.addr(unix.RTA_DST, o.Dst.Masked().Addr())
	}
	if o.Via.IsValid() {
		b.addr(unix.RTA_GATEWAY, o.Via)
	}
	b.u32(unix.RTA_OIF, uint32(dev))
	return nil
}

// neigh equals `ip neigh add|del ADDR lladdr MAC dev DEV nud permanent`.
func (h *Handle) neigh(b *batch, seq uint32, kind, flags uint16, o plan.AddNeigh) error {
	dev, err := h.indexLocked(o.Dev)
	if err != nil {
		return err
	}
	b.begin(kind, flags, seq, ndmsg(family(o.Addr), dev, unix.NUD_PERMANENT, 0))
	b.addr(unix.NDA_DST, o.Addr)
	return lladdr(b, unix.NDA_LLADDR, o.MAC)
}

// fdb equals `bridge fdb add|del MAC dev DEV dst DST self permanent`.
func (h *Handle) fdb(b *batch, seq uint32, kind, flags uint16, o plan.AddFDB) error {
	dev, err := h.indexLocked(o.Dev)
	if err != nil {
		return err
	}
	b.begin(kind, flags, seq, ndmsg(unix.AF_BRIDGE, dev, unix.NUD_PERMANENT|unix.NUD_NOARP, unix.NTF_SELF))
	b.addr(unix.NDA_DST, o.Dst)
	return lladdr(b, unix.NDA_LLADDR, o.MAC)
}
