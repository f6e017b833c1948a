package launch

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Cgroups of a lab, in each hierarchy that is used: work holds everything the
// learner makes and bears the limits, agent holds PID 1 once it is up.
const (
	workGroup  = "work"
	agentGroup = "agent"
)

// hierarchy is one mounted cgroup tree of the host.
type hierarchy struct {
	// Parent is the directory under which podlab makes its groups.
	Parent      string
	V2          bool
	Controllers []string
}

// labCgroup is a lab's directory in one hierarchy.
type labCgroup struct {
	Dir         string   `json:"dir"`
	V2          bool     `json:"v2,omitempty"`
	Controllers []string `json:"controllers,omitempty"`
}

// mode names the host's arrangement, as systemd does.
type cgroupMode string

const (
	cgroupUnified cgroupMode = "unified"
	cgroupHybrid  cgroupMode = "hybrid"
	cgroupLegacy  cgroupMode = "legacy"
)

// hybridMount is where hosts of both kinds have their controller-less v2 tree.
const hybridMount = "/sys/fs/cgroup/unified"

// controllers are those whose limits a lab needs.
var controllers = []string{"memory", "pids", "cpu"}

// findHierarchies reads what the host has. Every v1 hierarchy is returned, so
// that a caller can follow runtimes that use them all; those without a
// controller of ours come last.
func findHierarchies() ([]hierarchy, cgroupMode, error) {
	mountinfo, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, "", fmt.Errorf("cannot read the mount table: %w", err)
	}
	cgroup, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, "", fmt.Errorf("cannot read the server's cgroups: %w", err)
	}
	own, mounts := ownCgroups(string(cgroup)), cgroupMounts(string(mountinfo))
	var hs []hierarchy
	v1, v2 := false, false
	for _, m := range mounts {
		h := hierarchy{V2: m.v2, Controllers: m.controllers}
		key := strings.Join(m.controllers, ",")
		if m.v2 {
			key = ""
			b, err := os.ReadFile(filepath.Join(m.dir, "cgroup.controllers"))
			if err != nil {
				return nil, "", fmt.Errorf("cannot read the controllers of %s: %w", m.dir, err)
			}
			h.Controllers = strings.Fields(string(b))
			v2 = true
		} else {
			v1 = true
		}
		path, ok := own[key]
		if !ok {
			continue
		}
		h.Parent = m.place(path)
		if _, err := os.Stat(filepath.Join(m.dir, "cgroup.type")); m.v2 && errors.Is(err, os.ErrNotExist) {
			// The true root may have processes beside groups; a session's or a
			// service's own group may not.
			h.Parent = m.dir
		}
		hs = append(hs, h)
	}
	slices.SortStableFunc(hs, func(a, b hierarchy) int { return len(b.limits()) - len(a.limits()) })
	mode := cgroupLegacy
	if v2 {
		mode = cgroupUnified
		if v1 {
			mode = cgroupHybrid
		}
	}
	if len(hs) == 0 {
		return nil, mode, errors.New("no cgroup hierarchy is mounted")
	}
	return hs, mode, nil
}

// limits lists the hierarchy's controllers that podlab sets limits with.
func (h hierarchy) limits() []string {
	return slices.DeleteFunc(slices.Clone(controllers), func(c string) bool { return !slices.Contains(h.Controllers, c) })
}

// prepare makes the common parent of all labs and, on v2, hands the
// controllers down to it.
func (h hierarchy) prepare(name string) error {
	dir := filepath.Join(h.Parent, name)
	if err := mkdirExisting(dir); err != nil {
		return fmt.Errorf("cannot make cgroup %s: %w", dir, err)
	}
	if !h.V2 {
		return h.fillCpuset(dir)
	}
	for _, d := range []string{h.Parent, dir} {
		if err := enableControllers(d, h.limits()); err != nil {
			return err
		}
	}
	return nil
}

// fillCpuset gives a new v1 cpuset its parent's processors and memory, and has
// groups below it start with the same: nothing can enter an empty one.
func (h hierarchy) fillCpuset(dir string) error {
	if !slices.Contains(h.Controllers, "cpuset") {
		return nil
	}
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		b, err := os.ReadFile(filepath.Join(h.Parent, file))
		if err == nil {
			err = writeCgroup(dir, file, strings.TrimSpace(string(b)))
		}
		if err != nil {
			return fmt.Errorf("cannot fill cpuset %s: %w", dir, err)
		}
	}
	return writeCgroup(dir, "cgroup.clone_children", "1")
}

