package launch

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"podlab/lab"
	"podlab/lab/agentapi"
)

// TestPrivilegedNoSight looks around from a root shell of a sandbox.
func TestPrivilegedNoSight(t *testing.T) {
	l := newLauncher(t, t.TempDir())
	other := create(t, l, "other")
	sb := create(t, l, "one")

	// Processes: only those of the sandbox, and nothing of the host's numbers.
	for line := range strings.Lines(in(t, l, "one", "ps -eo pid,args --no-headers")) {
		f := strings.Fields(line)
		pid, err := strconv.Atoi(f[0])
		if err != nil || pid > 100 {
			t.Errorf("a process of the host shows: %s", line)
		}
	}
	if got := in(t, l, "one", fmt.Sprintf("kill -0 %d || kill -0 %d", sb.PID, os.Getpid())); !strings.Contains(got, "No such process") {
		t.Errorf("the host's processes can be named: %q", got)
	}

	// Files: the root is the labs' own, read-only; nothing leads out.
	host := filepath.Join(l.opt.Data, "secret")
	if err := os.WriteFile(host, []byte("the host's secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{host, filepath.Join(l.labs(), other.ID), "/proc/1/root" + host} {
		if got := in(t, l, "one", "cat "+path); !strings.Contains(got, "No such file") {
			t.Errorf("%s can be read: %q", path, got)
		}
	}
	for _, path := range []string{"/etc/x", "/images/x", "/usr/bin/podlab"} {
		if got := in(t, l, "one", "echo x >>"+path); !strings.Contains(got, "Read-only") && !strings.Contains(got, "Permission denied") {
			t.Errorf("%s can be written: %q", path, got)
		}
	}
	mounts := in(t, l, "one", "cat /proc/self/mountinfo")
	if strings.Contains(mounts, "/labs/other") {
		t.Errorf("another lab's directory shows:\n%s", mounts)
	}

	// The host's devices and knobs.
	for what, command := range map[string]string{
		"owner of the host's /dev/null": "chmod 600 /dev/null",
		"device nodes":                  "mknod /scratch/d b 254 0 && cat /scratch/d",
		"sysrq":                         "echo h >/proc/sysrq-trigger",
		"core pattern":                  "echo '|/scratch/x' >/proc/sys/kernel/core_pattern",
		"modprobe path":                 "echo /scratch/x >/proc/sys/kernel/modprobe",
		"kernel log":                    "cat /proc/kmsg",
		"uevents":                       "echo add >/sys/class/tty/tty0/uevent",
		"power":                         "echo mem >/sys/power/state",
		"cgroup limits":                 "echo 100000 >/sys/fs/cgroup/pids.max",
	} {
		got := in(t, l, "one", "("+command+") 2>&1 && echo DONE")
		if strings.Contains(got, "DONE") {
			t.Errorf("%s: %q succeeded in the sandbox", what, command)
		}
	}
	var st unix.Stat_t
	if err := unix.Stat("/dev/null", &st); err != nil || st.Uid != 0 || st.Mode&0o777 != 0o666 {
		t.Errorf("the host's /dev/null has changed: uid %d, mode %o, %v", st.Uid, st.Mode, err)
	}
}

// TestPrivilegedNoNetwork: a sandbox starts with a loopback of its own and no
// way to anything that listens on the host, nor to another sandbox.
func TestPrivilegedNoNetwork(t *testing.T) {
	l := newLauncher(t, t.TempDir())
	create(t, l, "one")
	create(t, l, "two")
	in(t, l, "two", "true")

	if got := in(t, l, "one", "ls /sys/class/net"); strings.TrimSpace(got) != "lo" {
		t.Errorf("interfaces: %q, want lo only", got)
	}
	for _, f := range []string{"-4", "-6"} {
		for line := range strings.Lines(in(t, l, "one", "ip "+f+" route show table all")) {
			if !strings.Contains(line, " dev lo ") {
				t.Errorf("a route leads out: %s", line)
			}
		}
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	_, port, err := net.SplitHostPort(tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if got := in(t, l, "one", "curl -sS --max-time 5 http://127.0.0.1:"+port); !strings.Contains(got, "[exit status 7]") {
		t.Errorf("the host's port on 127.0.0.1: %q, want refused", got)
	}
	// Abstract sockets belong to a network namespace.
	abstract := "@podlab-test-" + port
	unixListener, err := net.Listen("unix", abstract)
	if err != nil {
		t.Fatal(err)
	}
	defer unixListener.Close()
	if got := in(t, l, "one", "curl -sS --max-time 5 --abstract-unix-socket "+abstract[1:]+" http://x/"); !strings.Contains(got, "[exit status 7]") {
		t.Errorf("the host's abstract socket: %q, want refused", got)
	}
	if got := in(t, l, "one", "cat /proc/net/unix"); strings.Contains(got, abstract) {
		t.Errorf("the host's abstract socket shows:\n%s", got)
	}
}

// hostView is what the commands of issue 2 show on the host.
func hostView(t *testing.T) map[string]string {
	t.Helper()
	view := map[string]string{}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	view["mount"] = string(mounts)
	ifs, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range ifs {
		view["ip link"] += i.Name + "\n"
	}
	entries, err := os.ReadDir("/run/netns")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		view["ip netns"] += e.Name() + "\n"
	}
	// The labs' own nft, in the host's network namespace.
	out, err := exec.Command("chroot", testRootFS(t), "nft", "list", "ruleset").CombinedOutput()
	if err != nil {
		t.Fatalf("nft: %v: %s", err, out)
	}
	view["nft list ruleset"] = string(out)
	return view
}

// TestPrivilegedHostSeesNothing runs twenty sandboxes with interfaces, network
// namespaces, mounts and rules in each, and looks at the host.
func TestPrivilegedHostSeesNothing(t *testing.T) {
	l := newLauncher(t, t.TempDir())
	before := hostView(t)
	const labs = 20
	for i := range labs {
		id := fmt.Sprintf("lab-%d", i)
		create(t, l, id)
		got := in(t, l, id, "set -e; ip link add underlay0 type bridge; ip netns add node1; "+
			"ip link add v0 type veth peer name v1 netns node1; nft add table inet podlab; ls /run/netns; nft list ruleset")
		if !strings.Contains(got, "node1") || !strings.Contains(got, "table inet podlab") {
			t.Fatalf("%s: %q", id, got)
		}
	}
	for what, after := range hostView(t) {
		if after != before[what] {
			t.Errorf("%s shows something of the labs:\nbefore:\n%s\nafter:\n%s", what, before[what], after)
		}
	}
	uids := map[uint32]bool{}
	for _, sb := range l.List() {
		if uids[sb.UIDBase] || sb.UIDBase%idsPerLab != 0 || sb.UIDBase < FirstUID {
			t.Errorf("sandbox %s has uids from %d, not its own", sb.ID, sb.UIDBase)
		}
		uids[sb.UIDBase] = true
	}
	if len(uids) != labs {
		t.Errorf("%d uid ranges for %d labs", len(uids), labs)
	}
}

// neighbour keeps asking a sandbox to start processes and use memory and disk,
// and counts the answers that are right.
type neighbour struct {
	stop chan struct{}
	wg   sync.WaitGroup
	ok   int
	bad  []string
}

func watchNeighbour(t *testing.T, l *Launcher, id string) *neighbour {
	n := &neighbour{stop: make(chan struct{})}
	n.wg.Go(func() {
		for {
			select {
			case <-n.stop:
				return
			default:
			}
			got := in(t, l, id, "for i in 1 2 3 4 5; do /bin/true; done; head -c 4M /dev/zero >/scratch/n && wc -c </scratch/n")
			if strings.TrimSpace(got) == strconv.Itoa(4<<20) {
				n.ok++
			} else {
				n.bad = append(n.bad, got)
			}
		}
	})
	return n
}

func (n *neighbour) check(t *testing.T) {
	t.Helper()
	close(n.stop)
	n.wg.Wait()
	if n.ok == 0 || len(n.bad) > 0 {
		t.Errorf("the neighbour answered %d times right and %d times wrong: %q", n.ok, len(n.bad), n.bad)
	}
}

// TestPrivilegedLimits lets one sandbox misbehave in three ways. It must hit its
// own limits and keep its agent; the neighbour and the host must not notice.
func TestPrivilegedLimits(t *testing.T) {
	limits := Limits{MemoryBytes: 128 << 20, PIDs: 200, CPUs: 0.5, ScratchBytes: 32 << 20, ScratchInodes: 1000}
	tests := []struct {
		name, command string
		// want must be in what the command prints or is found out after it.
		want string
	}{
		{"fork bomb", "bomb() { bomb | bomb & }; bomb; wait", ""},
		{"memory hog", "tail /dev/zero; echo ended $?", "ended 137"},
		{"disk filler", "head -c 1G /dev/zero >/scratch/big; wc -c </scratch/big", "No space left"},
		{"inode filler", "i=0; while : >/scratch/f$i; do i=$((i+1)); done; echo $i", "No space left"},
		{"filler of /dev and /run", "for d in /dev /run /tmp /dev/shm; do head -c 1G /dev/zero >$d/big; rm $d/big; done", "No space left"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			l := newLauncher(t, t.TempDir())
			for _, id := range []string{"victim", "neighbour"} {
				if _, err := l.Create(t.Context(), Request{ID: id, Config: agentapi.Config{ID: id}, Limits: limits}); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { destroy(t, l, id) })
				in(t, l, id, "true")
				if err := l.MoveAgent(id); err != nil {
					t.Fatal(err)
				}
			}
			n := watchNeighbour(t, l, "neighbour")
			if test.want == "" {
				bombUntilLimit(t, l, test.command, limits.PIDs)
			} else if got := in(t, l, "victim", test.command); !strings.Contains(got, test.want) {
				t.Errorf("got %q, want %q in it", got, test.want)
			}
			n.check(t)
			for _, sb := range l.List() {
				if sb.State != StateRunning {
					t.Errorf("sandbox %s is %+v, want running", sb.ID, sb)
				}
			}
		})
	}
}

