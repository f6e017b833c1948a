package kube

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"podlab/lab"
)

// Limits of one manifest.
const (
	MaxManifestBytes = 1 << 20
	maxDocuments     = 500
	maxYAMLNodes     = 100_000 // after aliases are followed
	maxYAMLDepth     = 100
)

// Document is one object of a manifest with its place in the text.
type Document struct {
	APIVersion, Kind string
	Namespace, Name  string
	// Line is where the document begins, from 1.
	Line int
	// JSON of the whole document.
	JSON []byte

	node *yaml.Node // the document's mapping
}

// ParseManifest takes YAML or JSON apart into its documents; a List gives one
// for each item. The errors have lines; with any of them there are no documents.
func ParseManifest(text []byte) ([]Document, []*lab.Error) {
	if len(text) > MaxManifestBytes {
		return nil, []*lab.Error{lab.Errorf(lab.CodeLimit, "the manifest is %d bytes; at most %d are taken", len(text), MaxManifestBytes)}
	}
	var docs []Document
	var errs []*lab.Error
	dec := yaml.NewDecoder(bytes.NewReader(text))
	budget := maxYAMLNodes
	for {
		var root yaml.Node
		err := dec.Decode(&root)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, append(errs, syntaxError(err))
		}
		if len(root.Content) == 0 || root.Content[0].Kind == yaml.ScalarNode && root.Content[0].Tag == "!!null" {
			continue // between two ---
		}
		found, bad := documentsOf(root.Content[0], &budget)
		docs, errs = append(docs, found...), append(errs, bad...)
		if len(docs) > maxDocuments {
			return nil, []*lab.Error{lab.Errorf(lab.CodeLimit, "the manifest has more than %d documents", maxDocuments)}
		}
	}
	if len(errs) > 0 {
		return nil, errs
	}
	if len(docs) == 0 {
		return nil, []*lab.Error{lab.Errorf(lab.CodeInvalid, "the manifest has no documents")}
	}
	return docs, nil
}

var lineOfSyntax = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

func syntaxError(err error) *lab.Error {
	e := lab.Errorf(lab.CodeInvalid, "%s", err)
	if m := lineOfSyntax.FindStringSubmatch(err.Error()); m != nil {
		e.Message = "this is no YAML: " + m[2]
		e.Line, _ = strconv.Atoi(m[1]) // 0 without a line
		if e.Line > 0 && slices.Contains(parserMessages, m[2]) {
			e.Line++
		}
	}
	return e
}

// parserMessages are the errors of the YAML package's parser, whose lines it
// counts from 0, unlike those of its scanner.
var parserMessages = []string{
	"did not find expected ',' or ']'", "did not find expected ',' or '}'", "did not find expected key",
	"did not find expected '-' indicator", "did not find expected node content", "did not find expected <document start>",
	"found undefined tag handle",
}

func documentsOf(n *yaml.Node, budget *int) ([]Document, []*lab.Error) {
	n = follow(n)
	if n.Kind != yaml.MappingNode {
		return nil, []*lab.Error{at(n, lab.Errorf(lab.CodeInvalid, "a document must be an object with apiVersion and kind; here is %s", kindName(n)))}
	}
	c := converter{budget: budget}
	value := c.value(n, 0)
	if c.err != nil {
		return nil, []*lab.Error{c.err}
	}
	object, ok := value.(map[string]any)
	if !ok {
		return nil, []*lab.Error{at(n, lab.Errorf(lab.CodeInvalid, "a document must be an object"))}
	}
	d := Document{Line: n.Line, node: n}
	d.APIVersion, _ = object["apiVersion"].(string)
	d.Kind, _ = object["kind"].(string)
	if items := child(n, "items"); d.Kind == "List" && items != nil && items.Kind == yaml.SequenceNode {
		return documentsOfList(items, budget)
	}
	if meta, ok := object["metadata"].(map[string]any); ok {
		d.Name, _ = meta["name"].(string)
		d.Namespace, _ = meta["namespace"].(string)
	}
	var errs []*lab.Error
	for field, v := range map[string]string{"apiVersion": d.APIVersion, "kind": d.Kind} {
		if v == "" {
			errs = append(errs, d.errorAt(lab.CodeInvalid, field, "must be set, for example %s", map[string]string{"apiVersion": "v1", "kind": "Pod"}[field]))
		}
	}
	slices.SortFunc(errs, func(a, b *lab.Error) int { return strings.Compare(a.Field, b.Field) })
	if d.Kind != "" && d.Name == "" {
		errs = append(errs, d.errorAt(lab.CodeInvalid, "metadata.name", "must be set"))
	}
	if len(errs) > 0 {
		return nil, errs
	}
	data, err := json.Marshal(object)
	if err != nil { // not a number: .nan, .inf
		return nil, []*lab.Error{at(n, lab.Errorf(lab.CodeInvalid, "cannot be written as JSON: %v", err))}
	}
	d.JSON = data
	return []Document{d}, nil
}

