package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"podlab/server/access"
	"podlab/server/agentclient"
	"podlab/server/api"
	"podlab/server/class"
	"podlab/server/labs"
	"podlab/server/pages"
	"podlab/server/store"
	"podlab/server/stream"
)

// Parts are what main or a test provides.
type Parts struct {
	Launcher  labs.Launcher
	Exercises api.Exercises
	// Grader may be nil: no checks.
	Grader labs.Grader
	Log    *slog.Logger
	// Touch is told that somebody typed into a lab. May be nil.
	Touch func(*agentclient.Client)
	// Out is where the address and the sign-in link are printed.
	Out io.Writer
}

// App is the server.
type App struct {
	config Config
	log    *slog.Logger
	out    io.Writer

	db       *store.DB
	accounts *class.Service
	manager  *labs.Manager
	hub      *stream.Hub
	metrics  *metrics
	handler  http.Handler

	// ending ends when the server does; streams of the Kubernetes APIs end with it.
	ending context.Context
	end    context.CancelFunc

	listener net.Listener
	local    net.Listener
	public   *http.Server
	root     *http.Server
}

// New opens the store, finds the labs of a former server and listens; Run
// serves. On an error nothing is left open.
func New(ctx context.Context, config Config, parts Parts) (*App, error) {
	if err := config.Check(); err != nil {
		return nil, err
	}
	a := &App{config: config, log: parts.Log, out: parts.Out, hub: stream.NewHub(parts.Log)}
	a.ending, a.end = context.WithCancel(context.Background())
	if err := a.open(ctx, parts); err != nil {
		return nil, errors.Join(err, a.close())
	}
	return a, nil
}

func (a *App) open(ctx context.Context, parts Parts) error {
	if err := os.MkdirAll(a.config.Data, 0o711); err != nil {
		return fmt.Errorf("cannot make the data directory: %w", err)
	}
	var err error
	if a.db, err = store.Open(ctx, a.config.Data, a.log); err != nil {
		return err
	}
	if a.accounts, err = class.New(ctx, a.db); err != nil {
		return err
	}
	a.metrics = newMetrics(a)
	a.manager = labs.New(a.config.Limits, a.db, parts.Launcher, parts.Grader, a.metrics.hooks(), a.log)
	if err := a.manager.Recover(ctx); err != nil {
		return err
	}
	if a.listener, err = net.Listen("tcp", a.config.Addr); err != nil {
		return fmt.Errorf("cannot listen: %w; is another server there? --addr names another address", err)
	}
	if a.local, err = listenLocal(filepath.Join(a.config.Data, SocketName)); err != nil {
		return err
	}
	a.handler, err = a.routes(parts)
	return err
}

func (a *App) routes(parts Parts) (http.Handler, error) {
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	e.HTTPErrorHandler = a.echoError
	e.Use(a.requestID, a.recovered, a.logged, a.headers, a.identified)
	s := &api.Server{
		Version: a.config.Version, Accounts: a.accounts, Labs: a.manager, Exercises: parts.Exercises, Progress: a.db,
		Hub: a.hub, Stats: a.metrics.streamStats(), Log: a.log, PublicURL: a.URL(), FixedURL: a.config.PublicURL != "",
		Address: a.address, Secure: a.secure, Touch: parts.Touch,
	}
	s.Register(e)
	a.plainRoutes(e)
	site, err := pages.New(pages.Parts{API: s, Log: a.log})
	if err != nil {
		return nil, err
	}
	site.Register(e)
	return e, nil
}

// URL is the server's address for people.
func (a *App) URL() string {
	if a.config.PublicURL != "" {
		return strings.TrimRight(a.config.PublicURL, "/")
	}
	scheme := "http"
	if a.config.TLSCert != "" {
		scheme = "https"
	}
	host, port, _ := net.SplitHostPort(a.listener.Addr().String())
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return scheme + "://" + net.JoinHostPort(host, port)
}

// Handler serves without a socket, for tests.
func (a *App) Handler() http.Handler { return a.handler }

// Accounts gives tests the accounts.
func (a *App) Accounts() *class.Service { return a.accounts }

// Run serves until ctx ends, then shuts down. Labs live on.
func (a *App) Run(ctx context.Context) error {
	if err := a.greet(ctx); err != nil {
		return errors.Join(err, a.close())
	}
	newServer := func() *http.Server {
		return &http.Server{
			Handler: a.handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
			ErrorLog: slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),
		}
	}
	a.public, a.root = newServer(), newServer()
	a.root.ConnContext = func(ctx context.Context, _ net.Conn) context.Context { return access.WithLocal(ctx) }
	errs := make(chan error, 2)
	var wg sync.WaitGroup
	wg.Go(func() { errs <- a.serve(a.public, a.listener) })
	wg.Go(func() { errs <- a.root.Serve(a.local) })
	var err error
	select {
	case err = <-errs:
	case <-ctx.Done():
		a.log.Info("shutting down; labs live on")
	}
	err = errors.Join(err, a.close())
	wg.Wait()
	return err
}

func (a *App) serve(s *http.Server, l net.Listener) error {
	if a.config.TLSCert != "" {
		return s.ServeTLS(l, a.config.TLSCert, a.config.TLSKey)
	}
	return s.Serve(l)
}

// greet prints where the server is and, until the instructor has signed in
// once, how to.
func (a *App) greet(ctx context.Context) error {
	if _, err := fmt.Fprintf(a.out, "podlab is at %s\n", a.URL()); err != nil {
		return err
	}
	used, err := a.accounts.InstructorSignedIn(ctx)
	if err != nil || used {
		return err
	}
	secret, err := a.accounts.NewInstructorLink(ctx)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.out, "instructor's sign-in link, good for one use: %s%s%s\n", a.URL(), api.LinkPath, secret)
	return err
}

// close ends all in order: no new requests, streams told to come back, labs
// let go of, the store last.
func (a *App) close() error {
	var errs []error
	ctx, cancel := context.WithTimeout(context.Background(), a.config.ShutdownTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for _, s := range []*http.Server{a.public, a.root} {
		if s != nil {
			wg.Go(func() {
				if s.Shutdown(ctx) != nil {
					s.Close() // a watch or a log would go on for ever
				}
			})
		}
	}
	a.hub.Close()
	a.end()
	wg.Wait()
	for _, l := range []net.Listener{a.listener, a.local} {
		if l != nil {
			l.Close()
		}
	}
	if a.manager != nil {
		a.manager.Close()
	}
	if a.db != nil {
		errs = append(errs, a.db.Close())
	}
	return errors.Join(errs...)
}

// Close ends an App that was never run.
func (a *App) Close() error { return a.close() }