// bombUntilLimit starts a fork bomb and waits until the kernel has refused it
// a process; then the bomb must be at its limit, and the agent alive.
func bombUntilLimit(t *testing.T, l *Launcher, command string, limit int64) {
	t.Helper()
	var wg sync.WaitGroup
	defer wg.Wait()
	conn := dial(t, l, "victim")
	defer conn.Close()
	if _, err := conn.Write([]byte(command + "\x00")); err != nil {
		t.Fatal(err)
	}
	sb, err := l.get("victim")
	if err != nil {
		t.Fatal(err)
	}
	var pids labCgroup
	for _, g := range sb.rec.Cgroups {
		if slices.Contains(g.Controllers, "pids") {
			pids = g
		}
	}
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		events, err := os.ReadFile(filepath.Join(pids.work(), "pids.events"))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(events, []byte("max 0")) {
			break
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("the bomb met no limit: %s", events)
		}
	}
	current, err := os.ReadFile(filepath.Join(pids.work(), "pids.current"))
	if err != nil {
		t.Fatal(err)
	}
	if have, err := strconv.ParseInt(strings.TrimSpace(string(current)), 10, 64); err != nil || have > limit {
		t.Errorf("%d processes in the sandbox, limit %d: %v", have, limit, err)
	}
}

// TestPrivilegedDeleteUnderFire: a sandbox full of processes that fork goes as
// any other.
func TestPrivilegedDeleteUnderFire(t *testing.T) {
	l := newLauncher(t, t.TempDir())
	create(t, l, "victim")
	bombUntilLimit(t, l, "bomb() { bomb | bomb & }; bomb; wait", DefaultLimits().PIDs)
	destroy(t, l, "victim")
	for _, trace := range traces(t, l, nil) {
		t.Errorf("left behind: %s", trace)
	}
}

