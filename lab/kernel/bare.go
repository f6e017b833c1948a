package kernel

import (
	"errors"
	"fmt"
	"net/netip"

	"podlab/lab/netns"
	"podlab/lab/plan"

	"golang.org/x/sys/unix"
)

// BarePods is what `podlab bench` measures a pod's network beside: the same
// namespaces, links, addresses and routes by the fewest requests that make
// them, without Ops, records, checks or a watch. Its pods are as quiet as any
// pod has to be that can use IPv6 at once: they ask no router for addresses,
// and nobody whether their own are free.
type BarePods struct {
	node    *Handle
	bridge  int
	sockets []*socket
	files   []int
	next    int
}

// NewBarePods makes a node with a bridge for pods.
func NewBarePods() (*BarePods, error) {
	node, err := New(nil)
	if err != nil {
		return nil, err
	}
	if err := node.Apply([]plan.Op{plan.AddBridge{Name: "cni0", MTU: 1450}}, nil, nil); err != nil {
		node.Close()
		return nil, err
	}
	return &BarePods{node: node, bridge: node.links["cni0"], next: 100}, nil
}

// Make makes n pods. before is called ahead of each, and done after it; the
// time between the two is the pod's.
func (p *BarePods) Make(n int, before func(i int) error, done func(i int)) error {
	return netns.Series(n, before, func(i, file int) error {
		p.files = append(p.files, file)
		err := p.pod(i, file)
		done(i)
		return err
	})
}

// quiet are the settings of a quiet pod, all 0.
var quiet = []string{"net.ipv6.conf.default.accept_ra", "net.ipv6.conf.default.accept_dad"}

// pod sends two batches: the link in the node's namespace; all else in the
// pod's own.
func (p *BarePods) pod(i, file int) error {
	s, err := openSocket()
	if err != nil {
		return err
	}
	p.sockets = append(p.sockets, s)
	for _, key := range quiet {
		if err := writeSysctl(key, "0"); err != nil {
			return err
		}
	}
	p.next++
	const podIndex = 10
	v4 := netip.AddrFrom4([4]byte{10, 244, 1, byte(10 + i)})
	v6 := netip.AddrFrom16([16]byte{0: 0xfd, 13: 1, 15: byte(10 + i)})

	var b batch
	p.node.sock.seq++
	b.begin(unix.RTM_NEWLINK, create, p.node.sock.seq, ifinfomsg(unix.AF_UNSPEC, p.next, unix.IFF_UP, unix.IFF_UP))
	b.string(unix.IFLA_IFNAME, fmt.Sprintf("veth%d", i))
	b.u32(unix.IFLA_MTU, 1450)
	oneQueue(&b)
	b.u32(unix.IFLA_MASTER, uint32(p.bridge))
	b.nest(unix.IFLA_LINKINFO, func() {
		b.string(unix.IFLA_INFO_KIND, "veth")
		b.nest(unix.IFLA_INFO_DATA, func() {
			b.nest(vethInfoPeer, func() {
				b.buf = append(b.buf, ifinfomsg(unix.AF_UNSPEC, podIndex, 0, 0)...)
				b.string(unix.IFLA_IFNAME, "eth0")
				b.u32(unix.IFLA_MTU, 1450)
				oneQueue(&b)
				b.u32(unix.IFLA_NET_NS_FD, uint32(file))
			})
		})
	})
	b.end()
	if err := finish(p.node.sock, &b, p.node.sock.seq, p.node.sock.seq); err != nil {
		return err
	}

	b.buf = b.buf[:0]
	b.begin(unix.RTM_NEWLINK, 0, 1, ifinfomsg(unix.AF_UNSPEC, 1, unix.IFF_UP, unix.IFF_UP))
	b.end()
	b.begin(unix.RTM_NEWLINK, 0, 2, ifinfomsg(unix.AF_UNSPEC, podIndex, unix.IFF_UP, unix.IFF_UP))
	b.end()
	b.begin(unix.RTM_NEWADDR, create, 3, ifaddrmsg(unix.AF_INET, 24, 0, 0, podIndex))
	b.addr(unix.IFA_LOCAL, v4)
	b.addr(unix.IFA_ADDRESS, v4)
	b.end()
	b.begin(unix.RTM_NEWADDR, create, 4, ifaddrmsg(unix.AF_INET6, 64, ifaFlagNoDAD, 0, podIndex))
	b.addr(unix.IFA_LOCAL, v6)
	b.end()
	b.begin(unix.RTM_NEWROUTE, create, 5, rtmsg(unix.AF_INET, 0, 0, unix.RTN_UNICAST, unix.RTPROT_BOOT, 0))
	b.addr(unix.RTA_GATEWAY, netip.AddrFrom4([4]byte{10, 244, 1, 1}))
	b.u32(unix.RTA_OIF, podIndex)
	b.end()
	b.begin(unix.RTM_NEWROUTE, create, 6, rtmsg(unix.AF_INET6, 0, 0, unix.RTN_UNICAST, unix.RTPROT_BOOT, 0))
	b.addr(unix.RTA_GATEWAY, netip.AddrFrom16([16]byte{0: 0xfd, 13: 1, 15: 1}))
	b.u32(unix.RTA_OIF, podIndex)
	b.end()
	return finish(s, &b, 1, 6)
}

func finish(s *socket, b *batch, first, last uint32) error {
	b.acknowledge()
	failed, err := s.do(b, first, last)
	if err != nil {
		return err
	}
	for seq, err := range failed {
		return fmt.Errorf("cannot make a bare pod: request %d: %w", seq, err)
	}
	return nil
}

// Close lets go of the node and the pods.
func (p *BarePods) Close() error {
	errs := []error{p.node.Close()}
	for _, s := range p.sockets {
		errs = append(errs, s.close())
	}
	for _, fd := range p.files {
		errs = append(errs, unix.Close(fd))
	}
	p.sockets, p.files = nil, nil
	return errors.Join(errs...)
}
