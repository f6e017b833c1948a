package runtime

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// Mount is a bind mount into a container.
type Mount struct {
	// Source is a file or folder outside, Target its absolute path inside.
	Source, Target string
	ReadOnly       bool
	// File says that Source is a file.
	File bool
}

// ContainerSpec is a container to start in a pod.
type ContainerSpec struct {
	Name string
	// Layers are folders on top of the lab's root, the uppermost first.
	Layers    []string
	Args, Env []string
	Cwd       string
	User      User
	// Caps are root's capabilities; see Capabilities.
	Caps         uint64
	NoNewPrivs   bool
	Privileged   bool
	ReadOnlyRoot bool
	Mounts       []Mount
	// LogPath is where its output is kept, in the CRI format.
	LogPath string
	// TTY gives it a pseudo-terminal; Stdin keeps its standard input open.
	TTY, Stdin bool
}

func (s *ContainerSpec) caps() uint64 {
	if s.Privileged {
		return nodeCaps
	}
	return s.Caps
}

func (s *ContainerSpec) cwd() string {
	if s.Cwd == "" {
		return "/"
	}
	return s.Cwd
}

// Container is a container that runs or has run.
type Container struct {
	*Process
	// ID is unique in the lab's life.
	ID   string
	Log  *Log
	outs []*logPipe
	spec ContainerSpec
	pod  *Pod
}

// StartContainer starts a container in a running pod. onExit is called when it
// has ended and all its output is in the log; it must not block.
func (r *Runtime) StartContainer(ctx context.Context, p *Pod, spec ContainerSpec, onExit func(ExitStatus)) (*Container, error) {
	if err := live(ctx); err != nil {
		return nil, err
	}
	c := &Container{ID: r.newID(p.spec.UID + "-" + spec.Name), spec: spec, pod: p}
	dir := r.path("c", c.ID)
	overlay, err := r.overlay(dir, spec.Layers)
	if err != nil {
		return nil, err
	}
	if err := r.startContainer(c, overlay, onExit); err != nil {
		r.janitor.remove(dir)
		return nil, err
	}
	return c, nil
}

func (r *Runtime) startContainer(c *Container, overlay op, onExit func(ExitStatus)) error {
	podfd, err := c.pod.pause.dupPidfd()
	if err != nil {
		return fmt.Errorf("cannot enter pod %s: %w", c.pod.spec.PodKey, err)
	}
	defer unix.Close(podfd)
	nodefd, err := c.pod.node.pause.dupPidfd()
	if err != nil {
		return fmt.Errorf("cannot enter node %s: %w", c.pod.node.Name, err)
	}
	defer unix.Close(nodefd)
	if c.Log, err = openLog(c.spec.LogPath); err != nil {
		return err
	}
	io, err := openStreams(ExecSpec{TTY: c.spec.TTY, Stdin: c.spec.Stdin, Stdout: true, Stderr: true})
	if err != nil {
		c.Log.end()
		return err
	}
	defer io.closeTheirs()
	flags, pidns := uint64(unix.CLONE_NEWNS), 0 // descriptor 0: the pod, 1: the node
	switch {
	case c.pod.spec.HostPID:
		pidns = 1
	case !c.pod.spec.SharePID:
		flags |= unix.CLONE_NEWPID
		pidns = 1
	}
	ops := containerOps(c.pod.spec, c.spec, overlay, r.rootMount(), r.Dir(c.pod.spec.UID), io)
	s, err := r.spawner.spawn(request{flags: flags, pidns: pidns, ops: ops, fds: append([]int{podfd, nodefd}, io.fds()...)})
	if err == nil {
		err = r.adopt(c, s, io, onExit)
	}
	if err != nil {
		io.closeOurs()
		c.Log.end()
	}
	return err
}