func documentsOfList(items *yaml.Node, budget *int) (docs []Document, errs []*lab.Error) {
	for _, item := range items.Content {
		found, bad := documentsOf(item, budget)
		docs, errs = append(docs, found...), append(errs, bad...)
	}
	return docs, errs
}

// errorAt is an error about a field, at its place or that of the nearest
// object that is there.
func (d Document) errorAt(code lab.Code, field, format string, args ...any) *lab.Error {
	e := at(locate(d.node, field), lab.Errorf(code, format, args...))
	e.Field = field
	return e
}

func at(n *yaml.Node, e *lab.Error) *lab.Error {
	e.Line, e.Column = n.Line, n.Column
	return e
}

func follow(n *yaml.Node) *yaml.Node {
	for range maxYAMLDepth {
		if n.Kind != yaml.AliasNode || n.Alias == nil {
			break
		}
		n = n.Alias
	}
	return n
}

func kindName(n *yaml.Node) string {
	switch n.Kind {
	case yaml.SequenceNode:
		return "a list"
	case yaml.MappingNode:
		return "an object"
	}
	return fmt.Sprintf("%q", n.Value)
}

func child(n *yaml.Node, key string) *yaml.Node {
	if n = follow(n); n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return follow(n.Content[i+1])
		}
	}
	return nil
}

// pathPart is a name, or what is in brackets: an index or a key.
var pathPart = regexp.MustCompile(`\[([^\]]*)\]|[^.\[\]]+`)

// locate finds the node of a field path as Kubernetes writes it
// (spec.containers[0].name). For a field of an object it is the field's name;
// where the path leads nowhere, it is the last node on it.
func locate(n *yaml.Node, path string) *yaml.Node {
	mark := n
	n = follow(n)
	for _, m := range pathPart.FindAllStringSubmatch(path, -1) {
		key, next := strings.Trim(m[0], "[]"), (*yaml.Node)(nil)
		switch n.Kind {
		case yaml.MappingNode:
			for i := 0; i+1 < len(n.Content); i += 2 {
				if n.Content[i].Value == key {
					mark, next = n.Content[i], n.Content[i+1]
				}
			}
		case yaml.SequenceNode:
			if i, err := strconv.Atoi(key); err == nil && i >= 0 && i < len(n.Content) {
				mark, next = n.Content[i], n.Content[i]
			}
		}
		if next == nil {
			break
		}
		n = follow(next)
	}
	return mark
}

// locateType finds the first node at a path without indexes whose value is
// not of the Go type that it should be ("int32", "string", "bool", …).
func locateType(n *yaml.Node, names []string, goType string) *yaml.Node {
	n = follow(n)
	if n.Kind == yaml.SequenceNode && (len(names) > 0 || !strings.HasPrefix(goType, "[]")) {
		for _, c := range n.Content {
			if found := locateType(c, names, goType); found != nil {
				return found
			}
		}
		return nil
	}
	if len(names) == 0 && n.Kind == yaml.MappingNode && goType == "string" { // a map of strings
		for i := 1; i < len(n.Content); i += 2 {
			if found := locateType(n.Content[i], nil, goType); found != nil {
				return found
			}
		}
	}
	if len(names) == 0 {
		if fits(n, goType) {
			return nil
		}
		return n
	}
	if c := child(n, names[0]); c != nil {
		return locateType(c, names[1:], goType)
	}
	return nil
}

