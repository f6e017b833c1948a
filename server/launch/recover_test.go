package launch

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"podlab/lab/agentapi"
)

// doomedServer is a server that a test kills. With a number it makes "kept",
// then works on "victim" and stops for good at that step; with "loop" it makes
// and deletes labs until it is killed. It tells on stdout what it has done.
func doomedServer(args []string) {
	data, rootfs, what, number := args[0], args[1], args[2], args[3]
	fail := func(err error) {
		if err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
	}
	l, err := New(Options{Data: data, RootFS: rootfs})
	fail(err)
	_, err = l.Recover(context.Background())
	fail(err)
	ctx := context.Background()
	request := func(id string) Request { return Request{ID: id, Config: agentapi.Config{ID: id}} }
	if what == "loop" {
		for i := 0; ; i++ {
			id := fmt.Sprintf("lab-%s-%d", number, i)
			_, err := l.Create(ctx, request(id))
			fail(err)
			fmt.Println("ready", id)
			if i%3 != 0 {
				fmt.Println("deleting", id)
				fail(l.Delete(ctx, id))
			}
		}
	}
	_, err = l.Create(ctx, request("kept"))
	fail(err)
	if what != "create" {
		_, err = l.Create(ctx, request("victim"))
		fail(err)
	}
	if what == "restart" {
		stopped, err := l.Watch("victim")
		fail(err)
		sb, err := l.get("victim")
		fail(err)
		fail(kill(sb.pidfd))
		<-stopped
	}
	stop, err := strconv.Atoi(number)
	fail(err)
	seen := 0
	testStep = func(name string) {
		if seen++; seen == stop {
			fmt.Println("at", name)
			select {} // until killed
		}
	}
	gone := l.Gone("victim")
	switch what {
	case "create":
		_, err = l.Create(ctx, request("victim"))
	case "delete":
		err = l.Delete(ctx, "victim")
		<-gone
	case "stop":
		err = l.Stop(ctx, "victim")
	case "restart":
		_, err = l.Restart(ctx, request("victim"))
	}
	fail(err)
	fmt.Println("at the end")
	select {}
}

// killServer starts a doomedServer, reads its lines until one says where it
// stands, and kills it as the kernel would: without a chance to clean up.
func killServer(t *testing.T, data, what string, number int, until func(line string) bool) []string {
	t.Helper()
	// As on a real host, the killed server's children become init's, not ours.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", "doomed-server", data, testRootFS(t), what, strconv.Itoa(number))
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var lines []string
	r := bufio.NewReader(out)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("the server ended before it was killed: %v: %q", err, lines)
		}
		line = strings.TrimSpace(line)
		lines = append(lines, line)
		if strings.HasPrefix(line, "failed:") {
			t.Fatal(line)
		}
		if until(line) {
			break
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	var ee *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &ee) {
		t.Fatalf("the server was not killed: %v", err)
	}
	for line := range strings.Lines(string(rest)) {
		lines = append(lines, strings.TrimSpace(line))
	}
	return lines
}

// traces lists what the host shows of the labs that want does not name:
// directories, cgroups, processes and mounts.
func traces(t *testing.T, l *Launcher, want map[string]Sandbox) []string {
	t.Helper()
	var found []string
	entries, err := os.ReadDir(l.labs())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if _, ok := want[e.Name()]; !ok {
			found = append(found, "directory "+e.Name())
		}
	}
	for _, h := range l.groups {
		parent := filepath.Join(h.Parent, l.opt.CgroupName)
		entries, err := os.ReadDir(parent)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if _, ok := want[e.Name()]; !ok && e.IsDir() {
				found = append(found, "cgroup "+filepath.Join(parent, e.Name()))
			}
		}
	}
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range procs {
		status, err := os.ReadFile(filepath.Join(p, "status"))
		if err != nil {
			continue // ended meanwhile
		}
		cgroup, err := os.ReadFile(filepath.Join(p, "cgroup"))
		if err != nil {
			continue
		}
		ours := strings.Contains(string(cgroup), l.opt.CgroupName)
		for line := range strings.Lines(string(cgroup)) {
			_, id, _ := strings.Cut(strings.TrimSpace(line), l.opt.CgroupName+"/")
			id, _, _ = strings.Cut(id, "/")
			if _, ok := want[id]; ok {
				ours = false
			}
		}
		// What has ended and waits for its parent to notice is of nobody's concern
		// but the parent's; ours must have.
		dead := strings.Contains(string(status), "\nState:\tZ") && !strings.Contains(string(status), fmt.Sprintf("\nPPid:\t%d\n", os.Getpid()))
		if ours && !dead {
			found = append(found, fmt.Sprintf("process %s: %.60q", p, status))
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, l.opt.Data) {
			found = append(found, "mount "+line)
		}
	}
	return found
}

func recoverAll(t *testing.T, data string) (*Launcher, map[string]Sandbox) {
	t.Helper()
	l := newLauncher(t, data)
	list, err := l.Recover(t.Context())
	if err != nil {
		t.Error(err)
	}
	have := map[string]Sandbox{}
	for _, sb := range list {
		have[sb.ID] = sb
	}
	return l, have
}

