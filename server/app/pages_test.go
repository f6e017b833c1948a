package app_test

import (
	"net/url"
	"strings"
	"testing"

	"podlab/server/api"
	"podlab/server/class"
	"podlab/web"
)

const browser = "text/html,application/xhtml+xml"

// form posts a form as a page of the server's own does.
func (u *user) form(path string, values url.Values) (int, string, string) {
	u.t.Helper()
	status, body, h := u.do("POST", path, values.Encode(), "Content-Type", "application/x-www-form-urlencoded", "Origin", u.url, "Accept", browser)
	if c := h.Get("Set-Cookie"); strings.HasPrefix(c, class.CookieName+"=") {
		u.cookie, _, _ = strings.Cut(strings.TrimPrefix(c, class.CookieName+"="), ";")
	}
	return status, body, h.Get("Location")
}

func TestALearnerInTheBrowser(t *testing.T) {
	s := newServer(t, nil)
	room, err := s.app.Accounts().CreateClass(t.Context(), "네트워크 1반")
	if err != nil {
		t.Fatal(err)
	}
	u := s.nobody()
	if status, _, h := u.do("GET", "/", "", "Accept", browser); status != 303 || h.Get("Location") != "/signin" {
		t.Errorf("/: %d to %q; want the sign-in page", status, h.Get("Location"))
	}
	for _, tc := range []struct {
		name, code, who string
		status          int
	}{
		{"wrong code", "2222-2222", "하늘", 401}, {"no name", room.Code, "  ", 422}, {"long name", room.Code, strings.Repeat("하", 65), 422},
		{"not a code", "' OR 1=1", "하늘", 401},
	} {
		status, body, _ := u.form("/signin", url.Values{"code": {tc.code}, "name": {tc.who}})
		if status != tc.status || !strings.Contains(body, `role="alert"`) {
			t.Errorf("%s: %d; want %d and what is wrong in the page", tc.name, status, tc.status)
		}
	}
	typed := strings.ToLower(strings.ReplaceAll(room.Code, "-", " "))
	decomposed := "\u1112\u1161\u1102\u1173\u11af" // 하늘 as single letters
	status, _, to := u.form("/signin", url.Values{"code": {typed}, "name": {" " + decomposed}, "next": {"https://evil.example/"}})
	if status != 303 || to != "/" || u.cookie == "" {
		t.Fatalf("sign-in: %d to %q, cookie %q", status, to, u.cookie)
	}
	status, body, h := u.do("GET", "/", "", "Accept", browser)
	for _, want := range []string{`lang="ko"`, "하늘", "네트워크 1반", "첫 연습"} {
		if status != 200 || !strings.Contains(body, want) {
			t.Errorf("home: %d without %q", status, want)
		}
	}
	if h.Get("Content-Security-Policy") != web.ContentSecurityPolicy || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") == "" {
		t.Errorf("headers %v", h)
	}
	if _, body, _ := u.do("GET", "/", "", "Accept", browser, "Accept-Language", "en-GB,ko;q=0.5"); !strings.Contains(body, `lang="en"`) {
		t.Error("Accept-Language: en is not heard")
	}

	status, _, to = u.form("/labs", url.Values{"exercise": {"01-first"}})
	if status != 303 || !strings.HasPrefix(to, "/labs/") {
		t.Fatalf("start: %d to %q", status, to)
	}
	status, body, _ = u.do("GET", to, "", "Accept", browser)
	id := strings.TrimPrefix(to, "/labs/")
	if status != 200 || !strings.Contains(body, `"id":"`+id+`"`) || strings.Contains(body, `"readOnly":true`) {
		t.Errorf("the lab's page: %d %.2000s", status, body)
	}
	stranger := s.learner("other")
	if status, body, _ := stranger.do("GET", to, "", "Accept", browser); status != 404 || !strings.Contains(body, "<html") {
		t.Errorf("another's lab page: %d; want a 404 page", status)
	}
	teacher := s.instructor()
	if status, body, _ := teacher.do("GET", to, "", "Accept", browser); status != 200 || !strings.Contains(body, `"readOnly":true`) || !strings.Contains(body, `"owner":"하늘"`) {
		t.Errorf("the instructor's view of it: %d %.2000s", status, body)
	}
	if status, body, _ := teacher.do("GET", "/class", "", "Accept", browser); status != 200 || !strings.Contains(body, "하늘") || !strings.Contains(body, room.Code) {
		t.Errorf("the class page: %d", status)
	}
	if status, _, _ := u.do("GET", "/class", "", "Accept", browser); status != 403 {
		t.Errorf("the class page for a learner: %d", status)
	}
	if status, _, to := u.form("/labs/"+id+"/delete", nil); status != 303 || to != "/" {
		t.Errorf("delete: %d to %q", status, to)
	}
	if status, _, to := u.form("/signout", nil); status != 303 || to != "/signin" {
		t.Errorf("sign-out: %d to %q", status, to)
	}
	if status, _, _ := u.do("GET", "/api/v1/session", ""); status != 401 {
		t.Errorf("after sign-out: %d", status)
	}
}

func TestNextStaysOnThisServer(t *testing.T) {
	s := newServer(t, nil)
	u := s.learner("owner")
	for next, want := range map[string]string{
		"/labs/x": "/labs/x", "/class?a=b": "/class?a=b", "": "/", "//evil.example": "/", "https://evil.example/": "/", "/\\evil.example": "/",
		"/signin": "/", "javascript:alert(1)": "/", "/a\r\nSet-Cookie: x=y": "/",
	} {
		if _, _, h := u.do("GET", "/signin?next="+url.QueryEscape(next), ""); h.Get("Location") != want {
			t.Errorf("next=%q leads to %q; want %q", next, h.Get("Location"), want)
		}
	}
}

func TestStaticFilesAreKept(t *testing.T) {
	s := newServer(t, nil)
	assets, err := web.Assets()
	if err != nil {
		t.Fatal(err)
	}
	status, _, h := s.nobody().do("GET", assets["site.css"], "", "Accept-Encoding", "br")
	if status != 200 || !strings.Contains(h.Get("Cache-Control"), "immutable") || !strings.HasPrefix(h.Get("Content-Type"), "text/css") {
		t.Errorf("%s: %d %v", assets["site.css"], status, h)
	}
}

func TestWrongCodesAreLimited(t *testing.T) {
	s := newServer(t, nil)
	u := s.nobody()
	last := 0
	for range 25 {
		last, _, _ = u.do("POST", "/api/v1/session", `{"code":"2222-2222","name":"x"}`)
	}
	if last != 429 {
		t.Errorf("the 25th wrong code: %d; want 429", last)
	}
	var me api.User
	s.learnerFrom("10.0.0.9").call("GET", "/api/v1/session", "", 200, &me)
	if me.Name != "elsewhere" {
		t.Errorf("somebody at another address: %+v", me)
	}
}

// learnerFrom signs somebody in from an address.
func (s *server) learnerFrom(address string) *user {
	s.t.Helper()
	c, err := s.app.Accounts().CreateClass(s.t.Context(), "room")
	if err != nil {
		s.t.Fatal(err)
	}
	cookie, session, err := s.app.Accounts().SignIn(s.t.Context(), c.Code, "elsewhere", address)
	if err != nil {
		s.t.Fatal(err)
	}
	return &user{s, cookie, session.User.ID}
}
