package pages

import (
	"context"
	"net/http"

	"github.com/labstack/echo/v4"

	"podlab/server/access"
	"podlab/web"
	"podlab/web/view"
)

func (s *Site) lab(ctx context.Context, c echo.Context, caller *access.Caller) error {
	l, err := access.Lab(ctx, s.API.Labs, c.Param("id"), access.See)
	if err != nil {
		return err
	}
	p, err := s.page(c)
	if err != nil {
		return err
	}
	status, _ := l.Status()
	boot := view.LabBoot{
		ID: l.ID(), Name: l.Name(), Phase: status.Phase, Reason: status.Reason, ReadOnly: !access.MayUse(caller, l),
		Templates: s.API.Exercises.Templates(l.Exercise()),
	}
	if l.Owner() != caller.ID {
		owner, err := s.API.Accounts.User(ctx, l.Owner())
		if err != nil {
			return err
		}
		boot.Owner = owner.Name
	}
	if e, ok := s.API.Exercises.Get(l.Exercise()); ok {
		boot.Exercise = &e
	}
	if boot.Templates == nil {
		boot.Templates = []view.Template{}
	}
	return render(c, http.StatusOK, web.Lab(view.Lab{Page: p, Boot: boot}))
}
