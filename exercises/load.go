package exercises

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"sort"
	"strings"

	k8syaml "sigs.k8s.io/yaml"

	"podlab/lab"
	"podlab/lab/check"
)

// What an author writes in exercise.yaml.
type exerciseYAML struct {
	Title     textYAML   `json:"title" need:"true"`
	Summary   textYAML   `json:"summary" need:"true"`
	Covers    []string   `json:"covers" need:"true"`
	Minutes   int        `json:"minutes" need:"true"`
	Lab       string     `json:"lab"`
	Manifests []string   `json:"manifests"`
	Tasks     []taskYAML `json:"tasks" need:"true"`
}

type textYAML struct {
	KO string `json:"ko" need:"true"`
	EN string `json:"en" need:"true"`
}

type taskYAML struct {
	ID     string      `json:"id" need:"true"`
	Title  textYAML    `json:"title" need:"true"`
	After  []string    `json:"after"`
	Hints  []textYAML  `json:"hints"`
	Checks []checkYAML `json:"checks" need:"true"`
}

type checkYAML struct {
	ID     string               `json:"id" need:"true"`
	Title  textYAML             `json:"title" need:"true"`
	Expr   string               `json:"expr" need:"true"`
	Probes map[string]lab.Probe `json:"probes"`
	Want   textYAML             `json:"want" need:"true"`
	Saw    textYAML             `json:"saw" need:"true"`
	Hint   *textYAML            `json:"hint"`
	On     []string             `json:"on" need:"true"`
}

func (t textYAML) text() Text { return Text{KO: t.KO, EN: t.EN} }

var (
	folderName = regexp.MustCompile(`^[0-9]{2}-[a-z0-9]+(-[a-z0-9]+)*$`)
	idName     = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
	scriptName = regexp.MustCompile(`^(solution|undo|wrong-[a-z0-9-]+)\.sh$`)
)

// Load reads every NN-name folder of fsys. The error is Problems; exercises
// that have problems are left out of the course that is returned beside it.
func Load(fsys fs.FS) (*Course, error) {
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return nil, fmt.Errorf("cannot read exercises: %w", err)
	}
	course, problems := &Course{}, Problems(nil)
	for _, entry := range entries {
		name := entry.Name()
		if !entry.IsDir() || name[0] < '0' || name[0] > '9' {
			continue
		}
		if !folderName.MatchString(name) {
			problems = append(problems, Problem{File: name, Message: "is not a name of an exercise; NN-name in small letters, digits and - is wanted"})
			continue
		}
		e, found := loadOne(fsys, name)
		if len(found) > 0 {
			problems = append(problems, found...)
			continue
		}
		course.Exercises = append(course.Exercises, e)
	}
	if len(problems) > 0 {
		return course, problems
	}
	return course, nil
}

// loader gathers one exercise and its problems.
type loader struct {
	fsys     fs.FS
	dir      string
	lines    map[string]int // of exercise.yaml's fields
	problems Problems
}

func loadOne(fsys fs.FS, dir string) (*Exercise, Problems) {
	l := &loader{fsys: fsys, dir: dir}
	data, ok := l.read("exercise.yaml")
	if !ok {
		return nil, l.problems
	}
	var y exerciseYAML
	l.lines, l.problems = decodeYAML(path.Join(dir, "exercise.yaml"), data, &y)
	if len(l.problems) > 0 {
		return nil, l.problems
	}
	e := &Exercise{
		ID: dir, Title: y.Title.text(), Summary: y.Summary.text(), Covers: y.Covers, Minutes: y.Minutes,
		Lab: lab.DefaultLab(), Files: map[string]string{}, Answers: map[string]string{}, Scripts: map[string]string{},
	}
	l.check(y.Minutes >= 1 && y.Minutes <= 240, "minutes", "is %d; 1 to 240 are allowed", y.Minutes)
	for i, id := range y.Covers {
		l.check(KnownRow(id), fmt.Sprintf("covers[%d]", i), "%q is no point of the course; allowed are: %s", id, strings.Join(RowIDs(), ", "))
	}
	l.lab(e, y.Lab)
	l.files(e)
	l.manifests(e, y.Manifests)
	l.tasks(e, y.Tasks)
	l.lessons(e)
	return e, l.problems
}

