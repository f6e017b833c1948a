package kubelet

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kubernetes/pkg/fieldpath"
	"k8s.io/kubernetes/third_party/forked/golang/expansion"

	"podlab/lab/image"
)

// defaultPath is what container runtimes set where the image says nothing.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// arguments are what runs: command and args of the container in place of the
// image's, as Kubernetes defines them, with $(VAR) replaced.
func arguments(c *corev1.Container, img image.Image, env map[string]string) []string {
	expand := expansion.MappingFuncFor(nil, env)
	command, args := expandAll(c.Command, expand), expandAll(c.Args, expand)
	if len(command) == 0 {
		command = img.Entrypoint
		if len(args) == 0 {
			args = img.Args
		}
	}
	return slices.Concat(command, args)
}

func expandAll(list []string, f func(string) string) []string {
	out := make([]string, 0, len(list))
	for _, s := range list {
		out = append(out, expansion.Expand(s, f))
	}
	return out
}

// configError is a container that cannot be made because of its own manifest:
// CreateContainerConfigError.
type configError struct{ err error }

func (e *configError) Error() string { return e.err.Error() }
func (e *configError) Unwrap() error { return e.err }

func configErrorf(format string, args ...any) error {
	return &configError{fmt.Errorf(format, args...)}
}

// environment makes a container's variables: those of the image, then envFrom,
// then env, the later ones winning and able to use the earlier as $(NAME).
func (k *Kubelet) environment(ctx context.Context, pod *corev1.Pod, c *corev1.Container, img image.Image, ips podIPs) (map[string]string, []string, error) {
	vars := map[string]string{}
	if err := k.envFrom(ctx, pod, c, vars); err != nil {
		return nil, nil, err
	}
	own := maps.Clone(vars) // what $(NAME) can use: not the image's
	expand := expansion.MappingFuncFor(nil, own)
	for _, e := range c.Env {
		value := e.Value
		switch {
		case value != "":
			value = expansion.Expand(value, expand)
		case e.ValueFrom != nil:
			v, ok, err := k.envValue(ctx, pod, c, e.ValueFrom, ips)
			if err != nil {
				return nil, nil, err
			}
			if !ok {
				continue
			}
			value = v
		}
		own[e.Name] = value
	}
	all := map[string]string{"PATH": defaultPath, "HOSTNAME": ips.hostname}
	for _, e := range img.Env {
		name, value, _ := strings.Cut(e, "=")
		all[name] = value
	}
	maps.Copy(all, own)
	if _, ok := all["HOME"]; !ok {
		all["HOME"] = "/root"
		if uid, _ := runAs(pod, c, img); uid != 0 {
			all["HOME"] = "/"
		}
	}
	list := make([]string, 0, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		list = append(list, name+"="+all[name])
	}
	return own, list, nil
}

func (k *Kubelet) envFrom(ctx context.Context, pod *corev1.Pod, c *corev1.Container, vars map[string]string) error {
	for _, from := range c.EnvFrom {
		data := map[string]string{}
		switch {
		case from.ConfigMapRef != nil:
			cm, err := k.configMap(ctx, pod.Namespace, from.ConfigMapRef.Name, from.ConfigMapRef.Optional)
			if err != nil {
				return err
			}
			if cm != nil {
				data = cm.Data
			}
		case from.SecretRef != nil:
			s, err := k.secret(ctx, pod.Namespace, from.SecretRef.Name, from.SecretRef.Optional)
			if err != nil {
				return err
			}
			if s != nil {
				for name, v := range s.Data {
					data[name] = string(v)
				}
			}
		}
		for name, v := range data {
			vars[from.Prefix+name] = v
		}
	}
	return nil
}

// envValue is what valueFrom stands for; ok is false for an optional key that
// is missing.
func (k *Kubelet) envValue(ctx context.Context, pod *corev1.Pod, c *corev1.Container, from *corev1.EnvVarSource, ips podIPs) (value string, ok bool, err error) {
	switch {
	case from.FieldRef != nil:
		v, err := fieldValue(pod, from.FieldRef.FieldPath, ips)
		return v, true, err
	case from.ResourceFieldRef != nil:
		v, err := resourceValue(c, from.ResourceFieldRef)
		return v, true, err
	case from.ConfigMapKeyRef != nil:
		ref := from.ConfigMapKeyRef
		cm, err := k.configMap(ctx, pod.Namespace, ref.Name, ref.Optional)
		if cm == nil {
			return "", false, err
		}
		v, ok := cm.Data[ref.Key]
		if !ok && !isTrue(ref.Optional) {
			return "", false, configErrorf("couldn't find key %v in ConfigMap %v/%v", ref.Key, pod.Namespace, ref.Name)
		}
		return v, ok, nil
	case from.SecretKeyRef != nil:
		ref := from.SecretKeyRef
		s, err := k.secret(ctx, pod.Namespace, ref.Name, ref.Optional)
		if s == nil {
			return "", false, err
		}
		v, ok := s.Data[ref.Key]
		if !ok && !isTrue(ref.Optional) {
			return "", false, configErrorf("couldn't find key %v in Secret %v/%v", ref.Key, pod.Namespace, ref.Name)
		}
		return string(v), ok, nil
	}
	return "", false, nil
}

func isTrue(b *bool) bool { return b != nil && *b }

// fieldValue is the downward API's: the pod's own fields.
func fieldValue(pod *corev1.Pod, path string, ips podIPs) (string, error) {
	switch path {
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.hostIP":
		return first(ips.host), nil
	case "status.hostIPs":
		return strings.Join(ips.host, ","), nil
	case "status.podIP":
		return first(ips.pod), nil
	case "status.podIPs":
		return strings.Join(ips.pod, ","), nil
	}
	v, err := fieldpath.ExtractFieldPathAsString(pod, path)
	if err != nil {
		return "", &configError{err}
	}
	return v, nil
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

func resourceValue(c *corev1.Container, ref *corev1.ResourceFieldSelector) (string, error) {
	kind, name, _ := strings.Cut(ref.Resource, ".")
	list := c.Resources.Limits
	if kind == "requests" {
		list = c.Resources.Requests
	}
	q := list[corev1.ResourceName(name)]
	divisor := ref.Divisor
	if divisor.IsZero() {
		return strconv.FormatInt(q.Value(), 10), nil // rounded up, as a divisor of 1 does
	}
	if name == "cpu" {
		return strconv.FormatInt((q.MilliValue()+divisor.MilliValue()-1)/divisor.MilliValue(), 10), nil
	}
	return strconv.FormatInt((q.Value()+divisor.Value()-1)/divisor.Value(), 10), nil
}

// configMap reads one; nil without an error if it is optional and missing.
func (k *Kubelet) configMap(ctx context.Context, namespace, name string, optional *bool) (*corev1.ConfigMap, error) {
	cm, err := k.cfg.Client.ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) && isTrue(optional) {
		return nil, nil
	}
	if err != nil {
		return nil, &configError{err}
	}
	return cm, nil
}

func (k *Kubelet) secret(ctx context.Context, namespace, name string, optional *bool) (*corev1.Secret, error) {
	s, err := k.cfg.Client.Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) && isTrue(optional) {
		return nil, nil
	}
	if err != nil {
		return nil, &configError{err}
	}
	return s, nil
}