// enableControllers hands controllers down to a v2 group's children.
func enableControllers(dir string, names []string) error {
	for _, c := range names {
		err := writeCgroup(dir, "cgroup.subtree_control", "+"+c)
		if errors.Is(err, unix.EBUSY) {
			// Processes may not live beside children with controllers. This is our
			// container's own group: those in it move to a leaf.
			if err = clearOut(dir); err == nil {
				err = writeCgroup(dir, "cgroup.subtree_control", "+"+c)
			}
		}
		if err != nil {
			return fmt.Errorf("cannot hand controller %s down in cgroup %s: %w", c, dir, err)
		}
	}
	return nil
}

// clearOut moves the processes of a group into a leaf below it.
func clearOut(dir string) error {
	leaf := filepath.Join(dir, "podlab-server")
	if err := mkdirExisting(leaf); err != nil {
		return err
	}
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return err
	}
	for _, pid := range strings.Fields(string(b)) {
		if err := writeCgroup(leaf, "cgroup.procs", pid); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

// make creates the lab's groups and sets their limits.
func (g labCgroup) make(l Limits) error {
	for _, d := range []string{g.Dir, g.work(), g.agent()} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return fmt.Errorf("cannot make cgroup: %w", err)
		}
		if d == g.Dir && g.V2 {
			h := hierarchy{Controllers: g.Controllers}
			if err := enableControllers(d, h.limits()); err != nil {
				return err
			}
		}
	}
	for _, w := range g.limitWrites(l) {
		err := writeCgroup(w.dir, w.file, w.value)
		if errors.Is(err, os.ErrNotExist) && w.optional {
			continue
		}
		if err != nil {
			return fmt.Errorf("cannot set %s of cgroup %s to %s: %w", w.file, w.dir, w.value, err)
		}
	}
	return nil
}

func (g labCgroup) work() string  { return filepath.Join(g.Dir, workGroup) }
func (g labCgroup) agent() string { return filepath.Join(g.Dir, agentGroup) }

// limitWrite is one limit as the file write that sets it.
type limitWrite struct {
	dir, file, value string
	// optional: kernels without swap accounting lack the file.
	optional bool
}

// cpuPeriod is the kernel's default accounting period of CPU quotas.
const cpuPeriod = 100 * time.Millisecond

func (g labCgroup) limitWrites(l Limits) []limitWrite {
	var ws []limitWrite
	has := func(c string) bool { return slices.Contains(g.Controllers, c) }
	mem, agentMem := strconv.FormatInt(l.MemoryBytes, 10), strconv.FormatInt(l.AgentMemoryBytes, 10)
	quota := strconv.FormatInt(int64(l.CPUs*float64(cpuPeriod.Microseconds())), 10)
	period := strconv.FormatInt(cpuPeriod.Microseconds(), 10)
	if has("memory") && g.V2 {
		ws = append(ws,
			limitWrite{g.work(), "memory.max", mem, false}, limitWrite{g.work(), "memory.swap.max", "0", true},
			limitWrite{g.agent(), "memory.max", agentMem, false}, limitWrite{g.agent(), "memory.swap.max", "0", true})
	}
	if has("memory") && !g.V2 {
		// memsw counts memory and swap together, and must not be below the first.
		ws = append(ws,
			limitWrite{g.work(), "memory.limit_in_bytes", mem, false}, limitWrite{g.work(), "memory.memsw.limit_in_bytes", mem, true},
			limitWrite{g.agent(), "memory.limit_in_bytes", agentMem, false}, limitWrite{g.agent(), "memory.memsw.limit_in_bytes", agentMem, true})
	}
	if has("pids") {
		ws = append(ws, limitWrite{g.work(), "pids.max", strconv.FormatInt(l.PIDs, 10), false})
	}
	if has("cpu") && l.CPUs > 0 {
		if g.V2 {
			ws = append(ws, limitWrite{g.work(), "cpu.max", quota + " " + period, false})
		} else {
			ws = append(ws, limitWrite{g.work(), "cpu.cfs_period_us", period, false}, limitWrite{g.work(), "cpu.cfs_quota_us", quota, false})
		}
	}
	return ws
}

// oomKills is how many times the kernel killed in the lab for want of memory.
func (g labCgroup) oomKills(group string) int {
	file := "memory.oom_control"
	if g.V2 {
		file = "memory.events"
	}
	f, err := os.Open(filepath.Join(g.Dir, group, file))
	if err != nil {
		return 0
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if v, ok := strings.CutPrefix(s.Text(), "oom_kill "); ok {
			n, _ := strconv.Atoi(v)
			return n
		}
	}
	return 0
}

