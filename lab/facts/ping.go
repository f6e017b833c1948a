package facts

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"

	"podlab/lab"
)

// ICMP types: RFC 792, RFC 4443.
const (
	echoRequest, echoReply     = 8, 0
	echoRequest6, echoReply6   = 128, 129
	unreachable4, unreachable6 = 3, 1
)

// ping sends one echo and waits for its reply.
func ping(ctx context.Context, pid int, addr string) lab.ProbeResult {
	to, err := netip.ParseAddr(addr)
	if err != nil {
		return lab.ProbeResult{Skipped: err.Error()}
	}
	network, request, reply := "ip4:icmp", byte(echoRequest), byte(echoReply)
	if to.Is6() {
		network, request, reply = "ip6:ipv6-icmp", echoRequest6, echoReply6
	}
	var conn *net.IPConn
	err = inNetNS(pid, func() (err error) {
		conn, err = net.ListenIP(network, nil)
		return err
	})
	if err != nil {
		return lab.ProbeResult{Skipped: "cannot open an ICMP socket: " + err.Error()}
	}
	defer func() { _ = conn.Close() }()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return lab.ProbeResult{Skipped: err.Error()}
		}
	}
	message := make([]byte, 16)
	message[0] = request
	id := rand.Uint64() // identifier, sequence number and payload, to know our reply by
	binary.BigEndian.PutUint64(message[4:], id)
	if !to.Is6() { // the kernel sums ICMPv6 itself, icmp6 in ipv6(7)
		binary.BigEndian.PutUint16(message[2:], checksum(message))
	}
	if _, err := conn.WriteToIP(message, &net.IPAddr{IP: to.AsSlice(), Zone: to.Zone()}); err != nil {
		return lab.ProbeResult{Error: reason(ctx, err)}
	}
	if err := awaitReply(conn, to, reply, id); err != nil {
		return lab.ProbeResult{Error: reason(ctx, err)}
	}
	return lab.ProbeResult{OK: true}
}

var errUnreachable = errors.New("destination unreachable")

func awaitReply(conn *net.IPConn, to netip.Addr, reply byte, id uint64) error {
	buf := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFromIP(buf)
		if err != nil {
			return err
		}
		m := buf[:n]
		switch sender, _ := netip.AddrFromSlice(from.IP); {
		case n >= 12 && m[0] == reply && sender.Unmap() == to.WithZone("") && binary.BigEndian.Uint64(m[4:]) == id:
			return nil
		case n >= 20 && quotes(m, to.Is6(), id):
			return errUnreachable
		}
	}
}

// quotes reports whether an ICMP error carries our request.
func quotes(m []byte, v6 bool, id uint64) bool {
	header := 20 // without options, as we sent it
	if v6 {
		header = 40
	}
	kind := byte(unreachable4)
	if v6 {
		kind = unreachable6
	}
	inner := 8 + header
	return m[0] == kind && len(m) >= inner+12 && binary.BigEndian.Uint64(m[inner+4:]) == id
}

// checksum is that of RFC 1071.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
