package api

import (
	"context"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"podlab/server/access"
	"podlab/server/class"
)

type (
	// Class is a class, in answers.
	Class struct {
		ID        string    `json:"id"`
		Name      string    `json:"name"`
		Code      string    `json:"code" doc:"What learners sign in with."`
		CreatedAt time.Time `json:"createdAt"`
	}
	// Learner is a learner with their labs.
	Learner struct {
		User
		LastSeen time.Time `json:"lastSeen"`
		Labs     []Lab     `json:"labs"`
	}
	// ClassWithLearners is one class whole.
	ClassWithLearners struct {
		Class
		Learners []Learner `json:"learners"`
	}
	classRequest struct {
		ID string `path:"id" maxLength:"40"`
	}
	newClassRequest struct {
		Body struct {
			Name string `json:"name" maxLength:"400" doc:"1 to 64 characters."`
		}
	}
)

func classOf(c class.Class) Class { return Class{c.ID, c.Name, c.Code, c.CreatedAt} }

func (s *Server) classes(api huma.API) {
	add(s, api, operation{"GET", "/classes", "list-classes", "List the classes (instructor)", 0, false},
		func(ctx context.Context, _ *none) (*body[[]Class], error) {
			if _, err := access.Instructor(ctx); err != nil {
				return nil, err
			}
			all, err := s.Accounts.Classes(ctx)
			out := []Class{}
			for _, c := range all {
				out = append(out, classOf(c))
			}
			return ok(out, err)
		})
	add(s, api, operation{"POST", "/classes", "create-class", "Make a class (instructor)", 201, false},
		func(ctx context.Context, in *newClassRequest) (*body[Class], error) {
			if _, err := access.Instructor(ctx); err != nil {
				return nil, err
			}
			c, err := s.Accounts.CreateClass(ctx, in.Body.Name)
			return ok(classOf(c), err)
		})
	add(s, api, operation{"GET", "/classes/{id}", "get-class", "A class with its learners and their labs (instructor)", 0, false},
		func(ctx context.Context, in *classRequest) (*body[ClassWithLearners], error) {
			if _, err := access.Instructor(ctx); err != nil {
				return nil, err
			}
			c, err := s.Accounts.Class(ctx, in.ID)
			if err != nil {
				return nil, err
			}
			users, err := s.Accounts.Learners(ctx, c.ID)
			out := ClassWithLearners{classOf(c), []Learner{}}
			for _, u := range users {
				l := Learner{User: userOf(u), LastSeen: u.LastSeen, Labs: []Lab{}}
				for _, one := range s.Labs.List(u.ID) {
					l.Labs = append(l.Labs, labOf(one))
				}
				out.Learners = append(out.Learners, l)
			}
			return ok(out, err)
		})
	add(s, api, operation{"POST", "/classes/{id}/code", "renew-class-code", "Give a class another code (instructor)", 0, false},
		func(ctx context.Context, in *classRequest) (*body[Class], error) {
			if _, err := access.Instructor(ctx); err != nil {
				return nil, err
			}
			c, err := s.Accounts.NewClassCode(ctx, in.ID)
			return ok(classOf(c), err)
		})
}
