package launch

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// processHandle names one process for good: its number is only trusted while
// the start time agrees, since the kernel uses numbers again.
type processHandle struct {
	PID int `json:"pid,omitempty"`
	// Start is field 22 of /proc/PID/stat: clock ticks since boot.
	Start uint64 `json:"start,omitempty"`
}

var errGone = errors.New("process is gone")

// open returns a pidfd of the process, or errGone.
func (p processHandle) open() (*os.File, error) {
	if p.PID <= 0 {
		return nil, errGone
	}
	fd, err := pidfdOpen(p.PID)
	if err != nil {
		return nil, err
	}
	// The pidfd is held before the start time is read: if the number had been
	// used again before, the times differ; after, the pidfd stays with the old one.
	if start, err := startTime(p.PID); err != nil || start != p.Start {
		fd.Close()
		return nil, errGone
	}
	return fd, nil
}

func pidfdOpen(pid int) (*os.File, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) {
		return nil, errGone
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open a pidfd of process %d: %w", pid, err)
	}
	return os.NewFile(uintptr(fd), "pidfd:"+strconv.Itoa(pid)), nil
}

func startTime(pid int) (uint64, error) {
	f, err := statFields(pid)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(f[22-firstStatField], 10, 64)
}

// firstStatField is the number, in proc_pid_stat(5), of the first field that
// statFields returns: the state, as the name before it may hold anything.
const firstStatField = 3

func statFields(pid int) ([]string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, errGone
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 20 {
		return nil, fmt.Errorf("cannot read /proc/%d/stat: %q", pid, b)
	}
	return fields, nil
}

// reapOrphans collects dead helpers that a runtime left behind: as a subreaper
// we are their parent now. A child that this program started itself leads its
// process group or is in ours, so nothing is taken from who waits for it.
func reapOrphans() {
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		return
	}
	own := strconv.Itoa(unix.Getpgrp())
	for _, list := range lists {
		b, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has ended
		}
		for _, child := range strings.Fields(string(b)) {
			pid, err := strconv.Atoi(child)
			if err != nil {
				continue
			}
			f, err := statFields(pid)
			if err != nil {
				continue
			}
			state, group := f[0], f[5-firstStatField]
			if state == "Z" && group != child && group != own {
				_, _ = unix.Wait4(pid, nil, unix.WNOHANG|unix.WALL, nil)
			}
		}
	}
}

// kill sends SIGKILL through a pidfd; a process that is gone is no error.
func kill(pidfd *os.File) error {
	c, err := pidfd.SyscallConn()
	if err != nil {
		return err
	}
	var kerr error
	if err := c.Control(func(fd uintptr) {
		kerr = unix.PidfdSendSignal(int(fd), unix.SIGKILL, nil, 0)
	}); err != nil {
		return err
	}
	if kerr != nil && !errors.Is(kerr, unix.ESRCH) {
		return fmt.Errorf("cannot kill %s: %w", pidfd.Name(), kerr)
	}
	return nil
}

// exited tells, without waiting, whether the process has ended.
func exited(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(p, 0)
	return err == nil && n == 1
}

// await returns when the process has ended, or the pidfd was closed.
func await(pidfd *os.File) error {
	c, err := pidfd.SyscallConn()
	if err != nil {
		return err
	}
	return c.Read(func(fd uintptr) bool { return exited(int(fd)) })
}

// reap collects the process if it is a child of ours (sandboxes become ours as
// we are a child subreaper), and tells how it ended. known is false where it
// was another's child and the kernel does not tell.
func reap(pidfd *os.File) (status unix.WaitStatus, known bool) {
	c, err := pidfd.SyscallConn()
	if err != nil {
		return 0, false
	}
	_ = c.Control(func(fd uintptr) {
		var si unix.Siginfo
		for {
			err = unix.Waitid(unix.P_PIDFD, int(fd), &si, unix.WEXITED|unix.WNOHANG, nil)
			if !errors.Is(err, unix.EINTR) {
				break
			}
		}
		if err == nil {
			status, known = waitStatus(&si)
			return
		}
		status, known = pidfdExitInfo(int(fd))
	})
	return status, known
}

// bootID is the kernel's name for this boot.
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("cannot read the boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// describe says in words how a process ended.
func describe(ws unix.WaitStatus) string {
	switch {
	case ws.Signaled():
		return "killed by " + unix.SignalName(ws.Signal())
	case ws.Exited():
		return fmt.Sprintf("exit status %d", ws.ExitStatus())
	default:
		return fmt.Sprintf("wait status %#x", uint32(ws))
	}
}

// waitStatus turns a waitid answer into the form of wait(2). si_status stands
// 24 bytes into siginfo_t on 64-bit Linux (include/uapi/asm-generic/siginfo.h).
func waitStatus(si *unix.Siginfo) (unix.WaitStatus, bool) {
	const cldExited, cldKilled, cldDumped = 1, 2, 3
	status := *(*int32)(unsafe.Add(unsafe.Pointer(si), 24))
	switch si.Code {
	case cldExited:
		return unix.WaitStatus(uint32(status&0xff) << 8), true
	case cldKilled:
		return unix.WaitStatus(status & 0x7f), true
	case cldDumped:
		return unix.WaitStatus(status&0x7f | 0x80), true
	}
	return 0, false
}

// zombieStatus reads how a process ended that its parent has not reaped yet:
// field 52 of /proc/PID/stat, for those who may trace it.
func (p processHandle) zombieStatus() (unix.WaitStatus, bool) {
	f, err := statFields(p.PID)
	if err != nil || len(f) <= 52-firstStatField {
		return 0, false
	}
	start, err := strconv.ParseUint(f[22-firstStatField], 10, 64)
	if err != nil || start != p.Start || f[0] != "Z" {
		return 0, false
	}
	code, err := strconv.ParseUint(f[52-firstStatField], 10, 32)
	return unix.WaitStatus(code), err == nil
}

// pidfdExitInfo asks the kernel (6.15 and later) how a process ended that
// another has reaped.
func pidfdExitInfo(fd int) (unix.WaitStatus, bool) {
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
	if err := unix.IoctlPidfdInfo(fd, &info); err != nil || info.Mask&unix.PIDFD_INFO_EXIT == 0 {
		return 0, false
	}
	return unix.WaitStatus(uint32(info.Exit_code)), true
}
