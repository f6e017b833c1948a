package launch

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"podlab/lab"
	"podlab/lab/agentapi"
)

// AgentCommand is podlab's command that runs as PID 1 of a sandbox.
const AgentCommand = "agent"

// Where things are inside the sandbox, beside agentapi's.
const programPath = "/usr/bin/podlab"

// mountPoints must be in the root file system, which is read-only later.
var mountPoints = []string{"/proc", "/sys", "/dev", "/run", "/tmp", agentapi.ScratchDir, agentapi.ImagesDir}

// prepareRootFS resolves links in the path and adds the mount points that a
// plain Debian tree lacks.
func prepareRootFS(path string) (string, error) {
	root, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", lab.Errorf(lab.CodeUnavailable, "the labs' root file system %s is not there; run `make up` or scripts/rootfs", path)
	}
	for _, p := range mountPoints {
		if err := os.MkdirAll(filepath.Join(root, p), 0o755); err != nil {
			return "", fmt.Errorf("cannot make mount point %s in %s: %w", p, root, err)
		}
	}
	f, err := os.OpenFile(filepath.Join(root, programPath), os.O_CREATE|os.O_RDONLY, 0o755)
	if err != nil {
		return "", fmt.Errorf("cannot make mount point %s in %s: %w", programPath, root, err)
	}
	return root, f.Close()
}

// writeBundle writes the OCI bundle's config.json.
func (l *Launcher) writeBundle(sb *sandbox) error {
	spec, err := l.spec(sb)
	if err != nil {
		return err
	}
	b, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(sb.dir, bundleDir, "config.json"), b, 0o600)
}

// spec is the whole of what a sandbox is, in the words of the OCI runtime
// specification.
func (l *Launcher) spec(sb *sandbox) (*specs.Spec, error) {
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: sb.rec.UIDBase, Size: idsPerLab}}
	s := &specs.Spec{
		Version:  "1.0.2",
		Hostname: sb.id,
		Root:     &specs.Root{Path: stageRoot, Readonly: true},
		Process: &specs.Process{
			Args: []string{programPath, l.opt.Command},
			Cwd:  "/",
			Env: []string{
				"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
				"HOME=/root", "LANG=C.UTF-8",
				// The start makes some 20 MiB that it keeps: collecting garbage
				// meanwhile only delays it. The agent sets its own pace after it.
				"GOGC=400",
			},
			Capabilities: &specs.LinuxCapabilities{
				Bounding: capabilities, Effective: capabilities, Permitted: capabilities,
			},
		},
		Mounts: l.mounts(sb),
		Linux: &specs.Linux{
			UIDMappings: ids, GIDMappings: ids,
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.UserNamespace}, {Type: specs.PIDNamespace}, {Type: specs.MountNamespace},
				{Type: specs.NetworkNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace},
				{Type: specs.CgroupNamespace},
			},
			RootfsPropagation: "private",
		},
	}
	if err := addTUN(s); err != nil {
		return nil, err
	}
	if asRuntime(sb.rec.Runtime).managesCgroups() {
		s.Linux.CgroupsPath = cgroupsPath(sb.rec.Cgroups)
	}
	var err error
	if s.Linux.Seccomp, err = seccompProfile(); err != nil {
		return nil, err
	}
	return s, l.useFilter(s)
}

// capabilities hold over the sandbox's user namespace only. Those that the
// kernel asks for in its first namespace alone (modules, raw I/O, time, reboot,
// eBPF, the log) would grant nothing and are left out.
var capabilities = []string{
	"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID",
	"CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_KILL", "CAP_LEASE", "CAP_LINUX_IMMUTABLE", "CAP_MKNOD",
	"CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_RAW",
	"CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID",
	"CAP_SYS_ADMIN", "CAP_SYS_CHROOT", "CAP_SYS_NICE", "CAP_SYS_PTRACE", "CAP_SYS_RESOURCE", "CAP_SYS_TTY_CONFIG",
}

func (l *Launcher) mounts(sb *sandbox) []specs.Mount {
	lim := sb.rec.Limits
	scratch := []string{"nosuid", "nodev", "mode=0755",
		"size=" + strconv.FormatInt(lim.ScratchBytes, 10), "nr_inodes=" + strconv.FormatInt(lim.ScratchInodes, 10)}
	bind := func(dst, src string, opts ...string) specs.Mount {
		return specs.Mount{Destination: dst, Type: "bind", Source: src, Options: append([]string{"bind"}, opts...)}
	}
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		// Not read-only: nodes could then not mount theirs (mnt_already_visible in
		// fs/namespace.c). The host's files in it belong to nobody here.
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/run", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "mode=755", "size=4m", "nr_inodes=4096"}},
		{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "mode=1777", "size=16m", "nr_inodes=4096"}},
		{Destination: agentapi.ScratchDir, Type: "tmpfs", Source: "scratch", Options: scratch},
		bind(agentapi.RunDir, filepath.Join(stageLab, runDir), "rw", "nosuid", "nodev", "noexec"),
		bind(agentapi.ImagesDir, stageImages, "ro", "nodev"),
		bind(programPath, stageProgram, "ro", "nosuid", "nodev"),
	}
}

// addTUN lets labs make TUN and TAP devices where the host has the device.
func addTUN(s *specs.Spec) error {
	const path = "/dev/net/tun"
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot read %s: %w", path, err)
	}
	mode := os.FileMode(0o666)
	s.Linux.Devices = append(s.Linux.Devices, specs.LinuxDevice{
		Path: path, Type: "c", Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev)), FileMode: &mode,
	})
	return nil
}

// cgroupsPath tells a runtime that insists on cgroups where the lab's are: on
// v2 from the root, on v1 below the group that it is started in.
func cgroupsPath(groups []labCgroup) string {
	for _, g := range groups {
		if !g.V2 {
			return workGroup
		}
	}
	rel, err := filepath.Rel("/sys/fs/cgroup", groups[0].work())
	if err != nil {
		return workGroup
	}
	return "/" + rel
}
