package app

import (
	"maps"
	"slices"

	"podlab/exercises"
	"podlab/lab"
	"podlab/lab/check"
	"podlab/web/view"
)

// Course shows package exercises to the API and the pages.
type Course struct{ *exercises.Course }

func textOf(t check.Text) view.Text { return view.Text{view.Korean: t.KO, view.English: t.EN} }

// List gives the cards in the course's order.
func (c Course) List() []view.ExerciseCard {
	out := []view.ExerciseCard{}
	for _, e := range c.Exercises {
		out = append(out, view.ExerciseCard{ID: e.ID, Title: textOf(e.Title), Summary: textOf(e.Summary), Minutes: e.Minutes})
	}
	return out
}

// Get gives an exercise for the page.
func (c Course) Get(id string) (view.Exercise, bool) {
	e := c.Course.Get(id)
	if e == nil {
		return view.Exercise{}, false
	}
	out := view.Exercise{ID: e.ID, Title: textOf(e.Title), Minutes: e.Minutes, Lesson: textOf(e.Lesson), Tasks: []view.Task{}}
	for _, t := range e.Tasks {
		task := view.Task{ID: t.ID, Title: textOf(t.Title), Hints: len(t.AllHints()), After: t.After, Checks: []view.Check{}}
		for _, one := range t.Checks {
			task.Checks = append(task.Checks, view.Check{ID: one.ID, Title: textOf(one.Title)})
		}
		out.Tasks = append(out.Tasks, task)
	}
	return out, true
}

// Setup gives what an exercise's lab is made from.
func (c Course) Setup(id string) (lab.Lab, string, bool) {
	e := c.Course.Get(id)
	if e == nil {
		return lab.Lab{}, "", false
	}
	manifests := lab.DefaultPods
	if e.Manifests != "" {
		manifests += "\n---\n" + e.Manifests
	}
	return e.Lab, manifests, true
}

// Templates are the exercise's files, or the default pods in a free lab.
func (c Course) Templates(id string) []view.Template {
	e := c.Course.Get(id)
	if e == nil {
		return []view.Template{{
			ID: "pods.yaml", Title: view.Text{view.Korean: "기본 파드", view.English: "The default pods"}, YAML: lab.DefaultPods,
		}}
	}
	out := []view.Template{}
	for _, name := range slices.Sorted(maps.Keys(e.Files)) {
		out = append(out, view.Template{ID: name, Title: view.Text{view.Korean: name, view.English: name}, YAML: e.Files[name]})
	}
	return out
}

// Hint gives one hint of a task, numbered from 1.
func (c Course) Hint(id, task string, number int) (view.Text, bool) {
	e := c.Course.Get(id)
	if e == nil {
		return nil, false
	}
	t := e.Task(task)
	if t == nil {
		return nil, false
	}
	hints := t.AllHints()
	if number < 1 || number > len(hints) {
		return nil, false
	}
	return textOf(hints[number-1]), true
}
