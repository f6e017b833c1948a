package memstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/apis/example"
	"k8s.io/apiserver/pkg/storage"
)

func openStore(t *testing.T, path string, limits Limits) (*Store, *Resource) {
	t.Helper()
	s, err := Open(path, limits)
	if err != nil {
		t.Fatal(err)
	}
	return s, podsOf(s)
}

func closeStore(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func create(t *testing.T, r *Resource, name string, ttl uint64) {
	t.Helper()
	p := &example.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns"}}
	if err := r.Create(t.Context(), "/pods/ns/"+name, p, &example.Pod{}, ttl); err != nil {
		t.Fatalf("cannot create %s: %v", name, err)
	}
}

// label sets the pod's label v.
func label(ctx context.Context, r *Resource, name, v string) error {
	return r.GuaranteedUpdate(ctx, "/pods/ns/"+name, &example.Pod{}, false, nil,
		storage.SimpleUpdate(func(o runtime.Object) (runtime.Object, error) {
			p := o.(*example.Pod)
			p.Labels = map[string]string{"v": v}
			return p, nil
		}), nil)
}

func remove(t *testing.T, r *Resource, name string) {
	t.Helper()
	if err := r.Delete(t.Context(), "/pods/ns/"+name, &example.Pod{}, nil, storage.ValidateAllObjectFunc, nil, storage.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// content is every object with its version, in one line.
func content(t *testing.T, r *Resource) string {
	t.Helper()
	list := &example.PodList{}
	if err := r.GetList(t.Context(), "/pods/", storage.ListOptions{Recursive: true, Predicate: storage.Everything}, list); err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, p := range list.Items {
		out = append(out, p.Name+p.Labels["v"]+"@"+p.ResourceVersion)
	}
	return strings.Join(out, " ")
}

// TestKilledAtAnyByte cuts the journal after each of its bytes and opens it:
// there must be what the whole records before it say, and it must go on.
func TestKilledAtAnyByte(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "journal")
	s, r := openStore(t, path, DefaultLimits())
	type point struct {
		size    int64
		content string
		rv      uint64
	}
	var points []point
	mark := func() { points = append(points, point{s.journal.size, content(t, r), s.Revision()}) }
	mark()
	for i := range 3 {
		create(t, r, fmt.Sprint("p", i), 0)
		mark()
	}
	if err := label(t.Context(), r, "p1", "x"); err != nil {
		t.Fatal(err)
	}
	mark()
	remove(t, r, "p0")
	mark()
	closeStore(t, s)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := range len(whole) + 1 {
		want := points[0]
		for _, p := range points {
			if p.size <= int64(cut) {
				want = p
			}
		}
		torn := filepath.Join(dir, "torn")
		if err := os.WriteFile(torn, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		s, r := openStore(t, torn, DefaultLimits())
		if got := content(t, r); got != want.content || s.Revision() != want.rv {
			t.Fatalf("cut at %d of %d: got %q at %d, want %q at %d", cut, len(whole), got, s.Revision(), want.content, want.rv)
		}
		if cut > len(journalMagic) && s.Torn() != int64(cut)-want.size {
			t.Fatalf("cut at %d: %d bytes are called torn, want %d", cut, s.Torn(), int64(cut)-want.size)
		}
		create(t, r, "after", 0)
		after := content(t, r)
		closeStore(t, s)
		s, r = openStore(t, torn, DefaultLimits())
		if got := content(t, r); got != after || s.Torn() != 0 {
			t.Fatalf("cut at %d: after another write and start got %q, want %q", cut, got, after)
		}
		closeStore(t, s)
	}
}

// TestSpoiltRecord changes one byte of the last record.
func TestSpoiltRecord(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	s, r := openStore(t, path, DefaultLimits())
	create(t, r, "good", 0)
	before := s.journal.size
	create(t, r, "spoilt", 0)
	closeStore(t, s)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := before; i < int64(len(whole)); i++ {
		bad := append([]byte(nil), whole...)
		bad[i] ^= 0x40
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		s, r := openStore(t, path, DefaultLimits())
		if got := content(t, r); got != "good@2" {
			t.Fatalf("byte %d changed: got %q", i, got)
		}
		closeStore(t, s)
	}
}

func TestForeignFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho this is something else\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, DefaultLimits()); err == nil || !strings.Contains(err.Error(), "not a podlab journal") {
		t.Errorf("got %v, want a refusal", err)
	}
	if data, err := os.ReadFile(path); err != nil || !strings.HasPrefix(string(data), "#!") {
		t.Errorf("the file was changed: %q, %v", data, err)
	}
}

func TestCompaction(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	s, r := openStore(t, path, DefaultLimits())
	create(t, r, "p", 0)
	create(t, r, "event", 3600)
	largest := int64(0)
	for i := range 6000 {
		if err := label(t.Context(), r, "p", fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
		largest = max(largest, s.journal.size)
	}
	if limit := int64(compactSlack + 64<<10); largest > limit {
		t.Errorf("the journal grew to %d bytes, want at most %d", largest, limit)
	}
	want, rv := content(t, r), s.Revision()
	closeStore(t, s)
	s, r = openStore(t, path, DefaultLimits())
	if got := content(t, r); got != want || s.Revision() != rv {
		t.Errorf("got %q at %d, want %q at %d", got, s.Revision(), want, rv)
	}
	if e := r.table.entries["/pods/ns/event"]; e == nil || time.Until(e.expires) > time.Hour || time.Until(e.expires) < 59*time.Minute {
		t.Errorf("the expiry is lost: %+v", e)
	}
	if _, err := os.Stat(path + ".new"); !os.IsNotExist(err) {
		t.Errorf("the second file is left: %v", err)
	}
	closeStore(t, s)
}

// full is a file on a disk with some bytes left.
type full struct {
	file
	left int
}

func (f *full) Write(p []byte) (int, error) {
	if len(p) <= f.left {
		f.left -= len(p)
		return f.file.Write(p)
	}
	n, err := f.file.Write(p[:f.left])
	f.left = 0
	return n, errors.Join(err, io.ErrShortWrite)
}

// TestFullDisk must refuse the write whole, and go on once there is room.
func TestFullDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	s, r := openStore(t, path, DefaultLimits())
	create(t, r, "p", 0)
	disk := s.journal.f
	s.journal.f = &full{disk, 20}
	p := &example.Pod{ObjectMeta: metav1.ObjectMeta{Name: "q", Namespace: "ns"}}
	if err := r.Create(t.Context(), "/pods/ns/q", p, nil, 0); err == nil || !strings.Contains(err.Error(), "cannot write journal") {
		t.Errorf("got %v, want an error of the journal", err)
	}
	if got := content(t, r); got != "p@2" {
		t.Errorf("a write that was refused shows: %s", got)
	}
	s.journal.f = disk
	create(t, r, "later", 0)
	want := content(t, r)
	closeStore(t, s)
	s, r = openStore(t, path, DefaultLimits())
	if got := content(t, r); got != want || s.Torn() != 0 {
		t.Errorf("got %q, %d torn, want %q", got, s.Torn(), want)
	}
	closeStore(t, s)
}

func TestOldVersionsAfterRestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	s, r := openStore(t, path, DefaultLimits())
	create(t, r, "a", 0)
	create(t, r, "b", 0)
	closeStore(t, s)
	s, r = openStore(t, path, DefaultLimits())
	defer closeStore(t, s)
	old, err := r.Watch(t.Context(), "/pods/", storage.ListOptions{ResourceVersion: "2", Recursive: true, Predicate: storage.Everything})
	if err != nil {
		t.Fatal(err)
	}
	defer old.Stop()
	if e := <-old.ResultChan(); !isExpired(e) {
		t.Errorf("got %+v, want 410 Expired", e)
	}
	now, err := r.Watch(t.Context(), "/pods/", storage.ListOptions{ResourceVersion: "3", Recursive: true, Predicate: storage.Everything})
	if err != nil {
		t.Fatal(err)
	}
	defer now.Stop()
	create(t, r, "c", 0)
	if e := <-now.ResultChan(); e.Object.(*example.Pod).Name != "c" {
		t.Errorf("got %+v, want c", e)
	}
}
