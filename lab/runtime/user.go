package runtime

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// User is whom a process runs as.
type User struct {
	UID, GID int
	Groups   []int
}

// keep leaves a capability set as it is.
const keep = -1

// ops drops capabilities and becomes the user. Root of the container keeps the
// given capabilities; others have none, but could regain those through files
// that grant them, unless no_new_privs is set.
func (u User) ops(caps uint64, noNewPrivs bool) []op {
	groups := make([]string, len(u.Groups))
	for i, g := range u.Groups {
		groups[i] = strconv.Itoa(g)
	}
	ops := []op{
		{code: opCaps, a: keep, b: int64(caps)},
		{code: opIDs, a: int64(u.UID), b: int64(u.GID), s: groups},
	}
	if u.UID == 0 {
		ops = append(ops, op{code: opCaps, a: int64(caps), b: keep})
	}
	if noNewPrivs {
		ops = append(ops, op{code: opNoNewPrivs})
	}
	return ops
}

// capNames are the kernel's capabilities by number, as Kubernetes writes them
// (capabilities(7) without CAP_).
var capNames = []string{
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
	"LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
	"SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
	"SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
	"MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
	"CHECKPOINT_RESTORE",
}

func capMask(names ...string) uint64 {
	var m uint64
	for _, n := range names {
		m |= 1 << slices.Index(capNames, n)
	}
	return m
}

var (
	// defaultCaps are what container runtimes give a container that asks for nothing.
	defaultCaps = capMask("CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID",
		"SETFCAP", "SETPCAP", "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE")
	allCaps = uint64(1)<<len(capNames) - 1
	// nodeCaps are root's on a node. Without DAC_READ_SEARCH no file can be
	// opened by its handle, past the node's own mounts (open_by_handle_at(2)).
	nodeCaps = allCaps &^ capMask("DAC_READ_SEARCH", "SYS_MODULE", "SYS_RAWIO", "SYS_BOOT", "BPF", "PERFMON")
)

// Capabilities applies a securityContext's add and drop lists to the default
// set; names may carry CAP_, and ALL stands for every one.
func Capabilities(add, drop []string) (uint64, error) {
	caps := defaultCaps
	for _, l := range []struct {
		names []string
		set   bool
	}{{drop, false}, {add, true}} {
		for _, name := range l.names {
			m, err := capByName(name)
			if err != nil {
				return 0, err
			}
			if l.set {
				caps |= m
			} else {
				caps &^= m
			}
		}
	}
	return caps & nodeCaps, nil
}

func capByName(name string) (uint64, error) {
	n := strings.TrimPrefix(strings.ToUpper(name), "CAP_")
	if n == "ALL" {
		return allCaps, nil
	}
	i := slices.Index(capNames, n)
	if i < 0 {
		return 0, fmt.Errorf("unknown capability %q; known are ALL, %s", name, strings.Join(capNames, ", "))
	}
	return 1 << i, nil
}

// mount flags that most mounts of a container have.
const safe = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
