package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

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

// kubeconfig makes a kubeconfig with a new token. JSON is YAML too, and has
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
	type m = map[string]any
	b, err := json.MarshalIndent(m{
		"apiVersion": "v1", "kind": "Config", "current-context": name, "preferences": m{},
		"clusters": []m{{"name": name, "cluster": m{"server": s.baseURL(ctx, r) + "/labs/" + l.ID() + "/kube"}}},
		"users":    []m{{"name": name, "user": m{"token": token}}},
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
