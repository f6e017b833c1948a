package kube

import (
	"errors"
	"net/http"
	"runtime/debug"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	"k8s.io/apiserver/pkg/endpoints/request"
)

// admin is who every request comes from: the lab belongs to its learner.
var admin = &user.DefaultInfo{Name: "learner", Groups: []string{user.SystemPrivilegedGroup, user.AllAuthenticated}}

// filters are the parts of a real API server's chain that its handlers need.
func (s *Server) filters(h http.Handler) http.Handler {
	h = s.schemas.loading(h)
	h = filters.WithWarningRecorder(h)
	h = withUser(h)
	h = filters.WithRequestInfo(h, requestInfo)
	h = filters.WithRequestReceivedTimestamp(h)
	h = filters.WithCacheControl(h)
	h = filters.WithAuditInit(h) // handlers write to the audit context, though nobody reads it
	h = endingUpgrades(h)
	return s.recovering(h)
}

func withUser(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r.WithContext(request.WithUser(r.Context(), admin)))
	})
}

// recovering turns a panic into an answer; one lab's defect ends one request.
func (s *Server) recovering(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				return // the handler's way to cut a connection
			}
			s.log.Error("panic in the lab's API", "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
			responsewriters.ErrorNegotiated(errors.New("this request caused a defect; see the agent's log"), s.codecs, schema.GroupVersion{Version: "v1"}, w, r)
		}()
		h.ServeHTTP(w, r)
	})
}
