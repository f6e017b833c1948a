package kube

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	api "k8s.io/kubernetes/pkg/apis/core"
)

// allowAll is the lab's authorizer: its learner is cluster-admin.
type allowAll struct{}

// Authorize allows.
func (allowAll) Authorize(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
	return authorizer.DecisionAllow, "", nil
}

// RulesFor lists what is allowed: everything.
func (allowAll) RulesFor(context.Context, user.Info, string) ([]authorizer.ResourceRuleInfo, []authorizer.NonResourceRuleInfo, bool, error) {
	all := []string{"*"}
	return []authorizer.ResourceRuleInfo{&authorizer.DefaultResourceRuleInfo{Verbs: all, APIGroups: all, Resources: all}},
		[]authorizer.NonResourceRuleInfo{&authorizer.DefaultNonResourceRuleInfo{Verbs: all, NonResourceURLs: all}}, false, nil
}

// admitter does the part of a real cluster's admission plugins that shows:
// NamespaceLifecycle, ServiceAccount, DefaultTolerationSeconds and Priority.
type admitter struct{ s *Server }

var (
	_ admission.MutationInterface   = (*admitter)(nil)
	_ admission.ValidationInterface = (*admitter)(nil)
)

// immortal namespaces are those that a real API server does not let go.
var immortal = map[string]bool{"default": true, "kube-system": true, "kube-public": true}

// Handles every operation.
func (*admitter) Handles(admission.Operation) bool { return true }

// Admit fills in what a pod gets from the cluster.
func (p *admitter) Admit(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if err := p.namespaceLifecycle(ctx, a); err != nil {
		return err
	}
	if a.GetOperation() != admission.Create || a.GetSubresource() != "" || a.GetResource().Group != "" || a.GetResource().Resource != "pods" {
		return nil
	}
	pod, ok := a.GetObject().(*api.Pod)
	if !ok {
		return apierrors.NewBadRequest("Resource was marked with kind Pod but was unable to be converted")
	}
	if pod.Spec.ServiceAccountName == "" {
		pod.Spec.ServiceAccountName = "default"
		pod.Spec.DeprecatedServiceAccount = "default" //nolint:staticcheck // a real server sets both, and validation wants them equal
	}
	if !a.IsDryRun() || !isPending(ctx, a.GetNamespace()) {
		if err := p.serviceAccount(a, pod); err != nil {
			return err
		}
	}
	if pod.Spec.Priority == nil {
		zero, never := int32(0), api.PreemptLowerPriority
		pod.Spec.Priority, pod.Spec.PreemptionPolicy = &zero, &never
	}
	tolerateForAWhile(pod)
	return nil
}

// Validate checks what may not be mutated.
func (*admitter) Validate(context.Context, admission.Attributes, admission.ObjectInterfaces) error {
	return nil
}

// namespaceLifecycle refuses to create in a namespace that is not there or is
// going, and to delete one that the cluster needs, in the words of
// k8s.io/apiserver/pkg/admission/plugin/namespace/lifecycle.
func (p *admitter) namespaceLifecycle(ctx context.Context, a admission.Attributes) error {
	if a.GetKind().Group == "" && a.GetKind().Kind == "Namespace" {
		if a.GetOperation() == admission.Delete && immortal[a.GetName()] {
			return apierrors.NewForbidden(a.GetResource().GroupResource(), a.GetName(), fmt.Errorf("this namespace may not be deleted"))
		}
		return nil
	}
	if a.GetNamespace() == "" || a.GetOperation() == admission.Delete || a.GetOperation() == admission.Connect {
		return nil
	}
	if a.GetResource().Group == "authorization.k8s.io" || a.IsDryRun() && isPending(ctx, a.GetNamespace()) {
		return nil
	}
	ns, err := p.namespace(a.GetNamespace())
	if err != nil {
		return err
	}
	if a.GetOperation() != admission.Create || ns.Status.Phase != api.NamespaceTerminating {
		return nil
	}
	err = admission.NewForbidden(a, fmt.Errorf("unable to create new content in namespace %s because it is being terminated", a.GetNamespace()))
	if status := (*apierrors.StatusError)(nil); errors.As(err, &status) {
		status.ErrStatus.Details.Causes = append(status.ErrStatus.Details.Causes, metav1.StatusCause{
			Type: "NamespaceTerminating", Message: fmt.Sprintf("namespace %s is being terminated", a.GetNamespace()), Field: "metadata.namespace",
		})
	}
	return err
}

func (p *admitter) namespace(name string) (*api.Namespace, error) {
	obj, err := p.s.lookUp("namespaces", "", name)
	if err != nil {
		return nil, err
	}
	ns, ok := obj.(*api.Namespace)
	if !ok {
		return nil, fmt.Errorf("cannot read namespace %s: got %T", name, obj)
	}
	return ns, nil
}

// lookUp reads an object of the core group past HTTP. The context is a fresh
// one, for errors name the resource that the context's request was for.
func (s *Server) lookUp(resource, namespace, name string) (runtime.Object, error) {
	getter, ok := s.storages[coreV1][resource].(rest.Getter)
	if !ok {
		return nil, fmt.Errorf("cannot get %s", resource)
	}
	return getter.Get(request.WithNamespace(context.Background(), namespace), name, &metav1.GetOptions{})
}

// serviceAccount refuses a pod whose service account is not there, as
// plugin/pkg/admission/serviceaccount does.
func (p *admitter) serviceAccount(a admission.Attributes, pod *api.Pod) error {
	name := pod.Spec.ServiceAccountName
	_, err := p.s.lookUp("serviceaccounts", a.GetNamespace(), name)
	if apierrors.IsNotFound(err) {
		err = apierrors.NewNotFound(api.Resource("serviceaccount"), name)
		return admission.NewForbidden(a, fmt.Errorf("error looking up service account %s/%s: %w", a.GetNamespace(), name, err))
	}
	return err
}

// tolerateForAWhile is plugin/pkg/admission/defaulttolerationseconds.
func tolerateForAWhile(pod *api.Pod) {
	for _, key := range []string{"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"} {
		found := false
		for _, t := range pod.Spec.Tolerations {
			if (t.Key == key || t.Key == "") && (t.Effect == api.TaintEffectNoExecute || t.Effect == "") {
				found = true
			}
		}
		if !found {
			seconds := int64(300)
			pod.Spec.Tolerations = append(pod.Spec.Tolerations, api.Toleration{
				Key: key, Operator: api.TolerationOpExists, Effect: api.TaintEffectNoExecute, TolerationSeconds: &seconds,
			})
		}
	}
}
