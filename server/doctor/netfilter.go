package doctor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The packet filter is asked over bare netlink (linux/netfilter/nfnetlink.h):
// each question is one message, whose answer or error says enough.
const (
	nfnlCTNetlink = 1  // NFNL_SUBSYS_CTNETLINK
	nfnlNftables  = 10 // NFNL_SUBSYS_NFTABLES
	nfnlCompat    = 11 // NFNL_SUBSYS_NFT_COMPAT

	nftGetGen     = 16 // NFT_MSG_GETGEN
	nftCompatGet  = 0  // NFNL_MSG_COMPAT_GET
	ctGetStatsCPU = 4  // IPCTNL_MSG_CT_GET_STATS_CPU

	nftaCompatName = 1 // NFTA_COMPAT_NAME
	nftaCompatRev  = 2 // NFTA_COMPAT_REV
	nftaCompatType = 3 // NFTA_COMPAT_TYPE: 0 match, 1 target
)

func tryNftables() error { return askNetfilter(nfnlNftables, nftGetGen, 0, nil) }

func tryConntrack() error { return askNetfilter(nfnlCTNetlink, ctGetStatsCPU, unix.NLM_F_DUMP, nil) }

// tryIptablesNft asks for the target by which iptables-nft masquerades.
func tryIptablesNft() error {
	attrs := attr(nftaCompatName, append([]byte("MASQUERADE"), 0))
	attrs = append(attrs, attr(nftaCompatRev, binary.BigEndian.AppendUint32(nil, 0))...)
	attrs = append(attrs, attr(nftaCompatType, binary.BigEndian.AppendUint32(nil, 1))...)
	return askNetfilter(nfnlCompat, nftCompatGet, 0, attrs)
}

// tryIptablesLegacy is what `iptables-legacy -L` asks first.
func tryIptablesLegacy() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	const iptSoGetInfo = 64
	var info [84]byte // struct ipt_getinfo
	copy(info[:], "filter")
	size := uint32(len(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_IP, iptSoGetInfo,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return fmt.Errorf("table filter: %w", errno)
	}
	return nil
}

func attr(kind uint16, value []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// askNetfilter sends one question and reads the first answer.
func askNetfilter(subsystem, message byte, flags uint16, attrs []byte) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// A kernel that says nothing must not keep us.
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}); err != nil {
		return err
	}
	body := append([]byte{unix.AF_INET, 0, 0, 0}, attrs...) // struct nfgenmsg
	msg := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	msg = binary.NativeEndian.AppendUint16(msg, uint16(subsystem)<<8|uint16(message))
	msg = binary.NativeEndian.AppendUint16(msg, unix.NLM_F_REQUEST|flags)
	msg = binary.NativeEndian.AppendUint32(msg, 1)
	msg = binary.NativeEndian.AppendUint32(msg, 0)
	if err := unix.Sendto(fd, append(msg, body...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 64<<10)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return err
	}
	if n < unix.SizeofNlMsghdr {
		return errors.New("the kernel's answer is too short")
	}
	if kind := binary.NativeEndian.Uint16(answer[4:]); kind != unix.NLMSG_ERROR || n < unix.SizeofNlMsghdr+4 {
		return nil
	}
	// The code stands after the header, negative; 0 is an acknowledgement.
	if code := int32(binary.NativeEndian.Uint32(answer[unix.SizeofNlMsghdr:])); code != 0 {
		errno := unix.Errno(-code)
		if errno == unix.EINVAL {
			// nfnetlink's answer for a subsystem that nobody has registered.
			return fmt.Errorf("%w: nobody answers for netfilter subsystem %d", unix.EOPNOTSUPP, subsystem)
		}
		return errno
	}
	return nil
}
