// Package runtime starts and watches the processes of a lab: nodes, pods'
// pauses, containers and shells. It is a container runtime without an OCI
// runtime in the way: a small C program, the spawner, clones each process into
// its namespaces, mounts its root and runs it; all decisions are taken here.
//
// The kubelet, the agent's terminals and the lab's Kubernetes API (exec, logs)
// call it. All methods are safe for concurrent use. Errors of a start name the
// step that failed (StepError).
package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Options say where a Runtime finds what it needs.
type Options struct {
	// Root is the lab's root file system, the lowest layer of all overlays.
	Root string
	// Scratch is a folder on a file system that can hold overlay uppers.
	Scratch string
	// Hidden folders are in no process's mounts.
	Hidden []string
}

// Runtime holds the lab's processes. Make it with Start.
type Runtime struct {
	opts    Options
	spawner *spawner
	loop    *loop
	janitor janitor

	mu         sync.Mutex
	closed     bool
	nextID     int
	nodes      map[string]*Node
	pods       map[string]*Pod       // by UID
	containers map[string]*Container // by id
}

// PodKey names a pod in the runtime.
type PodKey struct {
	Namespace, Name string
}

// String is "namespace/name".
func (k PodKey) String() string { return k.Namespace + "/" + k.Name }

// Start makes a Runtime and its spawner. The spawner is in the cgroup that the
// caller is in now, and so is every process that it makes.
func Start(opts Options) (*Runtime, error) {
	for _, dir := range []string{"root", "c", "pods", "nodes", "logs"} {
		if err := os.MkdirAll(filepath.Join(opts.Scratch, dir), 0o755); err != nil {
			return nil, fmt.Errorf("cannot make the scratch folders: %w", err)
		}
	}
	// Followers of logs may not pass through it, and nothing else needs to.
	if err := os.Chmod(filepath.Join(opts.Scratch, "logs"), 0o700); err != nil {
		return nil, fmt.Errorf("cannot close the log folder: %w", err)
	}
	s, err := startSpawner(opts.Hidden)
	if err != nil {
		return nil, err
	}
	l, err := newLoop()
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	r := &Runtime{
		opts: opts, spawner: s, loop: l,
		nodes: map[string]*Node{}, pods: map[string]*Pod{}, containers: map[string]*Container{},
	}
	r.janitor.start()
	return r, nil
}

// Close kills all processes, waits for their ends, and stops the spawner.
func (r *Runtime) Close() error {
	r.mu.Lock()
	r.closed = true
	var all []*Process
	for _, c := range r.containers {
		all = append(all, c.Process)
	}
	for _, p := range r.pods {
		all = append(all, p.pause)
	}
	for _, n := range r.nodes {
		all = append(all, n.pause)
	}
	r.mu.Unlock()
	for _, p := range all {
		_ = p.Signal(unix.SIGKILL)
	}
	for _, p := range all {
		<-p.done
	}
	err := r.spawner.close()
	r.loop.close()
	r.janitor.stop()
	return err
}

func (r *Runtime) newID(kind string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.nextID++
	return fmt.Sprintf("%s-%d", kind, r.nextID)
}

// path is a path below the scratch folder.
func (r *Runtime) path(parts ...string) string {
	return filepath.Join(append([]string{r.opts.Scratch}, parts...)...)
}

// rootMount is where every process mounts its own root before it enters it;
// they do not see each other's, because each has a mount namespace.
func (r *Runtime) rootMount() string { return r.path("root") }

// overlay makes an upper and a work folder and the mount op of an overlay on
// top of layers (the first is the uppermost) and the lab's root.
func (r *Runtime) overlay(dir string, layers []string) (op, error) {
	for _, d := range []string{dir, dir + "/u", dir + "/w"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return op{}, fmt.Errorf("cannot make the writable layer: %w", err)
		}
	}
	lower := strings.Join(append(append([]string(nil), layers...), r.opts.Root), ":")
	data := "lowerdir=" + lower + ",upperdir=" + dir + "/u,workdir=" + dir + "/w,userxattr"
	return mount("overlay", "overlay", r.rootMount(), 0, data), nil
}

