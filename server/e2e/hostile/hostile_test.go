package hostile

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// program is podlab, built for this run.
var program string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "podlab-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "podlab")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "podlab/server")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "cannot build podlab: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// server is a podlab that serves from a data directory of its own.
type server struct {
	data string
	cmd  *exec.Cmd
	log  *bytes.Buffer
}

// newData makes a data directory with the root file system and the images that
// `make images` made.
func newData(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("labs need root: run the tests as root")
	}
	from := os.Getenv("PODLAB_DATA")
	if from == "" {
		from = "/var/lib/podlab"
	}
	data := t.TempDir()
	for _, name := range []string{"rootfs", "images"} {
		if _, err := os.Stat(filepath.Join(from, name)); err != nil {
			t.Fatalf("%v: run make images", err)
		}
		if err := os.Symlink(filepath.Join(from, name), filepath.Join(data, name)); err != nil {
			t.Fatal(err)
		}
	}
	return data
}

// serve starts a server and returns when it is up. Labs are removed at the end.
func serve(t *testing.T, data string, flags ...string) *server {
	t.Helper()
	s := &server{data: data, log: &bytes.Buffer{}}
	s.cmd = exec.Command(program, append([]string{"serve", "--data", data, "--addr", "127.0.0.1:0"}, flags...)...)
	s.cmd.Stderr = s.log
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(out)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("the server did not come up: %v\n%s", err, s.log)
		}
		if strings.Contains(line, "http") {
			break
		}
	}
	go func() { _, _ = io.Copy(io.Discard, r) }() // ends with the server
	return s
}

// kill ends the server as the kernel would: with no chance to clean up.
func (s *server) kill(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Wait(); err == nil {
		t.Fatal("the server was not killed")
	}
}

// end removes all labs and ends the server in an orderly way.
func (s *server) end(t *testing.T) {
	t.Helper()
	for name, phase := range s.labs(t) {
		if phase == "deleting" {
			continue
		}
		if out, err := s.podlab("lab", "delete", name); err != nil {
			t.Errorf("delete %s: %v: %s", name, err, out)
		}
	}
	if err := s.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Error(err)
	}
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("the server's end: %v\n%s", err, s.log)
	}
	if t.Failed() {
		t.Logf("the server's log:\n%s", s.log)
	}
}

// podlab runs a command against the server.
func (s *server) podlab(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "PODLAB_DATA="+s.data, "PODLAB_SERVER=", "PODLAB_TOKEN=")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (s *server) create(t *testing.T, name string) {
	t.Helper()
	if out, err := s.podlab("lab", "create", name); err != nil {
		t.Fatalf("create %s: %v: %s\n%s", name, err, out, s.log)
	}
}

// shell runs a command in a learner's root shell; how it ended is not of interest.
func (s *server) shell(name, target, command string) string {
	out, _ := s.podlab("lab", "exec", name, target, "--", "sh", "-c", command)
	return out
}

// labs maps names to phases.
func (s *server) labs(t *testing.T) map[string]string {
	t.Helper()
	out, err := s.podlab("lab", "list", "-o", "json")
	var list []struct{ Name, Phase string }
	if err == nil {
		err = json.Unmarshal([]byte(out), &list)
	}
	if err != nil {
		t.Fatalf("list: %v: %s", err, out)
	}
	labs := map[string]string{}
	for _, l := range list {
		labs[l.Name] = l.Phase
	}
	return labs
}

// places are where a learner has a root shell.
var places = []string{"pod-a", "node:node1"}

