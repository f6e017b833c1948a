package observe

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"podlab/lab"
	"podlab/lab/kernel"

	"golang.org/x/sys/unix"
)

// WatcherConfig is what a Watcher works with.
type WatcherConfig struct {
	// Log gets the events.
	Log *Log
	// Known says whether a namespace with this inode is the lab's own, so that
	// it is not one made by hand. It is called from the watcher's goroutine.
	Known func(inode uint64) bool
	// Logger gets what goes wrong; nil is slog.Default.
	Logger *slog.Logger
}

// Watcher hears what changes in every network namespace of a lab and tells
// the log. One goroutine does all of it; without changes it sleeps, without a
// thread of its own. What the kernel says more than once, or takes back at
// once, is told as its outcome.
type Watcher struct {
	cfg   WatcherConfig
	epoll *os.File
	wake  int // eventfd: there is something to do in todo
	done  chan struct{}

	mu   sync.Mutex
	todo []func()
	// closed refuses new work.
	closed bool
	// monitors are the descriptors that are listened to; paused counts the
	// Pauses of a namespace that have not ended.
	monitors map[lab.NamespaceID]int
	paused   map[lab.NamespaceID]int

	// Below: only the watcher's goroutine.
	spaces map[lab.NamespaceID]*watched
	ready  map[int32]func() // by descriptor in epoll
	nodes  map[string]*nodeMounts
	added  int // namespaces so far
	buf    []byte
}

// NewWatcher starts a watcher.
func NewWatcher(cfg WatcherConfig) (*Watcher, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	w := &Watcher{
		cfg: cfg, done: make(chan struct{}),
		monitors: map[lab.NamespaceID]int{}, paused: map[lab.NamespaceID]int{},
		spaces: map[lab.NamespaceID]*watched{}, ready: map[int32]func(){}, nodes: map[string]*nodeMounts{},
		buf: make([]byte, 32<<10),
	}
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("cannot watch namespaces: %w", err)
	}
	// Not blocking, so that Go's own poller waits for it: no thread sleeps here.
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("cannot watch namespaces: %w", err)
	}
	w.epoll = os.NewFile(uintptr(fd), "epoll")
	if w.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		w.epoll.Close()
		return nil, fmt.Errorf("cannot watch namespaces: %w", err)
	}
	if err := w.listen(w.wake, unix.EPOLLIN, w.runTodo); err != nil {
		w.epoll.Close()
		unix.Close(w.wake)
		return nil, err
	}
	conn, err := w.epoll.SyscallConn()
	if err != nil {
		w.epoll.Close()
		unix.Close(w.wake)
		return nil, fmt.Errorf("cannot watch namespaces: %w", err)
	}
	go w.run(conn)
	return w, nil
}

// Add begins to watch a namespace; ns needs no lists. The handle stays the
// caller's and must be open until Remove has returned.
func (w *Watcher) Add(ns lab.Namespace, h *kernel.Handle) {
	w.post(func() { w.add(&watched{ns: ns, handle: h}) })
}

// Remove ends the watch of a namespace, which is gone for the lab. When it
// returns, the watcher has let go of the namespace.
func (w *Watcher) Remove(id lab.NamespaceID) {
	w.call(func() { w.remove(id) })
}

// Pause keeps the watcher from waking for a namespace until resume is called,
// once: who changes much there in a moment is not held up by each change's
// wake-up, and all is told afterwards.
func (w *Watcher) Pause(id lab.NamespaceID) (resume func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.paused[id]++
	w.armLocked(id)
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.paused[id]--; w.paused[id] == 0 {
			delete(w.paused, id)
		}
		w.armLocked(id)
	}
}

// armLocked makes the watcher wake for a namespace, unless it is paused. A
// namespace that is not listened to just now stays so.
func (w *Watcher) armLocked(id lab.NamespaceID) {
	fd, ok := w.monitors[id]
	if !ok {
		return
	}
	e := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
	if w.paused[id] > 0 {
		e.Events = 0
	}
	_ = w.control(unix.EPOLL_CTL_MOD, fd, &e) // ENOENT: not listened to
}

