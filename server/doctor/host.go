package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"podlab/server/launch"
)

// hostChecks looks at what the launcher needs.
func hostChecks(ctx context.Context, opt Options) []Check {
	if opt.RootFS == "" {
		opt.RootFS = filepath.Join(opt.Data, "rootfs", "current")
	}
	return []Check{
		kernelCheck(), rootCheck(), apparmorCheck(),
		runtimeCheck(ctx, opt.Runtime), cgroupCheck(), rootFSCheck(opt.RootFS), idmapCheck(opt), seccompCheck(),
	}
}

// oldest is the first kernel with overlayfs on idmapped mounts.
var oldest = [2]int{5, 19}

func kernelCheck() Check {
	c := Check{Group: GroupHost, Name: "kernel", State: Works, Required: true}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		c.State, c.Found = Unknown, err.Error()
		return c
	}
	c.Found = unix.ByteSliceToString(u.Release[:])
	var v [2]int
	if _, err := fmt.Sscanf(c.Found, "%d.%d", &v[0], &v[1]); err != nil {
		c.State = Unknown
	} else if slices.Compare(v[:], oldest[:]) < 0 {
		c.State = Absent
		c.Fix = fmt.Sprintf("use Linux %d.%d or later: labs need overlayfs on idmapped mounts", oldest[0], oldest[1])
	}
	return c
}

// needed are the capabilities without which no sandbox starts, found by taking
// each away (capability.h). Over a lab's own user namespace its parent's root
// has all of them anyway.
var needed = map[string]uint{
	"CAP_CHOWN": 0, "CAP_DAC_OVERRIDE": 1, "CAP_SETGID": 6, "CAP_SETUID": 7, "CAP_SYS_ADMIN": 21,
}

func rootCheck() Check {
	c := Check{Group: GroupHost, Name: "root", State: Works, Required: true, Found: fmt.Sprintf("uid %d", os.Getuid())}
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		c.State, c.Found = Unknown, err.Error()
		return c
	}
	_, rest, _ := bytes.Cut(b, []byte("\nCapEff:\t"))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	have, err := strconv.ParseUint(string(line), 16, 64)
	if err != nil {
		c.State, c.Found = Unknown, err.Error()
		return c
	}
	var missing []string
	for name, bit := range needed {
		if have&(1<<bit) == 0 {
			missing = append(missing, name)
		}
	}
	if slices.Sort(missing); os.Getuid() != 0 || len(missing) > 0 {
		c.State = Absent
		c.Found += ", lacks " + strings.Join(missing, " ")
		c.Fix = "run as root; in a container, add the capabilities that are named"
	}
	return c
}

// apparmorCheck: some hosts keep unprivileged programs from user namespaces.
// Sandboxes are started by root; only a lab's own nested ones would fail.
func apparmorCheck() Check {
	c := Check{Group: GroupHost, Name: "no AppArmor bar to user namespaces", State: Works}
	b, err := os.ReadFile("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
	if errors.Is(err, os.ErrNotExist) {
		c.Found = "this kernel has none"
		return c
	}
	if err != nil {
		c.State, c.Found = Unknown, err.Error()
		return c
	}
	if strings.TrimSpace(string(b)) == "1" {
		c.State, c.Instead = Absent, "sandboxes are started by root, which the bar lets pass"
	}
	return c
}

func runtimeCheck(ctx context.Context, name string) Check {
	c := Check{Group: GroupSandbox, Name: "OCI runtime", State: Works, Required: true}
	path, err := launch.FindRuntime(name)
	if err != nil {
		c.State, c.Found, c.Fix = Absent, err.Error(), "apt-get install crun"
		return c
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	line, _, _ := strings.Cut(string(out), "\n")
	c.Found = path + ", " + line
	if err != nil {
		c.State, c.Found = Unknown, fmt.Sprintf("%s --version: %v", path, err)
	}
	return c
}

func cgroupCheck() Check {
	c := Check{Group: GroupSandbox, Name: "cgroups", State: Works, Required: true}
	found, err := launch.FindCgroups()
	c.Found = fmt.Sprintf("%s, limits by %s", found.Mode, strings.Join(found.Controllers, " "))
	if err != nil {
		c.State, c.Found = Absent, err.Error()
		c.Fix = "make /sys/fs/cgroup writable; in Docker, run with --cgroupns=host and mount /sys/fs/cgroup, or --privileged"
		return c
	}
	for _, want := range []string{"memory", "pids", "cpu"} {
		if !slices.Contains(found.Controllers, want) {
			c.State = Absent
			c.Fix = "enable the cgroup controllers memory, pids and cpu (kernel command line, or the parent's cgroup.subtree_control)"
		}
	}
	return c
}

func rootFSCheck(path string) Check {
	c := Check{Group: GroupSandbox, Name: "root file system", State: Works, Required: true}
	root, err := filepath.EvalSymlinks(path)
	if err != nil {
		c.State, c.Found, c.Fix = Absent, err.Error(), "run make up, or scripts/rootfs"
		return c
	}
	c.Found = root
	if b, err := os.ReadFile(filepath.Join(root, "etc/debian_version")); err == nil {
		c.Found += ", Debian " + strings.TrimSpace(string(b))
	}
	for _, p := range []string{"bin/sh", "usr/sbin/ip", "usr/sbin/nft"} {
		if _, err := os.Stat(filepath.Join(root, p)); err != nil {
			if _, err := os.Stat(filepath.Join(root, "usr/bin", filepath.Base(p))); err != nil {
				c.State, c.Found, c.Fix = Absent, p+" is not in "+root, "run scripts/rootfs again"
			}
		}
	}
	return c
}

func idmapCheck(opt Options) Check {
	c := Check{Group: GroupSandbox, Name: "idmapped mounts", State: Works, Required: true}
	dir := opt.RootFS
	if _, err := os.Stat(dir); err != nil {
		dir = opt.Data // whose file system it will be on
	}
	for {
		if _, err := os.Stat(dir); err == nil || dir == "/" || dir == "." {
			break
		}
		dir = filepath.Dir(dir)
	}
	c.Found = dir
	if err := launch.TryIDMap(dir); err != nil {
		c.State, c.Found = classify(err), err.Error()
		if errors.Is(err, unix.EINVAL) {
			c.State = Absent // the file system's answer (mount_setattr(2))
		}
		c.Fix = "keep the data directory on ext4, xfs, btrfs or tmpfs, not on overlayfs or NFS (in a container: on a volume)"
	}
	return c
}

func seccompCheck() Check {
	c := Check{Group: GroupSandbox, Name: "seccomp filters", State: Works, Required: true}
	b, err := os.ReadFile("/proc/sys/kernel/seccomp/actions_avail")
	if err != nil {
		c.State, c.Found = classify(err), err.Error()
		c.Fix = "use a kernel built with CONFIG_SECCOMP_FILTER"
		return c
	}
	c.Found = strings.TrimSpace(string(b))
	return c
}
