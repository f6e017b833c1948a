package runtime

import (
	"encoding/binary"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// lines says ops in words, one a line.
func lines(ops []op) string {
	var b strings.Builder
	for _, o := range ops {
		b.WriteString(o.String() + "\n")
	}
	return b.String()
}

func TestContainerOps(t *testing.T) {
	spec := ContainerSpec{
		Name: "app", Args: []string{"nginx", "-g", "daemon off;"}, Env: []string{"A=1"}, Cwd: "/srv", User: User{UID: 1000, GID: 100, Groups: []int{7}},
		Caps: defaultCaps, NoNewPrivs: true, ReadOnlyRoot: true,
		Mounts: []Mount{{Source: "/s/hosts", Target: "/etc/hosts", File: true}, {Source: "/s/v", Target: "/data", ReadOnly: true}},
	}
	overlay := mount("overlay", "overlay", "/r", 0, "lowerdir=/images/nginx:/")
	got := lines(containerOps(PodSpec{}, spec, overlay, "/r", "/s", streams{theirs: [3]int{-1, 5, 6}}))
	want := `enter namespaces net,ipc,uts
mount -t overlay -o lowerdir=/images/nginx:/ overlay /r
mount -t proc -o nosuid,nodev,noexec proc /r/proc
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs /r/sys
mount -t tmpfs -o nosuid,mode=755,size=64k tmpfs /r/dev
make file /r/dev/null
mount -o bind /dev/null /r/dev/null
make file /r/dev/zero
mount -o bind /dev/zero /r/dev/zero
make file /r/dev/full
mount -o bind /dev/full /r/dev/full
make file /r/dev/random
mount -o bind /dev/random /r/dev/random
make file /r/dev/urandom
mount -o bind /dev/urandom /r/dev/urandom
make file /r/dev/tty
mount -o bind /dev/tty /r/dev/tty
make folder /r/dev/pts (mode 755)
make folder /r/dev/shm (mode 755)
make folder /r/dev/mqueue (mode 755)
mount -t devpts -o nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5 devpts /r/dev/pts
mount -t mqueue -o nosuid,nodev,noexec mqueue /r/dev/mqueue
link /r/dev/ptmx to pts/ptmx
link /r/dev/fd to /proc/self/fd
link /r/dev/stdin to /proc/self/fd/0
link /r/dev/stdout to /proc/self/fd/1
link /r/dev/stderr to /proc/self/fd/2
mount -o bind /s/shm /r/dev/shm
make file /r/etc/hosts
mount -o bind /s/hosts /r/etc/hosts
change to folder /r/data
mount -o bind /s/v /r/data
mount -o ro,bind,remount none /r/data
hide /r/proc/asound
hide /r/proc/acpi
hide /r/proc/kcore
hide /r/proc/keys
hide /r/proc/latency_stats
hide /r/proc/timer_list
hide /r/proc/timer_stats
hide /r/proc/sched_debug
hide /r/proc/scsi
hide /r/sys/firmware
hide /r/sys/devices/virtual/powercap
make /r/proc/bus read-only
make /r/proc/fs read-only
make /r/proc/irq read-only
make /r/proc/sys read-only
make /r/proc/sysrq-trigger read-only
mount -o ro,bind,remount none /r
change the root to /r
set umask 022
start a session
open /dev/null as file descriptor 0
set file descriptor 1
set file descriptor 2
change to folder /srv
bound capabilities by 0xa80425fb
become user 1000:100
set no_new_privs
run "nginx"
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	spec.Privileged, spec.ReadOnlyRoot = true, false
	privileged := lines(containerOps(PodSpec{}, spec, overlay, "/r", "/s", streams{theirs: [3]int{-1, -1, -1}}))
	for _, never := range []string{"hide ", "read-only", "mount -t sysfs -o ro"} {
		if strings.Contains(privileged, never) {
			t.Errorf("a privileged container: %q in\n%s", never, privileged)
		}
	}
}

func TestPodOpsJoinWhatTheNodeShares(t *testing.T) {
	flags, ops := podOps(PodSpec{HostPID: true, HostIPC: true, Hostname: "h"}, "/r")
	if flags != unix.CLONE_NEWNS|unix.CLONE_NEWUTS {
		t.Errorf("flags %#x", flags)
	}
	if got := ops[0].String(); got != "enter namespaces net,ipc" {
		t.Errorf("first op %q", got)
	}
}

func TestEncode(t *testing.T) {
	b, err := encode(7, unix.CLONE_NEWNS, 0, []op{setns(1, unix.CLONE_NEWNET), execve([]string{"a", "b"}, []string{"C=d"})})
	if err != nil {
		t.Fatal(err)
	}
	ne := binary.NativeEndian
	if ne.Uint32(b) != 7 || ne.Uint32(b[4:]) != 2 || ne.Uint64(b[8:]) != unix.CLONE_NEWNS || ne.Uint32(b[16:]) != 1 {
		t.Errorf("head % x", b[:24])
	}
	// Descriptors are counted from 1: the status socket is 0.
	if first := b[24:]; opCode(ne.Uint16(first)) != opSetns || ne.Uint64(first[8:]) != 2 {
		t.Errorf("first op % x", first[:24])
	}
	if !strings.HasSuffix(string(b), "a\x00b\x00C=d\x00") {
		t.Errorf("strings %q", b[48:])
	}
	for _, tt := range []struct {
		ops  []op
		want string
	}{
		{[]op{execve([]string{"a\x00b"}, nil)}, "contains a NUL byte"},
		{[]op{execve(make([]string, maxStrings+1), nil)}, "at most 8192"},
		{[]op{writeFile("/f", strings.Repeat("x", maxRequest))}, "bytes, at most"},
	} {
		if _, err := encode(1, 0, -1, tt.ops); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("error %v, want %s", err, tt.want)
		}
	}
}

func TestCapabilities(t *testing.T) {
	for _, tt := range []struct {
		add, drop []string
		want      uint64
	}{
		{nil, nil, 0xa80425fb},
		{[]string{"NET_ADMIN"}, nil, 0xa80425fb | 1<<12},
		{[]string{"cap_sys_ptrace"}, []string{"ALL"}, 1 << 19},
		{[]string{"SYS_MODULE"}, []string{"ALL"}, 0}, // never in a lab
	} {
		if got, err := Capabilities(tt.add, tt.drop); err != nil || got != tt.want {
			t.Errorf("add %v drop %v: %#x, %v; want %#x", tt.add, tt.drop, got, err, tt.want)
		}
	}
}

func TestMergeEnv(t *testing.T) {
	got := strings.Join(mergeEnv([]string{"A=1", "B=2"}, []string{"B=3", "C=4"}), " ")
	if got != "A=1 B=3 C=4" {
		t.Errorf("%s", got)
	}
}
