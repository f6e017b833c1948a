package web

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"podlab/web/view"
)

func get(t *testing.T, path, encoding string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.Header.Set("Accept-Encoding", encoding)
	w := httptest.NewRecorder()
	Static().ServeHTTP(w, r)
	return w.Result()
}

func TestStatic(t *testing.T) {
	assets, err := Assets()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"site.js", "site.css", "lab.js", "lab.css", "layout-worker.js"} {
		path, ok := assets[name]
		if !ok {
			t.Fatalf("the manifest has no %s", name)
		}
		for encoding, want := range map[string]string{"": "", "gzip": "gzip", "gzip, deflate, br": "br", "br;q=0, gzip": "gzip"} {
			res := get(t, path, encoding)
			if res.StatusCode != http.StatusOK {
				t.Errorf("%s: status %d", path, res.StatusCode)
			}
			if got := res.Header.Get("Content-Encoding"); got != want {
				t.Errorf("%s with Accept-Encoding %q: Content-Encoding %q, want %q", name, encoding, got, want)
			}
			if got := res.Header.Get("Cache-Control"); !strings.Contains(got, "immutable") {
				t.Errorf("%s: Cache-Control %q: its name has its hash, so it may be kept", name, got)
			}
			if got := res.Header.Get("Content-Type"); !strings.HasPrefix(got, "text/") {
				t.Errorf("%s: Content-Type %q", name, got)
			}
		}
	}
}

func TestStaticRefuses(t *testing.T) {
	for _, path := range []string{"/static/", "/static/app", "/static/../static.go", "/static/app/none.js", "/static/..%2fstatic.go"} {
		if got := get(t, path, "").StatusCode; got != http.StatusNotFound {
			t.Errorf("%s: status %d, want 404", path, got)
		}
	}
	w := httptest.NewRecorder()
	Static().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/static/favicon.svg", nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: status %d, want 405", w.Code)
	}
}

// What learners and exercises write must come out as text, and the block of
// data must not be left by anything in it.
func TestPagesEscape(t *testing.T) {
	const evil = `</script><script>alert(1)</script>"'&`
	p := view.Page{Lang: view.Korean, User: &view.User{Name: evil}, Assets: map[string]string{"site.js": "/s.js"}}
	v := view.Lab{Page: p, Boot: view.LabBoot{ID: "x", Name: evil, Exercise: &view.Exercise{Title: view.Text{"ko": evil}, Lesson: view.Text{"ko": "<p>" + evil}}}}
	var b bytes.Buffer
	if err := Lab(v).Render(context.Background(), &b); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "alert(1)</script>") {
		t.Errorf("the page lets a script through:\n%s", b.String())
	}
	_, rest, ok := strings.Cut(b.String(), `<script id="boot" type="application/json">`)
	if !ok {
		t.Fatal("the page has no block of data")
	}
	data, _, _ := strings.Cut(rest, "</script>")
	var boot view.LabBoot
	if err := json.Unmarshal([]byte(data), &boot); err != nil {
		t.Fatal(err)
	}
	if boot.Name != evil || boot.User.Name != evil {
		t.Errorf("the data changed on its way: %q, %q", boot.Name, boot.User.Name)
	}
}

func TestPagesInBothLanguages(t *testing.T) {
	for lang, want := range map[view.Lang]string{view.Korean: "없는 페이지입니다", view.English: "There is no such page"} {
		var b bytes.Buffer
		if err := Error(view.Error{Page: view.Page{Lang: lang}, Status: 404}).Render(context.Background(), &b); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(b.String(), want) || !strings.Contains(b.String(), `lang="`+string(lang)+`"`) {
			t.Errorf("%s: the page lacks %q", lang, want)
		}
	}
}
