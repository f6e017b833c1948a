package exercises

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"

	"podlab/lab"
	"podlab/lab/check"
)

// Lint finds what loads but is wrong: commands for places that do not exist,
// languages that differ, checks that pass when nothing was done, scripts that
// are missing or name what is not there.
func (c *Course) Lint() Problems {
	var out Problems
	for _, e := range c.Exercises {
		out = append(out, e.lint()...)
	}
	return out
}

func (e *Exercise) lint() Problems {
	l := &linter{e: e}
	l.commands()
	l.languages()
	l.emptyLab()
	l.scripts()
	return l.problems
}

type linter struct {
	e        *Exercise
	problems Problems
}

func (l *linter) report(file string, line int, format string, args ...any) {
	l.problems = append(l.problems, Problem{File: file, Line: line, Message: fmt.Sprintf(format, args...)})
}

// places are the pods ("namespace/name") with their containers, of the
// default lab and of every manifest of the exercise, and the nodes.
func (l *linter) places() (pods map[string][]string, nodes []string) {
	pods = map[string][]string{}
	if err := addPods(pods, lab.DefaultPods); err != nil {
		l.report("the default pods", 0, "%v", err)
	}
	files := maps.Clone(l.e.Files)
	maps.Copy(files, l.e.Answers)
	for name, text := range files {
		if err := addPods(pods, text); err != nil {
			l.report(l.e.ID+"/"+name, 0, "%v", err)
		}
	}
	for _, c := range l.e.commands {
		if c.apply != "" && c.text != "" {
			if err := addPods(pods, c.text); err != nil {
				l.report(c.file, c.line, "%v", err)
			}
		}
	}
	for _, n := range l.e.Lab.Spec.Nodes {
		nodes = append(nodes, n.Name)
	}
	return pods, nodes
}

// addPods notes the pods of manifests.
func addPods(pods map[string][]string, manifests string) error {
	d := yaml.NewDecoder(strings.NewReader(manifests))
	for {
		var doc struct {
			Kind     string
			Metadata struct{ Name, Namespace string }
			Spec     struct{ InitContainers, Containers []struct{ Name string } }
		}
		if err := d.Decode(&doc); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("is no YAML: %w", err)
		}
		if doc.Kind != "Pod" {
			continue
		}
		namespace := doc.Metadata.Namespace
		if namespace == "" {
			namespace = "default"
		}
		var containers []string
		for _, c := range append(doc.Spec.InitContainers, doc.Spec.Containers...) {
			containers = append(containers, c.Name)
		}
		pods[namespace+"/"+doc.Metadata.Name] = containers
	}
}

// missingPlace says what of a target does not exist, or "".
func missingPlace(t lab.Target, pods map[string][]string, nodes []string) string {
	parts, err := t.Parse()
	if err != nil {
		return err.Error()
	}
	if parts.Node != "" {
		if !slices.Contains(nodes, parts.Node) {
			return fmt.Sprintf("there is no node %q; there are: %s", parts.Node, strings.Join(nodes, ", "))
		}
		return ""
	}
	containers, ok := pods[parts.Namespace+"/"+parts.Pod]
	switch {
	case !ok:
		return fmt.Sprintf("there is no pod %q; there are: %s", parts.Namespace+"/"+parts.Pod, strings.Join(slices.Sorted(maps.Keys(pods)), ", "))
	case parts.Container != "" && !slices.Contains(containers, parts.Container):
		return fmt.Sprintf("pod %s has no container %q; it has: %s", parts.Pod, parts.Container, strings.Join(containers, ", "))
	}
	return ""
}

func (l *linter) commands() {
	pods, nodes := l.places()
	for _, c := range l.e.commands {
		if c.target == "" {
			continue
		}
		if missing := missingPlace(c.target, pods, nodes); missing != "" {
			l.report(c.file, c.line, "command for %s: %s", c.target, missing)
		}
	}
	for _, t := range l.e.Tasks {
		for _, c := range t.Checks {
			for id, p := range c.Probes() {
				if missing := missingPlace(p.From, pods, nodes); missing != "" {
					l.report(l.e.ID+"/exercise.yaml", 0, "check %s, probe %s: %s", c.ID, id, missing)
				}
			}
		}
	}
}

// languages compares the lessons' commands and looks for texts that stand in
// the wrong language.
func (l *linter) languages() {
	byFile := map[string][]command{}
	for _, c := range l.e.commands {
		byFile[c.file] = append(byFile[c.file], c)
	}
	ko, en := byFile[l.e.ID+"/lesson.ko.md"], byFile[l.e.ID+"/lesson.en.md"]
	for i := range max(len(ko), len(en)) {
		switch {
		case i >= len(ko):
			l.report(en[i].file, en[i].line, "the Korean lesson lacks this command")
		case i >= len(en):
			l.report(ko[i].file, ko[i].line, "the English lesson lacks this command")
		case ko[i].target != en[i].target || ko[i].apply != en[i].apply || ko[i].text != en[i].text:
			l.report(ko[i].file, ko[i].line, "command %d differs from the English lesson's at line %d", i+1, en[i].line)
			return // those that follow are shifted
		}
	}
	texts := map[string]Text{"title": l.e.Title, "summary": l.e.Summary}
	for _, t := range l.e.Tasks {
		texts["title of task "+t.ID] = t.Title
		for i, h := range t.AllHints() {
			texts[fmt.Sprintf("hint %d of task %s", i+1, t.ID)] = h
		}
		for _, c := range t.Checks {
			texts["title of check "+c.ID] = c.Title
		}
	}
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		if !hasHangul(texts[name].KO) {
			l.report(l.e.ID+"/exercise.yaml", 0, "%s: the Korean text has no Korean", name)
		}
		if hasHangul(texts[name].EN) {
			l.report(l.e.ID+"/exercise.yaml", 0, "%s: the English text has Korean", name)
		}
	}
}

func hasHangul(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return unicode.Is(unicode.Hangul, r) })
}

// emptyLab evaluates every check on a lab in which nothing was done and
// nothing can be reached.
func (l *linter) emptyLab() {
	for _, t := range l.e.Tasks {
		for _, c := range t.Checks {
			facts := lab.Facts{Probes: map[string]lab.ProbeResult{}}
			for id := range c.Probes() {
				facts.Probes[id] = lab.ProbeResult{Error: "connection refused"}
			}
			switch r := c.Eval(facts); r.Outcome {
			case check.Pass:
				l.report(l.e.ID+"/exercise.yaml", 0, "check %s passes in a lab where nothing is", c.ID)
			case check.Error:
				l.report(l.e.ID+"/exercise.yaml", 0, "check %s cannot be evaluated in a lab where nothing is: %s", c.ID, r.Got.EN)
			}
		}
	}
}

func (l *linter) scripts() {
	if len(l.e.WrongScripts()) == 0 {
		l.report(l.e.ID, 0, "has no wrong-NAME.sh; a wrong answer that must not pass is wanted")
	}
	pods, nodes := l.places()
	for _, name := range append([]string{"solution.sh", "undo.sh"}, l.e.WrongScripts()...) {
		s, err := l.e.Script(name)
		var problems Problems
		if errors.As(err, &problems) {
			l.problems = append(l.problems, problems...)
			continue
		}
		for _, step := range s.Steps {
			if step.Text == "" {
				continue
			}
			if missing := missingPlace(lab.Target(strings.TrimPrefix(string(step.On), nodeOf)), pods, nodes); missing != "" {
				l.report(l.e.ID+"/"+name, step.Line, "%s", missing)
			}
		}
	}
}