// read reads a file of the exercise, bounded.
func (l *loader) read(name string) ([]byte, bool) {
	full := path.Join(l.dir, name)
	info, err := fs.Stat(l.fsys, full)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		l.problems = append(l.problems, Problem{File: full, Message: "is missing"})
		return nil, false
	case err == nil && info.Size() > maxFile:
		l.problems = append(l.problems, Problem{File: full, Message: fmt.Sprintf("has %d bytes; at most %d are allowed", info.Size(), maxFile)})
		return nil, false
	}
	data, err := fs.ReadFile(l.fsys, full)
	if err != nil {
		l.problems = append(l.problems, Problem{File: full, Message: err.Error()})
		return nil, false
	}
	return data, true
}

func (l *loader) report(field, format string, args ...any) {
	l.problems = append(l.problems, Problem{
		File: path.Join(l.dir, "exercise.yaml"), Line: l.lines[field], Field: field, Message: fmt.Sprintf(format, args...),
	})
}

func (l *loader) check(ok bool, field, format string, args ...any) {
	if !ok {
		l.report(field, format, args...)
	}
}

func (l *loader) lab(e *Exercise, file string) {
	if file == "" || !l.plain("lab", file) {
		return
	}
	data, ok := l.read(file)
	if !ok {
		return
	}
	var own lab.Lab
	if err := k8syaml.UnmarshalStrict(data, &own); err != nil {
		l.problems = append(l.problems, Problem{File: path.Join(l.dir, file), Message: err.Error()})
		return
	}
	l.check(own.APIVersion == lab.APIVersion && own.Kind == lab.KindLab, "lab", "%s is %s/%s; %s/%s is wanted", file, own.APIVersion, own.Kind, lab.APIVersion, lab.KindLab)
	e.Lab = own
}

// plain reports whether a file's name stays in the exercise's folder.
func (l *loader) plain(field, file string) bool {
	ok := fs.ValidPath(file)
	l.check(ok, field, "%q is no file of this folder", file)
	return ok
}

// files takes up the manifests and scripts that lie in the folder.
func (l *loader) files(e *Exercise) {
	entries, err := fs.ReadDir(l.fsys, l.dir)
	if err != nil {
		l.problems = append(l.problems, Problem{File: l.dir, Message: err.Error()})
		return
	}
	for _, entry := range entries {
		name := entry.Name()
		switch {
		case entry.IsDir() || name == "exercise.yaml" || strings.HasPrefix(name, "lesson."):
		case strings.HasSuffix(name, ".yaml"):
			files := e.Files
			if strings.HasPrefix(name, "solution-") || strings.HasPrefix(name, "wrong-") {
				files = e.Answers
			}
			if data, ok := l.read(name); ok {
				files[name] = string(data)
			}
		case strings.HasSuffix(name, ".sh"):
			if !scriptName.MatchString(name) {
				l.problems = append(l.problems, Problem{File: path.Join(l.dir, name), Message: "is not known; allowed are solution.sh, undo.sh and wrong-NAME.sh"})
			} else if data, ok := l.read(name); ok {
				e.Scripts[name] = string(data)
			}
		default:
			l.problems = append(l.problems, Problem{File: path.Join(l.dir, name), Message: "is not known; allowed are exercise.yaml, lesson.ko.md, lesson.en.md, *.yaml and *.sh"})
		}
	}
}

