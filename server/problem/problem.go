// Package problem turns errors into RFC 9457 problem details, with the status
// that agentapi has for their code. What is no *lab.Error is a defect; its text
// goes to the log only.
package problem

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"podlab/lab"
	"podlab/lab/agentapi"
)

// ContentType of a problem.
const ContentType = "application/problem+json"

// Problem is the body of every error.
type Problem struct {
	Type   string `json:"type" doc:"Always about:blank; act on code."`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail" doc:"What was found, what is allowed and what to do."`
	// Code, Field, Line and Column as in lab.Error.
	Code   lab.Code `json:"code"`
	Field  string   `json:"field,omitempty" doc:"Path of the offending field."`
	Line   int      `json:"line,omitempty" doc:"1-based line in the text given."`
	Column int      `json:"column,omitempty"`
	Errors []Detail `json:"errors,omitempty" doc:"All that is wrong, where more than one thing is."`
	// Request is the id to look for in the server's log.
	Request string `json:"request,omitempty"`
}

// Detail is one of several things that are wrong.
type Detail struct {
	Field   string `json:"field,omitempty"`
	Message string `json:"message"`
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
}

// Error returns the detail.
func (p *Problem) Error() string { return p.Detail }

// GetStatus makes a Problem a huma.StatusError.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType makes huma send the right media type.
func (p *Problem) ContentType(string) string { return ContentType }

// New makes a problem with a status.
func New(httpStatus int, code lab.Code, detail string) *Problem {
	return &Problem{Type: "about:blank", Title: http.StatusText(httpStatus), Status: httpStatus, Detail: detail, Code: code}
}

// From makes the problem of an error. Those that are no fault of the caller's
// are logged.
func From(ctx context.Context, log *slog.Logger, err error) *Problem {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	p := fromLab(err)
	p.Request = RequestID(ctx)
	if p.Code == lab.CodeInternal && ctx.Err() == nil {
		log.ErrorContext(ctx, "request failed", "request", p.Request, "error", err)
	}
	return p
}

func fromLab(err error) *Problem {
	e, ok := errors.AsType[*lab.Error](err)
	if !ok || e.Code == lab.CodeInternal {
		return New(http.StatusInternalServerError, lab.CodeInternal, "something went wrong in the server; its log has the reason under the request's id")
	}
	p := New(agentapi.Status(e.Code), e.Code, e.Message)
	p.Field, p.Line, p.Column = e.Field, e.Line, e.Column
	return p
}

// FromHuma makes the problem of what huma found wrong with a request.
func FromHuma(httpStatus int, message string, errs ...error) *Problem {
	p := New(httpStatus, agentapi.CodeOf(httpStatus), message)
	for _, err := range errs {
		if err == nil {
			continue
		}
		d := Detail{Message: err.Error()}
		if h, ok := err.(huma.ErrorDetailer); ok {
			detail := h.ErrorDetail()
			d = Detail{Message: detail.Message, Field: strings.TrimPrefix(detail.Location, "body.")}
			// What is missing has no place of its own in huma's words.
			if name, ok := strings.CutPrefix(detail.Message, "expected required property "); ok {
				name, _, _ = strings.Cut(name, " ")
				d.Field = strings.TrimPrefix(strings.TrimPrefix(detail.Location+"."+name, "body"), ".")
			}
		}
		p.Errors = append(p.Errors, d)
	}
	if len(p.Errors) > 0 {
		first := p.Errors[0]
		p.Field = first.Field
		p.Detail = first.Message
		if first.Field != "" {
			p.Detail = first.Field + ": " + first.Message
		}
	}
	return p
}

// Write answers a request with an error.
func Write(w http.ResponseWriter, r *http.Request, log *slog.Logger, err error) {
	p := From(r.Context(), log, err)
	b, _ := json.Marshal(p)
	w.Header().Set("Content-Type", ContentType)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(p.Status)
	if r.Method != http.MethodHead {
		w.Write(b)
	}
}

type requestKey struct{}

// WithRequestID notes a request's id in its context.
func WithRequestID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestKey{}, id)
}

// RequestID is the id of the request that a context belongs to, or empty.
func RequestID(ctx context.Context) string {
	id, _ := ctx.Value(requestKey{}).(string)
	return id
}
