package memstore

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/apis/example"
	"k8s.io/apiserver/pkg/storage"
)

func isExpired(e watch.Event) bool {
	st, ok := e.Object.(*metav1.Status)
	return e.Type == watch.Error && ok && st.Code == http.StatusGone && st.Reason == metav1.StatusReasonExpired
}

// TestNoChangeIsMissed has writers and watchers at the same time: every
// watcher sees every version once and in order.
func TestNoChangeIsMissed(t *testing.T) {
	const writers, writes, watchers = 4, 200, 8
	limits := DefaultLimits()
	limits.WindowEvents, limits.WindowBytes = 2*writers*writes, 16<<20 // none falls out
	s := New(limits)
	r := podsOf(s)
	var watching sync.WaitGroup
	for range watchers {
		w, err := r.Watch(t.Context(), "/pods/", storage.ListOptions{ResourceVersion: "1", Recursive: true, Predicate: storage.Everything})
		if err != nil {
			t.Fatal(err)
		}
		watching.Go(func() {
			defer w.Stop()
			last, seen := uint64(1), 0
			for e := range w.ResultChan() {
				p, ok := e.Object.(*example.Pod)
				if !ok {
					t.Errorf("got %+v", e)
					return
				}
				rv, err := strconv.ParseUint(p.ResourceVersion, 10, 64)
				if err != nil || rv != last+1 {
					t.Errorf("version %d came after %d (%v)", rv, last, err)
					return
				}
				last, seen = rv, seen+1
				if seen == writers*(writes+1) {
					return
				}
			}
			t.Errorf("the watch ended after %d events", seen)
		})
	}
	var writing sync.WaitGroup
	for i := range writers {
		writing.Go(func() {
			name := fmt.Sprint("p", i)
			create(t, r, name, 0)
			for j := range writes {
				if err := label(t.Context(), r, name, fmt.Sprint(j)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writing.Wait()
	watching.Wait()
	closeStore(t, s)
}

// TestContendedUpdates has all writers on one object: no update is lost.
func TestContendedUpdates(t *testing.T) {
	s, r := newPods(t)
	create(t, r, "p", 0)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				err := r.GuaranteedUpdate(t.Context(), "/pods/ns/p", &example.Pod{}, false, nil,
					storage.SimpleUpdate(addOne), nil)
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	p := &example.Pod{}
	if err := r.Get(t.Context(), "/pods/ns/p", storage.GetOptions{}, p); err != nil {
		t.Fatal(err)
	}
	if p.Labels["n"] != "400" || s.Revision() != 402 {
		t.Errorf("counted %s at version %d, want 400 at 402", p.Labels["n"], s.Revision())
	}
}

// TestSlowReader does not read until its place has left the window.
func TestSlowReader(t *testing.T) {
	limits := DefaultLimits()
	limits.WindowEvents = 10
	s := New(limits)
	defer closeStore(t, s)
	r := podsOf(s)
	create(t, r, "p", 0)
	w, err := r.Watch(t.Context(), "/pods/", storage.ListOptions{ResourceVersion: "2", Recursive: true, Predicate: storage.Everything})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	for i := range 200 {
		if err := label(t.Context(), r, "p", fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	last := "2"
	for e := range w.ResultChan() {
		if isExpired(e) {
			if want := "too old resource version: "; !strings.HasPrefix(e.Object.(*metav1.Status).Message, want) {
				t.Errorf("message is %q", e.Object.(*metav1.Status).Message)
			}
			if _, more := <-w.ResultChan(); more {
				t.Error("the watch goes on after 410")
			}
			return
		}
		p := e.Object.(*example.Pod)
		if a, b := mustUint(t, last), mustUint(t, p.ResourceVersion); b != a+1 {
			t.Fatalf("version %d came after %d without 410", b, a)
		}
		last = p.ResourceVersion
	}
	t.Errorf("the watch ended at version %s without 410", last)
}

func mustUint(t *testing.T, s string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestWindowBytes(t *testing.T) {
	limits := DefaultLimits()
	limits.WindowBytes = 2000
	s := New(limits)
	defer closeStore(t, s)
	r := podsOf(s)
	create(t, r, "p", 0)
	for i := range 100 {
		if err := label(t.Context(), r, "p", strings.Repeat("x", 60)+fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	if r.table.bytes > 2000 || len(r.table.window) == 0 {
		t.Errorf("the window holds %d changes of %d bytes", len(r.table.window), r.table.bytes)
	}
}

func TestLimits(t *testing.T) {
	tests := []struct {
		name   string
		limits func(*Limits)
		value  string
		want   string
	}{
		{"object", func(l *Limits) { l.ObjectBytes = 1000 }, strings.Repeat("x", 1000), "the limit is 1000"},
		{"objects", func(l *Limits) { l.Objects = 1 }, "", "the lab holds 1 objects, which is its limit"},
		{"bytes", func(l *Limits) { l.Bytes = 500 }, strings.Repeat("x", 300), "the limit is 500"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			limits := DefaultLimits()
			tt.limits(&limits)
			s := New(limits)
			defer closeStore(t, s)
			r := podsOf(s)
			create(t, r, "first", 0)
			p := &example.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", Labels: map[string]string{"v": tt.value}}}
			err := r.Create(t.Context(), "/pods/ns/p", p, nil, 0)
			if err == nil || !apierrors.IsRequestEntityTooLargeError(err) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			remove(t, r, "first")
			if tt.name == "objects" {
				create(t, r, "second", 0)
			}
		})
	}
}

func TestEventsExpire(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	limits := DefaultLimits()
	limits.Expiring = 3
	s := New(limits)
	defer closeStore(t, s)
	s.now = func() time.Time { return now }
	r := podsOf(s)
	for i := range 5 {
		create(t, r, fmt.Sprint("e", i), 3600)
		now = now.Add(time.Minute)
	}
	if got := content(t, r); got != "e2@4 e3@5 e4@7" { // 6 and 8 are the ends of e0 and e1
		t.Errorf("got %q, want the last three", got)
	}
	now = now.Add(58 * time.Minute) // e2 is 61 minutes old, e3 60, e4 59
	s.expire()
	if got := content(t, r); got != "e4@7" {
		t.Errorf("got %q, want the youngest", got)
	}
	w, err := r.Watch(t.Context(), "/pods/", storage.ListOptions{ResourceVersion: "8", Recursive: true, Predicate: storage.Everything})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if e := <-w.ResultChan(); e.Type != watch.Deleted || e.Object.(*example.Pod).Name != "e2" {
		t.Errorf("got %+v, want the end of e2", e)
	}
}

func TestClosed(t *testing.T) {
	s := New(DefaultLimits())
	r := podsOf(s)
	create(t, r, "p", 0)
	w, err := r.Watch(t.Context(), "/pods/", storage.ListOptions{ResourceVersion: "2", Recursive: true, Predicate: storage.Everything})
	if err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	closeStore(t, s) // twice is fine
	if e, more := <-w.ResultChan(); more {
		t.Errorf("got %+v from a closed store", e)
	}
	if err := label(t.Context(), r, "p", "x"); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("writing gave %v", err)
	}
	if err := r.ReadinessCheck(); !errors.Is(err, storage.ErrStorageNotReady) {
		t.Errorf("ready: %v", err)
	}
}

func TestKeysStaySorted(t *testing.T) {
	_, r := newPods(t)
	for _, name := range []string{"m", "a", "z", "b"} {
		create(t, r, name, 0)
	}
	remove(t, r, "m")
	if !slices.IsSorted(r.table.keys) || len(r.table.keys) != 3 || len(r.table.entries) != 3 {
		t.Errorf("keys are %v", r.table.keys)
	}
}

func addOne(o runtime.Object) (runtime.Object, error) {
	p := o.(*example.Pod)
	n, _ := strconv.Atoi(p.Labels["n"]) // none is 0
	p.Labels = map[string]string{"n": strconv.Itoa(n + 1)}
	return p, nil
}
