// Package memstore keeps the objects of a lab's Kubernetes API in memory and
// in a journal, in the place of etcd.
//
// A Store is the database: one resource version counter over all objects, the
// encoded objects by key, and for each resource a bounded window of the latest
// changes. Store.For gives the view of one resource that Kubernetes' own
// registries expect (storage.Interface): optimistic concurrency, paged lists at
// one resource version, and watches that either deliver every change in order
// or end with 410 Expired.
//
// Objects are kept encoded (protobuf): it is compact, nobody can change a
// stored object by accident, and the journal's bytes are the same bytes.
//
// All types are safe for concurrent use. Errors are those of
// k8s.io/apiserver/pkg/storage, which the registries turn into API errors.
package memstore

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Limits bound what a lab may keep, so that no learner can fill the agent.
type Limits struct {
	// Objects of all resources but events.
	Objects int
	// Bytes of all encoded objects together.
	Bytes int
	// ObjectBytes of one encoded object; etcd's own limit is 1.5 MiB.
	ObjectBytes int
	// Expiring objects (events) in a resource; the oldest gives way.
	Expiring int
	// WindowEvents and WindowBytes of the changes kept for a resource's watches.
	WindowEvents int
	WindowBytes  int
}

// DefaultLimits fit an agent of 25 MiB.
func DefaultLimits() Limits {
	return Limits{
		Objects:      2000,
		Bytes:        8 << 20,
		ObjectBytes:  1536 << 10,
		Expiring:     500,
		WindowEvents: 256,
		WindowBytes:  1 << 20,
	}
}

// Store is the database of a lab's API.
type Store struct {
	limits Limits
	now    func() time.Time

	mu        sync.Mutex
	rv        uint64 // of the latest change; etcd too starts at 1
	opened    uint64 // rv when the store was made from its journal
	resources map[string]*table
	objects   int // without expiring ones
	bytes     int
	journal   *journal // nil when the store is not kept
	expiry    *time.Timer
	closed    bool
}

// entry is one version of one object. It never changes.
type entry struct {
	key     string
	rv      uint64
	data    []byte
	expires time.Time // zero: never
}

// change is one committed write: from prev to cur; one of them may be nil.
type change struct {
	rv        uint64
	key       string
	prev, cur *entry
}

func (c change) size() int {
	n := len(c.key)
	if c.cur != nil {
		n += len(c.cur.data)
	}
	return n
}

// table holds one resource.
type table struct {
	prefix  string // "/pods/"
	entries map[string]*entry
	keys    []string // sorted
	window  []change // oldest first
	bytes   int      // of window
	// compacted is the version up to which changes are no longer known.
	compacted uint64
	// changed is closed and replaced at each change.
	changed chan struct{}
}

// New makes an empty store that is not kept anywhere.
func New(limits Limits) *Store {
	return &Store{limits: limits, now: time.Now, rv: 1, resources: map[string]*table{}}
}

// Open makes a store from the journal at path, which may not exist yet, and
// keeps every later write there.
func Open(path string, limits Limits) (*Store, error) {
	s := New(limits)
	j, err := openJournal(path, s.replay)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.journal, s.opened = j, s.rv
	for _, t := range s.resources {
		t.compacted, t.window, t.bytes = s.rv, nil, 0
	}
	s.armExpiryLocked()
	return s, nil
}

// Close ends watches and closes the journal. Later writes fail.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	if s.expiry != nil {
		s.expiry.Stop()
	}
	for _, t := range s.resources {
		t.wakeLocked()
	}
	if s.journal == nil {
		return nil
	}
	return s.journal.close()
}

// Torn is how many bytes at the journal's end were no whole record: what the
// agent was writing when it died.
func (s *Store) Torn() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.journal == nil {
		return 0
	}
	return s.journal.torn
}

// Revision is the resource version of the latest change.
func (s *Store) Revision() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rv
}

// Len is the number of objects, events included.
func (s *Store) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, t := range s.resources {
		n += len(t.entries)
	}
	return n
}

func (s *Store) tableLocked(prefix string) *table {
	t := s.resources[prefix]
	if t == nil {
		t = &table{prefix: prefix, entries: map[string]*entry{}, changed: make(chan struct{}), compacted: s.opened}
		s.resources[prefix] = t
	}
	return t
}

