package netns

import (
	"context"
	"os"
	"sync"
	"time"
)

// quiet is how long nobody has to have taken anything before the pool makes
// more: pods come in bursts, and one in the making is not to be held up.
const quiet = 20 * time.Millisecond

// Pool keeps a few ready-made things, such as empty namespaces with their
// sockets, so that taking one costs nothing. One goroutine makes them one
// after the other in the background: namespaces are made under a lock of the
// whole host, so more makers would only hold up the neighbours.
type Pool[T any] struct {
	fill func() (T, error) // makes one
	drop func(T)

	ready chan T
	stop  chan struct{}
	taken chan struct{} // a token: something was taken
	tried chan struct{} // a token: a filling has ended
	done  sync.WaitGroup
	once  sync.Once
}

// NewPool returns a pool of up to size things and starts to fill it. fill is
// called by one goroutine of the pool, or by Take when the pool is empty; drop
// ends a thing that nobody took.
func NewPool[T any](size int, fill func() (T, error), drop func(T)) *Pool[T] {
	p := &Pool[T]{
		fill: fill, drop: drop,
		ready: make(chan T, size),
		stop:  make(chan struct{}),
		taken: make(chan struct{}, 1),
		tried: make(chan struct{}, 1),
	}
	p.done.Add(1)
	go p.run()
	return p
}

func (p *Pool[T]) run() {
	defer p.done.Done()
	for {
		p.refill()
		token(p.tried)
		select {
		case <-p.stop:
			return
		case <-p.taken:
		}
		if !p.calm() {
			return
		}
	}
}

// calm waits until nobody has taken anything for a while. It reports false
// when the pool is closed.
func (p *Pool[T]) calm() bool {
	timer := time.NewTimer(quiet)
	defer timer.Stop()
	for {
		select {
		case <-p.stop:
			return false
		case <-p.taken:
			timer.Reset(quiet)
		case <-timer.C:
			return true
		}
	}
}

// refill makes what is missing. It gives up at an error, until the next Take:
// that one meets the error itself and can report it.
func (p *Pool[T]) refill() {
	for len(p.ready) < cap(p.ready) {
		select {
		case <-p.stop:
			return
		default:
		}
		t, err := p.fill()
		if err != nil {
			return
		}
		p.ready <- t // never blocks: this goroutine alone sends
	}
}

// Take returns a ready thing, or makes one if there is none.
func (p *Pool[T]) Take(ctx context.Context) (T, error) {
	defer token(p.taken)
	var none T
	if err := ctx.Err(); err != nil {
		return none, err
	}
	select {
	case t, ok := <-p.ready:
		if !ok {
			return none, os.ErrClosed
		}
		return t, nil
	default:
		return p.fill()
	}
}

// token leaves a token in a channel that has room for one.
func token(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Ready returns how many things wait in the pool.
func (p *Pool[T]) Ready() int { return len(p.ready) }

// WaitFull waits until the pool has all that it can. One goroutine at a time
// may wait.
func (p *Pool[T]) WaitFull(ctx context.Context) error {
	for len(p.ready) < cap(p.ready) {
		select {
		case <-p.tried:
		case <-p.stop:
			return os.ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Close stops the filling and drops what is left. It is idempotent.
func (p *Pool[T]) Close() {
	p.once.Do(func() {
		close(p.stop)
		p.done.Wait()
		close(p.ready)
		for t := range p.ready {
			p.drop(t)
		}
	})
}
