package api

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gorilla/websocket"
	"github.com/labstack/echo/v4"

	"podlab/lab"
	"podlab/server/access"
	"podlab/server/problem"
	"podlab/server/stream"
)

// sockets routes the WebSockets and describes them beside the rest.
func (s *Server) sockets(e *echo.Echo, api huma.API) {
	for _, route := range []struct {
		path, id, summary string
		handler           func(*http.Request, http.ResponseWriter, echo.Context) error
	}{
		{"/labs/{id}/events", "stream-events", "WebSocket: all that happens in the lab, in order; ?after=SEQ&instance=N goes on where it broke", s.events},
		{"/labs/{id}/terminals/{tid}", "attach-terminal", "WebSocket: a terminal's bytes in binary frames, its size in text frames; ?after=OFFSET goes on where it broke", s.attach},
		{"/labs/{id}/exec", "exec", "WebSocket: a command, with the frames of v5.channel.k8s.io; ?target=&command=&stdin=&tty=", s.exec},
	} {
		path := "/api/v1" + route.path
		api.OpenAPI().AddOperation(&huma.Operation{
			OperationID: route.id, Method: http.MethodGet, Path: path, Summary: route.summary,
			Security:  []map[string][]string{{"cookie": {}}, {"token": {}}},
			Responses: map[string]*huma.Response{"101": {Description: "Switching Protocols"}, "default": {Description: "Error"}},
		})
		e.GET(echoPath(path), func(c echo.Context) error {
			if err := route.handler(c.Request(), c.Response(), c); err != nil {
				problem.Write(c.Response(), c.Request(), s.Log, err)
				return nil
			}
			c.Response().Status = http.StatusSwitchingProtocols // for the log
			return nil
		})
	}
}

// echoPath writes {id} as :id.
func echoPath(path string) string {
	b := make([]byte, 0, len(path))
	for i := range len(path) {
		switch path[i] {
		case '{':
			b = append(b, ':')
		case '}':
		default:
			b = append(b, path[i])
		}
	}
	return string(b)
}

func queryUint(q url.Values, name string) (*uint64, error) {
	v := q.Get(name)
	if v == "" {
		return nil, nil
	}
	n, err := strconv.ParseUint(v, 10, 63)
	if err != nil {
		return nil, &lab.Error{Code: lab.CodeInvalid, Field: name, Message: "a whole number from 0 is wanted, found " + strconv.Quote(cut(v, 40))}
	}
	return &n, nil
}

func cut(s string, n int) string {
	if len(s) > n {
		return s[:n] + "…"
	}
	return s
}

func (s *Server) events(r *http.Request, w http.ResponseWriter, c echo.Context) error {
	l, err := access.Lab(r.Context(), s.Labs, c.Param("id"), access.See)
	if err != nil {
		return err
	}
	after, err := queryUint(r.URL.Query(), "after")
	if err != nil {
		return err
	}
	instance, err := queryUint(r.URL.Query(), "instance")
	if err != nil {
		return err
	}
	of := 0
	if instance != nil {
		of = int(*instance)
	}
	refuse := func(int, []byte) error { return lab.Errorf(lab.CodeInvalid, "this WebSocket takes no messages") }
	return s.Hub.Serve(w, r, "events", access.From(r.Context()).SessionKey(), refuse, func(ctx context.Context, conn *stream.Conn) error {
		return stream.Events(ctx, conn, l, s.Version, after, of, s.Stats)
	})
}

func (s *Server) attach(r *http.Request, w http.ResponseWriter, c echo.Context) error {
	l, err := access.Lab(r.Context(), s.Labs, c.Param("id"), access.See)
	if err != nil {
		return err
	}
	after, err := queryUint(r.URL.Query(), "after")
	if err != nil {
		return err
	}
	var offset *int64
	if after != nil {
		o := int64(*after)
		offset = &o
	}
	agent, _, err := l.Agent()
	if err != nil {
		return err
	}
	caller := access.From(r.Context())
	read, run := stream.Terminal(func(ctx context.Context) (*websocket.Conn, error) {
		return agent.Attach(ctx, c.Param("tid"), offset)
	}, !access.MayUse(caller, l), func() {
		if s.Touch != nil {
			s.Touch(agent)
		}
	})
	return s.Hub.Serve(w, r, "terminal", caller.SessionKey(), read, run)
}

func (s *Server) exec(r *http.Request, w http.ResponseWriter, c echo.Context) error {
	agent, err := s.agent(r.Context(), c.Param("id"), access.Use)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	if _, err := lab.Target(q.Get("target")).Parse(); err != nil {
		return err
	}
	if len(q["command"]) == 0 {
		return &lab.Error{Code: lab.CodeInvalid, Field: "command", Message: "none given: give the program and each argument as one command parameter"}
	}
	// Reached before the upgrade, so that "no such pod" is an answer and not a
	// connection that opens and closes.
	upstream, err := agent.Exec(r.Context(), url.Values{
		"target": q["target"], "command": q["command"], "stdin": q["stdin"], "tty": q["tty"], "cols": q["cols"], "rows": q["rows"],
	})
	if err != nil {
		return err
	}
	read, run := stream.Exec(func(context.Context) (*websocket.Conn, error) { return upstream, nil })
	if err := s.Hub.Serve(w, r, "exec", access.From(r.Context()).SessionKey(), read, run); err != nil {
		upstream.Close()
		return err
	}
	return nil
}
