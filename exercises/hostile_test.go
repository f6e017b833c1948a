package exercises

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/fstest"
)

const goodYAML = `title: {ko: 제목, en: title}
summary: {ko: 요약, en: summary}
covers: [P1]
minutes: 5
tasks:
- id: one
  title: {ko: 하나, en: one}
  checks:
  - id: listens
    title: {ko: 듣는다, en: listens}
    expr: listening(pod("pod-a"), 80)
    want: {ko: 포트 80, en: port 80}
    saw: {ko: 소켓, en: sockets}
    on: [pod.set]
`

// good is a whole exercise with some files replaced.
func good(replace map[string]string) fstest.MapFS {
	files := map[string]string{
		"exercise.yaml": goodYAML,
		"lesson.ko.md":  "안녕\n\n{{task \"one\"}}\n",
		"lesson.en.md":  "Hello\n\n{{task \"one\"}}\n",
	}
	maps.Copy(files, replace)
	fsys := fstest.MapFS{}
	for name, text := range files {
		fsys["01-a/"+name] = &fstest.MapFile{Data: []byte(text)}
	}
	return fsys
}

func TestBadExercises(t *testing.T) {
	swap := func(from, to string) map[string]string {
		if !strings.Contains(goodYAML, from) {
			t.Fatalf("the good exercise has no %q", from)
		}
		return map[string]string{"exercise.yaml": strings.Replace(goodYAML, from, to, 1)}
	}
	lesson := func(text string) map[string]string { return map[string]string{"lesson.en.md": text} }
	tests := []struct {
		name  string
		files map[string]string
		want  []string // all in the error
	}{
		{"empty", map[string]string{"exercise.yaml": ""}, []string{"01-a/exercise.yaml: is empty"}},
		{"no YAML", map[string]string{"exercise.yaml": "a: [1, 2"}, []string{"01-a/exercise.yaml"}},
		{"two tabs", map[string]string{"exercise.yaml": "\t\tx"}, []string{"01-a/exercise.yaml"}},
		{"a list", map[string]string{"exercise.yaml": "[1]"}, []string{"is a list; a mapping is wanted"}},
		{"unknown field", swap("minutes: 5", "minuets: 5"), []string{"01-a/exercise.yaml:4: minuets: unknown field; allowed in the exercise are: covers, lab, manifests, minutes, summary, tasks, title", "minutes: is missing"}},
		{"unknown field deep", swap("saw:", "seen:"), []string{"01-a/exercise.yaml:13: tasks[0].checks[0].seen: unknown field; allowed in tasks[0].checks[0] are:"}},
		{"field twice", swap("minutes: 5", "minutes: 5\nminutes: 6"), []string{":5: minutes: is given twice"}},
		{"wrong type", swap("minutes: 5", "minutes: [5]"), []string{":4: minutes: is a list; a whole number is wanted"}},
		{"huge number", swap("minutes: 5", "minutes: 99999999999999999999"), []string{"minutes: is"}},
		{"out of range", swap("minutes: 5", "minutes: 0"), []string{":4: minutes: is 0; 1 to 240 are allowed"}},
		{"a number for text", swap("en: port 80", "en: 80"), []string{":12: tasks[0].checks[0].want.en: is the number 80; a text"}},
		{"missing language", swap("{ko: 하나, en: one}", "{ko: 하나}"), []string{":7: tasks[0].title.en: is missing"}},
		{"empty language", swap("{ko: 하나, en: one}", "{ko: 하나, en: ' '}"), []string{"tasks[0].title.en: is missing"}},
		{"unknown row", swap("[P1]", "[P1, Q9]"), []string{":3: covers[1]:", `"Q9" is no point of the course; allowed are: P1, P2`}},
		{"unknown event", swap("[pod.set]", "[pod.sat]"), []string{":14: tasks[0].checks[0].on[0]:", `"pod.sat" is no kind of event; allowed are: namespace.set`}},
		{"no events", swap("[pod.set]", "[]"), []string{"tasks[0].checks[0].on: is empty"}},
		{"bad CEL", swap(`listening(pod("pod-a"), 80)`, `listening(pod("pod-a"), 80`), []string{":11: tasks[0].checks[0].expr: column"}},
		{"CEL of a wrong type", swap(`listening(pod("pod-a"), 80)`, `ip4(pod("pod-a"))`), []string{"expr: gives string; bool is wanted"}},
		{"CEL with an unknown field", swap(`listening(pod("pod-a"), 80)`, `pod("pod-a").sokets.size() > 0`), []string{"undefined field 'sokets'"}},
		{"CEL with an unknown function", swap(`listening(pod("pod-a"), 80)`, `shell("rm")`), []string{"undeclared reference to 'shell'"}},
		{"undeclared probe", swap(`listening(pod("pod-a"), 80)`, `probes.web.ok`), []string{`probe "web" is not declared; declared are: none`}},
		{"unused probe", swap("    expr:", "    probes: {x: {from: pod-a, ping: {addr: 10.0.0.1}}}\n    expr:"), []string{"probes.x: no expression uses this probe"}},
		{"probe of two kinds", swap("    expr:", "    probes: {x: {from: pod-a, ping: {addr: 10.0.0.1}, tcp: {addr: '10.0.0.1:1'}}}\n    expr:"), []string{"exactly one is wanted"}},
		{"bad hole", swap("en: sockets", `en: "${1 +}"`), []string{":13: tasks[0].checks[0].saw.en: column"}},
		{"open hole", swap("en: sockets", `en: "${1 + 1"`), []string{"saw.en: a ${ has no }"}},
		{"alias", swap("[P1]", "&a [P1]\nmanifests: *a"), []string{"anchors and aliases are not allowed"}},
		{"alias bomb", swap("[P1]", strings.ReplaceAll("\n"+bomb(), "\n", "\n  ")), []string{"covers: is a mapping"}},
		{"cyclic alias", map[string]string{"exercise.yaml": "title: &a {ko: *a, en: *a}\n"}, []string{"01-a/exercise.yaml"}},
		{"very deep", map[string]string{"exercise.yaml": "title: " + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000)}, []string{"01-a/exercise.yaml"}},
		{"deep in probes", swap("    expr:", "    probes: "+strings.Repeat("{a: ", 40)+"1"+strings.Repeat("}", 40)+"\n    expr:"), []string{"probes.a.a: unknown field"}},
		{"huge", map[string]string{"exercise.yaml": goodYAML + "#" + strings.Repeat("x", maxFile)}, []string{"bytes; at most 262144 are allowed"}},
		{"huge expression", swap(`listening(pod("pod-a"), 80)`, `size("`+strings.Repeat("x", 5000)+`") == 1`), []string{"expr"}},
		{"deep expression", swap(`listening(pod("pod-a"), 80)`, strings.Repeat("(", 1000)+"true"+strings.Repeat(")", 1000)), []string{"expr"}},
		{"task id twice", map[string]string{"exercise.yaml": goodYAML + strings.SplitAfter(goodYAML, "tasks:\n")[1]}, []string{`"one" is used twice`, `"listens" is used twice`}},
		{"after a later task", swap("  checks:", "  after: [two]\n  checks:"), []string{`after[0]: "two" is no task before this one`}},
		{"no such manifest", swap("tasks:", "manifests: [pod.yaml]\ntasks:"), []string{`manifests[0]: there is no "pod.yaml"; there are: none`}},
		{"a path out", swap("tasks:", "lab: ../../etc/passwd\ntasks:"), []string{`lab: "../../etc/passwd" is no file of this folder`}},
		{"bad lab", map[string]string{"exercise.yaml": strings.Replace(goodYAML, "tasks:", "lab: lab.yaml\ntasks:", 1), "lab.yaml": "kind: Lab\nspeck: {}\n"}, []string{"01-a/lab.yaml", "speck"}},
		{"unknown file", map[string]string{"notes.txt": "x"}, []string{"01-a/notes.txt: is not known"}},
		{"unknown script", map[string]string{"setup.sh": "x"}, []string{"01-a/setup.sh: is not known; allowed are solution.sh"}},
		{"task not placed", lesson("Hello\n"), []string{`01-a/lesson.en.md: places task "one" 0 times`}},
		{"unknown task", lesson("{{task \"one\"}}\n\n{{task \"two\"}}\n"), []string{`01-a/lesson.en.md:3: there is no task "two"; there are: one`}},
		{"raw HTML", lesson("a <script>alert(1)</script>\n\n{{task \"one\"}}\n"), []string{"01-a/lesson.en.md:1: raw HTML is not allowed"}},
		{"HTML block", lesson("<iframe src=x></iframe>\n\n{{task \"one\"}}\n"), []string{"01-a/lesson.en.md:1: raw HTML is not allowed"}},
		{"script link", lesson("[a](javascript:alert(1))\n\n{{task \"one\"}}\n"), []string{"https:// is wanted"}},
		{"image", lesson("![a](https://example.org/x.png)\n\n{{task \"one\"}}\n"), []string{"images are not allowed"}},
		{"bad fence", lesson("```sh {traget=pod-a}\nls\n```\n\n{{task \"one\"}}\n"), []string{"01-a/lesson.en.md:1:", "is not understood"}},
		{"empty command", lesson("```sh {target=pod-a}\n```\n\n{{task \"one\"}}\n"), []string{"the command for pod-a is empty"}},
		{"no such file", lesson("```yaml {file=x.yaml}\n```\n\n{{task \"one\"}}\n"), []string{`there is no "x.yaml" to show`}},
		{"box without a title", lesson(":::fold\nx\n:::\n\n{{task \"one\"}}\n"), []string{":::fold wants a title"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			course, err := Load(good(tt.files))
			var problems Problems
			if !errors.As(err, &problems) {
				t.Fatalf("loaded, error %v", err)
			}
			if len(course.Exercises) != 0 {
				t.Error("the exercise is in the course all the same")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error is\n%.2000s\nwanted in it: %s", err, want)
				}
			}
		})
	}
}

