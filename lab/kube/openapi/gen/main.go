// Command gen trims Kubernetes' OpenAPI documents to what the lab's API serves
// (openapi.Served) and writes them compressed, as JSON and as protobuf.
package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	openapi_v3 "github.com/google/gnostic-models/openapiv3"
	"google.golang.org/protobuf/proto"

	"podlab/lab/kube/openapi"
)

func main() {
	log.SetFlags(0)
	out := flag.String("o", "lab/kube/openapi/bin", "folder to write to")
	flag.Parse()
	if err := run(*out); err != nil {
		log.Fatal(err)
	}
}

func run(out string) error {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes").Output()
	if err != nil {
		return fmt.Errorf("cannot find the module k8s.io/kubernetes: %w", err)
	}
	spec := filepath.Join(strings.TrimSpace(string(dir)), "api", "openapi-spec")
	if err := os.MkdirAll(filepath.Join(out, "v3"), 0o755); err != nil {
		return err
	}
	schemas := object{}
	for _, gv := range openapi.Served {
		name := strings.ReplaceAll(gv.Path(), "/", "__")
		doc, err := load(filepath.Join(spec, "v3", name+"_openapi.json"))
		if err != nil {
			return err
		}
		trim(doc, "components", "schemas")
		if err := write(filepath.Join(out, "v3", name), doc, protoV3); err != nil {
			return err
		}
		for name, s := range doc.at("components", "schemas") {
			schemas[name] = bare(s)
		}
	}
	if err := writeFile(filepath.Join(out, "schemas.json.gz"), encode(schemas)); err != nil {
		return err
	}
	doc, err := load(filepath.Join(spec, "swagger.json"))
	if err != nil {
		return err
	}
	trim(doc, "definitions")
	return write(filepath.Join(out, "v2"), doc, protoV2)
}

// object is a JSON object.
type object = tree
type tree map[string]any

func (t tree) at(path ...string) tree {
	for _, p := range path {
		next, ok := t[p].(map[string]any)
		if !ok {
			return nil
		}
		t = next
	}
	return t
}

func load(path string) (tree, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var t tree
	return t, json.Unmarshal(data, &t)
}

// trim drops the paths that are not served and the types that nothing needs.
func trim(doc tree, types ...string) {
	paths := doc.at("paths")
	for p := range paths {
		if !served(p) {
			delete(paths, p)
		}
	}
	all := doc.at(types...)
	prefix := "#/" + strings.Join(types, "/") + "/"
	needed := map[string]bool{}
	var visit func(any)
	visit = func(v any) {
		switch v := v.(type) {
		case tree:
			visit(map[string]any(v))
		case map[string]any:
			if ref, ok := v["$ref"].(string); ok {
				if name, ok := strings.CutPrefix(ref, prefix); ok && !needed[name] {
					needed[name] = true
					visit(all[name])
				}
			}
			for _, x := range v {
				visit(x)
			}
		case []any:
			for _, x := range v {
				visit(x)
			}
		}
	}
	visit(paths)
	visit(doc["parameters"])
	for name := range all {
		if !needed[name] {
			delete(all, name)
		}
	}
}

// served reports whether the path of a document is one of the lab's API.
func served(path string) bool {
	path = strings.Trim(path, "/")
	if path == "version" || path == "api" || path == "apis" {
		return true
	}
	for _, gv := range openapi.Served {
		if gv.Group != "" && path == "apis/"+gv.Group || path == gv.Path() {
			return true
		}
		rest, ok := strings.CutPrefix(path, gv.Path()+"/")
		if !ok {
			continue
		}
		parts := strings.Split(rest, "/")
		if len(parts) > 2 && parts[0] == "namespaces" && parts[1] == "{namespace}" {
			parts = parts[2:]
		}
		switch len(parts) {
		case 1, 2:
			return gv.Has(parts[0], "")
		case 3:
			return gv.Has(parts[0], parts[2])
		}
		return false
	}
	return false
}

// bare is the schema without its descriptions, which merging does not need.
func bare(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, x := range v {
			if _, text := x.(string); k == "description" && text {
				continue
			}
			out[k] = bare(x)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, x := range v {
			out[i] = bare(x)
		}
		return out
	}
	return v
}

func protoV2(data []byte) (proto.Message, error) { return openapi_v2.ParseDocument(data) }
func protoV3(data []byte) (proto.Message, error) { return openapi_v3.ParseDocument(data) }

func encode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		log.Fatal(err) // it was read from JSON
	}
	return data
}

func write(base string, doc tree, parse func([]byte) (proto.Message, error)) error {
	data := encode(doc)
	m, err := parse(data)
	if err != nil {
		return fmt.Errorf("%s: %w", base, err)
	}
	packed, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return err
	}
	if err := writeFile(base+".json.gz", data); err != nil {
		return err
	}
	return writeFile(base+".pb.gz", packed)
}

func writeFile(path string, data []byte) error {
	var buf bytes.Buffer
	z, err := gzip.NewWriterLevel(&buf, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := z.Write(data); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return os.WriteFile(path, buf.Bytes(), 0o644)
}
