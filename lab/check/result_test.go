package check

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"unicode/utf8"

	"podlab/lab"
)

func compile(t *testing.T, spec Spec) *Check {
	t.Helper()
	c, err := Compile(spec)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestOutcomes tells "not there yet" from "could not run".
func TestOutcomes(t *testing.T) {
	probe := map[string]lab.Probe{"get": {From: "web", TCP: &lab.TCPProbe{Addr: "{ip4 web}:80"}}}
	with := func(r lab.ProbeResult) lab.Facts { return lab.Facts{Probes: map[string]lab.ProbeResult{"get": r}} }
	tests := []struct {
		name  string
		spec  Spec
		facts lab.Facts
		want  Outcome
		got   string // in English, contained
	}{
		{"no such pod", Spec{Expr: `listening(pod("none"), 80)`}, lab.Facts{}, Fail, "not there yet: default/none"},
		{"no such label", Spec{Expr: `pod("web").pod.labels["x"] == "1"`}, threeContainers(), Fail, "not there yet: x"},
		{"division by zero", Spec{Expr: `1 / size(pods) == 1`}, lab.Facts{}, Error, "could not check"},
		{"too dear", Spec{Expr: dear()}, many(200), Error, "could not check"},
		{"probe refused", Spec{Expr: `!probes.get.ok`, Probes: probe}, with(lab.ProbeResult{Error: "connection refused"}), Pass, ""},
		{"probe not tried", Spec{Expr: `!probes.get.ok`, Probes: probe}, with(lab.ProbeResult{Skipped: "there is no pod default/web"}), Fail, "cannot be tried yet: there is no pod default/web"},
		{"probe without a result", Spec{Expr: `!probes.get.ok`, Probes: probe}, lab.Facts{}, Error, "no result of probe get"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := compile(t, tt.spec).Eval(tt.facts)
			if r.Outcome != tt.want || !strings.Contains(r.Got.EN, tt.got) {
				t.Errorf("got %s (%q), want %s (%q)", r.Outcome, r.Got.EN, tt.want, tt.got)
			}
		})
	}
}

func TestCouldNotRun(t *testing.T) {
	r := compile(t, Spec{Expr: "true", Want: Text{KO: "원함", EN: "wanted"}}).CouldNotRun("the lab is gone")
	if r.Outcome != Error || r.Want.KO != "원함" || !strings.Contains(r.Got.EN, "the lab is gone") || !strings.Contains(r.Got.KO, "확인하지 못했습니다") {
		t.Errorf("%+v", r)
	}
}

// many are facts of n pods with addresses.
func many(n int) lab.Facts {
	f := lab.Facts{Pods: map[string]lab.PodFacts{}}
	for i := range n {
		f.Pods[fmt.Sprintf("default/p%d", i)] = lab.PodFacts{Pod: lab.Pod{Name: fmt.Sprint("p", i), IPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})}}}
	}
	return f
}

func dear() string { return `pods.all(a, pods.all(b, pods.all(c, a + b + c != "x")))` }

func TestTemplates(t *testing.T) {
	tests := []struct{ text, want string }{
		{"plain", "plain"},
		{"port ${80}", "port 80"},
		{"${ip4(pod('web'))} and ${size(pods)}", "10.244.1.12 and 1"},
		{"${pod('gone').pod.name}.", "–."},
		{"${''}", "–"},
		{"$${not}", "${not}"},
		{`${"}" + '}'}`, "}}"},
		{"${{'a': 1}['a']}", "1"},
		{"${pod('web').pod.ready ? 'ja' : 'nein'}", "ja"},
		{"${pod('web').containers.map(c, c).join(' ')}", "app metrics"},
		{"bell ${probes.get.body}", "bell hello"},
	}
	for _, tt := range tests {
		spec := Spec{Expr: "true", Saw: Text{EN: tt.text, KO: "한국어 " + tt.text}}
		if strings.Contains(tt.text, "probes") {
			spec.Probes = map[string]lab.Probe{"get": {From: "web", HTTP: &lab.HTTPProbe{URL: "http://127.0.0.1/"}}}
		}
		r := compile(t, spec).Eval(threeContainers())
		if r.Got.EN != tt.want || r.Got.KO != "한국어 "+tt.want {
			t.Errorf("%q gives %q and %q, want %q", tt.text, r.Got.EN, r.Got.KO, tt.want)
		}
	}
}

// TestHostileText: what a learner's program says is shown, not believed.
func TestHostileText(t *testing.T) {
	f := threeContainers()
	f.Probes["get"] = lab.ProbeResult{OK: true, Body: "\x1b[31mred\x00\xff" + strings.Repeat("x", 100_000)}
	c := compile(t, Spec{
		Expr: "probes.get.ok", Saw: Text{KO: "${probes.get.body}", EN: "${probes.get.body}"},
		Probes: map[string]lab.Probe{"get": {From: "web", HTTP: &lab.HTTPProbe{URL: "http://127.0.0.1/"}}},
	})
	got := c.Eval(f).Got.EN
	if len(got) > maxText+8 || !utf8.ValidString(got) || strings.ContainsAny(got, "\x1b\x00") || !strings.HasPrefix(got, "[31mred") {
		t.Errorf("shown: %.60q, %d bytes", got, len(got))
	}
}

// TestSameFactsSameResult walks maps of many keys.
func TestSameFactsSameResult(t *testing.T) {
	c := compile(t, Spec{Expr: "true", Saw: Text{KO: "${pods.map(p, p).join(',')}", EN: "${pods.map(p, p).join(',')}"}})
	first := c.Eval(many(60))
	for range 20 {
		if got := c.Eval(many(60)); got.Got != first.Got {
			t.Fatalf("%q and then %q", first.Got.EN, got.Got.EN)
		}
	}
}

func BenchmarkEval(b *testing.B) {
	c, err := Compile(Spec{Expr: `sharesNS(pod("web"), "net") && listening(pod("web"), 80)`})
	if err != nil {
		b.Fatal(err)
	}
	f := threeContainers()
	for b.Loop() {
		c.Eval(f)
	}
}
