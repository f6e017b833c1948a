// Package pages routes what a browser's address bar and forms ask for: a
// handler parses, calls one method and renders a templ component of package
// web. Forms need no token against forgery: the session's cookie is SameSite,
// and package access refuses what another origin posts.
package pages

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/a-h/templ"
	"github.com/labstack/echo/v4"

	"podlab/lab"
	"podlab/server/access"
	"podlab/server/api"
	"podlab/server/labs"
	"podlab/server/problem"
	"podlab/web"
	"podlab/web/i18n"
	"podlab/web/view"
)

// maxForm bounds a form's body, in bytes.
const maxForm = 16 << 10

// Parts are what pages need.
type Parts struct {
	API *api.Server
	Log *slog.Logger
}

// Site serves the pages.
type Site struct {
	Parts
	assets map[string]string
}

// New makes a Site; it fails when the client was not built into the binary.
func New(parts Parts) (*Site, error) {
	assets, err := web.Assets()
	if err != nil {
		return nil, err
	}
	return &Site{Parts: parts, assets: assets}, nil
}

// Register adds the routes.
func (s *Site) Register(e *echo.Echo) {
	e.GET("/", s.signedIn(s.home))
	e.GET("/labs", func(c echo.Context) error { return c.Redirect(http.StatusSeeOther, "/") })
	e.POST("/labs", s.signedIn(s.createLab))
	e.GET("/labs/:id", s.signedIn(s.lab))
	e.POST("/labs/:id/delete", s.signedIn(s.deleteLab))
	e.POST("/labs/:id/restart", s.signedIn(s.restartLab))
	e.GET("/class", s.signedIn(s.class))
	e.POST("/class", s.signedIn(s.createClass))
	e.GET("/signin", s.signInPage)
	e.POST("/signin", s.signIn)
	e.POST("/signout", s.signOut)
}

// Wanted reports whether a request is a browser's for a page.
func Wanted(r *http.Request) bool {
	return !strings.HasPrefix(r.URL.Path, "/api/") && !strings.Contains(r.URL.Path, "/kube/") &&
		strings.Contains(r.Header.Get("Accept"), "text/html")
}

// Error renders a problem as a page. Where that cannot be, it is plain text.
func Error(c echo.Context, p *problem.Problem) {
	assets, err := web.Assets()
	if err != nil {
		_ = c.String(p.Status, p.Detail+"\n")
		return
	}
	v := view.Error{Page: page(c, assets), Status: p.Status, Detail: p.Detail, Request: p.Request}
	if p.Status >= 500 && p.Code == lab.CodeInternal {
		v.Detail = ""
	}
	_ = render(c, p.Status, web.Error(v)) // the browser may have gone
}

func render(c echo.Context, status int, component templ.Component) error {
	h := c.Response().Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Add("Vary", "Cookie, Accept-Language")
	c.Response().WriteHeader(status)
	return component.Render(c.Request().Context(), c.Response())
}

// page is what all pages have.
func page(c echo.Context, assets map[string]string) view.Page {
	r := c.Request()
	p := view.Page{Lang: i18n.Choose(cookie(r, view.LangCookie), r.Header.Get("Accept-Language")), Assets: assets}
	switch t := view.Theme(cookie(r, view.ThemeCookie)); t {
	case view.ThemeLight, view.ThemeDark:
		p.Theme = t
	}
	if caller := access.From(r.Context()); caller != nil {
		p.User = &view.User{Name: caller.Name, Role: caller.Role}
	}
	return p
}

func (s *Site) page(c echo.Context) (view.Page, error) {
	p := page(c, s.assets)
	caller := access.From(c.Request().Context())
	if caller == nil || caller.Class == "" {
		return p, nil
	}
	room, err := s.API.Accounts.Class(c.Request().Context(), caller.Class)
	if err != nil {
		return p, err
	}
	p.User.Class = room.Name
	return p, nil
}

func cookie(r *http.Request, name string) string {
	c, err := r.Cookie(name)
	if err != nil {
		return ""
	}
	return c.Value
}

// handler is a handler for a caller who is signed in.
type handler func(ctx context.Context, c echo.Context, caller *access.Caller) error

// signedIn sends those who are not to the sign-in page.
func (s *Site) signedIn(f handler) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		ctx := r.Context()
		r.Body = http.MaxBytesReader(c.Response(), r.Body, maxForm)
		caller, err := access.User(ctx)
		if e, ok := errors.AsType[*lab.Error](err); ok && e.Code == lab.CodeUnauthorized {
			to := "/signin"
			if r.Method == http.MethodGet && r.URL.Path != "/" {
				to += "?next=" + url.QueryEscape(r.URL.RequestURI())
			}
			return c.Redirect(http.StatusSeeOther, to)
		}
		if err != nil {
			return err
		}
		return f(ctx, c, caller)
	}
}

