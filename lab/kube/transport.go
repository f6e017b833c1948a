package kube

import (
	"context"
	"io"
	"net/http"
	"sync"
	"sync/atomic"

	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	restclient "k8s.io/client-go/rest"
)

// RESTConfig configures a client-go client that calls the server in this
// process: no sockets, no TLS, protobuf on the wire. userAgent names the
// client; the first word of it is the manager of the fields that it writes.
func (s *Server) RESTConfig(userAgent string) *restclient.Config {
	return &restclient.Config{
		Host:      "http://api.podlab",
		Transport: inProcess{s},
		UserAgent: userAgent,
		QPS:       -1, // no throttle: there is no network to protect
		ContentConfig: restclient.ContentConfig{
			ContentType:        "application/vnd.kubernetes.protobuf",
			AcceptContentTypes: "application/vnd.kubernetes.protobuf,application/json",
		},
	}
}

// Core is a client of the core group for the server's own parts.
func (s *Server) Core() corev1client.CoreV1Interface { return s.core }

// rawClient speaks JSON and knows no types.
func (s *Server) rawClient() (restclient.Interface, error) {
	cfg := s.RESTConfig("podlab")
	cfg.ContentType, cfg.AcceptContentTypes = "application/json", "application/json"
	cfg.NegotiatedSerializer = s.codecs.WithoutConversion()
	cfg.GroupVersion = &coreV1
	return restclient.RESTClientFor(cfg)
}

// inProcess is an http.RoundTripper that calls the server's handler.
type inProcess struct{ s *Server }

// RoundTrip calls the handler in its own goroutine and returns once it has
// begun to answer. Closing the answer's body ends the handler's context.
func (t inProcess) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(req.Context())
	stop := context.AfterFunc(t.s.ctx, cancel) // a closed server ends its watches
	r, w := io.Pipe()
	rw := &pipeWriter{header: http.Header{}, body: w, began: make(chan struct{})}
	in := req.Clone(context.WithValue(ctx, ownCall{}, true))
	in.RequestURI = req.URL.RequestURI()
	in.RemoteAddr = "127.0.0.1:0"
	if in.Body == nil {
		in.Body = http.NoBody
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer cancel()
		defer stop()
		t.s.handler.ServeHTTP(rw, in)
		rw.WriteHeader(http.StatusOK)
		_ = w.Close()
		_ = in.Body.Close()
	}()
	select {
	case <-rw.began:
	case <-req.Context().Done():
		_ = r.CloseWithError(req.Context().Err())
		cancel()
		return nil, req.Context().Err()
	}
	return &http.Response{
		Status: http.StatusText(rw.code), StatusCode: rw.code,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: rw.sent, Body: &pipeBody{PipeReader: r, cancel: cancel, done: done},
		ContentLength: -1, Request: req,
	}, nil
}

// ownCall marks requests of the lab's own parts.
type ownCall struct{}

func isOwnCall(ctx context.Context) bool { return ctx.Value(ownCall{}) != nil }

// pipeWriter is the http.ResponseWriter of a call in the process.
type pipeWriter struct {
	header http.Header
	sent   http.Header
	code   int
	body   *io.PipeWriter
	began  chan struct{}
	once   sync.Once
}

func (w *pipeWriter) Header() http.Header { return w.header }

func (w *pipeWriter) WriteHeader(code int) {
	w.once.Do(func() {
		w.code, w.sent = code, w.header.Clone()
		close(w.began)
	})
}

func (w *pipeWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(p)
}

// Flush sends the header; every write is through when it returns.
func (w *pipeWriter) Flush() { w.WriteHeader(http.StatusOK) }

// CloseNotify is what the API server's wrappers look for beside Flush; the
// request's context says the same.
func (w *pipeWriter) CloseNotify() <-chan bool { return make(chan bool) }

type pipeBody struct {
	*io.PipeReader
	cancel context.CancelFunc
	done   <-chan struct{}
}

// Close ends the call and waits for its handler.
func (b *pipeBody) Close() error {
	b.cancel()
	err := b.PipeReader.Close()
	<-b.done
	return err
}

// onceFlag is true the first time only.
type onceFlag struct{ done atomic.Bool }

func (o *onceFlag) first() bool { return o.done.CompareAndSwap(false, true) }
