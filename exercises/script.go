package exercises

import (
	"fmt"
	"slices"
	"strings"

	"podlab/lab"
)

// Script is a solution.sh, undo.sh or wrong-NAME.sh, taken apart. It is bash
// with directives in comments:
//
//	#@ apply FILE        apply a manifest of the folder, as the editor does
//	#@ on TARGET         what follows runs there, as root of the place; besides a
//	                     Target it may be node-of:POD, the node a pod runs on
//	#@ wait CHECK...     until these checks pass
//	#@ after solution    (wrong-*.sh) the solution is played first
//	#@ red CHECK...      (wrong-*.sh) these checks must not pass afterwards
type Script struct {
	AfterSolution bool
	Red           []string
	Steps         []Step
}

// Step is one part of a script; exactly one of Apply, Wait and Text is set.
type Step struct {
	Line int // in the script, 1-based
	// Apply is the name of a manifest, Manifest its text.
	Apply, Manifest string
	Wait            []string
	// On and Text: bash to run in a place.
	On   lab.Target
	Text string
}

// nodeOf begins a target that is the node of a pod.
const nodeOf = "node-of:"

// Place of the step in a lab with these pods.
func (s Step) Place(pods []lab.Pod) (lab.Target, error) {
	pod, ok := strings.CutPrefix(string(s.On), nodeOf)
	if !ok {
		return s.On, nil
	}
	parts, err := lab.Target(pod).Parse()
	if err != nil {
		return "", err
	}
	for _, p := range pods {
		if p.Namespace == parts.Namespace && p.Name == parts.Pod && p.Node != "" {
			return lab.Target("node:" + p.Node), nil
		}
	}
	return "", fmt.Errorf("pod %s runs on no node", pod)
}

// Script takes one of the exercise's scripts apart; the error is Problems.
func (e *Exercise) Script(name string) (*Script, error) {
	text, ok := e.Scripts[name]
	if !ok {
		return nil, Problems{{File: e.ID + "/" + name, Message: "is missing"}}
	}
	p := &scriptParser{exercise: e, file: e.ID + "/" + name, script: &Script{}}
	for i, line := range strings.Split(text, "\n") {
		p.line(i+1, line)
	}
	p.endText()
	if strings.HasPrefix(name, "wrong-") && len(p.script.Red) == 0 {
		p.report(0, "says not which checks must stay red; #@ red CHECK... is wanted")
	}
	if len(p.problems) > 0 {
		return nil, p.problems
	}
	return p.script, nil
}

type scriptParser struct {
	exercise *Exercise
	file     string
	script   *Script
	problems Problems
	current  *Step // the text being gathered
}

func (p *scriptParser) report(line int, format string, args ...any) {
	p.problems = append(p.problems, Problem{File: p.file, Line: line, Message: fmt.Sprintf(format, args...)})
}

func (p *scriptParser) line(number int, line string) {
	directive, ok := strings.CutPrefix(line, "#@")
	if !ok {
		switch {
		case p.current != nil:
			p.current.Text += line + "\n"
		case strings.TrimSpace(line) != "" && !strings.HasPrefix(line, "#"):
			p.report(number, "this line has no place to run in; #@ on TARGET is wanted before it")
		}
		return
	}
	p.endText()
	words := strings.Fields(directive)
	if len(words) < 2 {
		p.report(number, "%q is not understood; allowed are: apply FILE, on TARGET, wait CHECK..., after solution, red CHECK...", strings.TrimSpace(line))
		return
	}
	switch args := words[1:]; words[0] {
	case "apply":
		if p.exercise.manifest(args[0]) == "" || len(args) != 1 {
			p.report(number, "there is no file %q; there are: %s", strings.Join(args, " "),
				orNone(append(sortedKeys(p.exercise.Files), sortedKeys(p.exercise.Answers)...)))
		}
		p.script.Steps = append(p.script.Steps, Step{Line: number, Apply: args[0], Manifest: p.exercise.manifest(args[0])})
	case "on":
		if _, err := lab.Target(strings.TrimPrefix(args[0], nodeOf)).Parse(); err != nil || len(args) != 1 {
			p.report(number, "on %s: one target is wanted: POD/CONTAINER, node:NAME or node-of:POD", strings.Join(args, " "))
		}
		p.current = &Step{Line: number, On: lab.Target(args[0])}
	case "wait":
		p.known(number, args)
		p.script.Steps = append(p.script.Steps, Step{Line: number, Wait: args})
	case "red":
		p.known(number, args)
		p.script.Red = append(p.script.Red, args...)
	case "after":
		if !slices.Equal(args, []string{"solution"}) {
			p.report(number, "after %s: only \"after solution\" is known", strings.Join(args, " "))
		}
		p.script.AfterSolution = true
	default:
		p.report(number, "%q is no directive; allowed are: apply, on, wait, after, red", words[0])
	}
}

func (p *scriptParser) endText() {
	if p.current != nil && strings.TrimSpace(p.current.Text) != "" {
		p.script.Steps = append(p.script.Steps, *p.current)
	}
	p.current = nil
}

func (p *scriptParser) known(line int, ids []string) {
	for _, id := range ids {
		if p.exercise.Check(id) == nil {
			p.report(line, "there is no check %q; there are: %s", id, strings.Join(p.exercise.CheckIDs(), ", "))
		}
	}
}

// manifest is the text of one of the folder's manifests, or "".
func (e *Exercise) manifest(name string) string {
	if text, ok := e.Files[name]; ok {
		return text
	}
	return e.Answers[name]
}

// Check by id, or nil.
func (e *Exercise) Check(id string) *Check {
	for i := range e.Tasks {
		for j := range e.Tasks[i].Checks {
			if e.Tasks[i].Checks[j].ID == id {
				return &e.Tasks[i].Checks[j]
			}
		}
	}
	return nil
}

// CheckIDs are the ids of all checks, in their order.
func (e *Exercise) CheckIDs() []string {
	var ids []string
	for _, t := range e.Tasks {
		for _, c := range t.Checks {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

// WrongScripts are the names of the exercise's wrong-NAME.sh, in order.
func (e *Exercise) WrongScripts() []string {
	return slices.DeleteFunc(sortedKeys(e.Scripts), func(name string) bool { return !strings.HasPrefix(name, "wrong-") })
}
