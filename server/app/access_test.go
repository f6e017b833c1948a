package app_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gorilla/websocket"

	"podlab/lab"
	"podlab/lab/agentapi"
	"podlab/server/api"
	"podlab/server/app"
	"podlab/server/class"
	"podlab/server/client"
	"podlab/server/labs/labstest"
	"podlab/server/problem"
)

// routes are all that name a lab; %s is its id.
var routes = []struct {
	method, path, body string
	// instructor is the status for an instructor who does not own the lab.
	instructor int
}{
	{"GET", "/api/v1/labs/%s", "", 200},
	{"GET", "/api/v1/labs/%s/state", "", 200},
	{"GET", "/api/v1/labs/%s/terminals", "", 200},
	{"POST", "/api/v1/labs/%s/hints", `{"task":"one","number":1}`, 200},
	{"POST", "/api/v1/labs/%s/apply", "kind: Pod", 403},
	{"POST", "/api/v1/labs/%s/facts", `{"probes":{}}`, 403},
	{"GET", "/api/v1/labs/%s/kubeconfig", "", 403},
	{"POST", "/api/v1/labs/%s/terminals", `{"target":"pod-a","cols":80,"rows":24}`, 403},
	{"DELETE", "/api/v1/labs/%s/terminals/t1", "", 403},
	{"GET", "/labs/%s/kube/api/v1/pods", "", 403},
	{"POST", "/labs/%s/kube/api/v1/namespaces/default/pods", "{}", 403},
	{"GET", "/labs/%s", "", 200},
	{"POST", "/api/v1/labs/%s/restart", "{}", 202},
	{"POST", "/labs/%s/delete", "", 303},
	{"DELETE", "/api/v1/labs/%s", "", 204},
}

func TestALabIsItsOwnersOnly(t *testing.T) {
	s := newServer(t, nil)
	owner, other, teacher, nobody := s.learner("owner"), s.learner("other"), s.instructor(), s.nobody()
	l := owner.exerciseLab()
	before := s.launcher.Agent(l.ID)
	for _, r := range routes {
		path := fmt.Sprintf(r.path, l.ID)
		if status, body, _ := other.do(r.method, path, r.body); status != 404 || !strings.Contains(body, l.ID) && !strings.HasPrefix(path, "/labs/") {
			t.Errorf("another learner: %s %s: %d %s; want 404", r.method, path, status, body)
		}
		want := 401
		if !strings.Contains(path, "/kube/") && strings.HasPrefix(path, "/labs/") {
			want = 303 // to the sign-in page
		}
		if status, body, h := nobody.do(r.method, path, r.body); status != want || want == 303 && !strings.HasPrefix(h.Get("Location"), "/signin") {
			t.Errorf("nobody: %s %s: %d %s; want %d", r.method, path, status, body, want)
		}
		if r.method != "GET" {
			if status, body, _ := owner.do(r.method, path, r.body, "Origin", "https://evil.example"); status != 403 {
				t.Errorf("the owner from a foreign page: %s %s: %d %s; want 403", r.method, path, status, body)
			}
			if status, body, _ := owner.do(r.method, path, r.body, "Sec-Fetch-Site", "cross-site"); status != 403 {
				t.Errorf("the owner across sites: %s %s: %d %s; want 403", r.method, path, status, body)
			}
		}
	}
	if s.launcher.Agent(l.ID) != before || len(before.Applied()) > 0 {
		t.Error("what was refused has changed the lab")
	}
	for _, r := range routes {
		path := fmt.Sprintf(r.path, l.ID)
		if r.method == "DELETE" && r.instructor == 204 {
			continue // deleted by the form before
		}
		if status, body, _ := teacher.do(r.method, path, r.body); status != r.instructor {
			t.Errorf("the instructor: %s %s: %d %s; want %d", r.method, path, status, body, r.instructor)
		}
		if r.method == "POST" && strings.HasSuffix(r.path, "/restart") {
			var now api.Lab
			teacher.call("GET", "/api/v1/labs/"+l.ID, "", 200, &now)
			if now.Instance != 2 {
				t.Errorf("instance %d after a restart", now.Instance)
			}
		}
	}
}

// exerciseLab makes a lab of the exercise, which is ready.
func (u *user) exerciseLab() api.Lab {
	u.t.Helper()
	var l api.Lab
	u.call("POST", "/api/v1/labs", `{"exercise":"01-first","wait":true}`, 201, &l)
	if l.Phase != lab.PhaseReady || l.Name != "01-first" {
		u.t.Fatalf("lab %+v", l)
	}
	return l
}

