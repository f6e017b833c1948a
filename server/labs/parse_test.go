package labs_test

import (
	"errors"
	"strings"
	"testing"

	"podlab/lab"
	"podlab/server/labs"
)

const shape = `apiVersion: podlab.io/v1
kind: Lab
metadata: {name: small}
spec:
  nodes:
  - name: n1
    addresses: [192.168.1.10]
    podCIDRs: [10.244.1.0/24]
`

const pod = `apiVersion: v1
kind: Pod
metadata: {name: web}
`

func TestParseManifestTakesTheLabOut(t *testing.T) {
	for name, text := range map[string]string{
		"lab first": shape + "---\n" + pod, "lab last": pod + "---\n" + shape, "empty documents": "---\n---\n" + shape + "--- \n" + pod + "---\n",
	} {
		l, rest, err := labs.ParseManifest(text)
		if err != nil {
			t.Fatal(name, err)
		}
		if l.Metadata.Name != "small" || len(l.Spec.Nodes) != 1 || l.Spec.Overlay.Kind != "vxlan" {
			t.Errorf("%s: shape %+v", name, l)
		}
		if strings.TrimSpace(rest) != strings.TrimSpace(pod) {
			t.Errorf("%s: the rest is %q", name, rest)
		}
	}
	l, rest, err := labs.ParseManifest(pod)
	if err != nil || len(l.Spec.Nodes) != 2 || rest != pod {
		t.Errorf("without a Lab: %+v, %q, %v; want the default lab", l, rest, err)
	}
}

func TestParseManifestSaysWhatIsWrong(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		code       lab.Code
		says       string
		line       int
	}{
		{"broken", pod + "---\na: [1\nb: 2\n", lab.CodeInvalid, "line", 5},
		{"unknown field", shape + "  colour: red\n", lab.CodeInvalid, `"colour"`, 1},
		{"wrong type", strings.Replace(shape, "[10.244.1.0/24]", "yes", 1), lab.CodeInvalid, "podCIDRs", 1},
		{"two labs", shape + "---\n" + shape, lab.CodeInvalid, "second", 10},
		{"too large", "# " + strings.Repeat("x", labs.MaxManifest), lab.CodeLimit, "1024", 0},
		{"cyclic anchor", "a: &a\n  b: *a\n", lab.CodeInvalid, "itself", 1},
		{"alias bomb", bomb(), lab.CodeInvalid, "alias", 1},
		{"not a mapping", "- 1\n- 2\n", lab.CodeInvalid, "map", 1},
		{"bad range", strings.Replace(shape, "10.244.1.0/24", "10.244.1.7/24", 1), lab.CodeInvalid, "10.244.1.0/24 is meant", 0},
		{"bad address", strings.Replace(shape, "192.168.1.10", "node-one", 1), lab.CodeInvalid, "node-one", 1},
	} {
		_, _, err := labs.ParseManifest(tc.text)
		e, ok := errors.AsType[*lab.Error](err)
		if !ok || e.Code != tc.code || !strings.Contains(e.Error(), tc.says) || e.Line != tc.line {
			t.Errorf("%s: %+v; want %s, %q, line %d", tc.name, err, tc.code, tc.says, tc.line)
		}
	}
}

// bomb is nine levels of nine aliases.
func bomb() string {
	var b strings.Builder
	b.WriteString("a0: &a0 [x,x,x,x,x,x,x,x,x]\n")
	for i := 1; i < 9; i++ {
		n, m := string(rune('0'+i)), string(rune('0'+i-1))
		b.WriteString("a" + n + ": &a" + n + " [" + strings.Repeat("*a"+m+",", 8) + "*a" + m + "]\n")
	}
	return b.String()
}
