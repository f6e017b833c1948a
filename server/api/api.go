// Package api is /api/v1: resources as JSON with an OpenAPI 3.1 description,
// errors as RFC 9457 problem details. A handler asks package access for the
// caller and the lab, calls one method and gives its answer; what is refused
// is refused there. The WebSockets of /api/v1 are routed here too and live in
// package stream.
package api

import (
	"context"
	"log/slog"
	"net/http"
	"path"
	"reflect"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humaecho"
	"github.com/labstack/echo/v4"

	"podlab/lab"
	"podlab/server/agentclient"
	"podlab/server/class"
	"podlab/server/labs"
	"podlab/server/problem"
	"podlab/server/store"
	"podlab/server/stream"
	"podlab/web/view"
)

// maxBody is the largest request body, in bytes; a manifest may have as much.
const maxBody = labs.MaxManifest + 4<<10

// Exercises are the course's content as the API and the pages need it.
type Exercises interface {
	// List gives the cards in the course's order.
	List() []view.ExerciseCard
	// Get gives an exercise for the page; false when there is none.
	Get(id string) (view.Exercise, bool)
	// Setup gives what its lab is made from.
	Setup(id string) (shape lab.Lab, manifests string, ok bool)
	// Templates are manifests for the editor.
	Templates(id string) []view.Template
	// Hint gives one hint of a task, numbered from 1.
	Hint(id, task string, number int) (view.Text, bool)
}

// Progress reads what learners have reached.
type Progress interface {
	Progress(ctx context.Context, user string) ([]store.CheckProgress, error)
}

// Server serves the API.
type Server struct {
	Version   string
	Accounts  *class.Service
	Labs      *labs.Manager
	Exercises Exercises
	Progress  Progress
	Hub       *stream.Hub
	Stats     stream.Stats
	// Touch is told that somebody typed into a lab; it must not block. May be nil.
	Touch func(*agentclient.Client)
	Log   *slog.Logger
	// PublicURL is the server's address for people, without a slash at the end.
	// FixedURL: it is used for all; else those who came by another get theirs.
	PublicURL string
	FixedURL  bool
	// Address returns where a request comes from, for rate limits.
	Address func(*http.Request) string
	// Secure reports whether the browser's connection is encrypted.
	Secure func(*http.Request) bool
}

// own installs this package's errors in huma, which has one place for all.
var own sync.Once

// Register adds the routes.
func (s *Server) Register(e *echo.Echo) huma.API {
	own.Do(func() {
		huma.NewError = func(status int, message string, errs ...error) huma.StatusError {
			return problem.FromHuma(status, message, errs...)
		}
	})
	config := huma.DefaultConfig("podlab", s.Version)
	config.Info.Description = "Labs for learning how pods talk to each other. Sign in with POST /api/v1/session, or send a token as Authorization: Bearer."
	config.OpenAPIPath = "/api/v1/openapi"
	config.DocsPath, config.SchemasPath, config.CreateHooks = "", "", nil
	config.Formats = map[string]huma.Format{"application/json": huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat}
	config.Components.Schemas = huma.NewMapRegistry("#/components/schemas/", schemaName)
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"cookie": {Type: "apiKey", In: "cookie", Name: class.CookieName},
		"token":  {Type: "http", Scheme: "bearer"},
	}
	api := humaecho.New(e, config)
	s.session(api)
	s.classes(api)
	s.labs(api)
	s.inLab(api)
	s.terminals(api)
	s.exercises(api)
	s.sockets(e, api)
	return api
}

// schemaName names a type in the description: those of other packages with
// their package, since several have an Exercise or a Lab.
func schemaName(t reflect.Type, hint string) string {
	name := huma.DefaultSchemaNamer(t, hint)
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if pkg := path.Base(t.PkgPath()); t.Name() != "" && pkg != "api" && pkg != "." {
		return strings.ToUpper(pkg[:1]) + pkg[1:] + name
	}
	return name
}

// operation is what differs between the routes.
type operation struct {
	method, path, id, summary string
	status                    int // 0 is 200
	public                    bool
}

// add registers a handler whose errors become problems.
func add[I, O any](s *Server, api huma.API, op operation, f func(context.Context, *I) (*O, error)) {
	o := huma.Operation{
		OperationID: op.id, Method: op.method, Path: "/api/v1" + op.path, Summary: op.summary,
		DefaultStatus: op.status, MaxBodyBytes: maxBody, Errors: []int{422, 500},
	}
	if !op.public {
		o.Security = []map[string][]string{{"cookie": {}}, {"token": {}}}
		o.Errors = append(o.Errors, 401, 403, 404)
	}
	huma.Register(api, o, func(ctx context.Context, in *I) (*O, error) {
		out, err := f(ctx, in)
		if err != nil {
			return nil, problem.From(ctx, s.Log, err)
		}
		return out, nil
	})
}

// body is an answer of JSON.
type body[T any] struct{ Body T }

func ok[T any](v T, err error) (*body[T], error) {
	if err != nil {
		return nil, err
	}
	return &body[T]{v}, nil
}

// none is an answer, or a question, without content.
type none struct{}