func TestWebSocketsAreForTheOwnerFromTheSameOrigin(t *testing.T) {
	s := newServer(t, nil)
	owner, other, nobody := s.learner("owner"), s.learner("other"), s.nobody()
	l := owner.lab("mine")
	var term agentapi.Terminal
	owner.call("POST", "/api/v1/labs/"+l.ID+"/terminals", `{"target":"pod-a","cols":80,"rows":24}`, 201, &term)
	for _, path := range []string{"/events", "/terminals/" + term.ID, "/exec?target=pod-a&command=true"} {
		path = "/api/v1/labs/" + l.ID + path
		for _, tc := range []struct {
			who    string
			u      *user
			origin string
			want   int
		}{
			{"the owner", owner, s.url, 101},
			{"the owner without a browser", owner, "", 101},
			{"a foreign page", owner, "https://evil.example", 403},
			{"a page whose name starts alike", owner, s.url + ".evil.example", 403},
			{"a page without an origin", owner, "null", 403},
			{"another learner", other, s.url, 404},
			{"nobody", nobody, s.url, 401},
		} {
			h := http.Header{}
			if tc.origin != "" {
				h.Set("Origin", tc.origin)
			}
			c, res, err := tc.u.socket(path, h)
			if res == nil {
				t.Fatalf("%s: %v", tc.who, err)
			}
			if res.StatusCode != tc.want {
				t.Errorf("%s at %s: %d; want %d", tc.who, path, res.StatusCode, tc.want)
			}
			if err == nil {
				c.Close()
			}
		}
		if status, body, _ := owner.do("GET", path, ""); status != 422 || !strings.Contains(body, "WebSocket") {
			t.Errorf("%s without an upgrade: %d %s", path, status, body)
		}
	}
}

func TestWebSocketMessagesOfTheWrongShape(t *testing.T) {
	s := newServer(t, nil)
	u := s.learner("owner")
	l := u.lab("mine")
	var term agentapi.Terminal
	u.call("POST", "/api/v1/labs/"+l.ID+"/terminals", `{"target":"pod-a","cols":80,"rows":24}`, 201, &term)
	events, terminal := "/events", "/terminals/"+term.ID
	exec := "/exec?target=pod-a&stdin=true&command=0"
	for _, tc := range []struct {
		name, path string
		kind       int
		frame      string
		code       int
		says       string
	}{
		{"events take none", events, websocket.TextMessage, `{"type":"hello"}`, websocket.CloseUnsupportedData, "takes no messages"},
		{"not JSON", terminal, websocket.TextMessage, `resize`, websocket.CloseUnsupportedData, "cols"},
		{"half a size", terminal, websocket.TextMessage, `{"cols":80}`, websocket.CloseUnsupportedData, "cols"},
		{"unknown field", terminal, websocket.TextMessage, `{"cols":80,"rows":24,"exit":0}`, websocket.CloseUnsupportedData, "cols"},
		{"no size", terminal, websocket.TextMessage, `{"cols":0,"rows":24}`, websocket.CloseUnsupportedData, "0×24"},
		{"huge size", terminal, websocket.TextMessage, `{"cols":80,"rows":60000}`, websocket.CloseUnsupportedData, "1000"},
		{"exec in text", exec, websocket.TextMessage, `x`, websocket.CloseUnsupportedData, "binary"},
		{"exec on its own output", exec, websocket.BinaryMessage, "\x01x", websocket.CloseUnsupportedData, "channel 1"},
		{"empty exec", exec, websocket.BinaryMessage, "", websocket.CloseUnsupportedData, "binary"},
	} {
		c, _, err := u.socket("/api/v1/labs/"+l.ID+tc.path, nil)
		if err != nil {
			t.Fatal(tc.name, err)
		}
		if err := c.WriteMessage(tc.kind, []byte(tc.frame)); err != nil {
			t.Fatal(tc.name, err)
		}
		if e := closedWith(t, c); e.Code != tc.code || !strings.Contains(e.Text, tc.says) {
			t.Errorf("%s: closed with %d %q; want %d %q", tc.name, e.Code, e.Text, tc.code, tc.says)
		}
	}
	c, _, err := u.socket("/api/v1/labs/"+l.ID+terminal, nil)
	if err != nil {
		t.Fatal(err)
	}
	c.WriteMessage(websocket.BinaryMessage, make([]byte, 1<<20))
	for err == nil {
		_, _, err = c.ReadMessage()
	}
	if cols, rows := s.launcher.Agent(l.ID).Size(term.ID); cols != 80 || rows != 24 {
		t.Errorf("the terminal is %d×%d; nothing wrong may have reached it", cols, rows)
	}
}