// table returns the resource with the prefix ("/pods/").
func (s *Store) table(prefix string) *table {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tableLocked(prefix)
}

func (s *Store) get(t *table, key string) (*entry, uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return t.entries[key], s.rv
}

// commit replaces the object at key, if its version is still expect (0: it
// does not exist). It returns the entry that is there afterwards, and whether
// the write was done. A nil data deletes.
func (s *Store) commit(t *table, key string, expect uint64, data []byte, expires time.Time) (*entry, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := t.entries[key]
	if version(old) != expect {
		return old, false, nil
	}
	if s.closed {
		return nil, false, errClosed
	}
	if err := s.admitLocked(old, data, expires); err != nil {
		return nil, false, err
	}
	e := &entry{key: key, rv: s.rv + 1, data: data, expires: expires}
	if err := s.writeLocked(t, old, e); err != nil {
		return nil, false, err
	}
	if data != nil && !expires.IsZero() {
		s.evictLocked(t)
		s.armExpiryLocked()
	}
	return e, true, nil
}

func version(e *entry) uint64 {
	if e == nil {
		return 0
	}
	return e.rv
}

// admitLocked refuses what would go beyond the limits.
func (s *Store) admitLocked(old *entry, data []byte, expires time.Time) error {
	if data == nil {
		return nil
	}
	if len(data) > s.limits.ObjectBytes {
		return &LimitError{fmt.Sprintf("the object is %d bytes; the limit is %d", len(data), s.limits.ObjectBytes)}
	}
	if old == nil && expires.IsZero() && s.objects >= s.limits.Objects {
		return &LimitError{fmt.Sprintf("the lab holds %d objects, which is its limit; delete some first", s.objects)}
	}
	grown := s.bytes + len(data)
	if old != nil {
		grown -= len(old.data)
	}
	if grown > s.limits.Bytes && (old == nil || len(data) > len(old.data)) {
		return &LimitError{fmt.Sprintf("the lab's objects would be %d bytes together; the limit is %d; delete some first", grown, s.limits.Bytes)}
	}
	return nil
}

// writeLocked journals and applies one change; e.data is nil to delete.
func (s *Store) writeLocked(t *table, old, e *entry) error {
	if s.journal != nil {
		if err := s.journal.append(record{rv: e.rv, key: e.key, data: e.data, expires: e.expires, table: t.prefix}); err != nil {
			return err
		}
	}
	s.applyLocked(t, old, e)
	if s.journal != nil && s.journal.wantsCompaction(s.bytes) {
		if err := s.journal.compact(s.rv, s.allLocked()); err != nil {
			// The old journal is whole and still in use; try again later.
			s.journal.postpone()
		}
	}
	return nil
}

func (s *Store) applyLocked(t *table, old, e *entry) {
	s.rv = e.rv
	c := change{rv: e.rv, key: e.key, prev: old}
	if old != nil {
		s.bytes -= len(old.data)
		if old.expires.IsZero() {
			s.objects--
		}
	}
	if e.data == nil {
		delete(t.entries, e.key)
		if i, ok := slices.BinarySearch(t.keys, e.key); ok {
			t.keys = slices.Delete(t.keys, i, i+1)
		}
	} else {
		c.cur = e
		t.entries[e.key] = e
		s.bytes += len(e.data)
		if e.expires.IsZero() {
			s.objects++
		}
		if old == nil {
			i, _ := slices.BinarySearch(t.keys, e.key)
			t.keys = slices.Insert(t.keys, i, e.key)
		}
	}
	t.pushLocked(c, s.limits)
	t.wakeLocked()
}

func (t *table) pushLocked(c change, l Limits) {
	t.window = append(t.window, c)
	t.bytes += c.size()
	drop := 0
	for len(t.window)-drop > l.WindowEvents || (t.bytes > l.WindowBytes && len(t.window)-drop > 1) {
		t.bytes -= t.window[drop].size()
		t.compacted = t.window[drop].rv
		drop++
	}
	if drop > 0 {
		clear(t.window[:drop]) // let the old versions go
		t.window = t.window[drop:]
	}
}

