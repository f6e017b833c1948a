// Package exercises holds the course's content and loads it: one folder
// NN-name for each exercise, with exercise.yaml, the lesson in Korean and
// English, manifests and the scripts that prove that its checks are right.
// README.md beside this file says how to write one.
//
// Load reads all of it once and reports all that is wrong with file, line and
// field. What it returns is immutable and safe for concurrent use.
package exercises

import (
	"podlab/lab"
	"podlab/lab/check"
)

// Text is a text in Korean and English.
type Text = check.Text

// Course is all exercises, in their order.
type Course struct {
	Exercises []*Exercise
}

// Get is the exercise with an id, or nil.
func (c *Course) Get(id string) *Exercise {
	for _, e := range c.Exercises {
		if e.ID == id {
			return e
		}
	}
	return nil
}

// Exercise is one exercise, loaded and compiled.
type Exercise struct {
	// ID is the folder's name, "01-three-containers".
	ID      string
	Title   Text
	Summary Text
	// Covers are the ids of the points of the course, see Rows.
	Covers []string
	// Minutes that a learner needs, about.
	Minutes int
	// Lab is the wanted shape of its lab.
	Lab lab.Lab
	// Manifests are the Kubernetes documents applied when the lab starts, after
	// the lab's default pods.
	Manifests string
	// Files are the manifests that the lesson can open in the editor, by name.
	Files map[string]string
	// Answers are the manifests solution-NAME.yaml and wrong-NAME.yaml, for the
	// scripts only: no learner sees them.
	Answers map[string]string
	Tasks   []Task
	// Lesson is trusted HTML: <pre data-run="TARGET"> is a command to click,
	// <pre data-apply="FILE"> a manifest for the editor, <div data-task="ID">
	// the place of a task's checks.
	Lesson Text
	// Scripts that play the exercise: "solution.sh", "undo.sh", "wrong-NAME.sh".
	Scripts map[string]string

	commands []command // of the lessons, for lint
}

// Task is one thing to reach, with the checks that tell.
type Task struct {
	ID    string
	Title Text
	// After names tasks that come before this one.
	After  []string
	Hints  []Text
	Checks []Check
}

// AllHints are the task's hints and then those of its checks, in the order in
// which a learner gets them.
func (t Task) AllHints() []Text {
	out := append([]Text(nil), t.Hints...)
	for _, c := range t.Checks {
		if c.Hint != (Text{}) {
			out = append(out, c.Hint)
		}
	}
	return out
}

// Check is one condition of a task.
type Check struct {
	ID    string
	Title Text
	Hint  Text
	// On are the kinds of events that may change the outcome.
	On []lab.EventKind
	*check.Check
}

// Task by id, or nil.
func (e *Exercise) Task(id string) *Task {
	for i := range e.Tasks {
		if e.Tasks[i].ID == id {
			return &e.Tasks[i]
		}
	}
	return nil
}
