// Package check compiles and evaluates the checks of exercises: CEL
// expressions over lab.Facts. It is pure: it reads neither kernel nor clock,
// and the same facts always give the same result.
//
// A check is compiled once, when its exercise is loaded, and every error in
// it is found then. Evaluation is bounded in cost. All types are safe for
// concurrent use once made.
package check

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/ext"

	"podlab/lab"
)

const (
	// costLimit bounds one evaluation, in CEL's cost units. A check over a lab
	// of 100 pods costs some ten thousand.
	costLimit = 2_000_000
	// maxExpression bounds the text of one expression, in characters.
	maxExpression = 4096
	// maxText bounds what a result says it saw, in bytes.
	maxText = 1024
)

// Text is a text in the languages of the course.
type Text struct {
	KO string `json:"ko" yaml:"ko"`
	EN string `json:"en" yaml:"en"`
}

// In is the text in a language, "ko" or "en".
func (t Text) In(lang string) string {
	if lang == "ko" {
		return t.KO
	}
	return t.EN
}

// Outcome of a check.
type Outcome string

// The outcomes. Fail is "the learner is not there yet"; Error is "the checker
// could not run", which is never the learner's fault.
const (
	Pass  Outcome = "pass"
	Fail  Outcome = "fail"
	Error Outcome = "error"
)

// Result of one evaluation of a check.
type Result struct {
	Outcome Outcome `json:"outcome"`
	// Want says what is expected, Got what was seen, Hint what to try.
	Want Text `json:"want"`
	Got  Text `json:"got"`
	Hint Text `json:"hint"`
}

// Spec is what an author writes of a check. Want, Saw and Hint are templates:
// ${EXPRESSION} in them is replaced by what the expression gives.
type Spec struct {
	Expr            string
	Want, Saw, Hint Text
	// Probes by the id that Expr uses: probes.ID.
	Probes map[string]lab.Probe
}

// SpecError says which part of a Spec is wrong.
type SpecError struct {
	// Field is "expr", "want.ko", "saw.en", "probes.web" and the like.
	Field string
	// Line and Column are 1-based places in the field's text, or 0.
	Line, Column int
	Message      string
}

// Error is the message after the field.
func (e *SpecError) Error() string { return e.Field + ": " + e.Message }

// Check is a compiled Spec.
type Check struct {
	expr            cel.Program
	want, saw, hint texts
	probes          []string
	request         map[string]lab.Probe
}

// Probes are the probes whose results Eval needs in the facts.
func (c *Check) Probes() map[string]lab.Probe { return c.request }

// Compile checks all of the spec. The error is a *SpecError.
func Compile(spec Spec) (*Check, error) {
	e, err := theEnv()
	if err != nil {
		return nil, err
	}
	c := &Check{request: spec.Probes}
	for id, probe := range spec.Probes {
		if err := probe.Validate(); err != nil {
			return nil, &SpecError{Field: "probes." + id, Message: err.Error()}
		}
		c.probes = append(c.probes, id)
	}
	slices.Sort(c.probes)
	used := map[string]bool{}
	if c.expr, err = e.compile("expr", spec.Expr, cel.BoolType, used); err != nil {
		return nil, err
	}
	for _, t := range []struct {
		name string
		text Text
		to   *texts
	}{{"want", spec.Want, &c.want}, {"saw", spec.Saw, &c.saw}, {"hint", spec.Hint, &c.hint}} {
		if t.to.ko, err = e.template(t.name+".ko", t.text.KO, used); err != nil {
			return nil, err
		}
		if t.to.en, err = e.template(t.name+".en", t.text.EN, used); err != nil {
			return nil, err
		}
	}
	for id := range used {
		if _, ok := spec.Probes[id]; !ok {
			return nil, &SpecError{Field: "expr", Message: fmt.Sprintf("probe %q is not declared; declared are: %s", id, orNone(c.probes))}
		}
	}
	for _, id := range c.probes {
		if !used[id] {
			return nil, &SpecError{Field: "probes." + id, Message: "no expression uses this probe"}
		}
	}
	return c, nil
}

// Eval evaluates the check. It never panics and always ends; a fact that is
// not there (no such pod yet) is a Fail, anything else that goes wrong an Error.
func (c *Check) Eval(facts lab.Facts) Result {
	vars := variables(facts)
	result := Result{Want: c.want.render(vars), Hint: c.hint.render(vars)}
	for _, id := range c.probes {
		switch got, ok := facts.Probes[id]; {
		case !ok:
			result.Outcome = Error
			result.Got = Text{KO: "확인하지 못했습니다: 시험 " + id + "의 결과가 없습니다", EN: "could not check: no result of probe " + id}
			return result
		case got.Skipped != "":
			result.Outcome = Fail
			result.Got = Text{KO: "아직 시험할 수 없습니다: " + clean(got.Skipped), EN: "cannot be tried yet: " + clean(got.Skipped)}
			return result
		}
	}
	value, err := evaluate(c.expr, vars)
	switch passed, isBool := value.(bool); {
	case missing(err):
		result.Outcome = Fail
		what := strings.TrimPrefix(err.Error(), noSuchKey)
		result.Got = Text{KO: "아직 없습니다: " + clean(what), EN: "not there yet: " + clean(what)}
		return result
	case err != nil:
		result.Outcome = Error
		result.Got = Text{KO: "확인하지 못했습니다: " + clean(err.Error()), EN: "could not check: " + clean(err.Error())}
		return result
	case isBool && passed:
		result.Outcome = Pass
	default:
		result.Outcome = Fail
	}
	result.Got = c.saw.render(vars)
	return result
}

