package check

import (
	"fmt"
	"strings"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
)

// texts is a template in each language.
type texts struct{ ko, en template }

func (t texts) render(vars map[string]any) Text {
	return Text{KO: t.ko.render(vars), EN: t.en.render(vars)}
}

// template is text with holes; a part is either text or an expression.
type template []templatePart

type templatePart struct {
	text string
	expr cel.Program
}

// template compiles text with ${EXPRESSION} holes; "$${" stands for "${".
func (e *env) template(field, text string, used map[string]bool) (template, error) {
	var out template
	for rest := text; rest != ""; {
		i := strings.Index(rest, "${")
		if i < 0 {
			out = append(out, templatePart{text: rest})
			break
		}
		if i > 0 && rest[i-1] == '$' {
			out = append(out, templatePart{text: rest[:i-1] + "${"})
			rest = rest[i+2:]
			continue
		}
		if i > 0 {
			out = append(out, templatePart{text: rest[:i]})
		}
		end := holeEnd(rest[i+2:])
		if end < 0 {
			return nil, &SpecError{Field: field, Message: "a ${ has no }"}
		}
		program, err := e.compile(field, rest[i+2:i+2+end], nil, used)
		if err != nil {
			return nil, err
		}
		out = append(out, templatePart{expr: program})
		rest = rest[i+2+end+1:]
	}
	return out, nil
}

// holeEnd is the index of the } that ends a hole, outside of CEL's quotes and
// inner braces, or -1.
func holeEnd(s string) int {
	depth, quote := 0, byte(0)
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case quote != 0 && c == '\\':
			i++
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'':
			quote = c
		case c == '{':
			depth++
		case c == '}' && depth == 0:
			return i
		case c == '}':
			depth--
		}
	}
	return -1
}

// render fills the holes. What is not there shows as "–".
func (t template) render(vars map[string]any) string {
	var b strings.Builder
	for _, part := range t {
		if part.expr == nil {
			b.WriteString(part.text)
			continue
		}
		value, _, err := part.expr.Eval(vars)
		switch {
		case err != nil:
			b.WriteString("–")
		default:
			if s, ok := value.ConvertToType(types.StringType).(types.String); ok {
				b.WriteString(orDash(string(s)))
			} else {
				b.WriteString(orDash(fmt.Sprint(value.Value())))
			}
		}
		if b.Len() > 4*maxText {
			break
		}
	}
	return clean(b.String())
}

func orDash(s string) string {
	if strings.TrimSpace(s) == "" {
		return "–"
	}
	return s
}
