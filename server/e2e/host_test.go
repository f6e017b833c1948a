package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"podlab/lab"
	"podlab/server/client"
)

// crowd is how many labs run while the host is looked at.
const crowd = 20

// hostView is what commands on the host show of networks and mounts.
func hostView(t *testing.T) string {
	t.Helper()
	var view strings.Builder
	for _, command := range [][]string{{"ip", "-br", "link"}, {"ip", "netns", "list"}, {"ip", "route", "show", "table", "all"}, {"nft", "list", "ruleset"}} {
		path, err := exec.LookPath(command[0])
		if err != nil {
			t.Fatalf("the host lacks %s: run make test, which installs it", command[0])
		}
		out, err := exec.Command(path, command[1:]...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v: %s", command, err, out)
		}
		view.WriteString(strings.Join(command, " ") + "\n" + string(out))
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	view.Write(mounts)
	return view.String()
}

// TestPrivilegedHostShowsNothing has many labs run at once; the host's links,
// namespaces, routes, rules and mounts are the same as without them.
func TestPrivilegedHostShowsNothing(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	s := newServer(t)
	before := hostView(t)
	ids := make([]string, crowd)
	var wg sync.WaitGroup
	for i := range crowd {
		wg.Go(func() { ids[i] = s.create(ctx, fmt.Sprint("crowd ", i)) })
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	if now := hostView(t); now != before {
		t.Errorf("with %d labs the host shows\n%s\nbefore it showed\n%s", crowd, now, before)
	}
	for _, id := range ids {
		s.mustRun(ctx, id, "pod-a", "ping -c1 -W5 10.244.2.10 && ping -c1 -W5 fd00:10:244:2::10")
	}
	s.awaitTraces(ctx, ids)
}

// TestPrivilegedRootShellIsAlone looks around and strikes out from root shells
// in a lab. It finds neither the agent nor other labs nor the host, and a fork
// bomb, a memory hog and a full disk stay the lab's own affair.
func TestPrivilegedRootShellIsAlone(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	s := newServer(t)
	mine, other := s.create(ctx, "mine"), s.create(ctx, "other")

	t.Run("sees itself only", func(t *testing.T) {
		secret := s.data
		for _, target := range []string{"node:node1", "pod-a"} {
			for script, bad := range map[string][]string{
				"cat /proc/[0-9]*/cmdline | tr '\\0' ' '":          {"podlab agent", "serve", secret},
				"cat /proc/[0-9]*/mountinfo 2>/dev/null":           {secret, "/run/podlab", "agent.sock"},
				"cat /proc/[0-9]*/environ 2>/dev/null":             {secret},
				"ls /run/podlab /scratch /proc/1/root/scratch":     {"agent", "journal", "pods", "config.json"},
				"cat /proc/self/cgroup; ls /sys/fs/cgroup":         {other},
				"find / -xdev -name 'agent.sock' 2>/dev/null":      {"agent.sock"},
				"cat /proc/net/unix":                               {"agent.sock"},
				"ip route get 8.8.8.8; ip -6 route get 2001:db8::": {"via 10.0.", "dev host"},
			} {
				out, err := s.api.Output(ctx, mine, lab.Target(target), "sh", "-c", script)
				if _, ok := errors.AsType[*client.ExitError](err); err != nil && !ok {
					t.Fatal(err)
				}
				for _, b := range bad {
					if strings.Contains(out, b) {
						t.Errorf("%s: %q shows %q:\n%s", target, script, b, out)
					}
				}
			}
		}
	})
	t.Run("reaches nothing outside", func(t *testing.T) {
		for _, script := range []string{
			"mknod /tmp/disk b 254 0 && head -c1 /tmp/disk",
			"mount -t cgroup -o memory none /mnt",
			"mount /dev/vda /mnt || mount -t ext4 /dev/sda1 /mnt",
			"insmod /nonexistent.ko || modprobe dummy",
			"echo b >/proc/sysrq-trigger",
			"echo 1 >/proc/sys/kernel/panic",
			"dmesg --clear",
			"nsenter -t 1 -m ls /run/podlab/agent.sock",
			"curl -sm2 http://127.0.0.1:8080",
		} {
			_, err := s.run(ctx, mine, "node:node1", script)
			if _, ok := errors.AsType[*client.ExitError](err); !ok {
				t.Errorf("%s: %v, want that it fails", script, err)
			}
		}
	})
	for _, strike := range []struct{ name, script, says string }{
		{"memory hog", `head -c 2G /dev/zero | tail | wc -c; exit 9`, ""},
		{"full disk", `head -c 2G /dev/zero >/tmp/full`, "No space left"},
		{"many files", `cd /tmp && mkdir many && cd many && seq 200000 | xargs touch`, "No space left"},
		// Each shell forks two more until none can be had; they go on for ever.
		{"fork bomb", `bash -c 'b() { b | b & }; b; b; b'; exit 0`, ""},
	} {
		t.Run(strike.name, func(t *testing.T) {
			_, err := s.run(ctx, mine, "pod-a", strike.script)
			if exit, ok := errors.AsType[*client.ExitError](err); strike.says != "" && (!ok || !strings.Contains(exit.Stderr, strike.says)) {
				t.Errorf("%v, want that it says %q", err, strike.says)
			}
			// The neighbour works, and so does the lab's own API.
			if out := s.mustRun(ctx, other, "pod-a", "echo all is well >/tmp/x && cat /tmp/x && ping -c1 -W5 10.244.2.10"); !strings.Contains(out, "all is well") {
				t.Errorf("the neighbour says %q", out)
			}
			if _, err := s.api.State(ctx, mine); err != nil {
				t.Errorf("the lab's agent does not answer: %v", err)
			}
		})
	}
	// The bomb goes on; a restart of the lab ends it.
	if l, err := s.api.Lab(ctx, mine); err != nil || l.Phase != lab.PhaseReady {
		t.Fatalf("after all that the lab is %+v, %v; want ready", l, err)
	}
	if _, err := s.api.RestartLab(ctx, mine, true); err != nil {
		t.Fatal(err)
	}
	if err := s.api.Await(ctx, mine, nil); err != nil {
		t.Fatal(err)
	}
	s.mustRun(ctx, mine, "pod-a", "ping -c1 -W5 10.244.2.10")
}