// closedWith reads until the connection is closed.
func closedWith(t *testing.T, c *websocket.Conn) *websocket.CloseError {
	t.Helper()
	for {
		_, _, err := c.ReadMessage()
		if e, ok := errors.AsType[*websocket.CloseError](err); ok {
			return e
		}
		if err != nil {
			t.Fatalf("the connection broke: %v", err)
		}
	}
}

func TestWrongInputChangesNothing(t *testing.T) {
	s := newServer(t, nil)
	u := s.learner("owner")
	l := u.lab("mine")
	at := "/api/v1/labs/" + l.ID
	for _, tc := range []struct {
		name, method, path, body string
		status                   int
		field, says              string
	}{
		{"broken JSON", "POST", "/api/v1/labs", `{"name":`, 400, "body", "unexpected"},
		{"unknown field", "POST", "/api/v1/labs", `{"nome":"x"}`, 422, "nome", "unexpected property"},
		{"wrong type", "POST", "/api/v1/labs", `{"name":7}`, 422, "name", "string"},
		{"10 MB", "POST", "/api/v1/labs", `{"manifest":"` + strings.Repeat("x", 10<<20) + `"}`, 413, "", ""},
		{"10 MB of YAML", "POST", at + "/apply", strings.Repeat("#", 10<<20), 413, "", ""},
		{"both sources", "POST", "/api/v1/labs", `{"exercise":"01-first","manifest":"a: b"}`, 422, "manifest", "not both"},
		{"no such exercise", "POST", "/api/v1/labs", `{"exercise":"../../etc"}`, 404, "exercise", "../../etc"},
		{"broken YAML", "POST", "/api/v1/labs", `{"manifest":"a: [1"}`, 422, "", "manifest is wrong"},
		{"cyclic anchor", "POST", "/api/v1/labs", `{"manifest":"a: &a [*a]"}`, 422, "", "itself"},
		{"unknown field of a Lab", "POST", "/api/v1/labs", `{"manifest":"apiVersion: podlab.io/v1\nkind: Lab\nspec: {color: red}"}`, 422, "", `"color"`},
		{"empty Lab", "POST", "/api/v1/labs", `{"manifest":"apiVersion: podlab.io/v1\nkind: Lab"}`, 422, "spec.nodes", "1 to 16"},
		{"long name", "POST", "/api/v1/labs", `{"name":"` + strings.Repeat("가", 65) + `"}`, 422, "name", "at most 64"},
		{"very long name", "POST", "/api/v1/labs", `{"name":"` + strings.Repeat("a", 401) + `"}`, 422, "name", "400"},
		{"bad UTF-8", "POST", "/api/v1/labs", "{\"name\":\"a\xff\"}", 422, "name", "UTF-8"},
		{"invisible name", "POST", "/api/v1/labs", `{"name":"\u202egnp.exe"}`, 422, "name", "U+202E"},
		{"taken name", "POST", "/api/v1/labs", `{"name":"mine"}`, 409, "name", "mine"},
		{"wrong target", "POST", at + "/terminals", `{"target":"a/b/c/d","cols":80,"rows":24}`, 422, "", "POD/CONTAINER"},
		{"no size", "POST", at + "/terminals", `{"target":"pod-a","cols":0,"rows":24}`, 422, "cols", ">= 1"},
		{"missing field", "POST", at + "/terminals", `{"cols":80,"rows":24}`, 422, "target", "required"},
		{"wrong probe", "POST", at + "/facts", `{"probes":{"p":{"from":"pod-a"}}}`, 422, "probes.p", "exactly one"},
		{"wrong hint", "POST", at + "/hints", `{"task":"one","number":9}`, 404, "", "hint 9"},
		{"wrong field in a manifest", "POST", at + "/apply", "wrongField: 1", 422, "spec.wrongField", "unknown field"},
		{"no such lab", "GET", "/api/v1/labs/nothere", "", 404, "", "nothere"},
		{"path traversal", "GET", "/api/v1/labs/..%2f..%2fetc%2fpasswd", "", 404, "", ""},
		{"traversal to the agent", "GET", "/labs/" + l.ID + "/kube/%2e%2e/v1/terminals", "", 422, "", `".."`},
		{"static traversal", "GET", "/static/..%2f..%2fgo.mod", "", 404, "", ""},
		{"no such method", "PUT", "/api/v1/labs", "{}", 405, "", ""},
		{"no such page", "GET", "/nowhere", "", 404, "", "nothing"},
		{"learner makes a class", "POST", "/api/v1/classes", `{"name":"x"}`, 403, "", "instructor"},
		{"learner lists all", "GET", "/api/v1/labs?all=true", "", 403, "", "instructor"},
		{"learner makes a link", "POST", "/api/v1/instructor-link", "", 403, "", "root"},
		{"wrong after", "GET", at + "/log?limit=0", "", 422, "query.limit", "1"},
	} {
		status, body, h := u.do(tc.method, tc.path, tc.body)
		if status != tc.status {
			t.Errorf("%s: %d %.300s; want %d", tc.name, status, body, tc.status)
			continue
		}
		if tc.name == "static traversal" {
			continue // answered by the file server, in plain text
		}
		var p problem.Problem
		if err := json.Unmarshal([]byte(body), &p); err != nil || h.Get("Content-Type") != problem.ContentType {
			t.Errorf("%s: %s %.300s; want a problem", tc.name, h.Get("Content-Type"), body)
			continue
		}
		if p.Field != tc.field || !strings.Contains(p.Detail, tc.says) || p.Status != tc.status || p.Code == "" {
			t.Errorf("%s: %+v; want field %q and %q", tc.name, p, tc.field, tc.says)
		}
	}
	var all []api.Lab
	u.call("GET", "/api/v1/labs", "", 200, &all)
	if len(all) != 1 || len(s.launcher.Agent(l.ID).Applied()) != 0 {
		t.Errorf("labs %+v, applied %q; want nothing changed", all, s.launcher.Agent(l.ID).Applied())
	}
}