func (t *table) wakeLocked() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// evictLocked drops the oldest expiring objects beyond the limit.
func (s *Store) evictLocked(t *table) {
	for len(t.entries) > s.limits.Expiring {
		var oldest *entry
		for _, e := range t.entries {
			if !e.expires.IsZero() && (oldest == nil || e.rv < oldest.rv) {
				oldest = e
			}
		}
		if oldest == nil || s.writeLocked(t, oldest, &entry{key: oldest.key, rv: s.rv + 1}) != nil {
			return
		}
	}
}

// armExpiryLocked sets the timer to the next object that expires.
func (s *Store) armExpiryLocked() {
	var next time.Time
	for _, t := range s.resources {
		for _, e := range t.entries {
			if !e.expires.IsZero() && (next.IsZero() || e.expires.Before(next)) {
				next = e.expires
			}
		}
	}
	if next.IsZero() {
		return
	}
	// Rounded up to the minute: expiry is not urgent, waking an idle lab is a cost.
	wait := next.Sub(s.now()).Truncate(time.Minute) + time.Minute
	if wait < 0 {
		wait = 0
	}
	if s.expiry == nil {
		s.expiry = time.AfterFunc(wait, s.expire)
		return
	}
	s.expiry.Reset(wait)
}

func (s *Store) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	now := s.now()
	for _, t := range s.resources {
		for _, key := range slices.Clone(t.keys) {
			e := t.entries[key]
			if e.expires.IsZero() || e.expires.After(now) {
				continue
			}
			if s.writeLocked(t, e, &entry{key: e.key, rv: s.rv + 1}) != nil {
				break // the journal does not take it; the timer comes again
			}
		}
	}
	s.armExpiryLocked()
}

// snapshot returns the entries under prefix from the key start, in order, as
// of version at (0: now), the version, and whether at is still known.
func (s *Store) snapshot(t *table, prefix, start string, at uint64) ([]*entry, uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at > s.rv {
		return nil, 0, futureError(at, s.rv)
	}
	if at != 0 && at != s.rv && at < t.compacted {
		return nil, 0, errCompacted
	}
	if at == 0 {
		at = s.rv
	}
	var out []*entry
	from, _ := slices.BinarySearch(t.keys, max(prefix, start))
	for _, key := range t.keys[from:] {
		if !strings.HasPrefix(key, prefix) {
			break
		}
		out = append(out, t.entries[key])
	}
	// Undo what came after.
	for i := len(t.window) - 1; i >= 0 && t.window[i].rv > at; i-- {
		c := t.window[i]
		if !strings.HasPrefix(c.key, prefix) || c.key < start {
			continue
		}
		j, found := slices.BinarySearchFunc(out, c.key, func(e *entry, k string) int { return strings.Compare(e.key, k) })
		switch {
		case found && c.prev == nil:
			out = slices.Delete(out, j, j+1)
		case found:
			out[j] = c.prev
		case c.prev != nil:
			out = slices.Insert(out, j, c.prev)
		}
	}
	return out, at, nil
}

// after returns the changes to keys under prefix after version rv, the store's
// version now, and a channel that is closed at the next change.
func (s *Store) after(t *table, prefix string, rv uint64) ([]change, uint64, <-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, 0, nil, errClosed
	}
	if rv < t.compacted {
		return nil, 0, nil, errCompacted
	}
	i, _ := slices.BinarySearchFunc(t.window, rv+1, func(c change, v uint64) int {
		switch {
		case c.rv < v:
			return -1
		case c.rv > v:
			return 1
		}
		return 0
	})
	var out []change
	for _, c := range t.window[i:] {
		if strings.HasPrefix(c.key, prefix) {
			out = append(out, c)
		}
	}
	return out, s.rv, t.changed, nil
}

func (s *Store) allLocked() []record {
	var out []record
	for _, t := range s.resources {
		for _, e := range t.entries {
			out = append(out, record{rv: e.rv, key: e.key, data: e.data, expires: e.expires, table: t.prefix})
		}
	}
	slices.SortFunc(out, func(a, b record) int {
		if a.rv < b.rv {
			return -1
		}
		return 1
	})
	return out
}

// replay applies one record of the journal.
func (s *Store) replay(r record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.key == "" { // only the version, at the head of a compacted journal
		s.rv = max(s.rv, r.rv)
		return
	}
	t := s.tableLocked(r.table)
	rv := max(s.rv, r.rv)
	s.applyLocked(t, t.entries[r.key], &entry{key: r.key, rv: r.rv, data: r.data, expires: r.expires})
	s.rv = rv
}
