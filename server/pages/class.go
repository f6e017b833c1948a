package pages

import (
	"context"
	"net/http"

	"github.com/labstack/echo/v4"

	"podlab/server/access"
	"podlab/server/class"
	"podlab/web"
	"podlab/web/view"
)

func (s *Site) class(ctx context.Context, c echo.Context, _ *access.Caller) error {
	if _, err := access.Instructor(ctx); err != nil {
		return err
	}
	p, err := s.page(c)
	if err != nil {
		return err
	}
	v := view.Class{Page: p, Exercises: s.API.Exercises.List()}
	classes, err := s.API.Accounts.Classes(ctx)
	if err != nil {
		return err
	}
	for _, one := range classes {
		room, err := s.room(ctx, one)
		if err != nil {
			return err
		}
		v.Classes = append(v.Classes, room)
	}
	return render(c, http.StatusOK, web.Class(v))
}

func (s *Site) room(ctx context.Context, of class.Class) (view.ClassRoom, error) {
	room := view.ClassRoom{ID: of.ID, Name: of.Name, Code: of.Code}
	users, err := s.API.Accounts.Learners(ctx, of.ID)
	if err != nil {
		return room, err
	}
	for _, u := range users {
		progress, err := s.API.Progress.Progress(ctx, u.ID)
		if err != nil {
			return room, err
		}
		learner := view.Learner{ID: u.ID, Name: u.Name, LastSeen: u.LastSeen}
		for _, l := range s.API.Labs.List(u.ID) {
			learner.Labs = append(learner.Labs, view.LearnerLab{LabCard: cardOf(l), Tasks: s.taskStates(l.Exercise(), progress)})
		}
		room.Learners = append(room.Learners, learner)
	}
	return room, nil
}

func (s *Site) createClass(ctx context.Context, c echo.Context, _ *access.Caller) error {
	if _, err := access.Instructor(ctx); err != nil {
		return err
	}
	if _, err := s.API.Accounts.CreateClass(ctx, c.FormValue("name")); err != nil {
		return err
	}
	return c.Redirect(http.StatusSeeOther, "/class")
}
