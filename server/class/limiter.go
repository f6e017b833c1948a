package class

import (
	"net/netip"
	"sync"
	"time"
)

// Limits on wrong codes: a whole class may sit behind one address, so only
// failures count, and a few slips of the finger do not lock it out.
const (
	failuresPerAddress = 20
	failuresInAll      = 3000
	failureWindow      = time.Minute
	maxAddresses       = 4096
)

// limiter counts failures in windows of a minute.
type limiter struct {
	mu      sync.Mutex
	start   time.Time // of the window
	all     int
	address map[string]int
}

func newLimiter() *limiter { return &limiter{address: map[string]int{}} }

// turnLocked starts a new window when the old one is over.
func (l *limiter) turnLocked(now time.Time) {
	if now.Sub(l.start) >= failureWindow {
		l.start, l.all = now, 0
		clear(l.address)
	}
}

// blocked returns how long the address must wait, or 0.
func (l *limiter) blocked(from string, now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.turnLocked(now)
	if l.address[network(from)] >= failuresPerAddress || l.all >= failuresInAll {
		return l.start.Add(failureWindow).Sub(now)
	}
	return 0
}

// failed counts a failure.
func (l *limiter) failed(from string, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.turnLocked(now)
	l.all++
	if len(l.address) < maxAddresses {
		l.address[network(from)]++
	}
}

// network is the address, or the /64 of an IPv6 address, which one host has
// all of.
func network(from string) string {
	a, err := netip.ParseAddr(from)
	if err != nil {
		return from
	}
	if a = a.Unmap(); a.Is6() {
		p, err := a.WithZone("").Prefix(64)
		if err == nil {
			return p.String()
		}
	}
	return a.String()
}
