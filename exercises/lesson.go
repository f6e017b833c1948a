package exercises

import (
	"bytes"
	"fmt"
	"html"
	"regexp"
	"strings"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/parser"
	"github.com/yuin/goldmark/renderer"
	"github.com/yuin/goldmark/text"
	"github.com/yuin/goldmark/util"

	"podlab/lab"
)

// Lessons are CommonMark with tables and four things of our own:
//
//	```sh {target=pod-a}     a command to click, run in pod-a
//	```yaml {file=x.yaml}    a manifest to open in the editor; an empty block
//	                         shows the folder's file of that name
//	{{task "id"}}            on a line of its own: here stand the task's checks
//	:::fold Summary          folded text, up to a line ":::"; also
//	:::predict Question      a question to answer before going on, its answer folded
//	:::note                  an aside
//
// Raw HTML is refused, so a lesson can be trusted in the page.

// command is a block of a lesson that a learner clicks.
type command struct {
	file   string
	line   int
	target lab.Target // of a command
	apply  string     // name of a manifest
	text   string
}

// renderLesson makes the lesson's HTML.
func renderLesson(e *Exercise, file string, source []byte) (string, []command, Problems) {
	r := &lessonRenderer{exercise: e, file: file, source: source, tasks: map[string]int{}}
	md := goldmark.New(
		goldmark.WithExtensions(extension.Table, extension.Strikethrough),
		goldmark.WithParserOptions(parser.WithBlockParsers(
			util.Prioritized(taskParser{}, 90),
			util.Prioritized(boxParser{}, 95),
		)),
		goldmark.WithRendererOptions(renderer.WithNodeRenderers(util.Prioritized(r, 100))),
	)
	doc := md.Parser().Parse(text.NewReader(source))
	r.inspect(doc)
	var out bytes.Buffer
	if err := md.Renderer().Render(&out, source, doc); err != nil {
		r.report(doc, "cannot be rendered: %v", err)
	}
	for _, t := range e.Tasks {
		if r.tasks[t.ID] != 1 {
			r.problems = append(r.problems, Problem{File: file, Message: fmt.Sprintf("places task %q %d times; {{task %q}} is wanted once", t.ID, r.tasks[t.ID], t.ID)})
		}
	}
	return out.String(), r.commands, r.problems
}

// lessonRenderer renders our own blocks and keeps what lint needs.
type lessonRenderer struct {
	exercise *Exercise
	file     string
	source   []byte
	tasks    map[string]int
	commands []command
	problems Problems
}

func (r *lessonRenderer) report(n ast.Node, format string, args ...any) {
	r.problems = append(r.problems, Problem{File: r.file, Line: r.line(n), Message: fmt.Sprintf(format, args...)})
}

// line is where a node begins, or 0.
func (r *lessonRenderer) line(n ast.Node) int {
	for ; n != nil; n = n.Parent() {
		if n.Type() == ast.TypeInline {
			continue
		}
		offset := -1
		switch b := n.(type) {
		case *taskBlock:
			offset = b.offset
		case *ast.FencedCodeBlock:
			if b.Info != nil {
				offset = b.Info.Segment.Start
			}
		}
		if offset < 0 && n.Lines() != nil && n.Lines().Len() > 0 {
			offset = n.Lines().At(0).Start
		}
		if offset >= 0 {
			return 1 + bytes.Count(r.source[:offset], []byte("\n"))
		}
	}
	return 0
}

// inspect reports what may not be in a lesson, and opens links in a new tab.
func (r *lessonRenderer) inspect(doc ast.Node) {
	_ = ast.Walk(doc, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		switch n := n.(type) {
		case *ast.HTMLBlock, *ast.RawHTML:
			r.report(n, "raw HTML is not allowed in a lesson")
		case *ast.Image:
			r.report(n, "images are not allowed in a lesson; the live map is the picture")
		case *ast.Heading:
			if n.Level == 1 {
				r.report(n, "a lesson begins at ##; the title is the page's")
			}
		case *ast.Link:
			if !bytes.HasPrefix(n.Destination, []byte("https://")) {
				r.report(n, "link to %q; https:// is wanted", n.Destination)
			}
			n.SetAttributeString("target", []byte("_blank"))
			n.SetAttributeString("rel", []byte("noopener noreferrer"))
		}
		return ast.WalkContinue, nil
	})
}

// RegisterFuncs implements renderer.NodeRenderer.
func (r *lessonRenderer) RegisterFuncs(reg renderer.NodeRendererFuncRegisterer) {
	reg.Register(ast.KindFencedCodeBlock, r.code)
	reg.Register(kindTask, r.task)
	reg.Register(kindBox, r.box)
}

var fenceInfo = regexp.MustCompile(`^([a-z]*)\s*(?:\{\s*(?:(target|file)=([^\s{}]+))?\s*\})?\s*$`)

