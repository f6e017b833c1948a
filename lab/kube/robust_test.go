package kube

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// panics is a log handler that fails the test at a panic.
type panics struct {
	slog.Handler
	t *testing.T
}

// Handle fails at a panic.
func (p panics) Handle(_ context.Context, r slog.Record) error {
	if strings.Contains(r.Message, "panic") {
		var attrs []string
		r.Attrs(func(a slog.Attr) bool {
			attrs = append(attrs, a.String())
			return true
		})
		p.t.Errorf("%s %s", r.Message, attrs)
	}
	return nil
}

var corpus = []struct{ collection, object string }{
	{"/api/v1/namespaces/default/pods", `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x","labels":{"a":"b"},"annotations":{"c":"d"}},"spec":{"restartPolicy":"Always","terminationGracePeriodSeconds":3,"nodeSelector":{"k":"v"},"tolerations":[{"key":"k","operator":"Exists","effect":"NoExecute","tolerationSeconds":5}],"volumes":[{"name":"v","emptyDir":{"sizeLimit":"1Mi"}},{"name":"c","configMap":{"name":"cm","items":[{"key":"k","path":"p"}]}}],"initContainers":[{"name":"i","image":"busybox","command":["true"]}],"containers":[{"name":"a","image":"nginx:1","env":[{"name":"E","value":"1"},{"name":"F","valueFrom":{"fieldRef":{"fieldPath":"status.podIP"}}}],"ports":[{"containerPort":80,"protocol":"TCP","name":"http"}],"resources":{"requests":{"cpu":"100m","memory":"10Mi"},"limits":{"cpu":1}},"livenessProbe":{"httpGet":{"path":"/","port":"http"},"periodSeconds":3},"readinessProbe":{"exec":{"command":["true"]}},"volumeMounts":[{"name":"v","mountPath":"/v"}],"securityContext":{"capabilities":{"add":["NET_ADMIN"]}}}],"affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{"matchExpressions":[{"key":"k","operator":"In","values":["v"]}]}]}}},"securityContext":{"sysctls":[{"name":"net.core.somaxconn","value":"1"}]},"hostAliases":[{"ip":"1.2.3.4","hostnames":["h"]}],"dnsConfig":{"options":[{"name":"ndots","value":"5"}]}},"status":{"phase":"Running","podIPs":[{"ip":"1.2.3.4"}]}}`},
	{"/api/v1/namespaces/default/services", `{"apiVersion":"v1","kind":"Service","metadata":{"name":"x"},"spec":{"selector":{"a":"b"},"ipFamilyPolicy":"PreferDualStack","type":"NodePort","ports":[{"port":80,"targetPort":"http","nodePort":30080,"protocol":"TCP","name":"h"},{"port":53,"protocol":"UDP","name":"d"}],"sessionAffinity":"ClientIP","externalIPs":["1.2.3.4"]}}`},
	{"/api/v1/nodes", `{"apiVersion":"v1","kind":"Node","metadata":{"name":"x"},"spec":{"podCIDR":"10.1.0.0/24","podCIDRs":["10.1.0.0/24","fd00::/64"],"taints":[{"key":"k","effect":"NoSchedule"}]},"status":{"addresses":[{"type":"InternalIP","address":"1.2.3.4"}],"allocatable":{"cpu":"1"}}}`},
	{"/api/v1/namespaces", `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"x","finalizers":["a/b"]},"spec":{"finalizers":["kubernetes"]}}`},
	{"/api/v1/namespaces/default/configmaps", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"data":{"a":"b"},"binaryData":{"c":"AAA="},"immutable":false}`},
	{"/api/v1/namespaces/default/secrets", `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"x"},"type":"kubernetes.io/basic-auth","stringData":{"username":"b"},"data":{"c":"AAA="}}`},
	{"/api/v1/namespaces/default/endpoints", `{"apiVersion":"v1","kind":"Endpoints","metadata":{"name":"x"},"subsets":[{"addresses":[{"ip":"1.2.3.4","targetRef":{"kind":"Pod"}}],"ports":[{"port":80}]}]}`},
	{"/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", `{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","metadata":{"name":"x"},"addressType":"IPv4","endpoints":[{"addresses":["1.2.3.4"],"conditions":{"ready":true},"zone":"z"}],"ports":[{"port":80,"name":"p"}]}`},
	{"/api/v1/namespaces/default/events", `{"apiVersion":"v1","kind":"Event","metadata":{"name":"x"},"involvedObject":{"kind":"Pod","namespace":"default"},"reason":"R","message":"m","type":"Normal","count":1,"firstTimestamp":"2026-01-01T00:00:00Z","source":{"component":"c"}}`},
	{"/apis/events.k8s.io/v1/namespaces/default/events", `{"apiVersion":"events.k8s.io/v1","kind":"Event","metadata":{"name":"y"},"regarding":{"kind":"Pod","namespace":"default"},"reason":"R","note":"m","type":"Normal","action":"A","reportingController":"a/b","reportingInstance":"i","eventTime":"2026-01-01T00:00:00.000000Z"}`},
	{"/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", `{"apiVersion":"authorization.k8s.io/v1","kind":"SelfSubjectAccessReview","spec":{"resourceAttributes":{"verb":"get","resource":"pods","namespace":"x"}}}`},
}

