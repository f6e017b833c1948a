package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	restclient "k8s.io/client-go/rest"
	"k8s.io/kubernetes/pkg/api/legacyscheme"

	"podlab/lab"
	"podlab/lab/agentapi"
)

// ApplyOptions of an Apply.
type ApplyOptions struct {
	// DryRun only checks.
	DryRun bool
}

// ApplyResult is what an Apply did, and the documents that it left alone.
type ApplyResult struct {
	agentapi.ApplyResult
	// Labs are the documents of kind Lab, which are not Kubernetes objects.
	Labs []Document
}

// applyManager is the name under which kubectl apply tracks its fields, so
// that a learner's own kubectl apply goes on where this one ended.
const applyManager = "kubectl-client-side-apply"

// Apply does what kubectl apply does with the manifest, but all of it or
// nothing: every document is first tried without effect, and if a write fails
// after that, those before it are undone. What is wrong with the manifest is in
// the result, with lines; the error is about anything else.
func (s *Server) Apply(ctx context.Context, manifest []byte, opts ApplyOptions) (ApplyResult, error) {
	docs, errs := ParseManifest(manifest)
	var res ApplyResult
	var steps []*applyStep
	seen := map[string]int{}
	ctx = context.WithValue(ctx, pendingNamespaces{}, pending(docs))
	for _, d := range docs {
		if d.APIVersion == lab.APIVersion && d.Kind == lab.KindLab {
			res.Labs = append(res.Labs, d)
			continue
		}
		step, err := s.plan(d)
		if err == nil && seen[step.path] != 0 {
			err = d.errorAt(lab.CodeInvalid, "metadata.name", "the same object is described at line %d", seen[step.path])
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		seen[step.path] = d.Line
		steps = append(steps, step)
	}
	for _, step := range steps {
		if err := step.run(ctx, true); err != nil {
			if ctx.Err() != nil {
				return ApplyResult{}, ctx.Err()
			}
			errs = append(errs, step.doc.explain(err)...)
		}
	}
	if len(errs) > 0 {
		res.Errors = errs
		return res, nil
	}
	for i, step := range steps {
		if !opts.DryRun {
			if err := step.run(ctx, false); err != nil {
				undo(context.WithoutCancel(ctx), steps[:i])
				res.Errors = step.doc.explain(err)
				res.Objects = nil
				return res, ctx.Err()
			}
		}
		res.Objects = append(res.Objects, step.result())
	}
	return res, nil
}

// pendingNamespaces is the context's key of the namespaces that a manifest
// makes: objects in them may be tried before they are there.
type pendingNamespaces struct{}

func pending(docs []Document) map[string]bool {
	out := map[string]bool{}
	for _, d := range docs {
		if d.APIVersion == "v1" && d.Kind == "Namespace" {
			out[d.Name] = true
		}
	}
	return out
}

func isPending(ctx context.Context, namespace string) bool {
	names, _ := ctx.Value(pendingNamespaces{}).(map[string]bool)
	return names[namespace]
}

// applyStep is the apply of one document.
type applyStep struct {
	s      *Server
	doc    Document
	gvk    schema.GroupVersionKind
	path   string // of the object
	coll   string // of its collection
	body   []byte // with kubectl's annotation
	before []byte // the live object, nil when there was none
	action string
}

// servedKind is where objects of a kind are.
type servedKind struct {
	resource   string
	namespaced bool
}

func (s *Server) plan(d Document) (*applyStep, *lab.Error) {
	gv, err := schema.ParseGroupVersion(d.APIVersion)
	if err != nil {
		return nil, d.errorAt(lab.CodeInvalid, "apiVersion", "%q is no version of a group", d.APIVersion)
	}
	gvk := gv.WithKind(d.Kind)
	k, ok := s.kinds[gvk]
	if !ok {
		return nil, d.errorAt(lab.CodeInvalid, "kind", "no matches for kind %q in version %q; this lab has %s", d.Kind, d.APIVersion, s.kindNames())
	}
	step := &applyStep{s: s, doc: d, gvk: gvk}
	root := "/apis/" + gv.String()
	if gv.Group == "" {
		root = "/api/" + gv.Version
	}
	var object map[string]any
	if err := json.Unmarshal(d.JSON, &object); err != nil {
		return nil, at(d.node, lab.Errorf(lab.CodeInternal, "%v", err))
	}
	meta, ok := object["metadata"].(map[string]any)
	if !ok {
		return nil, d.errorAt(lab.CodeInvalid, "metadata", "must be an object")
	}
	if k.namespaced {
		if step.doc.Namespace == "" {
			step.doc.Namespace = corev1.NamespaceDefault
			meta["namespace"] = corev1.NamespaceDefault
		}
		root = path.Join(root, "namespaces", step.doc.Namespace)
	} else if d.Namespace != "" {
		return nil, d.errorAt(lab.CodeInvalid, "metadata.namespace", "a %s is in no namespace", d.Kind)
	}
	if strings.ContainsAny(d.Name+d.Namespace, "/%?#") || d.Name == "." || d.Name == ".." {
		return nil, d.errorAt(lab.CodeInvalid, "metadata.name", "%q is no name", d.Name)
	}
	step.coll = root + "/" + k.resource
	step.path = step.coll + "/" + d.Name
	if step.body, err = annotated(object, meta); err != nil {
		return nil, d.errorAt(lab.CodeInvalid, "metadata.annotations", "%v", err)
	}
	return step, nil
}

// kindNames lists the kinds that can be applied.
func (s *Server) kindNames() string {
	var names []string
	for gvk := range s.kinds {
		names = append(names, gvk.Kind+" ("+gvk.GroupVersion().String()+")")
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// annotated is the object with itself in kubectl's annotation.
func annotated(object, meta map[string]any) ([]byte, error) {
	annotations, ok := meta["annotations"].(map[string]any)
	if !ok && meta["annotations"] != nil {
		return nil, errors.New("must be an object")
	}
	if annotations == nil {
		annotations = map[string]any{}
	}
	delete(annotations, corev1.LastAppliedConfigAnnotation)
	meta["annotations"] = annotations
	own, err := json.Marshal(object)
	if err != nil {
		return nil, err
	}
	annotations[corev1.LastAppliedConfigAnnotation] = string(own) + "\n"
	return json.Marshal(object)
}

// run creates the object or patches the one that is there.
func (a *applyStep) run(ctx context.Context, dryRun bool) error {
	live, err := a.s.raw.Get().AbsPath(a.path).Do(ctx).Raw()
	switch {
	case apierrors.IsNotFound(err):
		a.before, a.action = nil, "created"
		return a.create(ctx, dryRun)
	case err != nil:
		return err
	}
	a.before = live
	patch, err := a.patch(live)
	if err != nil {
		return err
	}
	if string(patch) == "{}" {
		a.action = "unchanged"
		return nil
	}
	a.action = "configured"
	r := a.s.raw.Patch(types.StrategicMergePatchType).AbsPath(a.path)
	return params(r, dryRun).Body(patch).Do(ctx).Error()
}

func (a *applyStep) create(ctx context.Context, dryRun bool) error {
	r := a.s.raw.Post().AbsPath(a.coll).SetHeader("Content-Type", "application/json")
	if err := params(r, dryRun).Body(a.body).Do(ctx).Error(); err != nil {
		return err
	}
	if dryRun || a.gvk != corev1.SchemeGroupVersion.WithKind("Namespace") {
		return nil
	}
	// The pods that follow need it before its controller has come round.
	return a.s.defaultServiceAccount(ctx, a.doc.Name)
}

// patch is kubectl's: from what was applied last and what is to be now, onto
// what is there.
func (a *applyStep) patch(live []byte) ([]byte, error) {
	var object metav1.PartialObjectMetadata
	if err := json.Unmarshal(live, &object); err != nil {
		return nil, err
	}
	typed, err := legacyscheme.Scheme.New(a.gvk)
	if err != nil {
		return nil, err
	}
	schema, err := strategicpatch.NewPatchMetaFromStruct(typed)
	if err != nil {
		return nil, err
	}
	original := []byte(object.Annotations[corev1.LastAppliedConfigAnnotation])
	patch, err := strategicpatch.CreateThreeWayMergePatch(original, a.body, live, schema, true)
	if err != nil {
		// The fields do not fit the type: the server says it better.
		return a.body, nil // see above
	}
	return patch, nil
}

func params(r *restclient.Request, dryRun bool) *restclient.Request {
	r.Param("fieldValidation", metav1.FieldValidationStrict).Param("fieldManager", applyManager)
	if dryRun {
		r.Param("dryRun", metav1.DryRunAll)
	}
	return r
}

func (a *applyStep) result() agentapi.AppliedObject {
	return agentapi.AppliedObject{Kind: a.doc.Kind, Namespace: a.doc.Namespace, Name: a.doc.Name, Action: a.action}
}

// undo takes back steps that were done, the last one first.
func undo(ctx context.Context, steps []*applyStep) {
	for _, a := range slices.Backward(steps) {
		var err error
		switch a.action {
		case "created":
			err = a.s.raw.Delete().AbsPath(a.path).Param("gracePeriodSeconds", "0").Do(ctx).Error()
		case "configured":
			err = a.restore(ctx)
		}
		if err != nil {
			a.s.log.Error("cannot undo an apply", "object", a.path, "err", err)
		}
	}
}

func (a *applyStep) restore(ctx context.Context) error {
	var object map[string]any
	if err := json.Unmarshal(a.before, &object); err != nil {
		return err
	}
	if meta, ok := object["metadata"].(map[string]any); ok {
		delete(meta, "resourceVersion")
	}
	body, err := json.Marshal(object)
	if err != nil {
		return err
	}
	return a.s.raw.Put().AbsPath(a.path).SetHeader("Content-Type", "application/json").Body(body).Do(ctx).Error()
}

// codes says what an API error is to a reader of lab.Error.
var codes = map[metav1.StatusReason]lab.Code{
	metav1.StatusReasonInvalid:               lab.CodeInvalid,
	metav1.StatusReasonBadRequest:            lab.CodeInvalid,
	metav1.StatusReasonNotFound:              lab.CodeNotFound,
	metav1.StatusReasonConflict:              lab.CodeConflict,
	metav1.StatusReasonAlreadyExists:         lab.CodeConflict,
	metav1.StatusReasonForbidden:             lab.CodeForbidden,
	metav1.StatusReasonRequestEntityTooLarge: lab.CodeLimit,
}

var (
	strictField = regexp.MustCompile(`(unknown|duplicate) field "([^"]+)"`)
	wrongType   = regexp.MustCompile(`cannot unmarshal (\w+) into Go struct field (?:[\w/]+\.)?([\w.]+) of type ([\w\[\].*]+)`)
)

// explain gives an API error's causes their places in the document.
func (d Document) explain(err error) []*lab.Error {
	var known apierrors.APIStatus
	if !errors.As(err, &known) {
		return []*lab.Error{at(d.node, lab.Errorf(lab.CodeInternal, "%v", err))}
	}
	st := known.Status()
	code := codes[st.Reason]
	if code == "" {
		code = lab.CodeInternal
	}
	if found := strictField.FindAllStringSubmatch(st.Message, -1); found != nil {
		var out []*lab.Error
		for _, m := range found {
			out = append(out, d.errorAt(code, m[2], "%s field", m[1]))
		}
		return out
	}
	if m := wrongType.FindStringSubmatch(st.Message); m != nil {
		return []*lab.Error{d.wrongType(code, m[1], m[2], m[3])}
	}
	byPlace := map[string]*lab.Error{}
	if st.Details != nil && st.Reason == metav1.StatusReasonInvalid {
		for _, c := range st.Details.Causes {
			e := d.errorAt(code, c.Field, "%s", c.Message)
			byPlace[fmt.Sprintf("%6d %s %s", e.Line, e.Field, e.Message)] = e
		}
	}
	var out []*lab.Error
	for _, key := range slices.Sorted(maps.Keys(byPlace)) {
		out = append(out, byPlace[key])
	}
	if len(out) == 0 {
		out = append(out, at(d.node, lab.Errorf(code, "%s", st.Message)))
	}
	return out
}

// wrongType names the value that the decoder could not take: its path has no
// indexes, so the first value at it of another type is meant.
func (d Document) wrongType(code lab.Code, got, field, want string) *lab.Error {
	names := strings.Split(field, ".")
	n := locateType(d.node, names, want)
	if n == nil {
		n = locate(d.node, field)
	}
	e := at(n, lab.Errorf(code, "must be of type %s, not %s", want, got))
	e.Field = field
	return e
}
