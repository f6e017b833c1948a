package exercises

import (
	"fmt"
	"reflect"
	"slices"
	"sort"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

const (
	maxFile  = 256 << 10 // bytes of one file of an exercise
	maxDepth = 24        // of nesting in exercise.yaml
)

// Problem is one thing wrong with an exercise, at its place.
type Problem struct {
	// File within the exercises' folder: "01-name/exercise.yaml".
	File string
	// Line is 1-based; 0 where there is none.
	Line int
	// Field is a path such as "tasks[0].checks[1].expr", or empty.
	Field   string
	Message string
}

// Error is "FILE:LINE: FIELD: MESSAGE".
func (p Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		b.WriteString(":" + strconv.Itoa(p.Line))
	}
	if p.Field != "" {
		b.WriteString(": " + p.Field)
	}
	return b.String() + ": " + p.Message
}

// Problems are all that is wrong; as an error they print one a line.
type Problems []Problem

// Error prints one problem a line.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i := range p {
		lines[i] = p[i].Error()
	}
	return strings.Join(lines, "\n")
}

// decoder reads one YAML document into a struct, strictly: every field must be
// known by its json tag and be of its type, fields tagged need:"true" must be
// there, and anchors and aliases are refused, so that no document is larger
// in memory than on disk. All that is wrong is reported, not only the first.
type decoder struct {
	file     string
	problems Problems
	// lines of the fields by path, for problems found later.
	lines map[string]int
}

func decodeYAML(file string, data []byte, into any) (map[string]int, Problems) {
	d := &decoder{file: file, lines: map[string]int{}}
	if len(data) > maxFile {
		return nil, Problems{{File: file, Message: fmt.Sprintf("has %d bytes; at most %d are allowed", len(data), maxFile)}}
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return nil, Problems{{File: file, Message: strings.TrimPrefix(err.Error(), "yaml: ")}}
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		return nil, Problems{{File: file, Message: "is empty; a mapping is wanted"}}
	}
	d.value(doc.Content[0], reflect.ValueOf(into).Elem(), "", 0)
	return d.lines, d.problems
}

func (d *decoder) report(n *yaml.Node, path, format string, args ...any) {
	d.problems = append(d.problems, Problem{File: d.file, Line: n.Line, Field: path, Message: fmt.Sprintf(format, args...)})
}

func (d *decoder) value(n *yaml.Node, to reflect.Value, path string, depth int) {
	d.lines[path] = n.Line
	if n.Style == yaml.LiteralStyle || n.Style == yaml.FoldedStyle {
		d.lines[path]++ // the text begins on the line after the | or >
	}
	switch {
	case depth > maxDepth:
		d.report(n, path, "is nested more than %d deep", maxDepth)
		return
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		d.report(n, path, "anchors and aliases are not allowed")
		return
	}
	switch to.Kind() {
	case reflect.Pointer:
		to.Set(reflect.New(to.Type().Elem()))
		d.value(n, to.Elem(), path, depth)
	case reflect.Struct:
		d.mapping(n, path, func(key, value *yaml.Node, at string) { d.field(key, value, to, at, path, depth) })
		d.needed(n, to, path)
	case reflect.Map:
		to.Set(reflect.MakeMap(to.Type()))
		d.mapping(n, path, func(key, value *yaml.Node, at string) {
			elem := reflect.New(to.Type().Elem()).Elem()
			d.value(value, elem, at, depth+1)
			to.SetMapIndex(reflect.ValueOf(key.Value).Convert(to.Type().Key()), elem)
		})
	case reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			d.report(n, path, "is %s; a list is wanted", kindOf(n))
			return
		}
		to.Set(reflect.MakeSlice(to.Type(), len(n.Content), len(n.Content)))
		for i, item := range n.Content {
			d.value(item, to.Index(i), fmt.Sprintf("%s[%d]", path, i), depth+1)
		}
	default:
		d.scalar(n, to, path)
	}
}

func (d *decoder) mapping(n *yaml.Node, path string, each func(key, value *yaml.Node, at string)) {
	if n.Kind != yaml.MappingNode {
		d.report(n, path, "is %s; a mapping is wanted", kindOf(n))
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		at := strings.TrimPrefix(path+"."+key.Value, ".")
		switch {
		case key.Kind != yaml.ScalarNode || key.Tag != "!!str":
			d.report(key, path, "has a key that is %s; a word is wanted", kindOf(key))
		case seen[key.Value]:
			d.report(key, at, "is given twice")
		default:
			seen[key.Value] = true
			each(key, value, at)
		}
	}
}

func (d *decoder) field(key, value *yaml.Node, to reflect.Value, at, path string, depth int) {
	var known []string
	for _, f := range reflect.VisibleFields(to.Type()) {
		name := jsonName(f)
		if name == "" {
			continue
		}
		if name == key.Value {
			d.value(value, to.FieldByIndex(f.Index), at, depth+1)
			return
		}
		known = append(known, name)
	}
	sort.Strings(known)
	d.report(key, at, "unknown field; allowed in %s are: %s", orTop(path), strings.Join(known, ", "))
}

func (d *decoder) needed(n *yaml.Node, to reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		return
	}
	for _, f := range reflect.VisibleFields(to.Type()) {
		name := jsonName(f)
		if f.Tag.Get("need") != "true" || name == "" {
			continue
		}
		given := slices.ContainsFunc(n.Content, func(k *yaml.Node) bool { return k.Value == name })
		if v := to.FieldByIndex(f.Index); !given || v.Kind() == reflect.String && strings.TrimSpace(v.String()) == "" {
			d.report(n, strings.TrimPrefix(path+"."+name, "."), "is missing")
		}
	}
}

func (d *decoder) scalar(n *yaml.Node, to reflect.Value, path string) {
	want := map[reflect.Kind]string{reflect.String: "!!str", reflect.Int: "!!int", reflect.Bool: "!!bool"}[to.Kind()]
	if n.Kind != yaml.ScalarNode || n.Tag != want {
		d.report(n, path, "is %s; %s is wanted", kindOf(n), map[string]string{
			"!!str": "a text (in quotes if it looks like a number)", "!!int": "a whole number", "!!bool": "true or false",
		}[want])
		return
	}
	switch to.Kind() {
	case reflect.String:
		to.SetString(n.Value)
	case reflect.Bool:
		to.SetBool(n.Value == "true")
	case reflect.Int:
		i, err := strconv.ParseInt(n.Value, 10, 32)
		if err != nil {
			d.report(n, path, "is %q; a whole number is wanted", n.Value)
			return
		}
		to.SetInt(i)
	}
}

func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	if !f.IsExported() || name == "-" {
		return ""
	}
	return name
}

func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	switch n.Tag {
	case "!!null":
		return "empty"
	case "!!int", "!!float":
		return fmt.Sprintf("the number %s", n.Value)
	case "!!bool":
		return fmt.Sprintf("the truth value %s", n.Value)
	}
	return fmt.Sprintf("the text %.40q", n.Value)
}

func orTop(path string) string {
	if path == "" {
		return "the exercise"
	}
	return path
}