func fits(n *yaml.Node, goType string) bool {
	switch {
	case strings.HasPrefix(goType, "[]"):
		return n.Kind == yaml.SequenceNode
	case strings.HasPrefix(goType, "int"), strings.HasPrefix(goType, "uint"):
		return n.Kind == yaml.ScalarNode && n.Tag == "!!int"
	case goType == "bool":
		return n.Kind == yaml.ScalarNode && isBool(n)
	case goType == "string":
		return n.Kind == yaml.ScalarNode && n.Tag == "!!str" && !isBool(n)
	}
	return n.Kind == yaml.MappingNode
}

// converter makes JSON values of nodes, as kubectl's YAML reader does.
type converter struct {
	budget *int
	path   []*yaml.Node
	err    *lab.Error
}

func (c *converter) fail(n *yaml.Node, code lab.Code, format string, args ...any) any {
	if c.err == nil {
		c.err = at(n, lab.Errorf(code, format, args...))
	}
	return nil
}

func (c *converter) value(n *yaml.Node, depth int) any {
	if c.err != nil {
		return nil
	}
	if *c.budget--; *c.budget < 0 {
		return c.fail(n, lab.CodeLimit, "the manifest has more than %d values once its aliases are followed", maxYAMLNodes)
	}
	if depth > maxYAMLDepth {
		return c.fail(n, lab.CodeLimit, "the manifest is nested deeper than %d levels", maxYAMLDepth)
	}
	switch n.Kind {
	case yaml.AliasNode:
		if slices.Contains(c.path, n.Alias) {
			return c.fail(n, lab.CodeInvalid, "the anchor %q contains itself", n.Value)
		}
		return c.value(n.Alias, depth+1)
	case yaml.ScalarNode:
		return c.scalar(n)
	}
	c.path = append(c.path, n)
	defer func() { c.path = c.path[:len(c.path)-1] }()
	if n.Kind == yaml.SequenceNode {
		out := make([]any, 0, len(n.Content))
		for _, x := range n.Content {
			out = append(out, c.value(x, depth+1))
		}
		return out
	}
	return c.object(n, depth)
}

func (c *converter) object(n *yaml.Node, depth int) any {
	out := make(map[string]any, len(n.Content)/2)
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, v := n.Content[i], n.Content[i+1]
		if key.Tag == "!!merge" {
			continue
		}
		if key.Kind != yaml.ScalarNode {
			return c.fail(key, lab.CodeInvalid, "a field's name must be text; here is %s", kindName(key))
		}
		if first, ok := lines[key.Value]; ok {
			return c.fail(key, lab.CodeInvalid, "%q is already set at line %d", key.Value, first)
		}
		lines[key.Value] = key.Line
		out[key.Value] = c.value(v, depth+1)
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Tag == "!!merge" {
			c.merge(out, n.Content[i+1], depth)
		}
	}
	return out
}

// merge adds the fields of the objects after << that are not set.
func (c *converter) merge(out map[string]any, n *yaml.Node, depth int) {
	switch v := c.value(n, depth+1).(type) {
	case map[string]any:
		for k, x := range v {
			if _, set := out[k]; !set {
				out[k] = x
			}
		}
	case []any:
		for _, x := range follow(n).Content {
			c.merge(out, x, depth+1)
		}
	default:
		c.fail(n, lab.CodeInvalid, "<< takes an object or a list of objects")
	}
}

// bools11 are the words that YAML 1.1, and so kubectl, reads as true or false.
var bools11 = map[string]bool{
	"y": true, "Y": true, "yes": true, "Yes": true, "YES": true, "on": true, "On": true, "ON": true,
	"n": false, "N": false, "no": false, "No": false, "NO": false, "off": false, "Off": false, "OFF": false,
}

func isBool(n *yaml.Node) bool {
	_, old := bools11[n.Value]
	return n.Tag == "!!bool" || old && n.Style == 0
}

func (c *converter) scalar(n *yaml.Node) any {
	if b, ok := bools11[n.Value]; ok && n.Style == 0 && n.Tag == "!!str" {
		return b
	}
	switch n.Tag {
	case "!!str", "!!timestamp":
		return n.Value
	case "!!null":
		return nil
	case "!!int", "!!float", "!!bool":
		var v any
		if err := n.Decode(&v); err != nil {
			return c.fail(n, lab.CodeInvalid, "%q: %v", n.Value, err)
		}
		return v
	}
	return c.fail(n, lab.CodeInvalid, "the tag %s is not taken", n.Tag)
}
