package api

import (
	"context"

	"github.com/danielgtaylor/huma/v2"

	"podlab/lab"
	"podlab/server/access"
	"podlab/web/view"
)

type (
	// Exercise is one exercise in the list.
	Exercise struct {
		ID      string    `json:"id"`
		Title   view.Text `json:"title"`
		Summary view.Text `json:"summary"`
		Minutes int       `json:"minutes"`
	}
	exerciseRequest struct {
		ID string `path:"id" maxLength:"80"`
	}
	// CheckProgress is what the caller has reached of one check.
	CheckProgress struct {
		Exercise string           `json:"exercise"`
		Task     string           `json:"task"`
		Check    string           `json:"check"`
		Status   view.CheckStatus `json:"status" doc:"The latest."`
		Passed   bool             `json:"passed" doc:"Whether it was ever green."`
	}
	progressRequest struct {
		User string `query:"user" maxLength:"40" doc:"Another's progress, by user id (instructor)."`
	}
)

func (s *Server) exercises(api huma.API) {
	add(s, api, operation{"GET", "/exercises", "list-exercises", "List the exercises", 0, false},
		func(ctx context.Context, _ *none) (*body[[]Exercise], error) {
			if _, err := access.User(ctx); err != nil {
				return nil, err
			}
			out := []Exercise{}
			for _, e := range s.Exercises.List() {
				out = append(out, Exercise{e.ID, e.Title, e.Summary, e.Minutes})
			}
			return &body[[]Exercise]{out}, nil
		})
	add(s, api, operation{"GET", "/exercises/{id}", "get-exercise", "An exercise with lesson, tasks and checks", 0, false},
		func(ctx context.Context, in *exerciseRequest) (*body[view.Exercise], error) {
			if _, err := access.User(ctx); err != nil {
				return nil, err
			}
			e, found := s.Exercises.Get(in.ID)
			if !found {
				return nil, lab.Errorf(lab.CodeNotFound, "there is no exercise %q", in.ID)
			}
			return &body[view.Exercise]{e}, nil
		})
	add(s, api, operation{"GET", "/progress", "get-progress", "What was reached, check by check", 0, false},
		func(ctx context.Context, in *progressRequest) (*body[[]CheckProgress], error) {
			c, err := access.User(ctx)
			if err != nil {
				return nil, err
			}
			user := c.ID
			if in.User != "" {
				if _, err := access.Instructor(ctx); err != nil {
					return nil, err
				}
				user = in.User
			}
			all, err := s.Progress.Progress(ctx, user)
			out := []CheckProgress{}
			for _, p := range all {
				out = append(out, CheckProgress{p.Exercise, p.Task, p.Check, p.Status, p.Passed})
			}
			return ok(out, err)
		})
}
