// Package proxy passes /labs/{id}/kube/ on to the Kubernetes API in a lab's
// agent: watches and logs flushed at once, exec by WebSocket and SPDY. What
// comes back was made by a learner's lab: it may set no cookie and run no
// script under the server's own origin.
package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"

	"podlab/lab"
	"podlab/server/access"
	"podlab/server/agentclient"
	"podlab/server/problem"
)

// MaxBody is the largest request body, in bytes; Kubernetes' own API servers
// take 3 MiB.
const MaxBody = 3 << 20

// ours are headers that the server has set already.
var ours = []string{"Content-Security-Policy", "X-Content-Type-Options", "Referrer-Policy", "Cross-Origin-Opener-Policy", "Permissions-Policy", "X-Request-Id"}

type agentKey struct{}

// Kube returns a handler for a lab's id and the path below /kube.
func Kube(all access.Labs, log *slog.Logger) func(w http.ResponseWriter, r *http.Request, id, path string) error {
	p := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", "agent"
			r.Out.Host = ""
			for _, h := range []string{"Authorization", "Cookie", "Origin", "Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
				r.Out.Header.Del(h)
			}
			for name := range r.Out.Header { // a caller may not speak for another
				if strings.HasPrefix(name, "Impersonate-") || strings.HasPrefix(name, "X-Remote-") {
					r.Out.Header.Del(name)
				}
			}
		},
		FlushInterval: -1,
		Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			return r.Context().Value(agentKey{}).(*agentclient.Client).Transport().RoundTrip(r)
		}),
		ModifyResponse: func(r *http.Response) error {
			r.Header.Del("Set-Cookie")
			r.Header.Del("Access-Control-Allow-Origin")
			for _, h := range ours {
				r.Header.Del(h)
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() != nil {
				return // the caller is gone
			}
			var tooLarge *http.MaxBytesError
			if errors.As(err, &tooLarge) {
				problem.Write(w, r, log, problem.New(http.StatusRequestEntityTooLarge, lab.CodeLimit, "the request is larger than 3 MiB"))
				return
			}
			log.InfoContext(r.Context(), "a lab's Kubernetes API does not answer", "error", err)
			problem.Write(w, r, log, lab.Errorf(lab.CodeUnavailable, "the lab's Kubernetes API does not answer; see whether the lab is ready"))
		},
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return func(w http.ResponseWriter, r *http.Request, id, path string) error {
		for part := range strings.SplitSeq(path, "/") {
			if part == ".." || part == "." { // not for the agent to make sense of
				return lab.Errorf(lab.CodeInvalid, "the path has a %q in it", part)
			}
		}
		l, err := access.Kube(r.Context(), all, id)
		if err != nil {
			return err
		}
		agent, _, err := l.Agent()
		if err != nil {
			return err
		}
		if r.ContentLength > MaxBody {
			return problem.New(http.StatusRequestEntityTooLarge, lab.CodeLimit, "the request is larger than 3 MiB")
		}
		ctx := context.WithValue(r.Context(), agentKey{}, agent)
		out := r.Clone(ctx)
		out.URL = &url.URL{Path: "/kube" + path, RawQuery: r.URL.RawQuery}
		if r.Body != nil && r.Header.Get("Upgrade") == "" {
			out.Body = http.MaxBytesReader(w, r.Body, MaxBody)
		}
		w.Header().Set("Content-Security-Policy", "sandbox; default-src 'none'")
		p.ServeHTTP(w, out)
		return nil
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