// CouldNotRun is the result of a check for which no facts could be had.
func (c *Check) CouldNotRun(why string) Result {
	none := variables(lab.Facts{})
	return Result{
		Outcome: Error, Want: c.want.render(none), Hint: c.hint.render(none),
		Got: Text{KO: "확인하지 못했습니다: " + clean(why), EN: "could not check: " + clean(why)},
	}
}

const noSuchKey = "no such key: "

// missing reports whether an expression failed because a fact is not there.
func missing(err error) bool {
	return err != nil && (strings.HasPrefix(err.Error(), noSuchKey) || strings.HasPrefix(err.Error(), "index out of bounds"))
}

// clean makes text from a lab fit to show: printable, bounded.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n':
			return r
		case r < 0x20 || r == 0x7f || r == 0xfffd:
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") + "…"
	}
	return strings.TrimSpace(s)
}

func orNone(ids []string) string {
	if len(ids) == 0 {
		return "none"
	}
	return strings.Join(ids, ", ")
}

// env is the CEL environment of all checks; making one takes milliseconds, so
// it is made once, and not before it is needed: the agent is the same binary.
type env struct{ cel *cel.Env }

var theEnv = sync.OnceValues(func() (*env, error) {
	p, err := newProvider()
	if err != nil {
		return nil, err
	}
	options := []cel.EnvOption{
		cel.CustomTypeAdapter(p), cel.CustomTypeProvider(p),
		cel.ParserExpressionSizeLimit(maxExpression), cel.ParserRecursionLimit(64),
		ext.Strings(), ext.Sets(), cel.OptionalTypes(),
	}
	facts := p.byName["lab.Facts"]
	for _, name := range facts.names {
		if name == "state" {
			// state() is also a function; the variable keeps the JSON name.
			options = append(options, cel.Variable("state", facts.fields[name].Type))
			continue
		}
		options = append(options, cel.Variable(name, facts.fields[name].Type))
	}
	more, err := functions(p)
	if err != nil {
		return nil, err
	}
	e, err := cel.NewEnv(append(options, more...)...)
	if err != nil {
		return nil, fmt.Errorf("cannot make the environment of checks: %w", err)
	}
	return &env{cel: e}, nil
})

func variables(f lab.Facts) map[string]any {
	if f.Pods == nil {
		f.Pods = map[string]lab.PodFacts{}
	}
	if f.Nodes == nil {
		f.Nodes = map[string]lab.ProcessFacts{}
	}
	if f.Probes == nil {
		f.Probes = map[string]lab.ProbeResult{}
	}
	return map[string]any{"state": f.State, "pods": f.Pods, "nodes": f.Nodes, "probes": f.Probes}
}

// compile compiles one expression of the wanted type and notes the probes
// that it names in used.
func (e *env) compile(field, text string, want *cel.Type, used map[string]bool) (cel.Program, error) {
	if strings.TrimSpace(text) == "" {
		return nil, &SpecError{Field: field, Message: "is empty; a CEL expression is wanted"}
	}
	checked, issues := e.cel.Compile(text)
	if issues != nil && issues.Err() != nil {
		first := issues.Errors()[0]
		return nil, &SpecError{Field: field, Line: first.Location.Line(), Column: first.Location.Column() + 1, Message: first.Message}
	}
	if want != nil && !checked.OutputType().IsExactType(want) {
		return nil, &SpecError{Field: field, Message: fmt.Sprintf("gives %s; %s is wanted", checked.OutputType(), want)}
	}
	ast.PostOrderVisit(checked.NativeRep().Expr(), ast.NewExprVisitor(func(x ast.Expr) {
		if id := probeNamed(x); id != "" {
			used[id] = true
		}
	}))
	program, err := e.cel.Program(checked, cel.CostLimit(costLimit), cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		return nil, &SpecError{Field: field, Message: err.Error()}
	}
	return program, nil
}

// probeNamed is ID in probes.ID and probes["ID"].
func probeNamed(x ast.Expr) string {
	isProbes := func(x ast.Expr) bool { return x.Kind() == ast.IdentKind && x.AsIdent() == "probes" }
	switch x.Kind() {
	case ast.SelectKind:
		if isProbes(x.AsSelect().Operand()) {
			return x.AsSelect().FieldName()
		}
	case ast.CallKind:
		if call := x.AsCall(); call.FunctionName() == "_[_]" && isProbes(call.Args()[0]) && call.Args()[1].Kind() == ast.LiteralKind {
			id, _ := call.Args()[1].AsLiteral().Value().(string)
			return id
		}
	}
	return ""
}

func evaluate(p cel.Program, vars map[string]any) (any, error) {
	value, _, err := p.Eval(vars)
	if err != nil {
		return nil, err
	}
	return value.Value(), nil
}