// TestPrivilegedOverfullDirectory: an agent that was taken over cannot fill the
// host's disk by its run directory or its log.
func TestPrivilegedOverfullDirectory(t *testing.T) {
	l := newLauncher(t, t.TempDir())
	create(t, l, "one")
	exit, err := l.Watch("one")
	if err != nil {
		t.Fatal(err)
	}
	in(t, l, "one", "head -c 4M /dev/zero | tr '\\0' 'x\\n' >/proc/1/fd/1; echo last words >/proc/1/fd/1")
	l.checkBounds()
	st, err := os.Stat(filepath.Join(l.dir("one"), logFile))
	if err != nil || st.Size() > 2*logKeep {
		t.Errorf("the log has %d bytes after trimming, want at most %d: %v", st.Size(), 2*logKeep, err)
	}
	if got := tail(filepath.Join(l.dir("one"), logFile), 100); !strings.HasSuffix(got, "last words") {
		t.Errorf("trimming lost the log's end: %q", got)
	}
	if got := in(t, l, "one", "i=0; while [ $i -le 10000 ]; do : >/run/podlab/f$i; i=$((i+1)); done; echo $i"); got != "10001\n" {
		t.Fatal(got)
	}
	l.checkBounds()
	if e := <-exit; !strings.Contains(e.Reason, "10000 files") {
		t.Errorf("reason %q, want the bound named", e.Reason)
	}
}

