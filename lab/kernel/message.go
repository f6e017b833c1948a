package kernel

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Netlink numbers are in the machine's own byte order, netlink(7).
var order = binary.NativeEndian

// batch builds netlink messages one after the other in one buffer, to be sent
// in one sendmsg. The zero value is ready to use.
type batch struct {
	buf []byte
	// start is where the message under construction begins.
	start int
}

// begin starts a message of a type; its fixed header, such as an ifinfomsg,
// follows as bytes.
func (b *batch) begin(kind uint16, flags uint16, seq uint32, fixed []byte) {
	b.start = len(b.buf)
	b.buf = order.AppendUint32(b.buf, 0) // length, set by end
	b.buf = order.AppendUint16(b.buf, kind)
	b.buf = order.AppendUint16(b.buf, unix.NLM_F_REQUEST|flags)
	b.buf = order.AppendUint32(b.buf, seq)
	b.buf = order.AppendUint32(b.buf, 0) // port id: the kernel fills it in
	b.buf = append(b.buf, fixed...)
	b.align()
}

// end finishes the message.
func (b *batch) end() {
	order.PutUint32(b.buf[b.start:], uint32(len(b.buf)-b.start))
}

// acknowledge asks for an answer to the last message, also when it succeeds.
func (b *batch) acknowledge() {
	flags := order.Uint16(b.buf[b.start+6:])
	order.PutUint16(b.buf[b.start+6:], flags|unix.NLM_F_ACK)
}

func (b *batch) align() {
	for len(b.buf)%unix.NLMSG_ALIGNTO != 0 {
		b.buf = append(b.buf, 0)
	}
}

func (b *batch) bytes(kind uint16, value []byte) {
	b.buf = order.AppendUint16(b.buf, uint16(unix.SizeofRtAttr+len(value)))
	b.buf = order.AppendUint16(b.buf, kind)
	b.buf = append(b.buf, value...)
	b.align()
}

func (b *batch) string(kind uint16, s string) { b.bytes(kind, append([]byte(s), 0)) }
func (b *batch) u8(kind uint16, v uint8)      { b.bytes(kind, []byte{v}) }
func (b *batch) u16be(kind uint16, v uint16) {
	b.bytes(kind, binary.BigEndian.AppendUint16(nil, v))
}
func (b *batch) u32(kind uint16, v uint32) { b.bytes(kind, order.AppendUint32(nil, v)) }

func (b *batch) addr(kind uint16, a netip.Addr) { b.bytes(kind, a.AsSlice()) }

// nest puts what inside appends into one attribute.
func (b *batch) nest(kind uint16, inside func()) {
	at := len(b.buf)
	b.buf = order.AppendUint16(b.buf, 0)
	b.buf = order.AppendUint16(b.buf, kind)
	inside()
	order.PutUint16(b.buf[at:], uint16(len(b.buf)-at))
}

// fixed headers, rtnetlink(7).

func ifinfomsg(family uint8, index int, flags, change uint32) []byte {
	b := []byte{family, 0, 0, 0} // family, padding, device type
	b = order.AppendUint32(b, uint32(int32(index)))
	b = order.AppendUint32(b, flags)
	return order.AppendUint32(b, change)
}

func ifaddrmsg(family, bits, flags, scope uint8, index int) []byte {
	return order.AppendUint32([]byte{family, bits, flags, scope}, uint32(int32(index)))
}

func rtmsg(family, dstBits, scope, kind, protocol uint8, flags uint32) []byte {
	b := []byte{family, dstBits, 0, 0, unix.RT_TABLE_MAIN, protocol, scope, kind}
	return order.AppendUint32(b, flags)
}

func ndmsg(family uint8, index int, state uint16, flags uint8) []byte {
	b := []byte{family, 0, 0, 0}
	b = order.AppendUint32(b, uint32(int32(index)))
	b = order.AppendUint16(b, state)
	return append(b, flags, unix.RTN_UNICAST)
}

func family(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// eachAttr calls f with each attribute of a list, nested and byte order flags
// taken off its type. A list that is cut short ends there.
func eachAttr(b []byte, f func(kind uint16, value []byte)) {
	for len(b) >= unix.SizeofRtAttr {
		n := int(order.Uint16(b))
		if n < unix.SizeofRtAttr || n > len(b) {
			return
		}
		f(order.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[unix.SizeofRtAttr:n])
		n = (n + 3) &^ 3
		if n >= len(b) {
			return
		}
		b = b[n:]
	}
}

// eachMessage calls f with each message of a datagram: its header and what
// follows the header.
func eachMessage(b []byte, f func(h unix.NlMsghdr, body []byte)) {
	for len(b) >= unix.SizeofNlMsghdr {
		h := unix.NlMsghdr{
			Len: order.Uint32(b), Type: order.Uint16(b[4:]), Flags: order.Uint16(b[6:]),
			Seq: order.Uint32(b[8:]), Pid: order.Uint32(b[12:]),
		}
		n := int(h.Len)
		if n < unix.SizeofNlMsghdr || n > len(b) {
			return
		}
		f(h, b[unix.SizeofNlMsghdr:n])
		n = (n + 3) &^ 3
		if n >= len(b) {
			return
		}
		b = b[n:]
	}
}
