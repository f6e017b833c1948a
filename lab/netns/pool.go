package netns

import (
	"context"
	"os"
	"sync"
)

// Pool keeps a few ready-made things, such as empty namespaces with their
// sockets, so that taking one costs nothing. One goroutine makes them one
// after the other in the background: namespaces are made under a lock of the
// whole host, so more makers would only hold up the neighbours.
type Pool[T any] struct {
	make func() (T, error)
	drop func(T)

	ready chan T
	stop  chan struct{}
	fill  chan struct{} // a token: look whether something is missing
	done  sync.WaitGroup
	once  sync.Once
}

// NewPool returns a pool of up to size things and starts to fill it. make is
// called by one goroutine of the pool, or by Take when the pool is empty; drop
// ends a thing that nobody took.
func NewPool[T any](size int, make_ func() (T, error), drop func(T)) *Pool[T] {
	p := &Pool[T]{
		make: make_, drop: drop,
		ready: make(chan T, size),
		stop:  make(chan struct{}),
		fill:  make(chan struct{}, 1),
	}
	p.fill <- struct{}{}
	p.done.Add(1)
	go p.run()
	return p
}

func (p *Pool[T]) run() {
	defer p.done.Done()
	for {
		select {
		case <-p.stop:
			return
		case <-p.fill:
		}
		p.refill()
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
		t, err := p.make()
		if err != nil {
			return
		}
		p.ready <- t // never blocks: this goroutine alone sends
	}
}

// Take returns a ready thing, or makes one if there is none.
func (p *Pool[T]) Take(ctx context.Context) (T, error) {
	defer func() {
		select {
		case p.fill <- struct{}{}:
		default:
		}
	}()
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
		return p.make()
	}
}

// Ready returns how many things wait in the pool.
func (p *Pool[T]) Ready() int { return len(p.ready) }

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