// TestPrivilegedWatch: how an agent ended is told, and its directory lives on
// into a restart.
func TestPrivilegedWatch(t *testing.T) {
	l := newLauncher(t, t.TempDir())
	create(t, l, "one")
	in(t, l, "one", "echo kept >/run/podlab/journal")
	for _, test := range []struct{ command, reason, log string }{
		{"exit", "exit status 7", "the spawner ended: exit status 7"},
		{"kill -SEGV 1", "exit status 2", "SIGSEGV: segmentation violation"}, // and pages of goroutines after it
	} {
		exit, err := l.Watch("one")
		if err != nil {
			t.Fatal(err)
		}
		in(t, l, "one", test.command)
		e, ok := <-exit
		if !ok || !strings.Contains(e.Reason, test.reason) || !strings.Contains(e.Log, test.log) {
			t.Errorf("after %q: %+v, want %q", test.command, e, test.reason)
		}
		if _, err := l.Restart(t.Context(), Request{ID: "one"}); err != nil {
			t.Fatal(err)
		}
		if got := in(t, l, "one", "cat /run/podlab/journal"); got != "kept\n" {
			t.Errorf("the journal after a restart: %q", got)
		}
	}
	sb := l.List()[0]
	exit, err := l.Watch("one")
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(sb.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if e := <-exit; !strings.Contains(e.Reason, "SIGKILL") {
		t.Errorf("after SIGKILL: %+v", e)
	}
	if got := l.List()[0]; got.State != StateStopped || got.Ended == nil {
		t.Errorf("after its agent was killed: %+v", got)
	}
}

// TestPrivilegedOOM: an agent that outgrows its limit is killed and the reason
// says so.
func TestPrivilegedOOM(t *testing.T) {
	l := newLauncher(t, t.TempDir())
	_, err := l.Create(t.Context(), Request{ID: "one", Limits: Limits{MemoryBytes: 48 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { destroy(t, l, "one") })
	exit, err := l.Watch("one")
	if err != nil {
		t.Fatal(err)
	}
	in(t, l, "one", "tail /dev/zero; kill -KILL $PPID")
	if e := <-exit; !e.OOM || !strings.Contains(e.Reason, "want of memory") {
		t.Errorf("%+v, want OOM", e)
	}
}

// TestPrivilegedDialTrustsNothing puts other things where the socket should be.
func TestPrivilegedDialTrustsNothing(t *testing.T) {
	l := newLauncher(t, t.TempDir())
	create(t, l, "one")
	outside := filepath.Join(t.TempDir(), "host.sock")
	ln, err := net.Listen("unix", outside)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	in(t, l, "one", "true")
	socket := filepath.Join(l.dir("one"), runDir, agentapi.Socket)
	for name, plant := range map[string]func() error{
		"link to a host's socket": func() error { return os.Symlink(outside, socket) },
		"a host's socket itself":  func() error { return os.Rename(outside, socket) },
		"plain file":              func() error { return os.WriteFile(socket, nil, 0o666) },
		"directory":               func() error { return os.Mkdir(socket, 0o777) },
	} {
		if err := os.RemoveAll(socket); err != nil {
			t.Fatal(err)
		}
		if name == "a host's socket itself" {
			outside = filepath.Join(t.TempDir(), "other.sock")
			ln, err := net.Listen("unix", outside)
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
		}
		if err := plant(); err != nil {
			t.Fatal(err)
		}
		conn, err := l.Dial(t.Context(), "one")
		if err == nil {
			conn.Close()
		}
		var le *lab.Error
		if !errors.As(err, &le) || le.Code != lab.CodeForbidden {
			t.Errorf("%s: got %v, want %s", name, err, lab.CodeForbidden)
		}
	}
}

// TestPrivilegedUpgrade: a new program for new labs; those that run keep theirs
// until they go.
func TestPrivilegedUpgrade(t *testing.T) {
	data := t.TempDir()
	old := newLauncher(t, data)
	if _, err := old.Create(t.Context(), Request{ID: "one"}); err != nil {
		t.Fatal(err)
	}
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "newer")
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, append(self, "newer"...), 0o755); err != nil {
		t.Fatal(err)
	}
	newer := newLauncherWith(t, Options{Data: data, Program: program})
	t.Cleanup(func() { destroy(t, newer, "one") })
	if _, err := newer.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	create(t, newer, "two")
	sum := "sha256sum /usr/bin/podlab | cut -c 1-16"
	one, two := in(t, newer, "one", sum), in(t, newer, "two", sum)
	if "podlab-"+strings.TrimSpace(one) != old.binary || "podlab-"+strings.TrimSpace(two) != newer.binary || one == two {
		t.Errorf("programs: one %q (want %s), two %q (want %s)", one, old.binary, two, newer.binary)
	}
	destroy(t, newer, "one")
	if err := newer.dropUnused(); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(newer.bin())
	if err != nil {
		t.Fatal(err)
	}
	if len(left) != 1 || left[0].Name() != newer.binary {
		t.Errorf("programs kept: %v, want only %s", left, newer.binary)
	}
}

// TestPrivilegedBadRequests change nothing.
func TestPrivilegedBadRequests(t *testing.T) {
	l := newLauncher(t, t.TempDir())
	create(t, l, "one")
	for _, id := range []string{"", "..", "a/b", "A", "-a", strings.Repeat("a", 64), "one\x00"} {
		var le *lab.Error
		if _, err := l.Create(t.Context(), Request{ID: id}); !errors.As(err, &le) || le.Code != lab.CodeInvalid {
			t.Errorf("id %q: got %v, want %s", id, err, lab.CodeInvalid)
		}
	}
	var le *lab.Error
	if _, err := l.Create(t.Context(), Request{ID: "one"}); !errors.As(err, &le) || le.Code != lab.CodeConflict {
		t.Errorf("an id that is taken: got %v, want %s", err, lab.CodeConflict)
	}
	if _, err := l.Restart(t.Context(), Request{ID: "one"}); !errors.As(err, &le) || le.Code != lab.CodeConflict {
		t.Errorf("restart of what runs: got %v, want %s", err, lab.CodeConflict)
	}
	if err := l.Delete(t.Context(), "none"); err != nil {
		t.Errorf("delete of nothing: %v", err)
	}
	if got := in(t, l, "one", "echo alive"); got != "alive\n" {
		t.Errorf("the lab answers %q", got)
	}
	for _, trace := range traces(t, l, map[string]Sandbox{"one": {}}) {
		t.Errorf("left behind: %s", trace)
	}
}

// TestPrivilegedAwkwardData: the data directory may be where the runtime's
// private mounts go, and below a directory that only root may enter.
func TestPrivilegedAwkwardData(t *testing.T) {
	data, err := os.MkdirTemp(stage, "podlab-test-") // made with mode 0700
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(data); err != nil {
			t.Error(err)
		}
	})
	l := newLauncher(t, filepath.Join(data, "deeper"))
	create(t, l, "one")
	if got := in(t, l, "one", "echo alive"); got != "alive\n" {
		t.Errorf("the lab answers %q", got)
	}
}

