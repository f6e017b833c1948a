package kube

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
)

// keepNamespaces does what a cluster's namespace and service account
// controllers do: a new namespace gets its default service account, a
// terminating one is emptied and then let go.
func (s *Server) keepNamespaces(w watch.Interface) {
	defer w.Stop()
	emptying := map[string]bool{}
	for e := range w.ResultChan() {
		ns, ok := e.Object.(*corev1.Namespace)
		if !ok || e.Type == watch.Deleted {
			continue
		}
		if ns.DeletionTimestamp == nil {
			if err := s.defaultServiceAccount(s.ctx, ns.Name); err != nil && !apierrors.IsNotFound(err) && s.ctx.Err() == nil {
				s.log.Error("cannot make default service account", "namespace", ns.Name, "err", err)
			}
			continue
		}
		if uid := string(ns.UID); !emptying[uid] {
			emptying[uid] = true
			s.wg.Go(func() { s.emptyNamespace(ns) })
		}
	}
}

// collection is a resource whose objects can be listed, watched and deleted together.
type collection interface {
	rest.Lister
	rest.Watcher
	rest.CollectionDeleter
	rest.Scoper
}

// emptyNamespace deletes everything in the namespace, waits until it is gone
// and lets the namespace go.
func (s *Server) emptyNamespace(ns *corev1.Namespace) {
	ctx := request.WithNamespace(request.WithUser(s.ctx, admin), ns.Name)
	for _, group := range s.storages {
		for _, path := range slices.Sorted(maps.Keys(group)) {
			c, ok := group[path].(collection)
			if !ok || strings.Contains(path, "/") || !c.NamespaceScoped() {
				continue
			}
			if err := emptied(ctx, c); err != nil {
				if s.ctx.Err() == nil {
					s.log.Error("cannot empty namespace", "namespace", ns.Name, "resource", path, "err", err)
				}
				return
			}
		}
	}
	ns = ns.DeepCopy()
	ns.ResourceVersion = "" // whatever else changed, its content is gone
	ns.Spec.Finalizers = slices.DeleteFunc(ns.Spec.Finalizers, func(f corev1.FinalizerName) bool { return f == corev1.FinalizerKubernetes })
	if _, err := s.core.Namespaces().Finalize(s.ctx, ns, metav1.UpdateOptions{}); err != nil && !apierrors.IsNotFound(err) && s.ctx.Err() == nil {
		s.log.Error("cannot finalize namespace", "namespace", ns.Name, "err", err)
	}
}

// emptied deletes a resource's objects and returns when the last is gone;
// pods take their grace period.
func emptied(ctx context.Context, c collection) error {
	for {
		if _, err := c.DeleteCollection(ctx, rest.ValidateAllObjectFunc, &metav1.DeleteOptions{}, &internalversion.ListOptions{}); err != nil {
			return err
		}
		list, err := c.List(ctx, &internalversion.ListOptions{})
		if err != nil || meta.LenList(list) == 0 {
			return err
		}
		m, err := meta.ListAccessor(list)
		if err != nil {
			return err
		}
		if err := nextDeletion(ctx, c, m.GetResourceVersion()); err != nil {
			return err
		}
	}
}

// nextDeletion waits until one object is gone after the version.
func nextDeletion(ctx context.Context, c collection, version string) error {
	w, err := c.Watch(ctx, &internalversion.ListOptions{ResourceVersion: version})
	if err != nil {
		return err
	}
	defer w.Stop()
	for e := range w.ResultChan() {
		switch e.Type {
		case watch.Deleted:
			return nil
		case watch.Error:
			return apierrors.FromObject(e.Object)
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return fmt.Errorf("the watch ended")
}
