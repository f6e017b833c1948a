package labs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
	sigsyaml "sigs.k8s.io/yaml"

	"podlab/lab"
)

// MaxManifest is the largest manifest taken, in bytes.
const MaxManifest = 1 << 20

// ParseManifest takes a manifest apart: at most one `kind: Lab` gives the
// shape (the default lab without one), all other documents are returned as
// they stand, for the lab's own Kubernetes API to judge.
func ParseManifest(text string) (lab.Lab, string, error) {
	if len(text) > MaxManifest {
		return lab.Lab{}, "", lab.Errorf(lab.CodeLimit, "the manifest has %d KiB; at most %d are allowed", len(text)>>10, MaxManifest>>10)
	}
	shape, have := lab.DefaultLab(), false
	var rest strings.Builder
	line := 1
	for _, doc := range splitDocuments(text) {
		kind, err := kindOf(doc)
		if err != nil {
			return lab.Lab{}, "", yamlError(err, line)
		}
		switch {
		case kind == lab.KindLab && have:
			return lab.Lab{}, "", &lab.Error{Code: lab.CodeInvalid, Message: "a second document of kind Lab; one is allowed", Line: line}
		case kind == lab.KindLab:
			have = true
			shape = lab.Lab{}
			if err := sigsyaml.UnmarshalStrict([]byte(doc), &shape); err != nil {
				return lab.Lab{}, "", yamlError(err, line)
			}
			shape = shape.WithDefaults()
			if err := shape.Validate(); err != nil {
				return lab.Lab{}, "", err
			}
		case kind != "" || strings.TrimSpace(doc) != "":
			if rest.Len() > 0 {
				rest.WriteString("---\n")
			}
			rest.WriteString(doc)
		}
		line += strings.Count(doc, "\n") + 1
	}
	return shape, rest.String(), nil
}

// splitDocuments cuts at lines that are "---".
func splitDocuments(text string) []string {
	var docs []string
	var doc strings.Builder
	for line := range strings.SplitAfterSeq(text, "\n") {
		if strings.TrimRight(line, " \t\r\n") == "---" {
			docs = append(docs, doc.String())
			doc.Reset()
			continue
		}
		doc.WriteString(line)
	}
	return append(docs, doc.String())
}

// kindOf reads a document's kind.
func kindOf(doc string) (string, error) {
	// All of it, so that anchors that contain themselves are found here.
	var head map[string]any
	d := yaml.NewDecoder(bytes.NewReader([]byte(doc)))
	if err := d.Decode(&head); err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	kind, _ := head["kind"].(string)
	return kind, nil
}

// yamlError says where in the whole text a document is wrong.
func yamlError(err error, firstLine int) error {
	message := strings.TrimPrefix(err.Error(), "error converting YAML to JSON: ")
	message = strings.TrimPrefix(message, "error unmarshaling JSON: ")
	e := &lab.Error{Code: lab.CodeInvalid, Message: "the manifest is wrong: " + message, Line: firstLine}
	var line int
	if _, err := fmt.Sscanf(message, "yaml: line %d:", &line); err == nil {
		e.Line = firstLine + line - 1
	}
	return e
}