func TestTokensOpenWhatTheyAreFor(t *testing.T) {
	s := newServer(t, nil)
	u := s.learner("owner")
	mine, another := u.lab("one"), u.lab("two")
	var token api.Token
	u.call("POST", "/api/v1/tokens", `{"label":"laptop"}`, 201, &token)
	nobody := s.nobody()
	if status, body, _ := nobody.do("GET", "/api/v1/session", "", "Authorization", "Bearer "+token.Token); status != 200 || !strings.Contains(body, `"owner"`) {
		t.Errorf("with a token: %d %s", status, body)
	}
	for _, header := range []string{"Bearer nonsense", "Basic x", token.Token, "Bearer " + u.cookie, "Bearer " + strings.Repeat("x", 5000)} {
		if status, body, _ := nobody.do("GET", "/api/v1/session", "", "Authorization", header); status != 401 {
			t.Errorf("Authorization %.30q: %d %s; want 401", header, status, body)
		}
	}

	status, config, _ := u.do("GET", "/api/v1/labs/"+mine.ID+"/kubeconfig", "")
	server := serverOf(t, config)
	if status != 200 || !strings.HasPrefix(server, s.url+"/labs/"+mine.ID+"/kube/~") {
		t.Fatalf("kubeconfig: %d %s", status, config)
	}
	path := strings.TrimPrefix(server, s.url)
	kube := path[strings.Index(path, "~")+1:]
	for _, tc := range []struct {
		path, header string
		want         int
		says         string
	}{
		{path + "/api/v1/pods?watch=true", "", 200, "GET /api/v1/pods?watch=true"},
		{"/labs/" + mine.ID + "/kube/api/v1/pods", "Bearer " + kube, 200, "GET /api/v1/pods"},
		{strings.Replace(path, mine.ID, another.ID, 1) + "/api", "", 404, another.ID},
		{"/labs/" + another.ID + "/kube/api", "Bearer " + kube, 404, another.ID},
		{"/labs/" + mine.ID + "/kube/~wrong/api", "", 401, ""},
		{"/labs/" + mine.ID + "/kube/~" + token.Token + "/api", "", 401, "kubeconfig"},
		{"/api/v1/labs/" + mine.ID, "Bearer " + kube, 403, "Kubernetes API only"},
		{"/api/v1/session", "Bearer " + kube, 403, "Kubernetes API only"},
	} {
		var header []string
		if tc.header != "" {
			header = []string{"Authorization", tc.header}
		}
		if status, body, _ := nobody.do("GET", tc.path, "", header...); status != tc.want || !strings.Contains(body, tc.says) {
			t.Errorf("GET %s: %d %s; want %d %q", tc.path, status, body, tc.want, tc.says)
		}
	}
	if log := s.log.String(); strings.Contains(log, kube) {
		t.Error("the log holds a token")
	}
	u.call("DELETE", "/api/v1/tokens", "", 204, nil)
	for _, path := range []string{path + "/api", "/api/v1/session"} {
		if status, _, _ := nobody.do("GET", path, "", "Authorization", "Bearer "+token.Token); status != 401 {
			t.Errorf("GET %s with a revoked token: %d; want 401", path, status)
		}
	}
}