// killAll kills every process in the lab's groups, the runtime's own included,
// and returns when they have ended. Each is named by a pidfd and only then seen
// to be in the group, so that a number used again never hits a stranger.
func (g labCgroup) killAll(patience time.Duration) error {
	members, err := g.openMembers()
	errs := []error{err}
	if !g.V2 || writeCgroup(g.Dir, "cgroup.kill", "1") != nil {
		for _, fd := range members {
			errs = append(errs, kill(fd))
		}
	}
	for _, fd := range members {
		errs = append(errs, fd.SetReadDeadline(time.Now().Add(patience)), await(fd))
		reap(fd)
		fd.Close()
	}
	return errors.Join(errs...)
}

// openMembers returns a pidfd of each process in the lab's groups.
func (g labCgroup) openMembers() ([]*os.File, error) {
	before, err := g.allProcs()
	if err != nil || len(before) == 0 {
		return nil, err
	}
	opened := map[int]*os.File{}
	var errs []error
	for _, pid := range before {
		fd, err := pidfdOpen(pid)
		if err == nil {
			opened[pid] = fd
		} else if !errors.Is(err, errGone) {
			errs = append(errs, err)
		}
	}
	after, err := g.allProcs()
	errs = append(errs, err)
	var members []*os.File
	for pid, fd := range opened {
		if slices.Contains(after, pid) {
			members = append(members, fd)
		} else {
			fd.Close()
		}
	}
	return members, errors.Join(errs...)
}

func (g labCgroup) allProcs() ([]int, error) {
	var all []int
	for _, dir := range g.tree() {
		pids, err := g.procs(dir)
		if err != nil {
			return nil, err
		}
		all = append(all, pids...)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// procs lists a group's processes; a group that is gone has none. The server
// itself is left out: v1 names it while the thread that started the runtime,
// which had entered the group, has not ended yet.
func (g labCgroup) procs(dir string) ([]int, error) {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot list the processes of cgroup %s: %w", dir, err)
	}
	var pids []int
	for _, f := range strings.Fields(string(b)) {
		pid, err := strconv.Atoi(f)
		if err != nil {
			return nil, fmt.Errorf("cannot list the processes of cgroup %s: %w", dir, err)
		}
		if pid > 0 && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// tree lists the lab's groups, leaves first. A runtime or a lab never makes
// groups below ours, but what an older server made is followed too.
func (g labCgroup) tree() []string {
	var dirs []string
	_ = filepath.WalkDir(g.Dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	slices.Reverse(dirs)
	return dirs
}

// remove takes the groups away; EBUSY means that processes are still ending.
func (g labCgroup) remove() error {
	for _, dir := range g.tree() {
		if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("cannot remove cgroup %s: %w", dir, err)
		}
	}
	return nil
}

func writeCgroup(dir, file, value string) error {
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

func mkdirExisting(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return nil
}

type cgroupMount struct {
	dir, root   string
	v2          bool
	controllers []string
}

// place is the directory of a group in the mount. A group outside of what is
// mounted (as in a container without a cgroup namespace) is at the mount itself.
func (m cgroupMount) place(group string) string {
	rel, err := filepath.Rel(m.root, group)
	if err != nil || strings.HasPrefix(rel, "..") {
		rel = "."
	}
	return filepath.Join(m.dir, rel)
}

// cgroupMounts finds the hierarchies in a mountinfo (proc_pid_mountinfo(5)).
func cgroupMounts(mountinfo string) []cgroupMount {
	var ms []cgroupMount
	for line := range strings.Lines(mountinfo) {
		left, right, ok := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 5 || len(r) < 3 {
			continue
		}
		switch r[0] {
		case "cgroup2":
			ms = append(ms, cgroupMount{dir: l[4], root: l[3], v2: true})
		case "cgroup":
			m := cgroupMount{dir: l[4], root: l[3]}
			for o := range strings.SplitSeq(r[2], ",") {
				if isController(o) {
					m.controllers = append(m.controllers, o)
				}
			}
			slices.Sort(m.controllers)
			ms = append(ms, m)
		}
	}
	return ms
}

func isController(option string) bool {
	switch option {
	case "rw", "ro", "xattr", "noprefix", "clone_children", "nosuid", "nodev", "noexec", "relatime":
		return false
	}
	return !strings.HasPrefix(option, "release_agent=")
}

// ownCgroups maps sorted controller lists ("" is v2) to a process's group, from
// its /proc/PID/cgroup.
func ownCgroups(cgroup string) map[string]string {
	own := map[string]string{}
	for line := range strings.Lines(cgroup) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		names := strings.Split(f[1], ",")
		slices.Sort(names)
		own[strings.Join(names, ",")] = f[2]
	}
	return own
}
