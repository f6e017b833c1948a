// Package view holds what a page needs to be drawn, and nothing else: inert
// data that the server fills and that the templ pages and the TypeScript
// client read. The TypeScript types are generated from these (see
// web/client/gen), so a field's JSON name is a contract with the browser.
//
// The package has no behaviour beyond small lookups and is safe to copy.
package view

import (
	"time"

	"podlab/lab"
)

// Lang is a language of the pages: "ko" or "en".
type Lang string

// The languages of the pages, the first is the default.
const (
	Korean  Lang = "ko"
	English Lang = "en"
)

// Theme is the colour scheme asked for: ThemeSystem follows the device.
type Theme string

// The themes.
const (
	ThemeSystem Theme = ""
	ThemeLight  Theme = "light"
	ThemeDark   Theme = "dark"
)

// Text is one text in the languages it exists in.
type Text map[Lang]string

// In returns the text in lang, or in the first language that has it.
func (t Text) In(lang Lang) string {
	if s := t[lang]; s != "" {
		return s
	}
	for _, l := range []Lang{Korean, English} {
		if s := t[l]; s != "" {
			return s
		}
	}
	return ""
}

// Role of a user.
type Role string

// The roles.
const (
	RoleLearner    Role = "learner"
	RoleInstructor Role = "instructor"
)

// User is who is signed in.
type User struct {
	Name string `json:"name"`
	Role Role   `json:"role"`
	// Class is the class's name, empty for an instructor.
	Class string `json:"class,omitempty"`
}

// Page is what every page has.
type Page struct {
	Lang  Lang  `json:"lang"`
	Theme Theme `json:"theme"`
	// User is nil when nobody is signed in.
	User *User `json:"user,omitempty"`
	// CSRF is put into every form, as the field "csrf", and sent by the client
	// as the header X-CSRF-Token; empty where the server needs none.
	CSRF string `json:"csrf,omitempty"`
	// Assets are the addresses of the built files by name ("site.js"), from
	// web.Assets.
	Assets map[string]string `json:"-"`
}

// SignIn is the page with the class code and the name.
type SignIn struct {
	Page
	// Code and Name as typed before, to be corrected.
	Code string
	Name string
	// Error says what was wrong, nil at first.
	Error *FormError
	// Next is where to go after signing in, a path on this host.
	Next string
}

// FormError is what was wrong with a form.
type FormError struct {
	// Field is the name of the input, or empty for the whole form.
	Field string
	// Message is one of the SignInError keys.
	Message string
}

// What can be wrong with signing in, as keys of the message table.
const (
	SignInErrorCode = "signin.error.code" // field "code": no class has it
	SignInErrorName = "signin.error.name" // field "name": empty or too long
	SignInErrorLink = "signin.error.link" // no field: the instructor's link is used or wrong
	SignInErrorRate = "signin.error.rate" // no field: too many tries
)

// Home is the list of exercises and labs of one learner.
type Home struct {
	Page
	Exercises []ExerciseCard
	// FreeLabs are the learner's labs without an exercise.
	FreeLabs []LabCard
	// Full is set when the host has no room for another lab just now.
	Full bool
}

// ExerciseCard is one exercise on the home page.
type ExerciseCard struct {
	ID      string
	Title   Text
	Summary Text
	Minutes int
	// Tasks and Passed count the tasks and those whose checks were green.
	Tasks, Passed int
	// Lab of this learner for the exercise, nil when not started.
	Lab *LabCard
}

// LabCard is one lab on the home or class page.
type LabCard struct {
	ID        string
	Name      string
	Phase     lab.Phase
	Reason    string
	CreatedAt time.Time
	// Exercise is empty for a free lab.
	Exercise string
}

// Class is the instructor's page.
type Class struct {
	Page
	Classes []ClassRoom
	// Exercises in the order of the columns.
	Exercises []ExerciseCard
}

// ClassRoom is one class with its learners.
type ClassRoom struct {
	ID       string
	Name     string
	Code     string
	Learners []Learner
}

// Learner is one row of a class.
type Learner struct {
	ID       string
	Name     string
	LastSeen time.Time
	Labs     []LearnerLab
}

// LearnerLab is a learner's lab with its progress.
type LearnerLab struct {
	LabCard
	Tasks []TaskState
}

// TaskState is a task's state in short: "passed", "failed" or "open".
type TaskState struct {
	ID    string
	Title Text
	State string
}

// Error is an error page.
type Error struct {
	Page
	// Status is 403, 404, 500 or 503 (offline: the server is going down).
	Status int
	// Detail is a sentence for people, already in the page's language, or empty.
	Detail string
	// Request is the id to name when asking for help, or empty.
	Request string
}

// Lab is the lab page. All of it but Page.Assets goes to the client as Boot.
type Lab struct {
	Page
	Boot LabBoot
}

// LabBoot is what the client of the lab page starts from. What changes comes
// later, as StreamMessages.
type LabBoot struct {
	Page
	ID   string `json:"id"`
	Name string `json:"name"`
	// Phase at the moment of the page, before the stream tells more.
	Phase  lab.Phase `json:"phase"`
	Reason string    `json:"reason,omitempty"`
	// ReadOnly: an instructor looks on; nothing may be typed or applied.
	ReadOnly bool `json:"readOnly,omitempty"`
	// Owner is the learner's name where that is not the reader.
	Owner string `json:"owner,omitempty"`
	// Exercise is nil in a free lab.
	Exercise *Exercise `json:"exercise,omitempty"`
	// Templates are manifests to start from in the editor.
	Templates []Template `json:"templates"`
	// AssetURLs are the files that the client loads itself.
	AssetURLs map[string]string `json:"assets"`
}

// Exercise is the content of the left column.
type Exercise struct {
	ID      string `json:"id"`
	Title   Text   `json:"title"`
	Minutes int    `json:"minutes"`
	// Lesson is trusted HTML of the exercise's Markdown. A command to click is
	// <pre data-run="TARGET"><code>…</code></pre>; a manifest to open in the
	// editor is <pre data-apply="FILE"><code>…</code></pre>; a task's card goes
	// where <div data-task="ID"></div> stands, or at the end.
	Lesson Text   `json:"lesson"`
	Tasks  []Task `json:"tasks"`
}

// Task is one thing to reach, with the checks that tell.
type Task struct {
	ID     string  `json:"id"`
	Title  Text    `json:"title"`
	Checks []Check `json:"checks"`
	// Hints are how many hints there are; each is asked for at
	// POST /api/v1/labs/{lab}/hints with the body {"task": ID, "number": N}
	// and answered as {"text": Text}.
	Hints int `json:"hints"`
	// After names tasks that come before this one.
	After []string `json:"after,omitempty"`
}

// Check is one condition of a task.
type Check struct {
	ID    string `json:"id"`
	Title Text   `json:"title"`
}

// Template is a manifest to start from.
type Template struct {
	ID    string `json:"id"`
	Title Text   `json:"title"`
	YAML  string `json:"yaml"`
}

// The names of the cookies in which the client keeps a reader's language and
// theme; see i18n.Choose and the Theme constants.
const (
	LangCookie  = "podlab_lang"
	ThemeCookie = "podlab_theme"
)