func (r *lessonRenderer) code(w util.BufWriter, source []byte, node ast.Node, entering bool) (ast.WalkStatus, error) {
	if !entering {
		return ast.WalkContinue, nil
	}
	n := node.(*ast.FencedCodeBlock)
	info := ""
	if n.Info != nil {
		info = string(n.Info.Segment.Value(source))
	}
	m := fenceInfo.FindStringSubmatch(info)
	if m == nil {
		r.report(n, "%q after ``` is not understood; LANGUAGE {target=PLACE} or LANGUAGE {file=NAME} is wanted", info)
		return ast.WalkSkipChildren, nil
	}
	body := string(n.Lines().Value(source))
	attribute := ""
	c := command{file: r.file, line: r.line(n), text: strings.TrimRight(body, "\n")}
	switch m[2] {
	case "target":
		c.target = lab.Target(m[3])
		attribute = ` data-run="` + html.EscapeString(m[3]) + `"`
		if c.text == "" {
			r.report(n, "the command for %s is empty", m[3])
		}
	case "file":
		c.apply = m[3]
		attribute = ` data-apply="` + html.EscapeString(m[3]) + `"`
		if given, ok := r.exercise.Files[m[3]]; c.text == "" {
			if !ok {
				r.report(n, "there is no %q to show; there are: %s", m[3], orNone(sortedKeys(r.exercise.Files)))
			}
			body = given
		} else if ok {
			r.report(n, "%q is a file of the folder; leave the block empty to show it, or take another name", m[3])
		}
	}
	if attribute != "" {
		r.commands = append(r.commands, c)
	}
	language := ""
	if m[1] != "" {
		language = ` class="language-` + m[1] + `"`
	}
	_, err := fmt.Fprintf(w, "<pre%s><code%s>%s</code></pre>\n", attribute, language, html.EscapeString(strings.TrimRight(body, "\n")))
	return ast.WalkSkipChildren, err
}

// taskBlock is {{task "id"}}.
type taskBlock struct {
	ast.BaseBlock
	id     string
	offset int
}

var kindTask = ast.NewNodeKind("Task")

// Kind implements ast.Node.
func (*taskBlock) Kind() ast.NodeKind { return kindTask }

// Dump implements ast.Node.
func (t *taskBlock) Dump(source []byte, level int) {
	ast.DumpHelper(t, source, level, map[string]string{"id": t.id}, nil)
}

type taskParser struct{}

var taskLine = regexp.MustCompile(`^\{\{\s*task\s+"([^"]*)"\s*\}\}\s*$`)

func (taskParser) Trigger() []byte { return []byte{'{'} }

func (taskParser) Open(_ ast.Node, reader text.Reader, _ parser.Context) (ast.Node, parser.State) {
	line, segment := reader.PeekLine()
	m := taskLine.FindSubmatch(bytes.TrimSpace(line))
	if m == nil {
		return nil, parser.NoChildren
	}
	reader.AdvanceToEOL()
	return &taskBlock{id: string(m[1]), offset: segment.Start}, parser.NoChildren
}

func (taskParser) Continue(ast.Node, text.Reader, parser.Context) parser.State { return parser.Close }
func (taskParser) Close(ast.Node, text.Reader, parser.Context)                 {}
func (taskParser) CanInterruptParagraph() bool                                 { return true }
func (taskParser) CanAcceptIndentedLine() bool                                 { return false }

func (r *lessonRenderer) task(w util.BufWriter, _ []byte, node ast.Node, entering bool) (ast.WalkStatus, error) {
	if !entering {
		return ast.WalkContinue, nil
	}
	n := node.(*taskBlock)
	r.tasks[n.id]++
	if r.exercise.Task(n.id) == nil {
		r.report(n, "there is no task %q; there are: %s", n.id, orNone(r.exercise.taskIDs()))
	}
	_, err := fmt.Fprintf(w, "<div data-task=\"%s\"></div>\n", html.EscapeString(n.id))
	return ast.WalkContinue, err
}

func (e *Exercise) taskIDs() []string {
	ids := make([]string, len(e.Tasks))
	for i := range e.Tasks {
		ids[i] = e.Tasks[i].ID
	}
	return ids
}

// boxBlock is :::KIND TITLE … :::.
type boxBlock struct {
	ast.BaseBlock
	kind, title string
}

var kindBox = ast.NewNodeKind("Box")

// Kind implements ast.Node.
func (*boxBlock) Kind() ast.NodeKind { return kindBox }

// Dump implements ast.Node.
func (b *boxBlock) Dump(source []byte, level int) {
	ast.DumpHelper(b, source, level, map[string]string{"kind": b.kind, "title": b.title}, nil)
}

type boxParser struct{}

var boxLine = regexp.MustCompile(`^:::(fold|predict|note)(?:\s+(.*))?$`)

func (boxParser) Trigger() []byte { return []byte{':'} }

func (boxParser) Open(_ ast.Node, reader text.Reader, _ parser.Context) (ast.Node, parser.State) {
	line, _ := reader.PeekLine()
	m := boxLine.FindSubmatch(bytes.TrimSpace(line))
	if m == nil {
		return nil, parser.NoChildren
	}
	reader.AdvanceToEOL()
	return &boxBlock{kind: string(m[1]), title: strings.TrimSpace(string(m[2]))}, parser.HasChildren
}

func (boxParser) Continue(_ ast.Node, reader text.Reader, _ parser.Context) parser.State {
	line, _ := reader.PeekLine()
	if string(bytes.TrimSpace(line)) == ":::" {
		reader.AdvanceToEOL()
		return parser.Close
	}
	return parser.Continue | parser.HasChildren
}

func (boxParser) Close(ast.Node, text.Reader, parser.Context) {}
func (boxParser) CanInterruptParagraph() bool                 { return true }
func (boxParser) CanAcceptIndentedLine() bool                 { return false }

func (r *lessonRenderer) box(w util.BufWriter, _ []byte, node ast.Node, entering bool) (ast.WalkStatus, error) {
	n := node.(*boxBlock)
	var err error
	switch {
	case n.kind == "note" && entering:
		_, err = w.WriteString("<aside class=\"note\">\n")
	case n.kind == "note":
		_, err = w.WriteString("</aside>\n")
	case entering:
		if n.title == "" {
			r.report(n, ":::%s wants a title on its line", n.kind)
		}
		_, err = fmt.Fprintf(w, "<details class=\"%s\"><summary>%s</summary>\n", n.kind, html.EscapeString(n.title))
	default:
		_, err = w.WriteString("</details>\n")
	}
	return ast.WalkContinue, err
}
