package launch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// call is a system call with arguments that do no harm where it is let
// through: then the kernel finds fault with them.
type call struct {
	name string
	nr   uintptr
	args [6]uintptr
}

// bad is an address that no process has.
const bad = ^uintptr(4095)

// refused must fail with EPERM in a sandbox, before the kernel has a look at
// the arguments.
var refused = []call{
	{"bpf", unix.SYS_BPF, [6]uintptr{0, bad, 8}},
	{"keyctl", unix.SYS_KEYCTL, [6]uintptr{999}},
	{"add_key", unix.SYS_ADD_KEY, [6]uintptr{bad}},
	{"request_key", unix.SYS_REQUEST_KEY, [6]uintptr{bad}},
	{"perf_event_open", unix.SYS_PERF_EVENT_OPEN, [6]uintptr{bad}},
	{"kexec_load", unix.SYS_KEXEC_LOAD, [6]uintptr{0, 99, bad}},
	{"init_module", unix.SYS_INIT_MODULE, [6]uintptr{bad, 8, bad}},
	{"finit_module", unix.SYS_FINIT_MODULE, [6]uintptr{bad, bad}},
	{"delete_module", unix.SYS_DELETE_MODULE, [6]uintptr{bad}},
	{"userfaultfd", unix.SYS_USERFAULTFD, [6]uintptr{bad}},
	{"open_by_handle_at", unix.SYS_OPEN_BY_HANDLE_AT, [6]uintptr{bad, bad}},
	{"reboot", unix.SYS_REBOOT, [6]uintptr{0}},
	{"swapon", unix.SYS_SWAPON, [6]uintptr{bad}},
	{"swapoff", unix.SYS_SWAPOFF, [6]uintptr{bad}},
	{"settimeofday", unix.SYS_SETTIMEOFDAY, [6]uintptr{bad}},
	{"clock_settime", unix.SYS_CLOCK_SETTIME, [6]uintptr{0, bad}},
	{"adjtimex", unix.SYS_ADJTIMEX, [6]uintptr{bad}},
	{"acct", unix.SYS_ACCT, [6]uintptr{bad}},
	{"quotactl", unix.SYS_QUOTACTL, [6]uintptr{bad}},
	{"syslog", unix.SYS_SYSLOG, [6]uintptr{999}},
	{"fanotify_init", unix.SYS_FANOTIFY_INIT, [6]uintptr{bad}},
	{"io_uring_setup", unix.SYS_IO_URING_SETUP, [6]uintptr{1, bad}},
	{"socket(AF_ALG)", unix.SYS_SOCKET, [6]uintptr{unix.AF_ALG, 999}},
	{"socket(AF_VSOCK)", unix.SYS_SOCKET, [6]uintptr{unix.AF_VSOCK, 999}},
	{"personality", unix.SYS_PERSONALITY, [6]uintptr{0x0400000}},
}

// allowed must not be refused: a lab is made of these.
var allowed = []call{
	{"unshare", unix.SYS_UNSHARE, [6]uintptr{1}},
	{"setns", unix.SYS_SETNS, [6]uintptr{bad, 0}},
	{"clone3", unix.SYS_CLONE3, [6]uintptr{bad, 64}},
	{"mount", unix.SYS_MOUNT, [6]uintptr{bad, bad, bad}},
	{"umount2", unix.SYS_UMOUNT2, [6]uintptr{bad}},
	{"pivot_root", unix.SYS_PIVOT_ROOT, [6]uintptr{bad, bad}},
	{"fsopen", unix.SYS_FSOPEN, [6]uintptr{bad}},
	{"open_tree", unix.SYS_OPEN_TREE, [6]uintptr{bad, bad}},
	{"move_mount", unix.SYS_MOVE_MOUNT, [6]uintptr{bad, bad, bad, bad}},
	{"mount_setattr", unix.SYS_MOUNT_SETATTR, [6]uintptr{bad, bad, 0, bad, 32}},
	{"sethostname", unix.SYS_SETHOSTNAME, [6]uintptr{bad, 4}},
	{"ptrace", unix.SYS_PTRACE, [6]uintptr{999}},
	{"socket(AF_PACKET)", unix.SYS_SOCKET, [6]uintptr{unix.AF_PACKET, 999}},
	{"chroot", unix.SYS_CHROOT, [6]uintptr{bad}},
}

func (c call) try() unix.Errno {
	_, _, errno := unix.RawSyscall6(c.nr, c.args[0], c.args[1], c.args[2], c.args[3], c.args[4], c.args[5])
	return errno
}

// probeCalls runs in a sandbox and prints what was not as it must be.
func probeCalls() {
	runtime.LockOSThread()
	for _, c := range refused {
		if errno := c.try(); errno != unix.EPERM {
			fmt.Printf("%s: want refused with EPERM, got errno %d (%v)\n", c.name, int(errno), errno)
		}
	}
	for _, c := range allowed {
		if errno := c.try(); errno == unix.EPERM || errno == unix.ENOSYS {
			fmt.Printf("%s: want let through, got %v\n", c.name, errno)
		}
	}
	fmt.Println("probed")
	os.Exit(0)
}

