package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "podlab"

func TestSourceKeepsTheRules(t *testing.T) {
	root := filepath.Join("..", "..")
	files := 0
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "node_modules" || d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && name != root) {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") {
			return nil
		}
		src, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		if strings.HasPrefix(string(src), "//go:build deps\n") {
			return nil // pins versions in go.mod; never compiled
		}
		files++
		for _, b := range broken(t, filepath.ToSlash(rel), src) {
			t.Error(b)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 10 {
		t.Fatalf("read %d Go files under %s: the test looks in the wrong place", files, root)
	}
}

// TestRulesBite gives each kind of rule a file that breaks it and one that
// does not.
func TestRulesBite(t *testing.T) {
	tests := []struct {
		file, src string
		want      string // part of the message, empty for none
	}{
		{"lab/a.go", `package lab; import "net/netip"; var _ netip.Addr`, ""},
		{"lab/a.go", `package lab; import _ "sigs.k8s.io/yaml"`, `lab/a.go:1: imports sigs.k8s.io/yaml`},
		{"lab/a.go", `package lab; import _ "podlab/lab/plan"`, `imports podlab/lab/plan`},
		{"lab/agentapi/a.go", `package agentapi; import _ "podlab/lab"`, ""},
		{"lab/dns/a.go", `package dns; import _ "podlab/server/store"`, `imports podlab/server/store`},
		{"lab/dns/a_test.go", `package dns; import _ "podlab/exercises"`, `imports podlab/exercises`},
		{"lab/dns/a.go", `package dns; import _ "github.com/gorilla/websocket"`, `gorilla/websocket`},
		{"lab/agent/a.go", `package agent; import _ "github.com/gorilla/websocket"`, ""},
		{"lab/kernel/a.go", `package kernel; import _ "github.com/vishvananda/netlink/nl"`, ""},
		{"lab/plan/a.go", `package plan; import _ "github.com/vishvananda/netlink/nl"`, `imports github.com/vishvananda/netlink/nl`},
		{"lab/plan/a.go", `package plan; import "time"; func f() { time.Now() }`, `calls time.Now`},
		{"lab/plan/a.go", `package plan; import clock "time"; func f() { clock.Now() }`, `calls time.Now`},
		{"lab/plan/a.go", `package plan; import "time"; const d = time.Second`, ""},
		{"web/view/a.go", `package view; import _ "podlab/lab/kube"`, `imports podlab/lab/kube`},
		{"web/view/a.go", `package view; import _ "podlab/lab"`, ""},
		{"server/main.go", `package main; import "os"; var home = os.Getenv("HOME")`, ""},
		{"server/api/a.go", `package api; import "os"; var home = os.Getenv("HOME")`, `calls os.Getenv`},
		{"server/api/a_test.go", `package api; import "time"; func f() { time.Sleep(1) }`, `calls time.Sleep`},
	}
	for _, tt := range tests {
		got := strings.Join(broken(t, tt.file, []byte(tt.src)), "\n")
		if (tt.want == "") != (got == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: %s\n got %q\nwant %q", tt.file, tt.src, got, tt.want)
		}
	}
}

// broken returns a line for each rule that the file breaks.
func broken(t *testing.T, file string, src []byte) []string {
	t.Helper()
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, file, src, parser.SkipObjectResolution)
	if err != nil {
		t.Fatalf("cannot parse %s: %v", file, err)
	}
	var out []string
	pkg := path.Dir(file)
	for _, r := range rules {
		if !matches(r.Packages, pkg) || matches(r.Except, pkg) || !r.Tests && strings.HasSuffix(file, "_test.go") {
			continue
		}
		report := func(at ast.Node, what, name string) {
			out = append(out, fmt.Sprintf("%s:%d: %s %s; %s", file, fset.Position(at.Pos()).Line, what, name, r.Why))
		}
		names := map[string]string{} // of the file's imports, to their paths
		for _, spec := range f.Imports {
			p, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatalf("cannot read an import of %s: %v", file, err)
			}
			name := path.Base(p)
			if spec.Name != nil {
				name = spec.Name.Name
			}
			names[name] = p
			if forbidden(r, p) {
				report(spec, "imports", p)
			}
		}
		ast.Inspect(f, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if x, ok := sel.X.(*ast.Ident); ok {
				call := path.Base(names[x.Name]) + "." + sel.Sel.Name
				if slices.Contains(r.Calls, call) {
					report(sel, "calls", call)
				}
			}
			return true
		})
	}
	return out
}

func forbidden(r rule, imported string) bool {
	ours, isOurs := strings.CutPrefix(imported, module+"/")
	if isOurs && matches(r.Allowed, ours) {
		return false
	}
	host, _, _ := strings.Cut(imported, "/")
	isStd := !isOurs && !strings.Contains(host, ".")
	for _, pattern := range r.Imports {
		switch pattern {
		case "ours":
			if isOurs {
				return true
			}
		case "others":
			if !isOurs && !isStd {
				return true
			}
		default:
			if isOurs && matches([]string{pattern}, ours) || !isOurs && matches([]string{pattern}, imported) {
				return true
			}
		}
	}
	return false
}

// matches says whether one of the patterns names the path.
func matches(patterns []string, p string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		below, all := strings.CutSuffix(pattern, "...")
		below = strings.TrimSuffix(below, "/")
		return p == pattern || all && (below == "" || p == below || strings.HasPrefix(p, below+"/"))
	})
}