// adopt makes a spawned process the container's, and its output the log's.
func (r *Runtime) adopt(c *Container, s spawned, io streams, onExit func(ExitStatus)) error {
	outs, err := logPipes(r.loop, c.Log, s, io)
	if err != nil {
		s.abandon()
		return err
	}
	ended := func(status ExitStatus) {
		for _, l := range outs {
			l.drain()
		}
		c.Log.end()
		if onExit != nil {
			onExit(status)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		s.abandon()
		return errors.New("the lab is being closed")
	}
	p, err := r.watch(s, ended)
	if err != nil {
		return err
	}
	p.Stdin = io.ours[0]
	c.Process, c.outs = p, outs
	r.containers[c.ID] = c
	c.pod.containers = append(c.pod.containers, c)
	return nil
}

// logPipes are a container's streams into its log: its terminal or its pipes.
// On an error all of them are closed.
func logPipes(l *loop, log *Log, s spawned, io streams) ([]*logPipe, error) {
	var pipes []*logPipe
	add := func(stream string, fd uintptr) error {
		own, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("cannot set up the log: %w", err)
		}
		p, err := newLogPipe(l, log, stream, own)
		if err == nil {
			pipes = append(pipes, p)
		}
		return err
	}
	var err error
	if s.pty >= 0 {
		err = add("stdout", uintptr(s.pty))
	}
	for i, stream := range []string{"stdout", "stderr"} {
		if f := io.ours[i+1]; f != nil && err == nil {
			err = add(stream, f.Fd())
			f.Close()
		}
	}
	return pipes, err
}

// RemoveContainer kills a container if it runs, and removes its files but not
// its log.
func (r *Runtime) RemoveContainer(c *Container) {
	_ = c.Signal(unix.SIGKILL)
	<-c.done
	r.mu.Lock()
	delete(r.containers, c.ID)
	c.pod.containers = slices.DeleteFunc(c.pod.containers, func(o *Container) bool { return o == c })
	r.mu.Unlock()
	if c.Stdin != nil {
		c.Stdin.Close()
	}
	r.janitor.remove(r.path("c", c.ID))
}

// masked and readOnly are the paths that OCI runtimes hide from containers.
var (
	masked = []string{
		"/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
		"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
	}
	readOnly = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// containerOps is what a container's first process does before its program:
// descriptor 0 is the pod's pidfd, 1 the node's, then its streams.
func containerOps(pod PodSpec, c ContainerSpec, overlay op, root, podDir string, io streams) []op {
	sys := int64(safe | unix.MS_RDONLY)
	if c.Privileged {
		sys = safe
	}
	ops := []op{
		setns(0, unix.CLONE_NEWNET|unix.CLONE_NEWIPC|unix.CLONE_NEWUTS),
		overlay,
		mount("proc", "proc", root+"/proc", safe, ""),
		mount("sysfs", "sysfs", root+"/sys", sys, ""),
	}
	ops = append(ops, devOps(root, podDir+"/shm")...)
	for _, m := range c.Mounts {
		ops = append(ops, mountOps(root, m)...)
	}
	if !c.Privileged {
		for _, p := range masked {
			ops = append(ops, mask(root+p))
		}
		for _, p := range readOnly {
			ops = append(ops, readonly(root+p))
		}
	}
	if c.ReadOnlyRoot {
		ops = append(ops, rebind(root, unix.MS_RDONLY))
	}
	ops = append(ops, pivot(root), op{code: opUmask, a: 0o022})
	if c.TTY {
		ops = append(ops, op{code: opPTY, a: 80<<16 | 24})
	} else {
		ops = append(ops, op{code: opSetsid})
		ops = append(ops, io.ops(2)...)
	}
	ops = append(ops, chdir(c.cwd(), true))
	ops = append(ops, c.User.ops(c.caps(), c.NoNewPrivs)...)
	return append(ops, execve(c.Args, c.Env))
}

func mountOps(root string, m Mount) []op {
	target := root + m.Target
	ops := []op{chdir("/", false)}
	if m.File {
		ops[0] = touch(target)
	} else {
		ops[0] = op{code: opChdir, a: 1, s: []string{target}} // makes the folders above it too
	}
	ops = append(ops, bind(m.Source, target, unix.MS_REC))
	if m.ReadOnly {
		ops = append(ops, rebind(target, unix.MS_RDONLY))
	}
	return ops
}
