package observe

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"time"

	"podlab/lab"
	"podlab/lab/kernel"
	"podlab/lab/netns"
	"podlab/lab/plan"

	"golang.org/x/sys/unix"
)

// netnsDir is where `ip netns` keeps its namespaces, below a node's root.
const netnsDir = "run/netns"

// podNetns are the names of pods' namespaces on their node: `cni-` and the
// pod's UID. A name may outlive its pod for a moment.
var podNetns = regexp.MustCompile(`^cni-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// maxByHand bounds the namespaces of one node that are watched: each costs
// the agent a few descriptors.
const maxByHand = 64

// mountTime is the least time between two looks at a node's mounts.
const mountTime = 3 * time.Millisecond

// nodeMounts is a node whose /run/netns is watched. `ip netns add` makes an
// empty file there first and mounts the namespace on it afterwards, which
// inotify does not tell; the list of mounts tells both coming and going.
type nodeMounts struct {
	name string
	// mounts is /proc/PID/mountinfo, which wakes who polls it at each change,
	// proc_pid_mountinfo(5). It has a goroutine of its own, which sleeps in Go's
	// poller: to poll it takes the news away, so that it cannot be in an epoll
	// that is itself polled.
	mounts *os.File
	stop   chan struct{}
	done   chan struct{}
	root   int // the node's root directory
	found  map[string]uint64
}

// close ends the goroutine.
func (n *nodeMounts) close() {
	close(n.stop)
	n.mounts.Close()
	<-n.done
	unix.Close(n.root)
}

// WatchNode begins to watch the namespaces that are made by hand on a node.
// proc is the directory in /proc of a process in the node, such as "/proc/7".
func (w *Watcher) WatchNode(node, proc string) error {
	n, err := openNode(node, proc)
	if err != nil {
		return err
	}
	conn, err := n.mounts.SyscallConn()
	if err != nil {
		n.mounts.Close()
		unix.Close(n.root)
		return fmt.Errorf("cannot watch the mounts of node %s: %w", node, err)
	}
	go func() {
		defer close(n.done)
		// Returns when the file is closed.
		_ = conn.Read(func(uintptr) bool {
			w.post(func() { w.scan(n) })
			// A node that mounts without end is looked at so often.
			select {
			case <-n.stop:
			case <-time.After(mountTime):
			}
			return false
		})
	}()
	watched := false
	w.call(func() {
		if old := w.nodes[node]; old != nil {
			n.found = old.found
			old.close()
		}
		w.nodes[node] = n
		watched = true
		w.scan(n)
	})
	if !watched {
		n.close()
		return fmt.Errorf("cannot watch the mounts of node %s: %w", node, os.ErrClosed)
	}
	return nil
}

func openNode(node, proc string) (*nodeMounts, error) {
	mounts, err := unix.Open(proc+"/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot watch the mounts of node %s: %w", node, err)
	}
	root, err := unix.Open(proc+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		unix.Close(mounts)
		return nil, fmt.Errorf("cannot watch the mounts of node %s: %w", node, err)
	}
	return &nodeMounts{
		name: node, mounts: os.NewFile(uintptr(mounts), proc+"/mountinfo"), stop: make(chan struct{}), done: make(chan struct{}),
		root: root, found: map[string]uint64{},
	}, nil
}

// scan compares the node's /run/netns with what is known of it.
func (w *Watcher) scan(n *nodeMounts) {
	if w.nodes[n.name] != n {
		return // no longer, or not yet: then again when it is
	}
	now, err := w.list(n)
	if err != nil {
		w.cfg.Logger.Error("cannot look for namespaces made by hand", "node", n.name, "err", err)
		return
	}
	for name, inode := range n.found {
		if ns := now[name]; ns == nil || ns.Inode() != inode {
			delete(n.found, name)
			w.remove(plan.ByHandID(n.name, name))
		}
	}
	for name, ns := range now {
		if _, known := n.found[name]; known || len(n.found) >= maxByHand {
			ns.Close()
			continue
		}
		h, err := kernel.Open(ns)
		if err != nil {
			ns.Close()
			w.cfg.Logger.Error("cannot open a namespace made by hand", "node", n.name, "name", name, "err", err)
			continue
		}
		n.found[name] = ns.Inode()
		w.add(&watched{handle: h, owned: true, ns: lab.Namespace{
			ID: plan.ByHandID(n.name, name), Kind: lab.NamespaceByHand, Name: name, Node: n.name,
		}})
	}
}

// list opens the namespaces in the node's /run/netns that are not the lab's
// own. Learners may put anything there: nothing is followed out of the node's
// root, and what is not a namespace is left alone.
func (w *Watcher) list(n *nodeMounts) (map[string]*netns.NS, error) {
	found := map[string]*netns.NS{}
	fd, err := unix.Openat2(n.root, netnsDir, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return found, nil
	case err != nil:
		return nil, fmt.Errorf("cannot open /%s: %w", netnsDir, err)
	}
	dir := os.NewFile(uintptr(fd), netnsDir)
	defer dir.Close()
	names, err := dir.Readdirnames(4 * maxByHand)
	if err != nil && len(names) == 0 {
		return found, nil // empty
	}
	for _, name := range names {
		if podNetns.MatchString(name) {
			continue
		}
		ns, err := openByHand(fd, name)
		if err != nil {
			continue // not (yet) a namespace; another change of mounts will tell
		}
		if w.cfg.Known != nil && w.cfg.Known(ns.Inode()) {
			ns.Close()
			continue
		}
		found[name] = ns
	}
	return found, nil
}

func openByHand(dir int, name string) (*netns.NS, error) {
	// Without O_NONBLOCK, a named pipe would hold up the watcher.
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return netns.FromFile(os.NewFile(uintptr(fd), name))
}
