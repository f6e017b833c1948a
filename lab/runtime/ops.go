package runtime

import (
	"encoding/binary"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// opCode says what a step does; spawn.c has the same numbers.
type opCode uint16

const (
	opSetns opCode = iota + 1
	opMount
	opMkdir
	opSymlink
	opWrite
	opTouch
	opPivot
	opChdir
	opHostname
	opCaps
	opIDs
	opNoNewPrivs
	opDup
	opOpen
	opSetsid
	opPTY
	opExec
	opPause
	opUmount
	opMask
	opReadonly
	opUmask
	opExit
	opBindFD
	opRemove
)

// op is one step that a new process does before it runs its program. It is
// inert data: the spawner performs it, String says it in words for errors and
// tests.
type op struct {
	code opCode
	a, b int64
	s    []string
}

// String says what the step does, to stand after "cannot".
func (o op) String() string {
	switch o.code {
	case opSetns:
		return "enter namespaces " + namespaceNames(o.b)
	case opMount:
		return mountString(o)
	case opMkdir:
		return fmt.Sprintf("make folder %s (mode %o)", o.s[0], o.a)
	case opSymlink:
		return fmt.Sprintf("link %s to %s", o.s[1], o.s[0])
	case opWrite:
		return "write " + o.s[0]
	case opTouch:
		return "make file " + o.s[0]
	case opPivot:
		return "change the root to " + o.s[0]
	case opChdir:
		return "change to folder " + o.s[0]
	case opHostname:
		return "set host name " + o.s[0]
	case opCaps:
		if o.a == keep {
			return fmt.Sprintf("bound capabilities by %#x", uint64(o.b))
		}
		return fmt.Sprintf("set capabilities %#x", uint64(o.a))
	case opIDs:
		return fmt.Sprintf("become user %d:%d", o.a, o.b)
	case opNoNewPrivs:
		return "set no_new_privs"
	case opDup:
		return fmt.Sprintf("set file descriptor %d", o.b)
	case opOpen:
		return fmt.Sprintf("open %s as file descriptor %d", o.s[0], o.b)
	case opSetsid:
		return "start a session"
	case opPTY:
		return "open a pseudo-terminal"
	case opExec:
		return fmt.Sprintf("run %q", o.s[0])
	case opPause:
		return "pause"
	case opUmount:
		return "unmount " + o.s[0]
	case opMask:
		return "hide " + o.s[0]
	case opReadonly:
		return "make " + o.s[0] + " read-only"
	case opUmask:
		return fmt.Sprintf("set umask %03o", o.a)
	case opExit:
		return "exit"
	case opBindFD:
		return "mount a namespace at " + o.s[0]
	case opRemove:
		return "remove " + o.s[0]
	}
	return fmt.Sprintf("do step %d", o.code)
}

func mountString(o op) string {
	var opts []string
	for _, f := range []struct {
		flag int64
		name string
	}{
		{unix.MS_RDONLY, "ro"}, {unix.MS_NOSUID, "nosuid"}, {unix.MS_NODEV, "nodev"}, {unix.MS_NOEXEC, "noexec"},
		{unix.MS_BIND, "bind"}, {unix.MS_REMOUNT, "remount"},
	} {
		if o.a&f.flag != 0 {
			opts = append(opts, f.name)
		}
	}
	if o.s[3] != "" {
		opts = append(opts, o.s[3])
	}
	s := "mount"
	if o.s[2] != "" {
		s += " -t " + o.s[2]
	}
	if len(opts) > 0 {
		s += " -o " + strings.Join(opts, ",")
	}
	return s + " " + o.s[0] + " " + o.s[1]
}

func namespaceNames(flags int64) string {
	var names []string
	for _, n := range []struct {
		flag int64
		name string
	}{
		{unix.CLONE_NEWNET, "net"}, {unix.CLONE_NEWIPC, "ipc"}, {unix.CLONE_NEWUTS, "uts"},
		{unix.CLONE_NEWPID, "pid"}, {unix.CLONE_NEWNS, "mnt"},
	} {
		if flags&n.flag != 0 {
			names = append(names, n.name)
		}
	}
	return strings.Join(names, ",")
}

// The constructors of ops; fds are indexes into the request's descriptors.

func setns(fd int, flags int64) op { return op{code: opSetns, a: int64(fd), b: flags} }
func mkdir(path string) op         { return op{code: opMkdir, a: 0o755, s: []string{path}} }
func symlink(to, at string) op     { return op{code: opSymlink, s: []string{to, at}} }
func touch(path string) op         { return op{code: opTouch, s: []string{path}} }
func pivot(root string) op         { return op{code: opPivot, s: []string{root}} }
func hostname(name string) op      { return op{code: opHostname, s: []string{name}} }
func dup(fd, to int) op            { return op{code: opDup, a: int64(fd), b: int64(to)} }
func openAs(path string, flags, fd int) op {
	return op{code: opOpen, a: int64(flags), b: int64(fd), s: []string{path}}
}

// chdir changes the working directory; create makes it first where it is missing.
func chdir(path string, create bool) op {
	o := op{code: opChdir, s: []string{path}}
	if create {
		o.a = 1
	}
	return o
}

func mask(path string) op     { return op{code: opMask, s: []string{path}} }
func readonly(path string) op { return op{code: opReadonly, s: []string{path}} }

func mount(fstype, source, target string, flags int64, data string) op {
	return op{code: opMount, a: flags, s: []string{source, target, fstype, data}}
}

func bind(source, target string, flags int64) op {
	return mount("", source, target, unix.MS_BIND|flags, "")
}

// rebind changes the flags of the bind mount at target.
func rebind(target string, flags int64) op {
	return mount("", "none", target, unix.MS_BIND|unix.MS_REMOUNT|flags, "")
}

// ifThere makes a mount op fine with a source or target that does not exist.
func ifThere(o op) op {
	o.b = 1
	return o
}

func execve(args, env []string) op {
	return op{code: opExec, a: int64(len(args)), s: append(append([]string(nil), args...), env...)}
}

// encode makes the request's bytes: see spawn.c for their order.
func encode(id uint32, cloneFlags uint64, pidns int, ops []op) ([]byte, error) {
	b := make([]byte, 0, 4096)
	b = binary.NativeEndian.AppendUint32(b, id)
	b = binary.NativeEndian.AppendUint32(b, uint32(len(ops)))
	b = binary.NativeEndian.AppendUint64(b, cloneFlags)
	if pidns >= 0 {
		pidns++ // descriptor 0 is the status socket
	}
	b = binary.NativeEndian.AppendUint32(b, uint32(int32(pidns)))
	b = binary.NativeEndian.AppendUint32(b, 0)
	for _, o := range ops {
		if len(o.s) > maxStrings {
			return nil, fmt.Errorf("cannot %s: %d arguments and variables, at most %d", o, len(o.s), maxStrings)
		}
		b = binary.NativeEndian.AppendUint16(b, uint16(o.code))
		b = binary.NativeEndian.AppendUint16(b, uint16(len(o.s)))
		b = binary.NativeEndian.AppendUint32(b, 0)
		a := o.a
		if o.code == opSetns || o.code == opDup || o.code == opBindFD {
			a++
		}
		b = binary.NativeEndian.AppendUint64(b, uint64(a))
		b = binary.NativeEndian.AppendUint64(b, uint64(o.b))
		for _, s := range o.s {
			if strings.IndexByte(s, 0) >= 0 {
				return nil, fmt.Errorf("cannot %s: %q contains a NUL byte", o, s)
			}
			b = append(b, s...)
			b = append(b, 0)
		}
	}
	if len(b) > maxRequest {
		return nil, fmt.Errorf("arguments, variables and mounts take %d bytes, at most %d", len(b), maxRequest)
	}
	return b, nil
}

const (
	maxStrings = 8192
	maxRequest = 160 << 10 // below the default bound of a Unix socket's message
)