// TestCallsProveSomething: on the host, as root and with no filter, most of the
// refused calls fail for their arguments. Else the probe would be blind.
func TestPrivilegedCallsProveSomething(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	blind := 0
	for _, c := range refused {
		if strings.HasPrefix(c.name, "personality") {
			continue // would change this very thread
		}
		if errno := c.try(); errno == unix.EPERM {
			t.Logf("%s is refused on the host too", c.name)
			blind++
		}
	}
	if blind > 3 {
		t.Errorf("%d of %d calls are refused on the host too: the probe says little about the sandbox", blind, len(refused))
	}
}

// TestPrivilegedCalls tries system calls from inside: in the first lab, for
// which the runtime compiles the filter, in the second, which gets the filter
// kept from the first, and with runc.
func TestPrivilegedCalls(t *testing.T) {
	for _, name := range []string{"crun", "runc"} {
		t.Run(name, func(t *testing.T) {
			l := newLauncherWith(t, Options{Data: t.TempDir(), Runtime: name})
			for _, id := range []string{"first", "second"} {
				create(t, l, id)
				if got := in(t, l, id, "/usr/bin/podlab probe-calls"); got != "probed\n" {
					t.Errorf("%s lab: %s", id, got)
				}
			}
			if _, err := os.Stat(l.filter); name == "crun" && err != nil {
				t.Errorf("the second lab did not get a compiled filter: %v", err)
			}
		})
	}
}

// probeNesting runs in a sandbox and does, with the bare calls, what nodes and
// pods are made of. It prints what failed.
func probeNesting() {
	runtime.LockOSThread()
	do := func(what string, err error) {
		if err != nil {
			fmt.Printf("%s: %v\n", what, err)
		}
	}
	const root = "/scratch/node"
	for _, d := range []string{"upper", "work", "root"} {
		do("mkdir "+d, os.MkdirAll(filepath.Join(root, d), 0o755))
	}
	do("unshare", unix.Unshare(unix.CLONE_NEWNS|unix.CLONE_NEWNET|unix.CLONE_NEWUTS|unix.CLONE_NEWIPC|unix.CLONE_NEWCGROUP))
	do("private", unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	do("overlay", unix.Mount("overlay", root+"/root", "overlay", 0,
		"lowerdir=/,upperdir="+root+"/upper,workdir="+root+"/work,userxattr"))
	do("write in overlay", os.WriteFile(root+"/root/etc/probe", []byte("x"), 0o644))
	do("spare sysfs", errors.Join(os.MkdirAll(root+"/root/run/sysfs", 0o755), unix.Mount("sysfs", root+"/root/run/sysfs", "sysfs", 0, "")))
	do("sysfs", unix.Mount("sysfs", root+"/root/sys", "sysfs", 0, ""))
	do("proc bind", unix.Mount("/proc", root+"/root/proc", "", unix.MS_BIND|unix.MS_REC, ""))
	fs, err := unix.Fsopen("tmpfs", 0)
	do("fsopen", err)
	do("fsconfig", unix.FsconfigCreate(fs))
	mnt, err := unix.Fsmount(fs, 0, 0)
	do("fsmount", err)
	do("move_mount", unix.MoveMount(mnt, "", unix.AT_FDCWD, root+"/root/tmp", unix.MOVE_MOUNT_F_EMPTY_PATH))
	tree, err := unix.OpenTree(unix.AT_FDCWD, root+"/root/tmp", unix.OPEN_TREE_CLONE)
	do("open_tree", err)
	do("mount_setattr", unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}))
	do("chdir", unix.Chdir(root+"/root"))
	do("pivot_root", unix.PivotRoot(".", "."))
	do("umount old root", unix.Unmount(".", unix.MNT_DETACH))
	do("sethostname", unix.Sethostname([]byte("node1")))
	do("sysctl", os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0))
	tun, err := unix.Open("/dev/net/tun", unix.O_RDWR, 0)
	if errors.Is(err, unix.ENOENT) {
		err = nil // /dev is the node's own business; the sandbox's was seen before
	} else {
		unix.Close(tun)
	}
	do("tun", err)
	args := struct{ flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls uint64 }{
		flags: unix.CLONE_NEWPID | unix.CLONE_NEWNET, exitSignal: uint64(unix.SIGCHLD),
	}
	pid, _, errno := unix.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args), 0)
	if errno == 0 && pid == 0 {
		_, _, _ = unix.RawSyscall(unix.SYS_EXIT_GROUP, 42, 0, 0) // never returns
	}
	if errno != 0 {
		do("clone3", errno)
	} else {
		var ws unix.WaitStatus
		_, err := unix.Wait4(int(pid), &ws, 0, nil)
		do("wait", err)
		if ws.ExitStatus() != 42 {
			fmt.Println("clone3: the child ended with", ws)
		}
	}
	fmt.Println("probed")
	os.Exit(0)
}

// TestPrivilegedNesting builds a node's namespaces inside a sandbox.
func TestPrivilegedNesting(t *testing.T) {
	for _, name := range []string{"crun", "runc"} {
		t.Run(name, func(t *testing.T) {
			l := newLauncherWith(t, Options{Data: t.TempDir(), Runtime: name})
			create(t, l, "one")
			if got := in(t, l, "one", "/usr/bin/podlab probe-nesting"); got != "probed\n" {
				t.Error(got)
			}
		})
	}
}