func (l *loader) manifests(e *Exercise, names []string) {
	var docs []string
	for i, name := range names {
		text, ok := e.Files[name]
		l.check(ok, fmt.Sprintf("manifests[%d]", i), "there is no %q; there are: %s", name, orNone(sortedKeys(e.Files)))
		docs = append(docs, text)
	}
	e.Manifests = strings.Join(docs, "\n---\n")
}

func (l *loader) tasks(e *Exercise, tasks []taskYAML) {
	l.check(len(tasks) > 0, "tasks", "is empty; at least one task is wanted")
	checkIDs := map[string]bool{}
	for i, t := range tasks {
		at := fmt.Sprintf("tasks[%d]", i)
		l.check(idName.MatchString(t.ID), at+".id", "is %q; small letters, digits and - are wanted", t.ID)
		l.check(e.Task(t.ID) == nil, at+".id", "%q is used twice", t.ID)
		for j, before := range t.After {
			l.check(e.Task(before) != nil, fmt.Sprintf("%s.after[%d]", at, j), "%q is no task before this one", before)
		}
		l.check(len(t.Checks) > 0, at+".checks", "is empty; at least one check is wanted")
		task := Task{ID: t.ID, Title: t.Title.text(), After: t.After}
		for _, h := range t.Hints {
			task.Hints = append(task.Hints, h.text())
		}
		for j, c := range t.Checks {
			where := fmt.Sprintf("%s.checks[%d]", at, j)
			l.check(idName.MatchString(c.ID), where+".id", "is %q; small letters, digits and - are wanted", c.ID)
			l.check(!checkIDs[c.ID], where+".id", "%q is used twice; a check's id is unique in its exercise", c.ID)
			checkIDs[c.ID] = true
			task.Checks = append(task.Checks, l.compile(c, where))
		}
		e.Tasks = append(e.Tasks, task)
	}
}

func (l *loader) compile(c checkYAML, at string) Check {
	out := Check{ID: c.ID, Title: c.Title.text()}
	spec := check.Spec{Expr: c.Expr, Want: c.Want.text(), Saw: c.Saw.text(), Probes: c.Probes}
	if c.Hint != nil {
		out.Hint = c.Hint.text()
		spec.Hint = out.Hint
	}
	l.check(len(c.On) > 0, at+".on", "is empty; allowed are: %s", kindNames())
	for i, kind := range c.On {
		l.check(slices.Contains(lab.EventKinds(), lab.EventKind(kind)), fmt.Sprintf("%s.on[%d]", at, i), "%q is no kind of event; allowed are: %s", kind, kindNames())
		out.On = append(out.On, lab.EventKind(kind))
	}
	compiled, err := check.Compile(spec)
	var bad *check.SpecError
	switch {
	case errors.As(err, &bad):
		field := at + "." + bad.Field
		line := l.lines[field]
		if line > 0 && bad.Line > 1 {
			line += bad.Line - 1
		}
		message := bad.Message
		if bad.Column > 0 {
			message = fmt.Sprintf("column %d: %s", bad.Column, message)
		}
		l.problems = append(l.problems, Problem{File: path.Join(l.dir, "exercise.yaml"), Line: line, Field: field, Message: message})
	case err != nil:
		l.report(at, "%v", err)
	}
	out.Check = compiled
	return out
}

func (l *loader) lessons(e *Exercise) {
	for _, lang := range []struct {
		file string
		to   *string
	}{{"lesson.ko.md", &e.Lesson.KO}, {"lesson.en.md", &e.Lesson.EN}} {
		data, ok := l.read(lang.file)
		if !ok {
			continue
		}
		rendered, commands, problems := renderLesson(e, path.Join(l.dir, lang.file), data)
		*lang.to = rendered
		e.commands = append(e.commands, commands...)
		l.problems = append(l.problems, problems...)
	}
}

func kindNames() string {
	names := make([]string, 0, len(lab.EventKinds()))
	for _, k := range lab.EventKinds() {
		names = append(names, string(k))
	}
	return strings.Join(names, ", ")
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
