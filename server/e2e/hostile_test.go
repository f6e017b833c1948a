package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

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
				"mknod /tmp/disk b 254 0 && head -c 1 /tmp/disk", "mount /dev/vda /mnt",
				// The cgroup that shows is the lab's own, and its limits are not the lab's to set.
				"mkdir -p /tmp/cg; mount -t cgroup -o memory none /tmp/cg && echo -1 >/tmp/cg/memory.limit_in_bytes",
				"mkdir -p /tmp/cg2; mount -t cgroup -o pids none /tmp/cg2 && { echo max >/tmp/cg2/pids.max || mkdir /tmp/cg2/own && echo max >/tmp/cg2/own/pids.max; }",
				"insmod /x.ko || modprobe dummy", "dmesg --clear", "curl -sm 2 http://127.0.0.1:8080",
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
