package kube

import (
	"fmt"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podlab/lab"
	"podlab/lab/kube/memstore"
)

const twoContainers = `# the pod of the lesson
apiVersion: v1
kind: Pod
metadata:
  name: web
  labels: {app: web}
spec:
  containers:
  - name: nginx
    image: nginx:1.29
    ports:
    - containerPort: 80
  - name: sidecar
    image: busybox
    ports:
    - containerPort: 9090
`

func apply(t *testing.T, s *Server, manifest string) ApplyResult {
	t.Helper()
	res, err := s.Apply(t.Context(), []byte(manifest), ApplyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// applied is the result in one line: actions, then errors.
func applied(res ApplyResult) string {
	var out []string
	for _, o := range res.Objects {
		out = append(out, fmt.Sprintf("%s %s/%s %s", o.Kind, o.Namespace, o.Name, o.Action))
	}
	for _, e := range res.Errors {
		out = append(out, fmt.Sprintf("%d:%d %s %s", e.Line, e.Column, e.Code, e.Error()))
	}
	return strings.Join(out, "\n")
}

func TestApplyAgain(t *testing.T) {
	s := newServer(t)
	for _, step := range []struct{ manifest, want string }{
		{twoContainers, "Pod default/web created"},
		{twoContainers, "Pod default/web unchanged"},
		{strings.Replace(twoContainers, "{app: web}", "{tier: front}", 1), "Pod default/web configured"},
		{strings.Replace(twoContainers, "{app: web}", "{tier: front}", 1), "Pod default/web unchanged"},
	} {
		if got := applied(apply(t, s, step.manifest)); got != step.want {
			t.Errorf("got %s, want %s", got, step.want)
		}
	}
	p, err := s.Core().Pods("default").Get(t.Context(), "web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Labels) != 1 || p.Labels["tier"] != "front" {
		t.Errorf("labels are %v; a label that the manifest no longer has must go", p.Labels)
	}
}

func TestApplyNamespaceFirst(t *testing.T) {
	s := newServer(t)
	got := applied(apply(t, s, `
apiVersion: v1
kind: Namespace
metadata: {name: team}
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: c, namespace: team}, data: {"on": "yes"}}
- apiVersion: v1
  kind: Pod
  metadata: {name: p, namespace: team}
  spec: &spec {containers: [{name: a, image: busybox}]}
---
apiVersion: podlab.io/v1
kind: Lab
metadata: {name: mine}
`))
	want := "Namespace /team created\nConfigMap team/c created\nPod team/p created"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestApplyLeavesLabs(t *testing.T) {
	s := newServer(t)
	res := apply(t, s, "\n\napiVersion: podlab.io/v1\nkind: Lab\nmetadata: {name: mine}\n")
	if len(res.Labs) != 1 || res.Labs[0].Line != 3 || res.Labs[0].Name != "mine" || len(res.Objects) != 0 {
		t.Errorf("got %+v", res)
	}
}

func TestApplyErrors(t *testing.T) {
	bomb := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bomb}\na: &a [x,x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c < 'i'; c++ {
		bomb += fmt.Sprintf("%c: &%c [%s*%c]\n", c, c, strings.Repeat(fmt.Sprintf("*%c,", c-1), 9), c-1)
	}
	replace := func(old, by string) string { return strings.Replace(twoContainers, old, by, 1) }
	tests := []struct{ name, manifest, want string }{
		{"empty", "# nothing\n", "0:0 invalid the manifest has no documents"},
		{"unknown field", replace("image: busybox", "imagee: busybox"),
			"14:5 invalid spec.containers[1].imagee: unknown field"},
		{"two unknown fields", replace("containerPort: 9090", "port: 9090\n  restart: Never"),
			"16:7 invalid spec.containers[1].ports[0].port: unknown field\n17:3 invalid spec.restart: unknown field"},
		{"wrong type", replace("containerPort: 9090", "containerPort: high"),
			"16:22 invalid spec.containers.ports.containerPort: must be of type int32, not string"},
		{"yes is no text", replace("app: web", "app: yes"),
			"6:17 invalid metadata.labels: must be of type string, not bool"},
		{"bad name", replace("name: web", "name: Web_1"),
			"5:3 invalid metadata.name: Invalid value: \"Web_1\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"},
		{"missing image", replace("    image: busybox\n", ""),
			"13:5 invalid spec.containers[1].image: Required value"},
		{"port out of range", replace("containerPort: 9090", "containerPort: 90900"),
			"16:7 invalid spec.containers[1].ports[0].containerPort: Invalid value: 90900: must be between 1 and 65535, inclusive"},
		{"same name twice", replace("name: sidecar", "name: nginx"),
			"13:5 invalid spec.containers[1].name: Duplicate value: \"nginx\""},
		{"no kind", "apiVersion: v1\nmetadata: {name: x}\n", "1:1 invalid kind: must be set, for example Pod"},
		{"no object", "- 1\n- 2\n", "1:1 invalid a document must be an object with apiVersion and kind; here is a list"},
		{"no name", "apiVersion: v1\nkind: Pod\nmetadata: {}\n", "3:1 invalid metadata.name: must be set"},
		{"missing namespace", replace("name: web", "name: web\n  namespace: nowhere"), "2:1 not-found namespaces \"nowhere\" not found"},
		{"namespace of a node", "apiVersion: v1\nkind: Node\nmetadata: {name: n1, namespace: x}\n", "3:22 invalid metadata.namespace: a Node is in no namespace"},
		{"path in name", "apiVersion: v1\nkind: Pod\nmetadata: {name: ../../nodes}\n", "3:12 invalid metadata.name: \"../../nodes\" is no name"},
		{"broken", "apiVersion: v1\nkind: [Pod\n", "2:0 invalid this is no YAML: did not find expected ',' or ']'"},
		{"tab", "apiVersion: v1\nkind: Pod\n\tmetadata: {}\n", "2:0 invalid this is no YAML: found a tab character that violates indentation"},
		{"same key twice", replace("spec:", "kind: Pod\nspec:"), "7:1 invalid \"kind\" is already set at line 3"},
		{"same object twice", twoContainers + "---\n" + twoContainers, "22:3 invalid metadata.name: the same object is described at line 2"},
		{"cycle", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: &d {a: *d}\n", "4:14 invalid the anchor \"d\" contains itself"},
		{"unknown anchor", "a: *b\n", "0:0 invalid this is no YAML: unknown anchor 'b' referenced"},
		{"unknown tag", replace("image: busybox", "image: !!python/object busybox"), "14:12 invalid the tag !!python/object is not taken"},
		{"too large", "a: " + strings.Repeat("x", MaxManifestBytes), "0:0 limit the manifest is 1048579 bytes; at most 1048576 are taken"},
		{"not a number", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\nx: .nan\n", "1:1 invalid cannot be written as JSON: json: unsupported value: NaN"},
	}
	s := newServer(t)
	before := s.store.Revision()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := applied(apply(t, s, tt.manifest)); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
	for name, manifest := range map[string]string{
		"alias bomb": bomb,
		"deep":       "a: " + strings.Repeat("[", 5000) + strings.Repeat("]", 5000),
		"documents":  strings.Repeat("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n", maxDocuments+1),
	} {
		t.Run(name, func(t *testing.T) {
			res := apply(t, s, manifest)
			if len(res.Errors) != 1 || res.Errors[0].Code != lab.CodeLimit {
				t.Errorf("got %s, want one error of a limit", applied(res))
			}
		})
	}
	if after := s.store.Revision(); after != before {
		t.Errorf("the store went from version %d to %d; bad manifests must change nothing", before, after)
	}
}

func TestApplyUnknownKind(t *testing.T) {
	s := newServer(t)
	got := applied(apply(t, s, "apiVersion: v1\nkind: Pot\nmetadata: {name: x}\n"))
	if !strings.HasPrefix(got, `2:1 invalid kind: no matches for kind "Pot" in version "v1"; this lab has ConfigMap (v1), `) {
		t.Errorf("got %s", got)
	}
}

// TestApplyNothingHalf applies a good document before a bad one.
func TestApplyNothingHalf(t *testing.T) {
	s := newServer(t)
	res := apply(t, s, twoContainers+"---\n"+strings.Replace(twoContainers, "name: web", "name: bad\n  uid: []", 1))
	if len(res.Errors) == 0 || len(res.Objects) != 0 {
		t.Fatalf("got %s", applied(res))
	}
	if _, err := s.Core().Pods("default").Get(t.Context(), "web", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the good document was applied: %v", err)
	}
}

// TestApplyUndone runs into the limit of objects in the middle.
func TestApplyUndone(t *testing.T) {
	limits := memstore.DefaultLimits()
	limits.Objects = 10 // eight are there from the start
	s, err := New(Config{Limits: limits})
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, s)
	cm := func(name, value string) string {
		return "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + "}\ndata: {v: \"" + value + "\"}\n"
	}
	if res := apply(t, s, cm("old", "1")); len(res.Errors) != 0 {
		t.Fatal(applied(res))
	}
	res := apply(t, s, cm("old", "2")+cm("a", "1")+cm("b", "1"))
	if len(res.Errors) != 1 || res.Errors[0].Code != lab.CodeLimit || len(res.Objects) != 0 {
		t.Fatalf("got %s, want the limit's error alone", applied(res))
	}
	list, err := s.Core().ConfigMaps("default").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Items) != 1 || list.Items[0].Data["v"] != "1" {
		t.Errorf("what was done before the error is still there: %+v", list.Items)
	}
}