// bomb is YAML whose aliases would make 9^9 values.
func bomb() string {
	var b strings.Builder
	b.WriteString("a0: &a0 [x]\n")
	for i := 1; i < 10; i++ {
		fmt.Fprintf(&b, "a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 9), ", "))
	}
	return b.String()
}

func TestLint(t *testing.T) {
	scripts := map[string]string{
		"solution.sh": "#@ on pod-a\ntrue\n", "undo.sh": "#@ on pod-a\ntrue\n", "wrong-a.sh": "#@ red listens\n#@ on pod-a\ntrue\n",
	}
	swap := func(from, to string) map[string]string {
		return map[string]string{"exercise.yaml": strings.Replace(goodYAML, from, to, 1)}
	}
	both := func(text string) map[string]string {
		return map[string]string{"lesson.en.md": text + "\n{{task \"one\"}}\n", "lesson.ko.md": text + "\n{{task \"one\"}}\n"}
	}
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  string // empty: clean
	}{
		{"clean", nil, ""},
		{"clean with a command", both("```sh {target=pod-a/app}\nls\n```\n"), ""},
		{"no such pod", both("```sh {target=pod-z}\nls\n```\n"), `lesson.ko.md:1: command for pod-z: there is no pod "default/pod-z"; there are: default/pod-a`},
		{"no such container", both("```sh {target=pod-a/web}\nls\n```\n"), `pod pod-a has no container "web"; it has: app`},
		{"no such node", both("```sh {target=node:node7}\nls\n```\n"), `there is no node "node7"; there are: node1, node2`},
		{"commands differ", map[string]string{"lesson.en.md": "```sh {target=pod-a}\nls\n```\n{{task \"one\"}}\n"}, "the Korean lesson lacks this command"},
		{"Korean missing", swap("ko: 듣는다", "ko: listens"), "title of check listens: the Korean text has no Korean"},
		{"English missing", swap("en: listens", "en: 듣는다"), "title of check listens: the English text has Korean"},
		{"passes on nothing", swap(`listening(pod("pod-a"), 80)`, `size(pods) == 0`), "check listens passes in a lab where nothing is"},
		{"cannot be evaluated", swap(`listening(pod("pod-a"), 80)`, `1 / size(pods) == 1`), "check listens cannot be evaluated"},
		{"no solution", map[string]string{"solution.sh": ""}, ""},
		{"wrong answer without red", map[string]string{"wrong-a.sh": "#@ on pod-a\ntrue\n"}, "wrong-a.sh: says not which checks must stay red"},
		{"unknown red", map[string]string{"wrong-a.sh": "#@ red nothing\n"}, `wrong-a.sh:1: there is no check "nothing"; there are: listens`},
		{"script without a place", map[string]string{"solution.sh": "#!/bin/bash\nls\n"}, "solution.sh:2: this line has no place to run in"},
		{"script of an unknown pod", map[string]string{"solution.sh": "#@ on node-of:pod-z\nls\n"}, `solution.sh:1: there is no pod "default/pod-z"`},
		{"unknown directive", map[string]string{"undo.sh": "#@ run pod-a\n"}, `undo.sh:1: "run" is no directive`},
		{"no such manifest", map[string]string{"undo.sh": "#@ apply x.yaml\n"}, `undo.sh:1: there is no file "x.yaml"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			files := maps.Clone(scripts)
			maps.Copy(files, tt.files)
			course, err := Load(good(files))
			if err != nil {
				t.Fatal(err)
			}
			got := course.Lint()
			switch {
			case tt.want == "" && len(got) > 0:
				t.Errorf("found: %v", got)
			case tt.want != "" && !strings.Contains(got.Error(), tt.want):
				t.Errorf("found:\n%v\nwanted in it: %s", got, tt.want)
			}
		})
	}
}

func TestLessonHTML(t *testing.T) {
	course, err := Load(good(map[string]string{
		"lesson.en.md": "## Hi & <\n\n```sh {target=pod-a/app}\necho \"<b>\"\n```\n\n```yaml {file=pod.yaml}\n```\n\n:::predict Why \"so\"?\nBecause *so*.\n\n{{task \"one\"}}\n:::\n\n[x](https://example.org/)\n",
		"pod.yaml":     "kind: Pod\nmetadata: {name: x}\n",
	}))
	if err == nil {
		t.Log("loaded")
	}
	if course == nil || len(course.Exercises) == 0 {
		t.Fatal(err)
	}
	html := course.Get("01-a").Lesson.EN
	for _, want := range []string{
		`<pre data-run="pod-a/app"><code class="language-sh">echo &#34;&lt;b&gt;&#34;</code></pre>`,
		`<pre data-apply="pod.yaml"><code class="language-yaml">kind: Pod` + "\n" + `metadata: {name: x}</code></pre>`,
		`<details class="predict"><summary>Why &#34;so&#34;?</summary>`,
		`<em>so</em>`, `<div data-task="one"></div>`, `</details>`,
		`<a href="https://example.org/" target="_blank" rel="noopener noreferrer">x</a>`,
	} {
		if !strings.Contains(html, want) {
			t.Errorf("lesson is\n%s\nwanted in it: %s", html, want)
		}
	}
}
