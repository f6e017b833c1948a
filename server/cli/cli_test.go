package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"podlab/exercises"
	"podlab/server/app"
	"podlab/server/labs/labstest"
)

// shell runs commands against a server with a fake launcher.
type shell struct {
	t   *testing.T
	env Env
}

func newShell(t *testing.T) *shell {
	t.Helper()
	dir, err := os.MkdirTemp("", "pl")
	if err != nil {
		t.Fatal(err)
	}
	course, err := exercises.Embedded()
	if err != nil {
		t.Fatal(err)
	}
	config := app.DefaultConfig()
	config.Addr, config.Data = "127.0.0.1:0", filepath.Join(dir, "data")
	launcher := &labstest.Launcher{Dir: dir}
	a, err := app.New(t.Context(), config, app.Parts{
		Launcher: launcher, Exercises: app.Course{Course: course}, Log: slog.New(slog.DiscardHandler), Out: &bytes.Buffer{},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		launcher.Close()
		os.RemoveAll(dir)
	})
	return &shell{t, Env{Version: "1.2.3", Data: config.Data}}
}

// run runs a command line and returns its exit code, output and error.
func (s *shell) run(stdin string, args ...string) (code int, out, errs string) {
	s.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Close()
	if _, err := w.WriteString(stdin); err != nil {
		s.t.Fatal(err)
	}
	w.Close()
	var o, e bytes.Buffer
	env := s.env
	env.Args, env.In, env.Out, env.Err = args, r, &o, &e
	code, err = Run(s.t.Context(), env)
	if err != nil {
		e.WriteString(err.Error())
	}
	return code, o.String(), e.String()
}

func TestALabFromTheShell(t *testing.T) {
	s := newShell(t)
	manifest := filepath.Join(t.TempDir(), "pod.yaml")
	if err := os.WriteFile(manifest, []byte("kind: Pod\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		stdin, args string
		code        int
		out         string
	}{
		{"", "lab create try", 0, "lab try ("},
		{"", "lab create try", 1, ""},
		{"", "lab list", 0, "ready"},
		{"", "lab show try -o json", 0, `"phase": "ready"`},
		{"", "lab apply try -f " + manifest, 0, "pod/x created"},
		{"kind: Pod", "lab apply try -f -", 0, "pod/x created"},
		{"wrongField: 1", "lab apply try -f -", 1, ""},
		{"hello", "lab exec try pod-a -- cat 0", 0, "hello"},
		{"", "lab exec try pod-a -- sh 7", 7, ""},
		{"", "lab exec try node:node1 --no-stdin -- true 0", 0, ""},
		{"", "lab facts try", 0, `"state"`},
		{"", "lab kubeconfig try", 0, `"kind": "Config"`},
		{"", "lab restart try", 0, "ready again"},
		{"", "lab create ex --exercise 01-three-containers", 0, "lab ex ("},
		{"", "instructor-link", 0, "/signin?link="},
		{"", "lab delete try", 0, "is deleted"},
		{"", "lab show try", 1, ""},
	} {
		code, out, errs := s.run(tc.stdin, strings.Fields(tc.args)...)
		if code != tc.code || !strings.Contains(out, tc.out) {
			t.Errorf("podlab %s: exit %d, %q, %q; want %d and %q", tc.args, code, out, errs, tc.code, tc.out)
		}
		if tc.code == 1 && errs == "" {
			t.Errorf("podlab %s failed without a word", tc.args)
		}
	}
	_, out, _ := s.run("", "lab", "list", "-o", "json")
	var all []map[string]any
	if err := json.Unmarshal([]byte(out), &all); err != nil || len(all) == 0 || all[len(all)-1]["name"] != "ex" {
		t.Errorf("list -o json: %v in %s", err, out)
	}
}

func TestWrongUseIsTwo(t *testing.T) {
	s := &shell{t, Env{Data: t.TempDir()}}
	for args, says := range map[string]string{
		"frobnicate": "no command", "lab frob": "no command", "lab creat": "create", "lab show": "wants a lab's name",
		"lab create a b": "at most a name", "lab create --bad": "unknown flag", "lab list -o xml": "text or json", "version x": "no arguments",
		"serve --addr nowhere": "HOST:PORT", "serve --lab-memory lots": "512MiB", "serve --proxy here": "10.0.0.0/8", "serve --data rel": "absolute",
		"serve --labs-per-user 0": "at least 1", "serve --log-level loud": "debug", "serve --tls-cert x": "both or none",
		"lab exec try": "after --", "lab create x --exercise e -f -": "not both",
	} {
		code, out, errs := s.run("", strings.Fields(args)...)
		if code != 2 || !strings.Contains(errs, says) || !strings.Contains(errs, "--help") || out != "" {
			t.Errorf("podlab %s: exit %d, %q, %q; want 2 and %q", args, code, out, errs, says)
		}
	}
	if code, _, errs := s.run("", "lab", "list"); code != 1 || !strings.Contains(errs, "podlab serve") {
		t.Errorf("without a server: %d %q; want 1 and what to do", code, errs)
	}
}

func TestEveryCommandHasHelpWithAnExample(t *testing.T) {
	s := &shell{t, Env{Data: t.TempDir()}}
	root := newRoot(&s.env)
	for _, c := range root.Commands() {
		all := append(c.Commands(), c)
		for _, c := range all {
			if c.Hidden || c.Name() == "help" || c.Name() == "completion" {
				continue
			}
			args := append(strings.Fields(c.CommandPath())[1:], "--help")
			code, out, _ := s.run("", args...)
			if code != 0 || out == "" || c.Short == "" {
				t.Errorf("podlab %s: exit %d, %q", strings.Join(args, " "), code, out)
			}
			if c.HasSubCommands() {
				continue
			}
			if c.Example == "" {
				t.Errorf("podlab %s --help has no example", c.CommandPath())
			}
		}
	}
}

func TestSizes(t *testing.T) {
	for in, want := range map[string]int64{"512MiB": 512 << 20, "1GiB": 1 << 30, "4096": 4096, "8KiB": 8 << 10, "10B": 10, "0": 0} {
		var b bytesFlag
		if err := b.Set(in); err != nil || int64(b) != want {
			t.Errorf("%s is %d, %v; want %d", in, b, err, want)
		}
	}
	for _, wrong := range []string{"", "MiB", "-1MiB", "1.5GiB", "12TB", "99999999999GiB"} {
		var b bytesFlag
		if err := b.Set(wrong); err == nil {
			t.Errorf("%q is taken as %d", wrong, b)
		}
	}
	b := bytesFlag(512 << 20)
	if b.String() != "512MiB" {
		t.Errorf("printed as %s", b.String())
	}
}
