package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
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
	s := watch(t)
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
	// Other tests may run on this host, and what they show goes away; what the
	// labs show would stay.
	for deadline := time.Now().Add(time.Minute); ; {
		now := hostView(t)
		if now == before {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("with %d labs the host shows\n%s\nbefore it showed\n%s", crowd, now, before)
		}
		<-time.After(100 * time.Millisecond)
	}
	for _, id := range ids {
		s.mustRun(ctx, id, "pod-a", "ping -c1 -W5 10.244.2.10 && ping -c1 -W5 fd00:10:244:2::10")
	}
	s.awaitTraces(ctx, ids)
}
