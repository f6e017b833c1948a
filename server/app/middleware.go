package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"podlab/lab"
	"podlab/server/access"
	"podlab/server/api"
	"podlab/server/pages"
	"podlab/server/problem"
	"podlab/server/proxy"
	"podlab/web"
)

// requestID gives each request a number to be found by in the log.
func (a *App) requestID(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		id := rand.Text()[:12]
		c.SetRequest(c.Request().WithContext(problem.WithRequestID(c.Request().Context(), id)))
		c.Response().Header().Set("X-Request-Id", id)
		return next(c)
	}
}

// recovered answers a panic with 500 and logs it; the server lives on.
func (a *App) recovered(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) (err error) {
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if e, ok := p.(error); ok && errors.Is(e, http.ErrAbortHandler) {
				panic(p) // the reverse proxy's way to end a broken answer
			}
			a.log.Error("panic", "request", problem.RequestID(c.Request().Context()), "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", p)
		}()
		return next(c)
	}
}

// logged writes one line for each request, without what may hold a secret.
func (a *App) logged(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		start := time.Now()
		err := next(c)
		if err != nil {
			c.Error(err)
		}
		r := c.Request()
		user := ""
		if caller := access.From(r.Context()); caller != nil {
			user = caller.ID
		}
		a.log.Debug("request", "request", problem.RequestID(r.Context()), "method", r.Method, "path", withoutToken(r.URL.Path),
			"status", c.Response().Status, "bytes", c.Response().Size, "duration", time.Since(start).String(), "from", a.address(r), "user", user)
		a.metrics.request(c.Path(), c.Response().Status, time.Since(start))
		return nil
	}
}

// withoutToken is a path fit for the log.
func withoutToken(path string) string {
	before, after, ok := strings.Cut(path, "/kube"+api.TokenInPath)
	if !ok {
		return path
	}
	_, rest, _ := strings.Cut(after, "/")
	return before + "/kube" + api.TokenInPath + "…/" + rest
}

// headers are set on every answer.
func (a *App) headers(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		h := c.Response().Header()
		h.Set("Content-Security-Policy", web.ContentSecurityPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), microphone=(), geolocation=()")
		if strings.HasPrefix(c.Request().URL.Path, "/api/") {
			h.Set("Cache-Control", "no-store")
		}
		return next(c)
	}
}

// identified finds the caller.
func (a *App) identified(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r, err := access.Identify(a.accounts, c.Request())
		if err != nil {
			return err
		}
		c.SetRequest(r)
		return next(c)
	}
}

// echoError answers what handlers and echo itself return: a page where a
// browser looks, a problem elsewhere.
func (a *App) echoError(err error, c echo.Context) {
	if c.Response().Committed {
		return
	}
	if e, ok := errors.AsType[*echo.HTTPError](err); ok {
		code := lab.CodeInvalid
		detail := fmt.Sprintf("%s %s is not allowed", c.Request().Method, c.Request().URL.Path)
		if e.Code == http.StatusNotFound {
			code, detail = lab.CodeNotFound, "there is nothing at this address"
		}
		err = problem.New(e.Code, code, detail)
	}
	if pages.Wanted(c.Request()) {
		pages.Error(c, problem.From(c.Request().Context(), a.log, err))
		return
	}
	problem.Write(c.Response(), c.Request(), a.log, err)
}

// address is where a request comes from: the peer, or, where that is a proxy
// that we believe, what it says.
func (a *App) address(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0 && a.proxy(host); i-- {
		hop := strings.TrimSpace(hops[i])
		if _, err := netip.ParseAddr(hop); err != nil {
			break
		}
		host = hop
	}
	return host
}

// proxy reports whether an address is one of the configured proxies.
func (a *App) proxy(host string) bool {
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	for _, p := range a.config.Proxies {
		if p.Contains(ip.Unmap()) {
			return true
		}
	}
	return false
}

// secure reports whether the browser's connection is encrypted.
func (a *App) secure(r *http.Request) bool {
	if r.TLS != nil || strings.HasPrefix(a.config.PublicURL, "https://") {
		return true
	}
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	return a.proxy(host) && r.Header.Get("X-Forwarded-Proto") == "https"
}

// plainRoutes are those without pages or API.
func (a *App) plainRoutes(e *echo.Echo) {
	kube := proxy.Kube(a.manager, a.log)
	e.Any("/labs/:id/kube/*", func(c echo.Context) error {
		r := c.Request()
		_, path, _ := strings.Cut(r.URL.Path, "/kube")
		if token, rest, ok := strings.Cut(strings.TrimPrefix(path, api.TokenInPath), "/"); ok && strings.HasPrefix(path, api.TokenInPath) {
			var err error
			if r, err = access.WithToken(a.accounts, r, token); err != nil {
				return err
			}
			path = "/" + rest
		}
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(a.ending, cancel)() // a watch would hold up the server's end
		return kube(c.Response(), r.WithContext(ctx), c.Param("id"), path)
	})
	e.GET("/healthz", func(c echo.Context) error { return c.String(http.StatusOK, "ok\n") })
	e.GET("/readyz", func(c echo.Context) error {
		if err := a.db.Ping(c.Request().Context()); err != nil {
			a.log.Error("not ready", "error", err)
			return c.String(http.StatusServiceUnavailable, "the store cannot be read\n")
		}
		return c.String(http.StatusOK, "ok\n")
	})
	e.GET("/metrics", echo.WrapHandler(a.metrics.handler()))
	e.GET(web.StaticPrefix+"*", echo.WrapHandler(web.Static()))
	e.HEAD(web.StaticPrefix+"*", echo.WrapHandler(web.Static()))
}
