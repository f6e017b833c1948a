// Package access says who asks and what they may see. Its middleware finds
// the caller by cookie, bearer token or local socket, and refuses what comes
// from a page of another origin; handlers then ask for the caller and for the
// labs that are the caller's. Another's lab is "not found", as if it were not
// there.
package access

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"podlab/lab"
	"podlab/server/class"
	"podlab/server/labs"
	"podlab/web/view"
)

// Caller is who asks.
type Caller struct {
	class.User
	// Session is nil for a caller on the local socket.
	Session *class.Session
	// Local: the host's root, on the local socket.
	Local bool
}

// Instructor reports whether the caller is one.
func (c *Caller) Instructor() bool { return c.Role == view.RoleInstructor }

// SessionKey names the session for as long as it lives, or is empty.
func (c *Caller) SessionKey() string {
	if c.Session == nil {
		return ""
	}
	return string(c.Session.Hash)
}

// Accounts finds callers.
type Accounts interface {
	ByCookie(ctx context.Context, value string) (class.Session, error)
	ByToken(ctx context.Context, token string) (class.Session, error)
	Instructor(ctx context.Context) (class.User, error)
}

type (
	callerKey struct{}
	localKey  struct{}
)

// WithLocal marks a connection's context as the local socket's.
func WithLocal(ctx context.Context) context.Context {
	return context.WithValue(ctx, localKey{}, true)
}

// Identify returns the request with its caller in the context. It fails when
// a bearer token is wrong, or the request comes from another origin; a cookie
// that is wrong is as none.
func Identify(accounts Accounts, r *http.Request) (*http.Request, error) {
	c, err := find(accounts, r)
	if err != nil {
		return r, err
	}
	if err := sameOrigin(r); err != nil {
		return r, err
	}
	if c == nil {
		return r, nil
	}
	return r.WithContext(context.WithValue(r.Context(), callerKey{}, c)), nil
}

// WithToken returns the request with the caller that a lab's token names.
// kubectl sends no Authorization header over plain HTTP, so there the
// kubeconfig has its token in the path.
func WithToken(accounts Accounts, r *http.Request, token string) (*http.Request, error) {
	if len(token) > 200 {
		token = ""
	}
	s, err := accounts.ByToken(r.Context(), token)
	if err != nil {
		return r, err
	}
	if s.Kind != class.KindKube {
		return r, lab.Errorf(lab.CodeUnauthorized, "the token in the path is not a kubeconfig's")
	}
	return r.WithContext(context.WithValue(r.Context(), callerKey{}, &Caller{User: s.User, Session: &s})), nil
}

func find(accounts Accounts, r *http.Request) (*Caller, error) {
	ctx := r.Context()
	if ctx.Value(localKey{}) != nil {
		u, err := accounts.Instructor(ctx)
		if err != nil {
			return nil, err
		}
		return &Caller{User: u, Local: true}, nil
	}
	if header := r.Header.Get("Authorization"); header != "" {
		scheme, token, _ := strings.Cut(header, " ")
		if !strings.EqualFold(scheme, "Bearer") || len(token) > 200 {
			return nil, lab.Errorf(lab.CodeUnauthorized, "the Authorization header is not of the form: Bearer TOKEN")
		}
		s, err := accounts.ByToken(ctx, token)
		if err != nil {
			return nil, err
		}
		return &Caller{User: s.User, Session: &s}, nil
	}
	cookie, err := r.Cookie(class.CookieName)
	if err != nil || len(cookie.Value) > 200 {
		return nil, nil
	}
	s, err := accounts.ByCookie(ctx, cookie.Value)
	if e, ok := errors.AsType[*lab.Error](err); ok && e.Code == lab.CodeUnauthorized {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &Caller{User: s.User, Session: &s}, nil
}

// sameOrigin refuses what a page of another origin sends: everything but plain
// reading, which the browser does not let that page see. A WebSocket is a GET,
// yet the page may read it, so it is refused too.
func sameOrigin(r *http.Request) error {
	upgrade := r.Header.Get("Upgrade") != ""
	if safe(r.Method) && !upgrade {
		return nil
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		switch r.Header.Get("Sec-Fetch-Site") {
		case "", "same-origin", "none":
			return nil // no browser, or one that vouches for it
		}
		return foreign("another site")
	}
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" || !strings.EqualFold(u.Host, r.Host) {
		return foreign(origin)
	}
	return nil
}

func foreign(origin string) error {
	if len(origin) > 100 {
		origin = origin[:100] + "…"
	}
	return lab.Errorf(lab.CodeForbidden, "the request comes from %q, which is not this server; if a proxy stands between, let it pass on the Host header", origin)
}

func safe(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}

// From returns the caller, or nil.
func From(ctx context.Context) *Caller {
	c, _ := ctx.Value(callerKey{}).(*Caller)
	return c
}

// User returns the caller, or CodeUnauthorized. A lab's token is no user.
func User(ctx context.Context) (*Caller, error) {
	c := From(ctx)
	if c == nil {
		return nil, lab.Errorf(lab.CodeUnauthorized, "sign in first")
	}
	if c.Session != nil && c.Session.Kind == class.KindKube {
		return nil, lab.Errorf(lab.CodeForbidden, "this token is for a lab's Kubernetes API only")
	}
	return c, nil
}

// Instructor returns the caller if it is an instructor.
func Instructor(ctx context.Context) (*Caller, error) {
	c, err := User(ctx)
	if err == nil && !c.Instructor() {
		err = lab.Errorf(lab.CodeForbidden, "only the instructor may do this")
	}
	return c, err
}

// Labs finds labs.
type Labs interface {
	Get(id string) (*labs.Lab, error)
}

// Right is what a caller wants to do with a lab.
type Right int

// The rights. An instructor looks at every lab, and may restart and delete it,
// but types and applies only in their own.
const (
	See Right = iota
	Manage
	Use
)

// Lab returns a lab that the caller has the right to.
func Lab(ctx context.Context, all Labs, id string, right Right) (*labs.Lab, error) {
	c, err := User(ctx)
	if err != nil {
		return nil, err
	}
	return labOf(c, all, id, right)
}

func labOf(c *Caller, all Labs, id string, right Right) (*labs.Lab, error) {
	l, err := all.Get(id)
	if err != nil {
		return nil, err
	}
	switch {
	case l.Owner() == c.ID || c.Local:
		return l, nil
	case !c.Instructor():
		return nil, labs.NotFound(id)
	case right == Use:
		return nil, lab.Errorf(lab.CodeForbidden, "this is a learner's lab: an instructor may look at it, not change it")
	}
	return l, nil
}

// Kube returns a lab whose Kubernetes API the caller may use, by a token of
// that lab or as its user.
func Kube(ctx context.Context, all Labs, id string) (*labs.Lab, error) {
	c := From(ctx)
	if c != nil && c.Session != nil && c.Session.Kind == class.KindKube {
		if c.Session.Lab != id {
			return nil, labs.NotFound(id)
		}
		return all.Get(id)
	}
	return Lab(ctx, all, id, Use)
}

// MayUse reports whether the caller has the right to use a lab.
func MayUse(c *Caller, l *labs.Lab) bool { return c.Local || l.Owner() == c.ID }