var patchTypes = []string{
	"application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json", "application/apply-patch+yaml", "text/plain",
}

// odd are values that fields are not made for.
var odd = []any{
	nil, true, -1.0, 0.5, 1e300, 9223372036854775807.0, "", "x", "-", strings.Repeat("y", 300), "ünïcode", "\x00", "10.0.0.0/8", "1Mi", "2026-01-01T00:00:00Z",
	[]any{}, []any{nil}, []any{map[string]any{}}, map[string]any{}, map[string]any{"$patch": "delete"}, map[string]any{"$setElementOrder/x": []any{1.0}},
	map[string]any{"$retainKeys": "x"}, map[string]any{"": nil},
}

// oddity is one of them, the caller's own.
func oddity(r *rand.Rand) any {
	data, err := json.Marshal(odd[r.IntN(len(odd))])
	if err != nil {
		panic(err)
	}
	var v any
	if err := json.Unmarshal(data, &v); err != nil {
		panic(err)
	}
	return v
}

// mutate changes a random place of the tree.
func mutate(r *rand.Rand, v any) any {
	if r.IntN(8) == 0 {
		return oddity(r)
	}
	switch v := v.(type) {
	case map[string]any:
		if len(v) == 0 {
			return oddity(r)
		}
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		// In order, for a seed to say it all.
		for i := range keys {
			for j := i; j > 0 && keys[j-1] > keys[j]; j-- {
				keys[j-1], keys[j] = keys[j], keys[j-1]
			}
		}
		k := keys[r.IntN(len(keys))]
		switch r.IntN(8) {
		case 0:
			delete(v, k)
		case 1:
			v[k+"x"] = oddity(r)
		default:
			v[k] = mutate(r, v[k])
		}
		return v
	case []any:
		if len(v) == 0 || r.IntN(8) == 0 {
			return append(v, oddity(r))
		}
		if r.IntN(6) == 0 {
			return append(v, mutate(r, oddity(r)))
		}
		i := r.IntN(len(v))
		v[i] = mutate(r, v[i])
		return v
	}
	return oddity(r)
}

