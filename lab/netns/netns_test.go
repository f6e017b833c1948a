package netns_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"podlab/lab/labtest"
	"podlab/lab/netns"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { labtest.Main(m) }

// inodes are the namespaces of all threads of the process.
func inodes(t *testing.T) map[uint64]int {
	t.Helper()
	tasks, err := filepath.Glob("/proc/self/task/*/ns/net")
	if err != nil || len(tasks) == 0 {
		t.Fatalf("no threads: %v", err)
	}
	found := map[uint64]int{}
	for _, task := range tasks {
		var st unix.Stat_t
		if unix.Stat(task, &st) == nil { // else the thread has ended
			found[st.Ino]++
		}
	}
	return found
}

func inodeHere(t *testing.T) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		t.Error(err)
	}
	return st.Ino
}

func newNS(t *testing.T) *netns.NS {
	t.Helper()
	labtest.Privileged(t)
	ns, err := netns.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

func TestPrivilegedDoRunsInside(t *testing.T) {
	ns := newNS(t)
	before := inodeHere(t)
	if before == ns.Inode() {
		t.Fatal("the new namespace is the old one")
	}
	var inside uint64
	if err := ns.Do(func() error { inside = inodeHere(t); return nil }); err != nil {
		t.Fatal(err)
	}
	if inside != ns.Inode() {
		t.Errorf("inside is %d, want %d", inside, ns.Inode())
	}
	if got := inodeHere(t); got != before {
		t.Errorf("afterwards the test is in %d, was in %d", got, before)
	}
}

// Whatever f does, no thread that goroutines run on stays in the namespace.
func TestPrivilegedNoThreadStays(t *testing.T) {
	ns := newNS(t)
	failure := errors.New("failure")
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			err := ns.Do(func() error {
				switch i % 3 {
				case 0:
					return failure
				case 1:
					runtime.Goexit()
				}
				return nil
			})
			if (i%3 == 2) != (err == nil) {
				t.Errorf("Do %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if n := inodes(t)[ns.Inode()]; n != 0 {
		t.Errorf("%d threads are still in the namespace", n)
	}
	var stray atomic.Int32
	for range 200 {
		wg.Go(func() {
			if inodeHere(t) == ns.Inode() {
				stray.Add(1)
			}
			runtime.Gosched()
		})
	}
	wg.Wait()
	if n := stray.Load(); n != 0 {
		t.Errorf("%d goroutines ran in the namespace", n)
	}
}

func TestPrivilegedNewAndSeries(t *testing.T) {
	labtest.Privileged(t)
	before := inodeHere(t)
	var inside uint64
	ns, err := netns.New(func() error { inside = inodeHere(t); return nil })
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if inside != ns.Inode() {
		t.Errorf("New ran in %d, made %d", inside, ns.Inode())
	}
	failure := errors.New("failure")
	if _, err := netns.New(func() error { return failure }); !errors.Is(err, failure) {
		t.Errorf("New: %v, want the function's error", err)
	}
	seen := map[uint64]bool{before: true}
	err = netns.Series(5,
		func(int) error {
			if got := inodeHere(t); got != before {
				t.Errorf("before runs in %d, want home, %d", got, before)
			}
			return nil
		},
		func(_ int, file int) error {
			seen[inodeHere(t)] = true
			return unix.Close(file)
		})
	if err != nil || len(seen) != 6 {
		t.Errorf("Series: %v, %d namespaces, want 5 new ones", err, len(seen)-1)
	}
	if n := inodes(t)[before]; n == 0 {
		t.Error("no thread is at home")
	}
}

func TestPrivilegedOpen(t *testing.T) {
	ns := newNS(t)
	same, err := ns.Dup()
	if err != nil || same.Inode() != ns.Inode() {
		t.Fatalf("Dup: %v", err)
	}
	if err := errors.Join(same.Close(), same.Close()); err != nil {
		t.Errorf("closed twice: %v", err)
	}
	for _, path := range []string{"/proc/self/ns/uts", "/proc/self/exe", "/nowhere"} {
		if ns, err := netns.Open(path); err == nil {
			ns.Close()
			t.Errorf("%s is taken for a network namespace", path)
		}
	}
	here, err := netns.Current()
	if err != nil || here.Inode() != inodeHere(t) {
		t.Fatalf("Current: %v", err)
	}
	here.Close()
}

func TestPool(t *testing.T) {
	var made, dropped atomic.Int32
	p := netns.NewPool(3,
		func() (int32, error) { return made.Add(1), nil },
		func(int32) { dropped.Add(1) })
	if err := p.WaitFull(t.Context()); err != nil {
		t.Fatal(err)
	}
	for want := int32(1); want <= 5; want++ { // two more than were ready
		if got, err := p.Take(t.Context()); err != nil || got != want {
			t.Errorf("Take: %d, %v, want %d", got, err, want)
		}
	}
	if err := p.WaitFull(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := p.Ready(); n != 3 {
		t.Errorf("%d ready, want 3", n)
	}
	p.Close()
	p.Close()
	if m, d := made.Load(), dropped.Load(); m != 8 || d != 3 {
		t.Errorf("%d made, %d dropped, want 8 and 3", m, d)
	}
	if _, err := p.Take(t.Context()); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Take after Close: %v", err)
	}
}

func TestPoolReportsFailure(t *testing.T) {
	failure := errors.New("failure")
	p := netns.NewPool(2, func() (int, error) { return 0, failure }, func(int) {})
	defer p.Close()
	if _, err := p.Take(t.Context()); !errors.Is(err, failure) {
		t.Errorf("Take: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Take(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Take without patience: %v", err)
	}
}