// TestPrivilegedFullDisk: what cannot be recorded can still be deleted, and a
// lab that finds no room leaves nothing.
func TestPrivilegedFullDisk(t *testing.T) {
	data := t.TempDir()
	if err := unix.Mount("small", data, "tmpfs", 0, "size=64m,mode=700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(data, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	l := newLauncher(t, data)
	create(t, l, "one")
	in(t, l, "one", "true")
	fill, err := os.Create(filepath.Join(data, "fill"))
	if err != nil {
		t.Fatal(err)
	}
	defer fill.Close()
	block := make([]byte, 4096)
	for err == nil {
		_, err = fill.Write(block)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	if _, err := l.Create(t.Context(), Request{ID: "two"}); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("create on a full disk: %v, want %v", err, unix.ENOSPC)
	}
	if got := in(t, l, "one", "echo alive"); got != "alive\n" {
		t.Errorf("the lab that runs answers %q", got)
	}
	destroy(t, l, "one")
	entries, err := os.ReadDir(l.labs())
	if err != nil || len(entries) != 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

// TestPrivilegedFailedStart: a runtime that fails leaves nothing and says why.
func TestPrivilegedFailedStart(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "runtime")
	if err := os.WriteFile(broken, []byte("#!/bin/sh\necho the reason >&2\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	l := newLauncherWith(t, Options{Data: t.TempDir(), Runtime: broken})
	_, err := l.Create(t.Context(), Request{ID: "one"})
	if err == nil || !strings.Contains(err.Error(), "the reason") {
		t.Errorf("got %v, want the runtime's own words", err)
	}
	if list := l.List(); len(list) != 0 {
		t.Errorf("listed: %+v", list)
	}
	for _, trace := range traces(t, l, nil) {
		t.Errorf("left behind: %s", trace)
	}
}
