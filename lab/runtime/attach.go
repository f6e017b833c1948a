package runtime

import (
	"context"
	"io"
	"sync"
)

// attachBuffer bounds what waits for a reader that is attached: one that falls
// behind by more loses output, not the container its time. The log has it all.
const attachBuffer = 64

// Attach carries the streams of the container's first process until it ends or
// ctx does: output from now on, and input if the container has a standard
// input. resizes is run with the terminal's Resize while attached.
func (c *Container) Attach(ctx context.Context, in io.Reader, out, errs io.Writer, resizes func(set func(cols, rows uint16) error, done <-chan struct{})) error {
	done := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(done)
	for _, p := range c.outs {
		w := out
		if p.stream == "stderr" {
			w = errs
		}
		if w == nil {
			continue
		}
		pieces := make(chan []byte, attachBuffer)
		untap := p.tap(func(b []byte) {
			select {
			case pieces <- append([]byte(nil), b...):
			default:
			}
		})
		wg.Go(func() {
			defer untap()
			for {
				select {
				case b := <-pieces:
					if _, err := w.Write(b); err != nil {
						return
					}
				case <-done:
					for len(pieces) > 0 {
						_, _ = w.Write(<-pieces)
					}
					return
				}
			}
		})
	}
	to := c.Stdin
	if c.pty != nil {
		to = c.pty
		if resizes != nil {
			go resizes(c.Resize, done)
		}
	}
	if in != nil && to != nil {
		// Ends with the peer's stream, which the caller closes on return.
		go func() { _, _ = io.Copy(to, in) }()
	}
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
