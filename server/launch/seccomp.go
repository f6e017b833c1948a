package launch

import (
	"fmt"
	"slices"
	"sync"

	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// seccompCaps are the capabilities for which the default profile opens system
// calls to a sandbox. CAP_SYS_ADMIN is not among them, as the profile would
// then allow bpf, perf_event_open and more: labCalls names what a lab needs.
var seccompCaps = []string{"CAP_SYS_CHROOT", "CAP_SYS_NICE", "CAP_SYS_PTRACE", "CAP_SYS_TTY_CONFIG"}

// labCalls are the calls beyond the profile that nodes, pods and containers
// are made of: namespaces and mounts.
var labCalls = []string{
	"clone", "clone3", "unshare", "setns",
	"mount", "umount", "umount2", "pivot_root",
	"fsopen", "fsconfig", "fsmount", "fspick", "open_tree", "move_mount", "mount_setattr",
	"sethostname", "setdomainname",
}

// refusedCalls are taken out of what the default profile allows: attack
// surface that no lesson needs.
var refusedCalls = []string{
	"userfaultfd", "open_by_handle_at", "memfd_secret", "io_uring_setup", "io_uring_enter", "io_uring_register",
	"uretprobe", "adjtimex", "clock_adjtime", "clock_adjtime64", "modify_ldt",
}

// seccompProfile is the OCI default profile, opened for nested namespaces.
var seccompProfile = sync.OnceValues(func() (*specs.LinuxSeccomp, error) {
	like := &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: seccompCaps}}}
	p, err := seccomp.GetDefaultProfile(like)
	if err != nil {
		return nil, fmt.Errorf("cannot build the seccomp profile: %w", err)
	}
	var calls []specs.LinuxSyscall
	for _, c := range p.Syscalls {
		// What the profile says of these (namespaces only with CAP_SYS_ADMIN,
		// clone3 answers ENOSYS) is replaced as a whole.
		c.Names = slices.DeleteFunc(slices.Clone(c.Names), func(n string) bool {
			return slices.Contains(labCalls, n) || slices.Contains(refusedCalls, n)
		})
		if len(c.Names) > 0 {
			calls = append(calls, c)
		}
	}
	p.Syscalls = append(calls, specs.LinuxSyscall{Names: labCalls, Action: specs.ActAllow})
	return p, nil
})
