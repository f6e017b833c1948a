package pages

import (
	"context"
	"net/http"

	"github.com/labstack/echo/v4"

	"podlab/lab"
	"podlab/server/access"
	"podlab/server/store"
	"podlab/web"
	"podlab/web/view"
)

func (s *Site) home(ctx context.Context, c echo.Context, caller *access.Caller) error {
	p, err := s.page(c)
	if err != nil {
		return err
	}
	progress, err := s.API.Progress.Progress(ctx, caller.ID)
	if err != nil {
		return err
	}
	v := view.Home{Page: p, Full: s.API.Labs.Full()}
	byExercise := map[string]*view.LabCard{}
	for _, l := range s.API.Labs.List(caller.ID) {
		card := cardOf(l)
		switch {
		case card.Phase == lab.PhaseDeleting:
		case card.Exercise == "" || byExercise[card.Exercise] != nil:
			v.FreeLabs = append(v.FreeLabs, card)
		default:
			byExercise[card.Exercise] = &card
		}
	}
	for _, e := range s.API.Exercises.List() {
		e.Lab = byExercise[e.ID]
		for _, t := range s.taskStates(e.ID, progress) {
			e.Tasks++
			if t.State == "passed" {
				e.Passed++
			}
		}
		v.Exercises = append(v.Exercises, e)
	}
	return render(c, http.StatusOK, web.Home(v))
}

// taskStates sums the checks of an exercise's tasks up: a task is passed when
// each of its checks was green once, failed when one was tried and is not.
func (s *Site) taskStates(exercise string, progress []store.CheckProgress) []view.TaskState {
	e, ok := s.API.Exercises.Get(exercise)
	if !ok {
		return nil
	}
	type key struct{ task, check string }
	reached := map[key]store.CheckProgress{}
	for _, p := range progress {
		if p.Exercise == exercise {
			reached[key{p.Task, p.Check}] = p
		}
	}
	var out []view.TaskState
	for _, t := range e.Tasks {
		passed, tried := 0, false
		for _, check := range t.Checks {
			p, known := reached[key{t.ID, check.ID}]
			switch {
			case known && p.Passed:
				passed++
			case known && p.Status == view.CheckFail:
				tried = true
			}
		}
		state := "open"
		switch {
		case passed == len(t.Checks) && passed > 0:
			state = "passed"
		case passed > 0 && tried:
			state = "failed"
		}
		out = append(out, view.TaskState{ID: t.ID, Title: t.Title, State: state})
	}
	return out
}
