package doctor

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// programChecks tries what the server's broker does for labs: eBPF. It runs on
// the host's side, in a network namespace of its own.
func programChecks() []Check {
	btf := Check{Group: GroupProgram, Name: "BTF", State: Works, Found: "/sys/kernel/btf/vmlinux"}
	if _, err := os.Stat(btf.Found); err != nil {
		btf.State, btf.Found = Absent, err.Error()
		btf.Instead = unused
		btf.Fix = "use a kernel built with CONFIG_DEBUG_INFO_BTF"
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends here
		done <- tryTCX()
	}()
	tcx := Check{Group: GroupProgram, Name: "tcx", State: Works}
	if err := <-done; err != nil {
		tcx.State, tcx.Found = classify(err), err.Error()
		if errors.Is(err, unix.EINVAL) {
			tcx.State = Absent // kernels before 6.6 do not know the attach type
		}
		tcx.Instead, tcx.Fix = unused, "use Linux 6.6 or later"
	}
	return []Check{btf, tcx}
}

// tryTCX loads a program that lets all pass and links it to a loopback.
func tryTCX() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("cannot make a network namespace: %w", err)
	}
	insns := [2]uint64{
		0xb7 | 0xffffffff<<32, // r0 = -1 (TCX_NEXT)
		0x95,                  // exit
	}
	license := [4]byte{'G', 'P', 'L'}
	load := struct {
		kind, count     uint32
		insns, license  uint64
		logLevel, logSz uint32
		logBuf          uint64
		kernVersion     uint32
		flags           uint32
		name            [16]byte
		ifindex         uint32
		attachType      uint32
	}{
		kind: unix.BPF_PROG_TYPE_SCHED_CLS, count: uint32(len(insns)),
		insns: uint64(uintptr(unsafe.Pointer(&insns))), license: uint64(uintptr(unsafe.Pointer(&license))),
	}
	prog, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&load)), unsafe.Sizeof(load))
	runtime.KeepAlive(&insns)
	runtime.KeepAlive(&license)
	if errno != 0 {
		return fmt.Errorf("cannot load an eBPF program: %w", errno)
	}
	defer unix.Close(int(prog))
	const tcxIngress = 46 // BPF_TCX_INGRESS, enum bpf_attach_type
	link := struct {
		prog, ifindex, attachType, flags uint32
		rest                             [32]byte
	}{prog: uint32(prog), ifindex: 1, attachType: tcxIngress}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_LINK_CREATE, uintptr(unsafe.Pointer(&link)), unsafe.Sizeof(link))
	if errno != 0 {
		return fmt.Errorf("cannot attach an eBPF program: %w", errno)
	}
	return unix.Close(int(fd))
}