// Settle waits until everything that the kernel has said so far, and every
// Add, is in the log.
func (w *Watcher) Settle(ctx context.Context) error {
	finished := make(chan struct{})
	w.post(func() {
		for _, sp := range w.spaces {
			w.read(sp)
		}
		close(finished)
	})
	select {
	case <-finished:
		return nil
	case <-w.done:
		return os.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close ends the watch of everything, without events. It is idempotent.
func (w *Watcher) Close() error {
	w.mu.Lock()
	closed := w.closed
	w.closed = true
	w.mu.Unlock()
	if !closed {
		w.epoll.Close() // ends run
	}
	<-w.done
	return nil
}

// post leaves work to the watcher's goroutine. After Close it does nothing.
func (w *Watcher) post(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	w.todo = append(w.todo, f)
	// The counter is far from full; and then the goroutine is awake already.
	_, _ = unix.Write(w.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

// call is post that waits.
func (w *Watcher) call(f func()) {
	finished := make(chan struct{})
	w.post(func() { f(); close(finished) })
	select {
	case <-finished:
	case <-w.done:
	}
}

func (w *Watcher) runTodo() {
	var counter [8]byte
	_, _ = unix.Read(w.wake, counter[:])
	w.mu.Lock()
	todo := w.todo
	w.todo = nil
	w.mu.Unlock()
	for _, f := range todo {
		f()
	}
}

// run waits for descriptors and calls what is ready, until the epoll file is
// closed.
func (w *Watcher) run(conn syscall.RawConn) {
	defer close(w.done)
	events := make([]unix.EpollEvent, 32)
	_ = conn.Read(func(fd uintptr) bool {
		for {
			n, err := unix.EpollWait(int(fd), events, 0)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				return true
			}
			if n == 0 {
				return w.isClosed()
			}
			for _, e := range events[:n] {
				if f := w.ready[e.Fd]; f != nil {
					f()
				}
			}
		}
	})
	for _, sp := range w.spaces {
		w.letGo(sp)
	}
	for _, n := range w.nodes {
		n.close()
	}
	// No post writes to it any more: closed is set before the epoll file closes.
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	unix.Close(w.wake)
}

func (w *Watcher) isClosed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.closed
}

// listen calls f whenever the descriptor has the events.
func (w *Watcher) listen(fd int, events uint32, f func()) error {
	e := unix.EpollEvent{Events: events, Fd: int32(fd)}
	if err := w.control(unix.EPOLL_CTL_ADD, fd, &e); err != nil {
		return fmt.Errorf("cannot watch a descriptor: %w", err)
	}
	w.ready[int32(fd)] = f
	return nil
}

func (w *Watcher) unlisten(fd int) {
	delete(w.ready, int32(fd))
	// The watcher may be closing: then the epoll file is gone, and with it this.
	_ = w.control(unix.EPOLL_CTL_DEL, fd, nil)
}

// control is epoll_ctl, which must not make the epoll file blocking as Fd would.
func (w *Watcher) control(op, fd int, e *unix.EpollEvent) error {
	conn, err := w.epoll.SyscallConn()
	if err != nil {
		return err
	}
	if cerr := conn.Control(func(ep uintptr) { err = unix.EpollCtl(int(ep), op, fd, e) }); cerr != nil {
		return cerr
	}
	return err
}

// watched is a namespace under watch: what the kernel said of it, and what the
// log was told.
type watched struct {
	ns      lab.Namespace
	handle  *kernel.Handle
	owned   bool // the watcher closes the handle
	monitor *kernel.Monitor
	table   table
	told    told
	// looks that were had of late, as of lookedAt.
	looks    int
	lookedAt time.Time
	// peers are the namespaces that this one has a number for, and missed the
	// numbers that none of the first so many namespaces (Watcher.added) has.
	peers  map[int]lab.NamespaceID
	missed map[int]int
}

func (w *Watcher) add(sp *watched) {
	if old := w.spaces[sp.ns.ID]; old != nil {
		w.remove(sp.ns.ID)
	}
	sp.ns.Inode = sp.handle.NS().Inode()
	sp.ns.Links, sp.ns.Routes, sp.ns.Neighbours, sp.ns.FDB = []lab.Link{}, []lab.Route{}, []lab.Neigh{}, []lab.FDBEntry{}
	sp.peers, sp.missed = map[int]lab.NamespaceID{}, map[int]int{}
	w.added++
	monitor, err := sp.handle.Monitor()
	if err != nil {
		w.complain(sp, err)
		w.letGo(sp)
		return
	}
	sp.monitor = monitor
	if err := w.listen(monitor.Fd(), unix.EPOLLIN, func() { w.look(sp) }); err != nil {
		w.complain(sp, err)
		w.letGo(sp)
		return
	}
	w.spaces[sp.ns.ID] = sp
	w.mu.Lock()
	w.monitors[sp.ns.ID] = monitor.Fd()
	w.armLocked(sp.ns.ID)
	w.mu.Unlock()
	ns := sp.ns
	w.cfg.Log.Publish(lab.Event{Kind: lab.EventNamespaceSet, NS: ns.ID, NetNS: &ns})
	// What changes from now on is heard; what was there before is read.
	w.resync(sp)
	w.meet(sp)
}

func (w *Watcher) remove(id lab.NamespaceID) {
	sp := w.spaces[id]
	if sp == nil {
		return
	}
	delete(w.spaces, id)
	w.letGo(sp)
	for _, other := range w.spaces {
		for nsid, peer := range other.peers {
			if peer == id {
				delete(other.peers, nsid)
			}
		}
	}
	ns := sp.ns
	w.cfg.Log.Publish(lab.Event{Kind: lab.EventNamespaceGone, NS: id, NetNS: &ns})
}

// letGo closes what the watcher has open in a namespace.
func (w *Watcher) letGo(sp *watched) {
	if sp.monitor != nil {
		w.mu.Lock()
		if w.monitors[sp.ns.ID] == sp.monitor.Fd() {
			delete(w.monitors, sp.ns.ID)
		}
		w.mu.Unlock()
		w.unlisten(sp.monitor.Fd())
		if err := sp.monitor.Close(); err != nil {
			w.complain(sp, err)
		}
	}
	if sp.owned {
		if err := sp.handle.Close(); err != nil {
			w.complain(sp, err)
		}
	}
}

// A namespace may have so many looks in a row; then they come so often. A
// learner who changes things without end is shown what comes of it, and costs
// the agent no more than that.
const (
	looks    = 50
	lookTime = 10 * time.Millisecond
)

// mayLook says whether the namespace may be looked at now; if not, it is not
// listened to until it may.
func (w *Watcher) mayLook(sp *watched) bool {
	now := time.Now()
	if since := int(now.Sub(sp.lookedAt) / lookTime); since > 0 {
		sp.looks = max(sp.looks-since, 0)
		sp.lookedAt = now
	}
	if sp.looks < looks {
		sp.looks++
		return true
	}
	w.unlisten(sp.monitor.Fd())
	time.AfterFunc(lookTime, func() {
		w.post(func() {
			if w.spaces[sp.ns.ID] != sp {
				return
			}
			if err := w.listen(sp.monitor.Fd(), unix.EPOLLIN, func() { w.look(sp) }); err != nil {
				w.complain(sp, err)
			}
		})
	})
	return false
}

// look reads the namespace's changes when it may.
func (w *Watcher) look(sp *watched) {
	if w.mayLook(sp) {
		w.read(sp)
	}
}

// read takes in what the kernel says has changed.
func (w *Watcher) read(sp *watched) {
	unknown := allKnown
	lost, err := sp.monitor.Read(w.buf, func(c kernel.Change) {
		unknown = max(unknown, sp.table.change(c))
	})
	if err != nil {
		w.complain(sp, err)
	}
	if lost || unknown == nothingKnown {
		w.resync(sp)
		return
	}
	if unknown == routesUnknown {
		routes, err := sp.handle.Routes()
		if err != nil {
			w.complain(sp, err)
			return
		}
		sp.table.routes = cut(&sp.table, routes)
	}
	w.tell(sp)
}

// resync reads all of the namespace anew.
func (w *Watcher) resync(sp *watched) {
	t, err := sp.handle.Observe()
	if err != nil {
		w.complain(sp, err)
		return
	}
	sp.table.replace(t)
	w.tell(sp)
}

// tell publishes how the namespace differs from what the log knows.
func (w *Watcher) tell(sp *watched) {
	events := sp.told.update(&sp.table, func(l kernel.Link) *lab.LinkRef { return w.peerOf(sp, l) })
	for i := range events {
		events[i].NS = sp.ns.ID
	}
	w.cfg.Log.PublishAll(events)
	for _, e := range events {
		if e.Kind != lab.EventLinkSet || e.Link.Peer == nil {
			continue
		}
		other := w.spaces[e.Link.Peer.Namespace]
		if other == nil {
			continue
		}
		if far, ok := other.told.links[e.Link.Peer.Index]; ok && far.Peer == nil {
			w.tell(other)
		}
	}
}

// meet looks again at links whose other end may be in the new namespace.
func (w *Watcher) meet(fresh *watched) {
	for _, sp := range w.spaces {
		if sp != fresh && sp.told.peerless() {
			w.tell(sp)
		}
	}
}

// peerOf finds the other end of a veth. The kernel tells of the end that is
// born first before it has another end, and may not speak of it again; then
// the other end says which one it is.
func (w *Watcher) peerOf(sp *watched, l kernel.Link) *lab.LinkRef {
	if l.Kind != "veth" {
		return nil
	}
	if l.PeerIndex == 0 {
		return w.pointsTo(lab.LinkRef{Namespace: sp.ns.ID, Index: l.Index})
	}
	if l.PeerNSID < 0 {
		return &lab.LinkRef{Namespace: sp.ns.ID, Index: l.PeerIndex}
	}
	id, ok := sp.peers[l.PeerNSID]
	if !ok && sp.missed[l.PeerNSID] != w.added {
		id, ok = w.findPeer(sp, l.PeerNSID)
	}
	if !ok {
		return nil
	}
	return &lab.LinkRef{Namespace: id, Index: l.PeerIndex}
}

// pointsTo finds the link whose other end is known to be this one.
func (w *Watcher) pointsTo(end lab.LinkRef) *lab.LinkRef {
	for id, sp := range w.spaces {
		for index, l := range sp.told.links {
			if l.Peer != nil && *l.Peer == end {
				return &lab.LinkRef{Namespace: id, Index: index}
			}
		}
	}
	return nil
}

// findPeer asks the namespace for its numbers of the others, likely ones
// first, until it finds who has this one.
func (w *Watcher) findPeer(sp *watched, nsid int) (lab.NamespaceID, bool) {
	var near, far []*watched
	for _, other := range w.spaces {
		switch {
		case other == sp || slices.Contains(mapValues(sp.peers), other.ns.ID):
		case other.ns.Node == sp.ns.Node:
			near = append(near, other)
		default:
			far = append(far, other)
		}
	}
	for _, other := range append(near, far...) {
		n, ok := sp.handle.NSID(other.handle.NS())
		if !ok {
			continue
		}
		sp.peers[n] = other.ns.ID
		if n == nsid {
			return other.ns.ID, true
		}
	}
	sp.missed[nsid] = w.added
	return "", false
}

func mapValues(m map[int]lab.NamespaceID) []lab.NamespaceID {
	list := make([]lab.NamespaceID, 0, len(m))
	for _, v := range m {
		list = append(list, v)
	}
	return list
}

func (w *Watcher) complain(sp *watched, err error) {
	if w.isClosed() {
		return
	}
	w.cfg.Logger.Error("cannot watch a network namespace", "namespace", sp.ns.ID, "err", err)
}
