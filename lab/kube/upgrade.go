package kube

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"os"

	"k8s.io/streaming/pkg/httpstream"
)

// A handler that takes over a connection (exec, attach, port-forward) loses
// what net/http does for it: that the request's context ends when the other
// side is gone. Without that, a command whose kubectl was killed would run on,
// and its goroutines with it. watchedConn brings it back.

// watchedConn calls gone when the other end is.
type watchedConn struct {
	net.Conn
	gone context.CancelFunc
}

func (c *watchedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		c.gone()
	}
	return n, err
}

// Close is how this end finds out that the other has said goodbye.
func (c *watchedConn) Close() error {
	c.gone()
	return c.Conn.Close()
}

// endingUpgrades gives requests that ask for another protocol a context that
// ends with their connection.
func endingUpgrades(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !httpstream.IsUpgradeRequest(r) {
			h.ServeHTTP(w, r)
			return
		}
		ctx, gone := context.WithCancel(r.Context())
		defer gone()
		h.ServeHTTP(&upgradeWriter{w, gone}, r.WithContext(ctx))
	})
}

// upgradeWriter hands out a watched connection.
type upgradeWriter struct {
	http.ResponseWriter
	gone context.CancelFunc
}

// Hijack takes the connection over.
func (w *upgradeWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	watched := &watchedConn{c, w.gone}
	// The reader must read through the watch as well, after what it already has.
	early, err := rw.Peek(rw.Reader.Buffered())
	if err != nil {
		return nil, nil, errors.Join(err, c.Close())
	}
	source := &earlyReader{early: append([]byte(nil), early...), conn: watched}
	return watched, bufio.NewReadWriter(bufio.NewReader(source), bufio.NewWriter(watched)), nil
}

// Flush sends what is written.
func (w *upgradeWriter) Flush() {
	_ = http.NewResponseController(w.ResponseWriter).Flush() // as http.Flusher, which has no error
}

// CloseNotify is what the API server's wrappers look for beside Flush; the
// request's context says the same.
func (w *upgradeWriter) CloseNotify() <-chan bool { return make(chan bool) }

// earlyReader reads what came with the request, then the connection.
type earlyReader struct {
	early []byte
	conn  net.Conn
}

func (r *earlyReader) Read(p []byte) (int, error) {
	if len(r.early) > 0 {
		n := copy(p, r.early)
		r.early = r.early[n:]
		return n, nil
	}
	return r.conn.Read(p)
}
