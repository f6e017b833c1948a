package facts

import (
	"context"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"podlab/lab"
	"podlab/lab/kernel"
)

// readProcess reads a process's namespaces and command line from /proc.
func readProcess(pid int) lab.ProcessFacts {
	f := lab.ProcessFacts{Namespaces: map[string]uint64{}, Args: []string{}}
	if pid <= 0 {
		return f
	}
	dir := "/proc/" + strconv.Itoa(pid)
	for _, kind := range []string{"net", "ipc", "uts", "pid", "mnt"} {
		inode, ok := namespaceInode(dir, kind)
		if !ok {
			return lab.ProcessFacts{Namespaces: map[string]uint64{}, Args: []string{}} // it has ended
		}
		f.Namespaces[kind] = inode
	}
	f.Running = true
	if line := readBounded(dir+"/cmdline", maxText); len(line) > 0 {
		f.Args = strings.Split(strings.TrimRight(string(line), "\x00"), "\x00")
	}
	return f
}

// namespaceInode reads "net:[4026531840]", see namespaces(7).
func namespaceInode(procDir, kind string) (uint64, bool) {
	link, err := os.Readlink(procDir + "/ns/" + kind)
	if err != nil {
		return 0, false
	}
	number, ok := strings.CutPrefix(link, kind+":[")
	if !ok {
		return 0, false
	}
	inode, err := strconv.ParseUint(strings.TrimSuffix(number, "]"), 10, 64)
	return inode, err == nil
}

func readBounded(path string, limit int64) []byte {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit))
	if err != nil {
		return nil
	}
	return b
}

// owners finds the container and process of sockets, by the inode numbers
// that /proc/PID/fd shows.
type owners struct {
	containers map[uint64]string // of a mount namespace
	netns      map[uint64]bool   // of the pods with sockets
	missing    map[uint64]bool   // sockets not found yet
	found      map[uint64]owner
}

type owner struct{ container, process string }

const (
	maxProcesses   = 4096  // looked at
	maxDescriptors = 65536 // looked at, of all processes together
)

func newOwners() *owners {
	return &owners{containers: map[uint64]string{}, netns: map[uint64]bool{}, missing: map[uint64]bool{}, found: map[uint64]owner{}}
}

// want notes a pod's containers and the sockets to look for.
func (o *owners) want(pod lab.PodFacts, sockets []kernel.ListeningSocket) {
	for name, c := range pod.Containers {
		if c.Running {
			o.containers[c.Namespaces["mnt"]] = name
			o.netns[c.Namespaces["net"]] = true
		}
	}
	for _, s := range sockets {
		if s.Inode != 0 {
			o.missing[s.Inode] = true
		}
	}
}

// find walks the processes until every socket has its owner, all are seen, or
// a bound is reached.
func (o *owners) find(ctx context.Context) {
	if len(o.missing) == 0 {
		return
	}
	dir, err := os.Open("/proc")
	if err != nil {
		return
	}
	defer dir.Close()
	names, err := dir.Readdirnames(maxProcesses)
	if err != nil {
		return
	}
	budget := maxDescriptors
	for _, name := range names {
		if name[0] < '0' || name[0] > '9' {
			continue
		}
		if len(o.missing) == 0 || budget <= 0 || ctx.Err() != nil {
			return
		}
		budget -= o.process("/proc/"+name, budget)
	}
}

// process looks at one process and returns how many descriptors it looked at.
func (o *owners) process(dir string, budget int) int {
	if net, ok := namespaceInode(dir, "net"); !ok || !o.netns[net] {
		return 0
	}
	mnt, ok := namespaceInode(dir, "mnt")
	if !ok || o.containers[mnt] == "" {
		return 0
	}
	fds, err := os.Open(dir + "/fd")
	if err != nil {
		return 0
	}
	defer fds.Close()
	names, _ := fds.Readdirnames(min(budget, 4096)) // an error leaves none, or fewer
	process := strings.TrimSpace(string(readBounded(dir+"/comm", 64)))
	var buf [64]byte
	for _, fd := range names {
		n, err := unix.Readlinkat(int(fds.Fd()), fd, buf[:])
		if err != nil {
			continue
		}
		number, ok := strings.CutPrefix(string(buf[:n]), "socket:[")
		if !ok {
			continue
		}
		inode, err := strconv.ParseUint(strings.TrimSuffix(number, "]"), 10, 64)
		if err == nil && o.missing[inode] {
			o.found[inode] = owner{container: o.containers[mnt], process: process}
			delete(o.missing, inode)
		}
	}
	return len(names)
}

// named is a socket with its owner, where it is known.
func (o *owners) named(s kernel.ListeningSocket) lab.Socket {
	out := s.Socket
	out.Container, out.Process = o.found[s.Inode].container, o.found[s.Inode].process
	return out
}
