package launch

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"podlab/lab"
)

// Labs take ids between systemd's range for containers (up to 0x6fffffff) and
// its foreign ids (from 0x7ffe0000), where useradd's /etc/subuid ranges (up to
// 600,100,000) do not reach either. See systemd's docs/UIDS-GIDS.md.
const (
	// FirstUID is the lowest host uid that a lab may get.
	FirstUID = 0x70000000
	// idsPerLab is the width of a lab's uid and gid range.
	idsPerLab = 65536
	// MaxLabs is how many ranges there are.
	MaxLabs = (0x7ffe0000 - FirstUID) / idsPerLab
)

// freeSlotLocked returns the lowest uid range that nobody has.
func (l *Launcher) freeSlotLocked() (uint32, error) {
	for slot := range uint32(MaxLabs) {
		if _, taken := l.slots[slot]; !taken {
			return slot, nil
		}
	}
	return 0, lab.Errorf(lab.CodeLimit, "all %d uid ranges for labs are taken", MaxLabs)
}

// userNamespace returns a namespace with a lab's id map, for idmapped mounts.
// It is kept, since the next lab with these ids can use it again.
func (l *Launcher) userNamespace(base uint32) (*os.File, error) {
	l.mu.Lock()
	f, ok := l.users[base]
	l.mu.Unlock()
	if ok {
		return f, nil
	}
	// The range is one sandbox's alone, so nobody else makes it meanwhile.
	f, err := newUserNamespace(base)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.users[base] = f
	l.mu.Unlock()
	return f, nil
}

// newUserNamespace has a child born into a namespace with the map, opens the
// namespace and kills the child, which stands still before its first
// instruction, as under a debugger.
func newUserNamespace(base uint32) (*os.File, error) {
	runtime.LockOSThread() // only the thread that forked is the tracer
	defer runtime.UnlockOSThread()
	maps := []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(base), Size: idsPerLab}}
	cmd := exec.Command("/proc/self/exe")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER, UidMappings: maps, GidMappings: maps,
		Ptrace: true, Pdeathsig: syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("cannot make a user namespace with ids from %d: %w", base, err)
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", cmd.Process.Pid))
	killErr := cmd.Process.Kill()
	_ = cmd.Wait() // killed, as it should be
	if err != nil {
		return nil, fmt.Errorf("cannot open a user namespace: %w", err)
	}
	return f, killErr
}
