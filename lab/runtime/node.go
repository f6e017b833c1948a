package runtime

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"podlab/lab"
)

// NodeSpec is a node to start.
type NodeSpec struct {
	Name string
	// NetNS is the node's network namespace.
	NetNS *os.File
	// Hosts and ResolvConf are its /etc/hosts and /etc/resolv.conf.
	Hosts, ResolvConf string
	// Files are others that it has, by absolute path; the folder is made if only
	// it is missing.
	Files map[string]string
}

// Node is a running node: its pause process is pid 1 of the pid namespace that
// its pods' ones are nested in.
type Node struct {
	Name  string
	pause *Process
}

// Process is the node's first process.
func (n *Node) Process() *Process { return n.pause }

// StartNode starts a node's pause in new mount, pid, ipc and uts namespaces and
// the given network namespace.
func (r *Runtime) StartNode(ctx context.Context, spec NodeSpec) (*Node, error) {
	if err := live(ctx); err != nil {
		return nil, err
	}
	overlay, err := r.overlay(r.path("nodes", spec.Name), nil)
	if err != nil {
		return nil, fmt.Errorf("cannot start node %s: %w", spec.Name, err)
	}
	s, err := r.spawner.spawn(request{
		flags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		pidns: -1,
		ops:   nodeOps(spec, overlay, r.rootMount()),
		fds:   []int{int(spec.NetNS.Fd())},
	})
	if err != nil {
		return nil, fmt.Errorf("cannot start node %s: %w", spec.Name, err)
	}
	n := &Node{Name: spec.Name}
	r.mu.Lock()
	defer r.mu.Unlock()
	if n.pause, err = r.watch(s, nil); err != nil {
		return nil, fmt.Errorf("cannot start node %s: %w", spec.Name, err)
	}
	r.nodes[spec.Name] = n
	return n, nil
}

func nodeOps(spec NodeSpec, overlay op, root string) []op {
	ops := []op{
		setns(0, unix.CLONE_NEWNET),
		hostname(spec.Name),
		overlay,
		// The spare sysfs lets `ip netns exec` mount its own: the kernel allows
		// that in a user namespace only while a whole one is in sight.
		mount("proc", "proc", root+"/proc", safe, ""),
		mkdir(root + "/run/sysfs"),
		mount("sysfs", "sysfs", root+"/run/sysfs", safe, ""),
		mount("sysfs", "sysfs", root+"/sys", safe, ""),
	}
	ops = append(ops, devOps(root, "")...)
	ops = append(ops,
		mkdir(root+"/dev/net"), ifThere(touchBind("/dev/net/tun", root)),
		// As `ip netns` would make it, so that it does not lay its own over what
		// is mounted there.
		mkdir(root+netnsDir), bind(root+netnsDir, root+netnsDir, unix.MS_REC), mount("", "none", root+netnsDir, unix.MS_SHARED, ""),
		writeFile(root+"/etc/hostname", spec.Name+"\n"),
		writeFile(root+"/etc/hosts", spec.Hosts),
		writeFile(root+"/etc/resolv.conf", spec.ResolvConf),
	)
	for _, path := range slices.Sorted(maps.Keys(spec.Files)) {
		ops = append(ops, mkdir(root+filepath.Dir(path)), writeFile(root+path, spec.Files[path]))
	}
	ops = append(ops, pivot(root))
	ops = append(ops, User{}.ops(nodeCaps, false)...)
	return append(ops, op{code: opPause})
}

func nodeEnv(name string) []string {
	return []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "USER=root", "LOGNAME=root", "SHELL=/bin/bash", "LANG=C.UTF-8", "NODE_NAME=" + name,
	}
}

// devices of every container, bound from the sandbox's own: a user namespace
// may not make device nodes.
var devices = []string{"null", "zero", "full", "random", "urandom", "tty"}

// devOps mount a /dev below root; shm is a folder to bind at /dev/shm, or empty
// for a tmpfs.
func devOps(root, shm string) []op {
	dev := root + "/dev"
	ops := []op{mount("tmpfs", "tmpfs", dev, unix.MS_NOSUID|unix.MS_STRICTATIME, "mode=755,size=64k")}
	for _, d := range devices {
		ops = append(ops, touch(dev+"/"+d), bind("/dev/"+d, dev+"/"+d, 0))
	}
	ops = append(ops,
		mkdir(dev+"/pts"), mkdir(dev+"/shm"), mkdir(dev+"/mqueue"),
		mount("devpts", "devpts", dev+"/pts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"),
		mount("mqueue", "mqueue", dev+"/mqueue", safe, ""),
		symlink("pts/ptmx", dev+"/ptmx"), symlink("/proc/self/fd", dev+"/fd"),
		symlink("/proc/self/fd/0", dev+"/stdin"), symlink("/proc/self/fd/1", dev+"/stdout"), symlink("/proc/self/fd/2", dev+"/stderr"),
	)
	if shm != "" {
		return append(ops, bind(shm, dev+"/shm", 0))
	}
	return append(ops, mount("tmpfs", "shm", dev+"/shm", safe, "mode=1777,size=64m"))
}

func touchBind(source, root string) op { return bind(source, root+source, 0) }

func writeFile(path, text string) op { return op{code: opWrite, a: 0o644, s: []string{path, text}} }

// netnsDir is where iproute2 looks for network namespaces by name.
const netnsDir = "/run/netns"

// ShowNetns gives a pod's network namespace a name on its node, as a CNI
// runtime does: `ip netns exec NAME` on the node then runs in the pod's.
func (r *Runtime) ShowNetns(p *Pod, name string) error {
	ns, err := p.pause.OpenNamespace("net")
	if err != nil {
		return err
	}
	defer ns.Close()
	return r.onNode(p.node, []int{int(ns.Fd())}, op{code: opBindFD, a: 1, s: []string{netnsDir + "/" + name}})
}

// HideNetns takes the name away. A learner may have done so already.
func (r *Runtime) HideNetns(p *Pod, name string) error {
	path := netnsDir + "/" + name
	err := r.onNode(p.node, nil, op{code: opUmount, s: []string{path}}, op{code: opRemove, s: []string{path}})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	return err
}

// onNode does ops in a node's mount and pid namespace; descriptor 0 is the
// node's pidfd, fds follow.
func (r *Runtime) onNode(n *Node, fds []int, ops ...op) error {
	pidfd, err := n.pause.dupPidfd()
	if err != nil {
		return fmt.Errorf("cannot enter node %s: %w", n.Name, err)
	}
	defer unix.Close(pidfd)
	ops = append([]op{setns(0, unix.CLONE_NEWNS)}, ops...)
	s, err := r.spawner.spawn(request{pidns: 0, ops: append(ops, op{code: opExit}), fds: append([]int{pidfd}, fds...)})
	if err != nil {
		return fmt.Errorf("on node %s: %w", n.Name, err)
	}
	s.abandon() // it has ended
	return nil
}

// lookupNode returns a running node.
func (r *Runtime) lookupNode(name string) (*Node, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := r.nodes[name]; n != nil {
		return n, nil
	}
	return nil, lab.Errorf(lab.CodeNotFound, "there is no node %q", name)
}
