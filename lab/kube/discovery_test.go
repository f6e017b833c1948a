package kube

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"podlab/lab/kube/openapi"
)

// get answers a GET of the server as a browser without headers would send it.
func get(t *testing.T, s *Server, path string) (*http.Response, []byte) {
	t.Helper()
	rec := httptest.NewRecorder()
	s.Handler().ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
	body, err := io.ReadAll(rec.Body)
	if err != nil {
		t.Fatal(err)
	}
	return rec.Result(), body
}

// TestServed compares the API with the list that its documents are trimmed to.
func TestServed(t *testing.T) {
	s := newServer(t)
	var got, want []string
	for _, gv := range openapi.Served {
		for name, subs := range gv.Resources {
			want = append(want, gv.Path()+"/"+name)
			for _, sub := range subs {
				want = append(want, gv.Path()+"/"+name+"/"+sub)
			}
		}
		_, body := get(t, s, "/"+gv.Path())
		var list struct {
			Resources []struct{ Name string }
		}
		if err := json.Unmarshal(body, &list); err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		for _, r := range list.Resources {
			got = append(got, gv.Path()+"/"+r.Name)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the API serves\n%s\nopenapi.Served has\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	_, body := get(t, s, "/apis")
	var groups struct {
		Groups []struct{ Name string }
	}
	if err := json.Unmarshal(body, &groups); err != nil {
		t.Fatal(err)
	}
	if len(groups.Groups) != len(openapi.Served)-1 {
		t.Errorf("/apis lists %v, want every group of openapi.Served but core", groups.Groups)
	}
}

// TestDocuments fails where the documents were not made before the build.
func TestDocuments(t *testing.T) {
	models, err := openapi.Schemas()
	if err != nil {
		t.Fatal(err)
	}
	if models["io.k8s.api.core.v1.Pod"] == nil {
		t.Error("the schemas lack Pod")
	}
	s := newServer(t)
	for _, gv := range openapi.Served {
		res, body := get(t, s, "/openapi/v3/"+gv.Path())
		if res.StatusCode != http.StatusOK || !json.Valid(body) {
			t.Errorf("/openapi/v3/%s: %s, %d bytes", gv.Path(), res.Status, len(body))
		}
	}
	for path, want := range map[string]string{"/healthz": "ok", "/readyz": "ok", "/livez": "ok", "/version": `"gitVersion": "v1.37.2+podlab"`} {
		if res, body := get(t, s, path); res.StatusCode != http.StatusOK || !strings.Contains(string(body), want) {
			t.Errorf("%s: %s %s, want %s", path, res.Status, body, want)
		}
	}
	if res, body := get(t, s, "/nowhere"); res.StatusCode != http.StatusNotFound {
		t.Errorf("/nowhere: %s %s", res.Status, body)
	}
}