// TestPrivilegedKillAtEachStep kills the server between any two steps of
// create, delete and restart. The next server must find the bystander as it
// was, and of the victim either all or nothing.
func TestPrivilegedKillAtEachStep(t *testing.T) {
	for _, what := range []string{"create", "delete", "stop", "restart"} {
		t.Run(what, func(t *testing.T) {
			for number, last := 1, false; !last; number++ {
				last = killedAt(t, what, number)
				if number > 60 {
					t.Fatal("there is no end of steps")
				}
			}
		})
	}
}

// killedAt plays one kill, and tells whether the work had come to its end.
func killedAt(t *testing.T, what string, number int) bool {
	data := t.TempDir()
	at := ""
	killServer(t, data, what, number, func(line string) bool {
		at = line
		return strings.HasPrefix(line, "at ")
	})
	l, have := recoverAll(t, data)
	if sb := have["kept"]; sb.State != StateRunning || sb.Ended != nil {
		t.Errorf("%s %s: the bystander is %+v, want running", what, at, sb)
	} else if got := in(t, l, "kept", "echo alive"); got != "alive\n" {
		t.Errorf("%s %s: the bystander answers %q", what, at, got)
	}
	victim, found := have["victim"]
	switch {
	case what == "delete" && found:
		t.Errorf("%s %s: the victim is still listed: %+v", what, at, victim)
	case (what == "restart" || what == "stop") && !found:
		t.Errorf("%s %s: the victim's directory was to be kept", what, at)
	case what == "stop" && victim.State != StateStopped:
		t.Errorf("%s %s: the victim is %+v, want stopped", what, at, victim)
	case at == "at the end" && (what == "create" || what == "restart") && victim.State != StateRunning:
		t.Errorf("%s %s: the victim is %+v, want running", what, at, victim)
	}
	if victim.State == StateRunning {
		if got := in(t, l, "victim", "echo alive"); got != "alive\n" {
			t.Errorf("%s %s: the victim answers %q", what, at, got)
		}
	}
	if victim.State == StateStopped {
		if _, err := l.Restart(t.Context(), Request{ID: "victim"}); err != nil {
			t.Errorf("%s %s: %v", what, at, err)
		}
	}
	for _, trace := range traces(t, l, have) {
		t.Errorf("%s %s: left behind: %s", what, at, trace)
	}
	for id := range have {
		destroy(t, l, id)
	}
	for _, trace := range traces(t, l, nil) {
		t.Errorf("%s %s: left after delete: %s", what, at, trace)
	}
	t.Logf("%s, killed %s: victim %q", what, at, victim.State)
	return at == "at the end"
}

// TestPrivilegedEndAfterRecover: how an agent ended is told even where it is
// the child of another, as after a change of servers.
func TestPrivilegedEndAfterRecover(t *testing.T) {
	data := t.TempDir()
	killServer(t, data, "create", 1000, func(line string) bool { return line == "at the end" })
	l, have := recoverAll(t, data)
	for id := range have {
		t.Cleanup(func() { destroy(t, l, id) })
	}
	exit, err := l.Watch("kept")
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(have["kept"].PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	// Before Linux 6.15 nobody can tell once a quick parent has reaped it.
	var u unix.Utsname
	var major, minor int
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	tells := major > 6 || major == 6 && minor >= 15
	if e := <-exit; !strings.Contains(e.Reason, "SIGKILL") && (tells || e.Reason != "the agent ended") {
		t.Errorf("reason %q, want the signal named", e.Reason)
	}
}

// TestPrivilegedKillAtRandom kills a busy server at twenty random moments, each
// server taking over from the one before.
func TestPrivilegedKillAtRandom(t *testing.T) {
	data := t.TempDir()
	ready := map[string]bool{}
	for round := range 20 {
		moment := time.Duration(rand.Int64N(int64(150 * time.Millisecond)))
		var deadline time.Time
		for _, line := range killServer(t, data, "loop", round, func(string) bool {
			if deadline.IsZero() {
				deadline = time.Now().Add(moment)
			}
			return time.Now().After(deadline)
		}) {
			verb, id, _ := strings.Cut(line, " ")
			ready[id] = verb == "ready"
		}
		l, have := recoverAll(t, data)
		for id, want := range ready {
			sb, found := have[id]
			if want && sb.State != StateRunning {
				t.Errorf("round %d: %s was ready and is %+v", round, id, sb)
			}
			if !want && found && sb.State != StateRunning {
				t.Errorf("round %d: %s was being deleted and is %+v", round, id, sb)
			}
		}
		for _, trace := range traces(t, l, have) {
			t.Errorf("round %d, killed after %v: left behind: %s", round, moment, trace)
		}
		if round == 19 {
			for id := range have {
				if got := in(t, l, id, "echo alive"); got != "alive\n" {
					t.Errorf("%s answers %q", id, got)
				}
				destroy(t, l, id)
			}
			for _, trace := range traces(t, l, nil) {
				t.Errorf("left after delete: %s", trace)
			}
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}
