package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"podlab/lab"
	"podlab/lab/agentapi"
	"podlab/server/api"
	"podlab/server/app"
	"podlab/server/client"
)

// TestMain lets the test's binary be podlab itself: the server that a test
// kills, and the agents in the sandboxes.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == "serve" || os.Args[1] == "agent") {
		os.Exit(run())
	}
	os.Exit(m.Run())
}

// host is a data directory on which one server runs after the other.
type host struct {
	t      *testing.T
	data   string
	server *exec.Cmd
	client *client.Client
}

func newHost(t *testing.T) *host {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root: sandboxes are made")
	}
	root := os.Getenv("PODLAB_ROOTFS")
	if root == "" {
		root = "/var/lib/podlab/rootfs/current"
	}
	root, err := filepath.EvalSymlinks(root)
	if err != nil {
		t.Fatalf("no root file system for labs (%v): run scripts/rootfs, or name one in PODLAB_ROOTFS", err)
	}
	data, err := os.MkdirTemp("", "podlab-kill")
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, data: data}
	if err := os.MkdirAll(filepath.Join(data, "rootfs"), 0o711); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(root, filepath.Join(data, "rootfs", "current")); err != nil {
		t.Fatal(err)
	}
	// The images are beside the root file system's folder.
	if out, err := exec.Command("cp", "-al", filepath.Join(filepath.Dir(filepath.Dir(root)), "images"), data).CombinedOutput(); err != nil {
		t.Fatalf("no images (%s): run scripts/images", out)
	}
	if h.client, err = client.New(filepath.Join(data, app.SocketName), ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.kill()
		h.client.Close()
		if err := os.RemoveAll(data); err != nil {
			t.Error(err)
		}
	})
	return h
}

// start starts a server and returns when it serves.
func (h *host) start() {
	h.t.Helper()
	h.server = exec.Command("/proc/self/exe", "serve", "--addr", "127.0.0.1:0", "--data", h.data)
	out, err := h.server.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	log, err := os.OpenFile(filepath.Join(h.data, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		h.t.Fatal(err)
	}
	defer log.Close()
	h.server.Stderr = log
	if err := h.server.Start(); err != nil {
		h.t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "podlab is at ") {
			return
		}
	}
	b, _ := os.ReadFile(log.Name())
	h.t.Fatalf("the server does not start: %s", b)
}

// kill is kill -9.
func (h *host) kill() {
	if h.server != nil {
		_ = h.server.Process.Kill()
		_ = h.server.Wait() // killed, as it says
		h.server = nil
	}
	h.client.Close()
}

// list returns the labs by id.
func (h *host) list(ctx context.Context) map[string]api.Lab {
	h.t.Helper()
	all, err := h.client.Labs(ctx, true)
	if err != nil {
		h.t.Fatal(err)
	}
	out := map[string]api.Lab{}
	for _, l := range all {
		out[l.ID] = l
	}
	return out
}

// cgroup is the name that the launcher gives to the parent of its groups.
func (h *host) cgroup() string {
	sum := sha256.Sum256([]byte(h.data))
	return "podlab-" + hex.EncodeToString(sum[:4])
}

// traces returns the ids of labs of which a directory or cgroup is there.
func (h *host) traces() []string {
	h.t.Helper()
	found := map[string]bool{}
	dirs, err := os.ReadDir(filepath.Join(h.data, "labs"))
	if err != nil {
		h.t.Fatal(err)
	}
	for _, d := range dirs {
		found[d.Name()] = true
	}
	err = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // a cgroup of somebody else's that went meanwhile
		}
		if d.IsDir() && filepath.Base(filepath.Dir(path)) == h.cgroup() {
			found[d.Name()] = true
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return slices.Sorted(maps.Keys(found))
}

// fate is what may have become of a lab after the server was killed.
type fate struct{ mayLive, mustLive bool }

// TestPrivilegedKilledAtAnyMoment kills the server at twenty random points of
// create and delete. After each restart every lab that was ready is ready, and
// every other is gone without a trace.
func TestPrivilegedKilledAtAnyMoment(t *testing.T) {
	h := newHost(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	fates := map[string]fate{}
	lived, died := 0, 0
	for round := range 20 {
		h.start()
		asked := len(fates)
		h.compare(ctx, fates, fmt.Sprintf("before round %d", round))
		lived, died = lived+len(fates), died+asked-len(fates)
		h.disturb(ctx, fates, time.Duration(rand.Int64N(int64(700*time.Millisecond))))
		if t.Failed() {
			return
		}
	}
	h.start()
	h.compare(ctx, fates, "at the end")
	if lived == 0 || died == 0 {
		t.Errorf("%d labs lived on and %d were half made: the moments were not random enough", lived, died)
	}
	for id := range h.list(ctx) {
		if _, err := h.client.Facts(ctx, id, agentapi.FactsRequest{}); err != nil {
			t.Errorf("lab %s is listed as ready, yet gives no facts: %v", id, err)
		}
		if err := h.client.DeleteLab(ctx, id); err != nil {
			t.Error(err)
		}
	}
	for len(h.list(ctx)) > 0 && ctx.Err() == nil {
	}
	if left := h.traces(); len(left) > 0 {
		t.Errorf("after all was deleted, there are traces of %v", left)
	}
}

// compare holds what the new server has against what may be.
func (h *host) compare(ctx context.Context, fates map[string]fate, when string) {
	h.t.Helper()
	have := h.list(ctx)
	for id, f := range fates {
		_, alive := have[id]
		if f.mustLive && !alive {
			h.t.Errorf("%s: lab %s was ready and is gone", when, id)
		}
		if alive && !f.mayLive {
			h.t.Errorf("%s: lab %s was deleted, or never ready, and is there", when, id)
		}
	}
	for id, l := range have {
		if l.Phase != lab.PhaseReady {
			h.t.Errorf("%s: lab %s is %s (%s)", when, id, l.Phase, l.Reason)
		}
	}
	if ids, traces := slices.Sorted(maps.Keys(have)), h.traces(); !slices.Equal(ids, traces) {
		h.t.Errorf("%s: the labs are %v, the host has traces of %v", when, ids, traces)
	}
	clear(fates)
	for id := range have {
		fates[id] = fate{mayLive: true, mustLive: true}
	}
}

// disturb creates two labs, deletes one, and kills the server in the midst.
func (h *host) disturb(ctx context.Context, fates map[string]fate, after time.Duration) {
	h.t.Helper()
	victim := ""
	for id := range fates {
		if len(fates) > 2 {
			victim = id
		}
	}
	var mu sync.Mutex
	set := func(id string, f fate) {
		mu.Lock()
		defer mu.Unlock()
		fates[id] = f
	}
	if victim != "" {
		set(victim, fate{mayLive: true}) // until the delete is answered
	}
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			l, err := h.client.CreateLab(ctx, api.NewLab{})
			if err != nil {
				return
			}
			set(l.ID, fate{mayLive: true})
			if h.client.Await(ctx, l.ID, nil) == nil {
				set(l.ID, fate{mayLive: true, mustLive: true})
			}
		})
	}
	if victim != "" {
		wg.Go(func() {
			if h.client.DeleteLab(ctx, victim) == nil {
				set(victim, fate{})
			}
		})
	}
	timer := time.NewTimer(after)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		h.t.Fatal(errors.Join(ctx.Err(), errors.New("the test took too long")))
	}
	h.kill()
	wg.Wait()
}