// TestRandomRequests sends objects and patches that are nearly right: the
// server must neither panic nor answer with a defect of its own.
func TestRandomRequests(t *testing.T) {
	s, err := New(Config{Log: slog.New(panics{slog.Default().Handler(), t})})
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, s)
	r := rand.New(rand.NewPCG(1, 2)) // a test's own dice
	send := func(method, path, kind string, body []byte) int {
		req := httptest.NewRequestWithContext(t.Context(), method, path, bytes.NewReader(body))
		req.Header.Set("Content-Type", kind)
		rec := httptest.NewRecorder()
		s.Handler().ServeHTTP(rec, req)
		// A real server calls an apply that fits no schema its own error.
		if rec.Code >= 500 && !strings.Contains(rec.Body.String(), "failed to create typed patch object") {
			t.Errorf("%s %s %s\n%s\n%d %s", method, path, kind, body, rec.Code, rec.Body)
		}
		return rec.Code
	}
	taken := 0
	for range 2500 {
		c := corpus[r.IntN(len(corpus))]
		var object any
		if err := json.Unmarshal([]byte(c.object), &object); err != nil {
			t.Fatal(err)
		}
		for range 1 + r.IntN(3) {
			object = mutate(r, object)
		}
		body, err := json.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		query := ""
		if r.IntN(2) == 0 {
			query = []string{"?fieldValidation=Strict", "?dryRun=All", "?fieldManager=f&force=true", "?pretty=1", "?fieldValidation=Warn&dryRun=x"}[r.IntN(5)]
		}
		switch r.IntN(4) {
		case 0:
			send(http.MethodPut, c.collection+"/x"+query, "application/json", body)
		case 1:
			kind := patchTypes[r.IntN(len(patchTypes))]
			if kind == patchTypes[0] {
				body = fmt.Appendf(nil, `[{"op":%q,"path":%q,"value":%s}]`, []string{"add", "replace", "remove", "test"}[r.IntN(4)],
					[]string{"/spec", "/metadata/labels/a", "/spec/containers/0", "/metadata/name", "", "/x/y", "/spec/ports/-"}[r.IntN(7)], body)
			}
			send(http.MethodPatch, c.collection+"/x"+query, kind, body)
		default:
			if send(http.MethodPost, c.collection+query, "application/json", body) == http.StatusCreated {
				taken++
			}
		}
		if r.IntN(10) == 0 {
			send(http.MethodDelete, c.collection+"/x?gracePeriodSeconds=0", "application/json", nil)
			send(http.MethodGet, c.collection+"?limit=1&labelSelector=a%3Db", "", nil)
		}
	}
	if taken < 100 {
		t.Errorf("only %d of the objects were taken: the dice are too wild to reach far", taken)
	}
	if _, err := s.Core().Pods("default").Create(t.Context(), podNamed("well"), metav1.CreateOptions{}); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(twoContainers))
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte("<<: {a: 1}\napiVersion: v1\nkind: List\nitems: [{kind: x}]\n"))
	f.Add([]byte("- ? [a]\n  : !!binary aGk=\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		docs, errs := ParseManifest(text)
		if (len(docs) == 0) == (len(errs) == 0) {
			t.Errorf("%d documents and %d errors", len(docs), len(errs))
		}
		for _, d := range docs {
			if !json.Valid(d.JSON) || d.Kind == "" || d.Name == "" {
				t.Errorf("a document of %q: %+v", text, d)
			}
		}
	})
}

// TestCutConnections leaves watches, logs and streams without goodbye: their
// goroutines must end.
func TestCutConnections(t *testing.T) {
	s := newSite(t)
	s.runningPod(t, "web", "nginx")
	s.must(t, "", "", "get", "pods") // what is made once is made
	before := goleak.IgnoreCurrent()
	web := httptest.NewServer(s.Handler())
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for _, path := range []string{
				"/api/v1/pods?watch=1", "/api/v1/namespaces/default/events?watch=1&resourceVersion=1",
				"/api/v1/namespaces/default/pods/web/log?follow=true",
			} {
				c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", web.Listener.Addr().String())
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: lab\r\n\r\n", path); err != nil {
					t.Error(err)
				}
				if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.Contains(line, "200") {
					t.Errorf("%s: %q, %v", path, line, err)
				}
				_ = c.Close()
			}
		})
	}
	wg.Wait()
	for _, env := range []string{"true", "false"} {
		cmd := s.command(t.Context(), "exec", "-i", "web", "--", "size")
		cmd.Env = append(cmd.Env, "KUBECTL_REMOTE_COMMAND_WEBSOCKETS="+env)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
			t.Errorf("got %q, %v", line, err)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		_ = in.Close()
	}
	web.Close()
	goleak.VerifyNone(t, before)
}

// TestCloseWithStreams closes the server while everything is in use.
func TestCloseWithStreams(t *testing.T) {
	before := goleak.IgnoreCurrent()
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	rt := &fakeRuntime{more: make(chan string)}
	s.SetRuntime(rt)
	(&site{Server: s}).runningPod(t, "web", "nginx")
	w, err := s.Core().Pods("").Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	logs, err := s.Core().Pods("default").GetLogs("web", &corev1.PodLogOptions{Follow: true}).Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(logs).ReadString('\n'); err != nil || line != "first line of nginx\n" {
		t.Errorf("got %q, %v", line, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	for range w.ResultChan() {
	}
	_ = logs.Close()
	goleak.VerifyNone(t, before)
}
