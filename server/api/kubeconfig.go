package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"podlab/server/access"
	"podlab/server/labs"
)

// baseURL is the server's address as the caller knows it.
func (s *Server) baseURL(ctx context.Context, r *http.Request) string {
	c := access.From(ctx)
	if s.FixedURL || c != nil && c.Local {
		return s.PublicURL
	}
	scheme := "http"
	if s.Secure(r) {
		scheme = "https"
	}
	return scheme + "://" + r.Host
}

// TokenInPath stands before a lab's token in the path of its Kubernetes API.
const TokenInPath = "/~"

// kubeconfig makes a kubeconfig with a new token: as a bearer token, or in the
// path where there is no TLS, since kubectl sends no token then. JSON is YAML too, and has
// no surprises in quoting.
func (s *Server) kubeconfig(ctx context.Context, l *labs.Lab, r *http.Request) (*kubeconfigAnswer, error) {
	c, err := access.User(ctx)
	if err != nil {
		return nil, err
	}
	token, err := s.Accounts.NewKubeToken(ctx, c.User, l.ID())
	if err != nil {
		return nil, err
	}
	name := "podlab-" + l.ID()
	server := s.baseURL(ctx, r) + "/labs/" + l.ID() + "/kube"
	user := map[string]any{}
	if strings.HasPrefix(server, "https:") {
		user["token"] = token
	} else {
		server += TokenInPath + token
	}
	type m = map[string]any
	b, err := json.MarshalIndent(m{
		"apiVersion": "v1", "kind": "Config", "current-context": name, "preferences": m{},
		"clusters": []m{{"name": name, "cluster": m{"server": server}}},
		"users":    []m{{"name": name, "user": user}},
		"contexts": []m{{"name": name, "context": m{"cluster": name, "user": name, "namespace": "default"}}},
	}, "", "  ")
	if err != nil {
		return nil, err
	}
	return &kubeconfigAnswer{
		ContentType: "application/yaml", CacheControl: "no-store",
		ContentDisposition: fmt.Sprintf("attachment; filename=%q", name+".yaml"), Body: append(b, '\n'),
	}, nil
}
