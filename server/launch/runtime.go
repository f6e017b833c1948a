package launch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"podlab/lab"
)

// runtimeProgram is the OCI runtime in use.
type runtimeProgram struct {
	path string
	crun bool
}

// managesCgroups: crun can be told to leave cgroups alone, others cannot.
func (r runtimeProgram) managesCgroups() bool { return !r.crun }

func findRuntime(name string) (runtimeProgram, error) {
	names := []string{"crun", "runc"}
	if name != "" {
		names = []string{name}
	}
	for _, n := range names {
		if path, err := exec.LookPath(n); err == nil {
			return asRuntime(path), nil
		}
	}
	return runtimeProgram{}, lab.Errorf(lab.CodeNotSupported, "no OCI runtime (%s) is installed; apt-get install crun", strings.Join(names, " or "))
}

func asRuntime(path string) runtimeProgram {
	return runtimeProgram{path: path, crun: strings.Contains(filepath.Base(path), "crun")}
}

func (r runtimeProgram) args(sb *sandbox) []string {
	args := []string{"--root", filepath.Join(stageLab, runtimeDir)}
	if r.crun {
		args = append(args, "--cgroup-manager=disabled")
	}
	return append(args, "run", "--detach",
		"--bundle", filepath.Join(stageLab, bundleDir), "--pid-file", filepath.Join(stageLab, pidFile), sb.id)
}

// runRuntime runs the OCI runtime on a thread with a mount namespace of its
// own, so that what is mounted for the sandbox never shows on the host. The
// thread is never used again: it ends with the goroutine.
func (l *Launcher) runRuntime(ctx context.Context, sb *sandbox, userns *os.File) (int, error) {
	type result struct {
		pid int
		err error
	}
	done := make(chan result, 1)
	run := func() {
		runtime.LockOSThread() // and never unlocked
		pid, err := l.runHere(ctx, sb, userns)
		done <- result{pid, err}
	}
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			run()
			return
		}
		// The main thread's namespaces are what /proc/self shows: it is held here,
		// so that the work lands on another.
		defer runtime.UnlockOSThread()
		finished := make(chan struct{})
		go func() {
			defer close(finished)
			run()
		}()
		<-finished
	}()
	r := <-done
	return r.pid, r.err
}

func (l *Launcher) runHere(ctx context.Context, sb *sandbox, userns *os.File) (int, error) {
	rt := asRuntime(sb.rec.Runtime)
	group, err := enterCgroups(sb.rec.Cgroups, rt)
	if err != nil {
		return 0, err
	}
	if group >= 0 {
		defer unix.Close(group)
	}
	if err := l.privateMounts(sb, userns); err != nil {
		return 0, err
	}
	// From here on paths are the stage's: it may cover the data directory.
	log, err := os.OpenFile(filepath.Join(stageLab, logFile), os.O_CREATE|os.O_WRONLY|os.O_APPEND|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, rt.path, rt.args(sb)...)
	cmd.Dir, cmd.Env = "/", []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	// crun hands stdin, stdout and stderr over to the lab's root, owner and all:
	// the host's /dev/null must not be among them.
	stdin, err := emptyInput()
	if err != nil {
		return 0, err
	}
	defer stdin.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, log, log
	// The runtime dies with us; what it had begun is in the lab's cgroups.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if group >= 0 {
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, group
	}
	step("start: runtime begins")
	err = cmd.Run()
	reapOrphans()
	if err != nil {
		return 0, fmt.Errorf("%s: %w: %s", filepath.Base(rt.path), err, tail(filepath.Join(stageLab, logFile), tailBytes))
	}
	b, err := os.ReadFile(filepath.Join(stageLab, pidFile))
	if err != nil {
		return 0, fmt.Errorf("%s told no process: %w", rt.path, err)
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// emptyInput is a pipe that nobody writes to.
func emptyInput() (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	return r, w.Close()
}

// enterCgroups puts the calling thread into the lab's v1 groups, which its
// children inherit, and returns the v2 group for them to be born in, or -1.
// A runtime that manages cgroups itself starts beside the group that it fills.
func enterCgroups(groups []labCgroup, rt runtimeProgram) (int, error) {
	v2 := -1
	for _, g := range groups {
		dir := g.work()
		if rt.managesCgroups() {
			dir = g.Dir
			if g.V2 && len(g.Controllers) > 0 {
				dir = g.agent()
			} else if g.V2 {
				dir = g.work()
			}
		}
		if !g.V2 {
			if err := writeCgroup(dir, "tasks", "0"); err != nil {
				return -1, fmt.Errorf("cannot enter cgroup %s: %w", dir, err)
			}
			continue
		}
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return -1, fmt.Errorf("cannot open cgroup %s: %w", dir, err)
		}
		v2 = fd
	}
	return v2, nil
}

// privateMounts gives the thread a mount namespace and, in it, the sandbox's
// root and images with their ids shifted into the lab's range.
func (l *Launcher) privateMounts(sb *sandbox, userns *os.File) error {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("cannot make a mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("cannot make the mount namespace private: %w", err)
	}
	if l.mode == cgroupHybrid {
		// crun refuses hosts where it sees both kinds of cgroups, and runc would
		// put the sandbox into a v2 group of its own choice.
		if err := unix.Unmount(hybridMount, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("cannot hide %s: %w", hybridMount, err)
		}
	}
	// All trees are opened before the stage covers anything.
	parts := []struct {
		src, dst string
		file     bool
		users    *os.File
		tree     int
	}{
		{src: sb.dir, dst: stageLab},
		{src: l.opt.RootFS, dst: stageRoot, users: userns},
		{src: l.images(), dst: stageImages, users: userns},
		{src: filepath.Join(l.bin(), sb.rec.Binary), dst: stageProgram, file: true},
	}
	for i := range parts {
		fd, err := openTree(parts[i].src, parts[i].users)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		parts[i].tree = fd
	}
	if err := unix.Mount("stage", stage, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755,size=64k"); err != nil {
		return fmt.Errorf("cannot mount the stage at %s: %w", stage, err)
	}
	for _, p := range parts {
		var err error
		if p.file {
			err = os.WriteFile(p.dst, nil, 0o644)
		} else {
			err = os.Mkdir(p.dst, 0o755)
		}
		if err != nil {
			return err
		}
		if err := unix.MoveMount(p.tree, "", unix.AT_FDCWD, p.dst, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("cannot mount %s: %w", p.src, err)
		}
	}
	return nil
}

// The stage stands in the runtime's own mount namespace only. What a sandbox
// is made of is mounted there, since the lab's root may not be allowed to pass
// through the directories above the data directory.
const (
	stage        = "/mnt"
	stageLab     = stage + "/lab"
	stageRoot    = stage + "/root"
	stageImages  = stage + "/images"
	stageProgram = stage + "/podlab"
)

// openTree is `mount --bind src`, not attached yet; with users it is also
// `-o ro,nodev,X-mount.idmap=…`.
func openTree(src string, users *os.File) (int, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, src, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("cannot open %s for mounting: %w", src, err)
	}
	if users == nil {
		return fd, nil
	}
	attr := unix.MountAttr{
		Attr_set:  unix.MOUNT_ATTR_IDMAP | unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NODEV,
		Userns_fd: uint64(users.Fd()),
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("cannot shift the ids of %s (does its file system support idmapped mounts?): %w", src, err)
	}
	return fd, nil
}
