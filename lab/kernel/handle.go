// Package kernel is the only place that speaks netlink. It applies the Ops of
// package plan, and reads back what the kernel has.
//
// A Handle is one socket in one network namespace, opened once; after that no
// thread has to enter the namespace for netlink. Requests that follow each
// other in a namespace go to the kernel in one sendmsg, and only the last asks
// for an acknowledgement. A Monitor is a socket that hears every change.
//
// A Handle may be used by several goroutines; its calls run one after the
// other. Errors wrap the kernel's errno and name the Op and the namespace.
package kernel

import (
	"errors"
	"fmt"
	"sync"

	"podlab/lab"
	"podlab/lab/netns"

	"golang.org/x/sys/unix"
)

// Handle is a network namespace that can be changed and read.
type Handle struct {
	ns *netns.NS
	// id names the namespace in errors; set by Rename.
	id lab.NamespaceID

	mu   sync.Mutex
	sock *socket
	// links are the indexes of links made or looked up by this handle.
	links map[string]int
	// next is the index for the next link; 0 leaves it to the kernel.
	next int
	buf  batch
}

// firstFree is the first free link index of a namespace that was just made:
// after lo, and after the tunnels that some kernels put into every namespace.
var firstFree struct {
	sync.Mutex
	index int
}

// New makes an empty namespace with a handle on it, and runs birth, if not
// nil, inside. The handle chooses the indexes of links itself, which spares
// asking the kernel for them, as long as nobody else takes one of them.
func New(birth func() error) (*Handle, error) {
	h := &Handle{links: map[string]int{"lo": 1}}
	ns, err := netns.New(func() (err error) {
		if h.sock, err = openSocket(); err != nil || birth == nil {
			return err
		}
		return birth()
	})
	if err != nil {
		if h.sock != nil {
			err = errors.Join(err, h.sock.close())
		}
		return nil, err
	}
	h.ns = ns
	if h.next, err = h.findFirstFree(); err != nil {
		h.Close()
		return nil, err
	}
	return h, nil
}

func (h *Handle) findFirstFree() (int, error) {
	firstFree.Lock()
	defer firstFree.Unlock()
	if firstFree.index == 0 {
		links, err := h.dumpLinks()
		if err != nil {
			return 0, err
		}
		last := 1
		for index := range links {
			last = max(last, index)
		}
		firstFree.index = last + 1
	}
	return firstFree.index, nil
}

// Open returns a handle on a namespace that may have links already. The
// handle closes ns at its own Close.
func Open(ns *netns.NS) (*Handle, error) {
	h := &Handle{ns: ns, links: map[string]int{}}
	err := ns.Do(func() (err error) {
		h.sock, err = openSocket()
		return err
	})
	if err != nil {
		return nil, err
	}
	return h, nil
}

// NS returns the namespace, which is the handle's: do not close it.
func (h *Handle) NS() *netns.NS { return h.ns }

// Name sets the namespace's name in errors.
func (h *Handle) Name(id lab.NamespaceID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.id = id
}

// ChooseIndexes lets the handle of an opened namespace choose the indexes of
// links, too, after those that are there.
func (h *Handle) ChooseIndexes() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	links, err := h.dumpLinks()
	if err != nil {
		return err
	}
	h.next = 1
	for index := range links {
		h.next = max(h.next, index+1)
	}
	return nil
}

// Close lets go of the socket and the namespace; the kernel removes the
// namespace when nobody else has it. It is idempotent.
func (h *Handle) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.sock == nil {
		return nil
	}
	err := errors.Join(h.sock.close(), h.ns.Close())
	h.sock = nil
	return err
}

var errClosed = errors.New("cannot use a network namespace after its close")

// indexLocked returns a link's index by name.
func (h *Handle) indexLocked(name string) (int, error) {
	if index, ok := h.links[name]; ok {
		return index, nil
	}
	body, err := h.sock.query(unix.RTM_GETLINK, ifinfomsg(unix.AF_UNSPEC, 0, 0, 0), func(b *batch) {
		b.string(unix.IFLA_IFNAME, name)
	})
	if err != nil {
		return 0, fmt.Errorf("cannot find link %s: %w", name, err)
	}
	if len(body) < unix.SizeofIfInfomsg {
		return 0, fmt.Errorf("cannot find link %s: short answer", name)
	}
	index := int(int32(order.Uint32(body[4:])))
	h.links[name] = index
	return index, nil
}