func serverOf(t *testing.T, kubeconfig string) string {
	t.Helper()
	var c struct {
		Clusters []struct {
			Cluster struct{ Server string }
		}
	}
	if err := json.Unmarshal([]byte(kubeconfig), &c); err != nil || len(c.Clusters) != 1 {
		t.Fatalf("%v in %s", err, kubeconfig)
	}
	return c.Clusters[0].Cluster.Server
}

func TestTheLabsKubernetesAPIIsKeptApart(t *testing.T) {
	seen := make(chan http.Header, 1)
	s := newServer(t, func(_ *app.Config, l *labstest.Launcher) {
		l.Prepare = func(a *labstest.Agent) {
			a.Kube = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if _, err := io.Copy(io.Discard, r.Body); err != nil {
					panic(http.ErrAbortHandler)
				}
				seen <- r.Header
				w.Header().Set("Set-Cookie", class.CookieName+"=stolen")
				w.Header().Set("Content-Type", "text/html")
				io.WriteString(w, "<script>alert(1)</script>")
			})
		}
	})
	u := s.learner("owner")
	l := u.lab("one")
	status, body, h := u.do("GET", "/labs/"+l.ID+"/kube/api", "", "Impersonate-User", "admin", "X-Remote-User", "admin")
	got := <-seen
	if status != 200 || !strings.Contains(body, "script") {
		t.Fatalf("%d %s", status, body)
	}
	for _, name := range []string{"Cookie", "Authorization", "Impersonate-User", "X-Remote-User", "X-Forwarded-For"} {
		if v := got.Get(name); v != "" {
			t.Errorf("the lab was shown %s: %s", name, v)
		}
	}
	if h.Get("Set-Cookie") != "" || !strings.HasPrefix(h.Get("Content-Security-Policy"), "sandbox") || h.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("the lab's answer has %v", h)
	}
	if status, _, _ := u.do("POST", "/labs/"+l.ID+"/kube/api", strings.Repeat("x", 4<<20)); status != 413 {
		t.Errorf("4 MiB to the Kubernetes API: %d; want 413", status)
	}
}

func TestTheLocalSocketIsTheInstructor(t *testing.T) {
	s := newServer(t, nil)
	learner := s.learner("owner")
	l := learner.lab("theirs")
	c, err := client.New(filepath.Join(s.config.Data, app.SocketName), "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	all, err := c.Labs(t.Context(), true)
	if err != nil || len(all) != 1 || all[0].ID != l.ID {
		t.Errorf("labs %+v, %v", all, err)
	}
	link, err := c.InstructorLink(t.Context())
	if err != nil || !strings.HasPrefix(link, s.url+"/signin?link=") {
		t.Fatalf("link %q, %v", link, err)
	}
	u, _ := url.Parse(link)
	nobody := s.nobody()
	status, _, h := nobody.do("GET", u.RequestURI(), "")
	if status != 303 || h.Get("Location") != "/class" || !strings.Contains(h.Get("Set-Cookie"), "HttpOnly") || !strings.Contains(h.Get("Set-Cookie"), "SameSite=Lax") {
		t.Errorf("the link: %d %v", status, h)
	}
	if status, body, _ := nobody.do("GET", u.RequestURI(), ""); status != 401 || !strings.Contains(body, "signin") {
		t.Errorf("the link again: %d; want 401", status)
	}
	if !strings.Contains(s.out.String(), "podlab is at "+s.url) || !strings.Contains(s.out.String(), "one use: "+s.url+"/signin?link=") {
		t.Errorf("printed %q", s.out)
	}
	if _, err := net.Dial("unix", filepath.Join(s.config.Data, app.SocketName)); err != nil {
		t.Errorf("the socket: %v", err)
	}
}