func (s *Site) signInPage(c echo.Context) error {
	if secret := c.QueryParam("link"); secret != "" {
		return s.useLink(c, secret)
	}
	if access.From(c.Request().Context()) != nil {
		return c.Redirect(http.StatusSeeOther, localPath(c.QueryParam("next")))
	}
	return s.showSignIn(c, http.StatusOK, view.SignIn{Code: c.QueryParam("code"), Next: c.QueryParam("next")})
}

func (s *Site) showSignIn(c echo.Context, status int, v view.SignIn) error {
	p, err := s.page(c)
	if err != nil {
		return err
	}
	v.Page = p
	if v.Next != "" {
		v.Next = localPath(v.Next)
	}
	return render(c, status, web.SignIn(v))
}

func (s *Site) useLink(c echo.Context, secret string) error {
	r := c.Request()
	value, session, err := s.API.Accounts.UseLink(r.Context(), secret, s.API.Address(r))
	if key, status := formKey(err, "signin.error.link"); key != "" {
		return s.showSignIn(c, status, view.SignIn{Error: &view.FormError{Message: key}})
	}
	if err != nil {
		return err
	}
	c.SetCookie(api.Cookie(value, s.API.Secure(r), session.ExpiresAt))
	return c.Redirect(http.StatusSeeOther, "/class")
}

func (s *Site) signIn(c echo.Context) error {
	r := c.Request()
	r.Body = http.MaxBytesReader(c.Response(), r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		return lab.Errorf(lab.CodeInvalid, "the form cannot be read, or is too long")
	}
	v := view.SignIn{Code: r.PostForm.Get("code"), Name: r.PostForm.Get("name"), Next: r.PostForm.Get("next")}
	value, session, err := s.API.Accounts.SignIn(r.Context(), v.Code, v.Name, s.API.Address(r))
	if key, status := formKey(err, "signin.error.code"); key != "" {
		v.Error = &view.FormError{Message: key}
		if e, ok := errors.AsType[*lab.Error](err); ok {
			v.Error.Field = e.Field
		}
		return s.showSignIn(c, status, v)
	}
	if err != nil {
		return err
	}
	c.SetCookie(api.Cookie(value, s.API.Secure(r), session.ExpiresAt))
	return c.Redirect(http.StatusSeeOther, localPath(v.Next))
}

// formKey is the message, and the status, for what a person can mend.
func formKey(err error, wrong string) (key string, status int) {
	e, ok := errors.AsType[*lab.Error](err)
	if !ok {
		return "", 0
	}
	switch e.Code {
	case lab.CodeUnauthorized:
		return wrong, http.StatusUnauthorized
	case lab.CodeInvalid:
		return "signin.error.name", http.StatusUnprocessableEntity
	case lab.CodeLimit:
		return "signin.error.rate", http.StatusTooManyRequests
	}
	return "", 0
}

// localPath is a path on this server, or "/": never another host's.
func localPath(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.IsAbs() || u.Host != "" || !strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") ||
		strings.ContainsAny(next, "\\\r\n\t") || strings.HasPrefix(u.Path, "/signin") {
		return "/"
	}
	return next
}

func (s *Site) signOut(c echo.Context) error {
	r := c.Request()
	if caller := access.From(r.Context()); caller != nil {
		if err := s.API.SignOut(r.Context(), caller); err != nil {
			return err
		}
	}
	c.SetCookie(api.Cookie("", s.API.Secure(r), time.Time{}))
	return c.Redirect(http.StatusSeeOther, "/signin")
}

func (s *Site) createLab(ctx context.Context, c echo.Context, caller *access.Caller) error {
	l, err := s.API.CreateLab(ctx, caller, api.NewLab{Exercise: c.FormValue("exercise")})
	if err != nil {
		return err
	}
	return c.Redirect(http.StatusSeeOther, "/labs/"+l.ID())
}

func (s *Site) deleteLab(ctx context.Context, c echo.Context, _ *access.Caller) error {
	l, err := access.Lab(ctx, s.API.Labs, c.Param("id"), access.Manage)
	if err != nil {
		return err
	}
	if err := l.Delete(ctx); err != nil {
		return err
	}
	return c.Redirect(http.StatusSeeOther, "/")
}

func (s *Site) restartLab(ctx context.Context, c echo.Context, _ *access.Caller) error {
	l, err := access.Lab(ctx, s.API.Labs, c.Param("id"), access.Manage)
	if err != nil {
		return err
	}
	if err := l.Restart(ctx, c.FormValue("fresh") == "true"); err != nil {
		return err
	}
	return c.Redirect(http.StatusSeeOther, "/labs/"+l.ID())
}

func cardOf(l *labs.Lab) view.LabCard {
	s, _ := l.Status()
	return view.LabCard{ID: l.ID(), Name: l.Name(), Phase: s.Phase, Reason: s.Reason, CreatedAt: l.CreatedAt(), Exercise: l.Exercise()}
}
