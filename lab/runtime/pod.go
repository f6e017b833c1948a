package runtime

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// PodSpec is a pod's sandbox to start: what its containers share.
type PodSpec struct {
	PodKey
	UID  string
	Node string
	// Hostname in the pod's uts namespace.
	Hostname string
	// NetNS is the pod's network namespace; nil for the node's own (hostNetwork).
	NetNS *os.File
	// SharePID puts all containers into the pause's pid namespace.
	SharePID bool
	// HostPID and HostIPC are the node's own namespaces.
	HostPID, HostIPC bool
}

// Pod is a running pod sandbox.
type Pod struct {
	spec   PodSpec
	node   *Node
	pause  *Process
	number int // grows with each pod

	containers []*Container // guarded by Runtime.mu; the newest last
}

// Process is the pod's pause.
func (p *Pod) Process() *Process { return p.pause }

// Dir is the pod's folder in the scratch space; volumes are made in it.
func (r *Runtime) Dir(uid string) string { return r.path("pods", uid) }

// StartPod starts a pod's pause, which holds its namespaces. onExit, if set, is
// called when it ends; it must not block.
func (r *Runtime) StartPod(ctx context.Context, spec PodSpec, onExit func(ExitStatus)) (*Pod, error) {
	if err := live(ctx); err != nil {
		return nil, err
	}
	p, err := r.startPod(spec, onExit)
	if err != nil {
		return nil, fmt.Errorf("cannot start pod %s: %w", spec.PodKey, err)
	}
	return p, nil
}

func (r *Runtime) startPod(spec PodSpec, onExit func(ExitStatus)) (*Pod, error) {
	node, err := r.lookupNode(spec.Node)
	if err != nil {
		return nil, err
	}
	shm := filepath.Join(r.Dir(spec.UID), "shm")
	if err := os.MkdirAll(shm, 0o755); err != nil {
		return nil, fmt.Errorf("cannot make its folder: %w", err)
	}
	if err := os.Chmod(shm, 0o777|os.ModeSticky); err != nil {
		return nil, fmt.Errorf("cannot open its shared memory to all: %w", err)
	}
	nodefd, err := node.pause.dupPidfd()
	if err != nil {
		return nil, fmt.Errorf("cannot enter node %s: %w", spec.Node, err)
	}
	defer unix.Close(nodefd)
	flags, ops := podOps(spec, r.rootMount())
	fds := []int{nodefd}
	if spec.NetNS != nil {
		fds = append(fds, int(spec.NetNS.Fd()))
	}
	s, err := r.spawner.spawn(request{flags: flags, pidns: 0, ops: ops, fds: fds})
	if err != nil {
		return nil, err
	}
	p := &Pod{spec: spec, node: node}
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.pause, err = r.watch(s, onExit); err != nil {
		return nil, err
	}
	r.nextID++
	p.number = r.nextID
	r.pods[spec.UID] = p
	return p, nil
}

// podOps is what a pause does: descriptor 0 is the node's pidfd, 1 the pod's
// network namespace.
func podOps(spec PodSpec, root string) (uint64, []op) {
	flags := uint64(unix.CLONE_NEWNS | unix.CLONE_NEWUTS)
	var fromNode int64
	if spec.HostPID {
		// The pause is an ordinary process of the node then.
	} else {
		flags |= unix.CLONE_NEWPID
	}
	if spec.HostIPC {
		fromNode |= unix.CLONE_NEWIPC
	} else {
		flags |= unix.CLONE_NEWIPC
	}
	var ops []op
	if spec.NetNS == nil {
		fromNode |= unix.CLONE_NEWNET
	} else {
		ops = append(ops, setns(1, unix.CLONE_NEWNET))
	}
	if fromNode != 0 {
		ops = append(ops, setns(0, fromNode))
	}
	ops = append(ops,
		hostname(spec.Hostname),
		mount("tmpfs", "tmpfs", root, safe|unix.MS_RDONLY, "mode=755,size=4k"),
		pivot(root),
	)
	ops = append(ops, User{UID: 65535, GID: 65535}.ops(0, true)...)
	return flags, append(ops, op{code: opPause})
}

// StopPod kills what is left of a pod, its pause last. Its folder and logs stay.
func (r *Runtime) StopPod(p *Pod) {
	r.mu.Lock()
	delete(r.pods, p.spec.UID)
	containers := slices.Clone(p.containers)
	r.mu.Unlock()
	for _, c := range containers {
		r.RemoveContainer(c)
	}
	_ = p.pause.Signal(unix.SIGKILL)
	<-p.pause.done
}
