package image

import (
	"errors"
	"strings"
	"testing"
	"testing/fstest"

	"podlab/lab"
)

func TestName(t *testing.T) {
	tests := []struct{ ref, want string }{
		{"nginx", "nginx"},
		{"nginx:1.29", "nginx"},
		{"docker.io/library/nginx:1.29", "nginx"},
		{"localhost:5000/nginx@sha256:" + strings.Repeat("a", 64), "nginx"},
		{"quay.io/prometheus/node-exporter:v1.9", "prometheus/node-exporter"},
		{"registry.k8s.io/e2e-test-images/agnhost:2.43", "e2e-test-images/agnhost"},
		{"fluent/fluentd:v1.16-debian-1", "fluent/fluentd"},
		{"Nginx", ""},
		{"nginx:", ""},
	}
	for _, tt := range tests {
		got, err := Name(tt.ref)
		if got != tt.want || (err != nil) != (tt.want == "") {
			t.Errorf("Name(%q) = %q, %v; want %q", tt.ref, got, err, tt.want)
		}
	}
}

func TestLatest(t *testing.T) {
	for ref, want := range map[string]bool{
		"nginx": true, "nginx:latest": true, "nginx:1.29": false, "nginx@sha256:" + strings.Repeat("a", 64): false,
	} {
		if got := Latest(ref); got != want {
			t.Errorf("Latest(%q) = %v, want %v", ref, got, want)
		}
	}
}

func TestDefaultCatalogue(t *testing.T) {
	c, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	// The names of the course and of the Kubernetes documentation.
	for _, ref := range []string{
		"nginx", "docker.io/library/nginx:1.29", "fluentd", "fluent/fluentd:v1.16", "prometheus/node-exporter", "prom/node-exporter",
		"busybox:1.36", "curlimages/curl", "nicolaka/netshoot", "registry.k8s.io/e2e-test-images/agnhost:2.43", "registry.k8s.io/pause:3.10",
	} {
		if _, err := c.Find(ref); err != nil {
			t.Errorf("Find(%q): %v", ref, err)
		}
	}
	_, err = c.Find("redis:7")
	var e *lab.Error
	if !errors.As(err, &e) || e.Code != lab.CodeNotFound || !strings.Contains(err.Error(), `no image "redis"`) || !strings.Contains(err.Error(), "nginx") {
		t.Errorf("Find(redis:7): %v", err)
	}
}

func TestLoadNamesFileAndField(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"unknown field", "names: [a]\nargs: [x]\nentrypiont: [y]\n", `a.yaml: unknown field "entrypiont"`},
		{"wrong type", "names: a\nargs: [x]\n", "a.yaml: "},
		{"no names", "args: [x]\n", "a.yaml: names: is missing"},
		{"name with a tag", "names: [\"a:1\"]\nargs: [x]\n", `a.yaml: names[0]: "a:1"`},
		{"nothing to run", "names: [a]\n", "a.yaml: entrypoint: is missing"},
		{"port", "names: [a]\nargs: [x]\nports: [\"80\"]\n", `a.yaml: ports[0]: found "80"`},
		{"user", "names: [a]\nargs: [x]\nuser: bob\n", `a.yaml: user: found "bob"`},
		{"folder", "names: [a]\nargs: [x]\nworkingDir: data\n", `a.yaml: workingDir: "data"`},
		{"signal", "names: [a]\nargs: [x]\nstopSignal: HUP\n", `a.yaml: stopSignal: "HUP"`},
		{"layer", "names: [a]\nargs: [x]\nlayers: [../b]\n", `a.yaml: layers[0]: "../b"`},
		{"env", "names: [a]\nargs: [x]\nenv: [A]\n", `a.yaml: env[0]: found "A"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Load(fstest.MapFS{"a.yaml": {Data: []byte(tt.text)}})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %s", err, tt.want)
			}
		})
	}
	_, err := Load(fstest.MapFS{"a.yaml": {Data: []byte("names: [a]\nargs: [x]\n")}, "b.yaml": {Data: []byte("names: [b, a]\nargs: [x]\n")}})
	if err == nil || !strings.Contains(err.Error(), `b.yaml: names[1]: "a" is an image of a.yaml already`) {
		t.Errorf("error of a name twice: %v", err)
	}
}