// watch makes the Process of a spawned one: it is reaped as soon as it ends,
// and onExit, if set, is called then (on the loop: it must not block).
func (r *Runtime) watch(s spawned, onExit func(ExitStatus)) (*Process, error) {
	p := &Process{pid: s.pid, pidfd: s.pidfd, done: make(chan struct{})}
	if s.pty >= 0 {
		if err := unix.SetNonblock(s.pty, true); err != nil {
			s.abandon()
			return nil, fmt.Errorf("cannot set up the pseudo-terminal: %w", err)
		}
		p.pty = os.NewFile(uintptr(s.pty), "pty")
	}
	err := r.loop.add(s.pidfd, func() {
		var ws unix.WaitStatus
		if pid, err := unix.Wait4(s.pid, &ws, unix.WNOHANG, nil); pid == 0 || errors.Is(err, unix.EINTR) {
			return
		}
		p.ended(ws)
		r.loop.remove(s.pidfd)
		if onExit != nil {
			onExit(p.status)
		}
		close(p.done)
	})
	if err != nil {
		s.abandon()
		return nil, err
	}
	return p, nil
}

// janitor removes folders in the background: a container's files may be many.
type janitor struct {
	wg   sync.WaitGroup
	dirs chan string
}

func (j *janitor) start() {
	j.dirs = make(chan string, 256)
	j.wg.Go(func() {
		for d := range j.dirs {
			_ = os.RemoveAll(d) // what cannot be removed goes with the sandbox
		}
	})
}

func (j *janitor) remove(dir string) { j.dirs <- dir }

func (j *janitor) stop() {
	close(j.dirs)
	j.wg.Wait()
}

// LogDir is where a pod's logs go.
func (r *Runtime) LogDir(name string) string { return r.path("logs", name) }

// RemoveDir removes a folder of the scratch space in the background.
func (r *Runtime) RemoveDir(dir string) { r.janitor.remove(dir) }

// Ref names a place where a command can run.
type Ref struct {
	// Node is set for a node; the others for a container of a pod.
	Node                      string
	Namespace, Pod, Container string
}

// place is a running process whose namespaces a command can enter.
type place struct {
	process *Process
	user    User
	caps    uint64
	env     []string
	cwd     string
	nnp     bool
}

// newestPod finds a pod by name; one that is being removed by force may still
// be there beside its successor. mu is held.
func (r *Runtime) newestPod(key PodKey) *Pod {
	var found *Pod
	for _, p := range r.pods {
		if p.spec.PodKey == key && (found == nil || p.number > found.number) {
			found = p
		}
	}
	return found
}

// find returns the place of a reference.
func (r *Runtime) find(ref Ref) (place, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ref.Node != "" {
		n := r.nodes[ref.Node]
		if n == nil {
			return place{}, fmt.Errorf("there is no node %q", ref.Node)
		}
		return place{process: n.pause, caps: nodeCaps, env: nodeEnv(ref.Node), cwd: "/root"}, nil
	}
	key := PodKey{ref.Namespace, ref.Pod}
	p := r.newestPod(key)
	if p == nil {
		return place{}, fmt.Errorf("there is no pod %s", key)
	}
	for _, c := range p.containers {
		if (c.spec.Name == ref.Container || ref.Container == "") && c.Running() {
			return place{process: c.Process, user: c.spec.User, caps: c.spec.caps(), env: c.spec.Env, cwd: c.spec.cwd(), nnp: c.spec.NoNewPrivs}, nil
		}
	}
	if ref.Container == "" {
		return place{}, fmt.Errorf("no container of pod %s is running", key)
	}
	return place{}, fmt.Errorf("container %q of pod %s is not running", ref.Container, key)
}

// context errors end a start before it begins; once the spawner has the
// request it takes about a millisecond.
func live(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("cannot start: %w", err)
	}
	return nil
}