// TestPrivilegedNoSight looks around from the learner's root shells of a lab.
func TestPrivilegedNoSight(t *testing.T) {
	s := serve(t, newData(t))
	defer s.end(t)
	s.create(t, "one")
	s.create(t, "other")
	s.shell("other", "pod-a", "echo x >/tmp/of-the-other-lab; sleep 4242 &")
	secret := filepath.Join(s.data, "secret")
	if err := os.WriteFile(secret, []byte("of the host"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, place := range places {
		t.Run(place, func(t *testing.T) {
			processes := s.shell("one", place, "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline; echo; done")
			for _, hidden := range []string{"podlab", "agent", "spawn", "4242", "serve"} {
				if strings.Contains(processes, hidden+" ") {
					t.Errorf("a process with %q shows:\n%s", hidden, processes)
				}
			}
			if len(strings.Fields(processes)) == 0 {
				t.Error("no process shows at all: the probe is blind")
			}
			for _, path := range []string{
				secret, s.data, "/run/podlab/agent.sock", "/run/podlab/config.json", "/run/podlab/journal",
				"/proc/1/root" + secret, "/proc/1/cwd" + secret, "/proc/2/root" + secret,
			} {
				if got := s.shell("one", place, "cat "+path+" || ls "+path); !strings.Contains(got, "No such file") && !strings.Contains(got, "Permission denied") {
					t.Errorf("%s is in sight: %q", path, got)
				}
			}
			found := s.shell("one", place, "find / -xdev \\( -name agent.sock -o -name launch.json -o -name 'podlab.db*' -o -name of-the-other-lab \\) 2>/dev/null; echo searched")
			if found != "searched\n" {
				t.Errorf("found: %q", found)
			}
			for _, command := range []string{
				"echo h >/proc/sysrq-trigger", "echo '|/x' >/proc/sys/kernel/core_pattern", "cat /proc/kmsg",
				"head -c 1 /proc/kcore", "nsenter -t 1 -p -m true && ls /run/podlab/agent.sock",
			} {
				if got := s.shell("one", place, "("+command+") >/dev/null 2>&1 && echo DONE"); strings.Contains(got, "DONE") {
					t.Errorf("%q succeeded", command)
				}
			}
		})
	}
}

// TestPrivilegedHostile lets a lab misbehave in three ways, from a pod and from
// a node. Its agent must stay, and the neighbour's answers be right.
func TestPrivilegedHostile(t *testing.T) {
	s := serve(t, newData(t), "--lab-pids", "300", "--lab-memory", "192MiB", "--lab-scratch", "64MiB")
	defer s.end(t)
	s.create(t, "neighbour")
	attacks := []struct {
		name, command string
		// want is in what the attacker sees when he meets the lab's limit.
		want []string
	}{
		{"fork bomb", "i=0; while [ $i -lt 2000 ]; do sleep 600 >/dev/null 2>&1 & i=$((i+1)); done; echo NO LIMIT", []string{"fork", "Resource temporarily unavailable"}},
		{"memory hog", "tail /dev/zero; echo ended $?", []string{"ended 137"}},
		{"disk filler", "head -c 1G /dev/zero >/big; rm -f /big", []string{"No space left"}},
	}
	for i, place := range places {
		for j, attack := range attacks {
			victim := fmt.Sprintf("victim-%d-%d", i, j)
			t.Run(attack.name+" in "+place, func(t *testing.T) {
				s.create(t, victim)
				stop := make(chan struct{})
				var wg sync.WaitGroup
				good, bad := 0, []string(nil)
				wg.Go(func() {
					for {
						got := s.shell("neighbour", "pod-b", "echo $((6*7)); ping -c 1 -W 5 10.244.1.10 | grep -c '1 received'")
						if got == "42\n1\n" {
							good++
						} else {
							bad = append(bad, got)
						}
						select {
						case <-stop:
							return
						default:
						}
					}
				})
				got := s.shell(victim, place, attack.command)
				close(stop)
				wg.Wait()
				if !slices.ContainsFunc(attack.want, func(w string) bool { return strings.Contains(got, w) }) {
					t.Errorf("the attacker saw %q, want one of %q", got, attack.want)
				}
				if good == 0 || len(bad) > 0 {
					t.Errorf("the neighbour answered %d times right, and wrong: %q", good, bad)
				}
				for name, phase := range s.labs(t) {
					if phase != "ready" && (name == victim || name == "neighbour") {
						t.Errorf("lab %s is %s, want ready", name, phase)
					}
				}
				// The victim's agent answers, and the lab can be deleted as any other.
				if out, err := s.podlab("lab", "facts", victim); err != nil {
					t.Errorf("facts of the victim: %v: %.300s", err, out)
				}
				if out, err := s.podlab("lab", "delete", victim); err != nil {
					t.Errorf("delete of the victim: %v: %s", err, out)
				}
			})
		}
	}
}

// TestPrivilegedServerKilled kills a server that makes and deletes labs, five
// times at a random moment. The next one must have each lab that was ready, and
// of the others no trace. (server/launch does the same at each of its steps.)
func TestPrivilegedServerKilled(t *testing.T) {
	data := newData(t)
	ready := map[string]bool{}
	for round := range 5 {
		s := serve(t, data)
		for name, phase := range s.labs(t) {
			if want, known := ready[name]; known && want && phase != "ready" {
				t.Errorf("round %d: lab %s was ready and is %s", round, name, phase)
			}
			if phase != "ready" {
				t.Errorf("round %d: lab %s is %s, want it ready or gone", round, name, phase)
			}
		}
		have := s.labs(t)
		for name, want := range ready {
			if want && have[name] == "" {
				t.Errorf("round %d: lab %s was ready and is gone", round, name)
			}
			if have[name] == "ready" {
				if got := s.shell(name, "pod-a", "echo alive"); got != "alive\n" {
					t.Errorf("round %d: lab %s answers %q", round, name, got)
				}
			}
		}
		if dirs, err := os.ReadDir(filepath.Join(data, "labs")); err != nil || len(dirs) != len(have) {
			t.Errorf("round %d: %d directories for %d labs: %v", round, len(dirs), len(have), err)
		}
		kill := time.NewTimer(time.Duration(rand.Int64N(int64(3 * time.Second))))
		done := make(chan struct{})
		var mu sync.Mutex
		go func() {
			defer close(done)
			for i := 0; ; i++ {
				name := "r" + strconv.Itoa(round) + "-" + strconv.Itoa(i)
				if _, err := s.podlab("lab", "create", name); err != nil {
					return // the server was killed
				}
				mu.Lock()
				ready[name] = true
				mu.Unlock()
				if i%2 == 0 {
					continue
				}
				mu.Lock()
				ready[name] = false // from here on either is right
				mu.Unlock()
				if _, err := s.podlab("lab", "delete", name); err != nil {
					return
				}
			}
		}()
		<-kill.C
		s.kill(t)
		<-done
	}
	s := serve(t, data)
	s.end(t)
	if dirs, err := os.ReadDir(filepath.Join(data, "labs")); err != nil || len(dirs) != 0 {
		t.Errorf("left after the last delete: %v, %v", dirs, err)
	}
}
