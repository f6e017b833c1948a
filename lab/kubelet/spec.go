package kubelet

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/third_party/forked/golang/expansion"

	"podlab/lab/image"
	"podlab/lab/runtime"
)

func mapping(env map[string]string) func(string) string { return expansion.MappingFuncFor(nil, env) }

// podIPs are the names and addresses of a pod, for what is made from them.
type podIPs struct {
	hostname  string
	pod, host []string
}

// runAs is the user that a container runs as: its own setting, the pod's, the
// image's.
func runAs(pod *corev1.Pod, c *corev1.Container, img image.Image) (uid, gid int64) {
	u, g := img.UID()
	uid, gid = int64(u), int64(g)
	if p := pod.Spec.SecurityContext; p != nil {
		override(&uid, p.RunAsUser)
		override(&gid, p.RunAsGroup)
	}
	if s := c.SecurityContext; s != nil {
		override(&uid, s.RunAsUser)
		override(&gid, s.RunAsGroup)
	}
	return uid, gid
}

func override(v *int64, by *int64) {
	if by != nil {
		*v = *by
	}
}

// containerSpec turns a container of a manifest into one for the runtime; its
// attempt counts its runs from 0.
func (w *worker) containerSpec(ctx context.Context, pod *corev1.Pod, c *container, attempt int32) (runtime.ContainerSpec, error) {
	spec, img := c.spec, c.image
	ips := w.addresses(pod)
	own, env, err := w.k.environment(ctx, pod, spec, img, ips)
	if err != nil {
		return runtime.ContainerSpec{}, err
	}
	binds, err := mounts(spec, w.volumes, own)
	if err != nil {
		return runtime.ContainerSpec{}, err
	}
	out := runtime.ContainerSpec{
		Name: spec.Name, Args: arguments(spec, img, own), Env: env, Cwd: spec.WorkingDir,
		Mounts: append(w.fileMounts(spec), binds...), TTY: spec.TTY, Stdin: spec.Stdin,
		LogPath: filepath.Join(w.logDir(), spec.Name, strconv.Itoa(int(attempt))+".log"),
	}
	if out.Cwd == "" {
		out.Cwd = img.WorkingDir
	}
	for _, l := range img.Layers {
		out.Layers = append(out.Layers, filepath.Join(w.k.cfg.ImagesDir, l))
	}
	if len(out.Args) == 0 {
		return out, configErrorf("no command specified")
	}
	return out, secure(&out, pod, spec, img)
}

// maxID is the last user or group of a lab's range.
const maxID = 65535

// secure applies the security contexts.
func secure(out *runtime.ContainerSpec, pod *corev1.Pod, c *corev1.Container, img image.Image) error {
	uid, gid := runAs(pod, c, img)
	if uid > maxID || gid > maxID {
		return configErrorf("user %d:%d is outside of this lab's range, 0 to %d", uid, gid, maxID)
	}
	out.User = runtime.User{UID: int(uid), GID: int(gid)}
	var nonRoot *bool
	if p := pod.Spec.SecurityContext; p != nil {
		nonRoot = p.RunAsNonRoot
		groups := p.SupplementalGroups
		if p.FSGroup != nil {
			groups = append(groups[:len(groups):len(groups)], *p.FSGroup)
		}
		for _, g := range groups {
			if g > maxID {
				return configErrorf("group %d is outside of this lab's range, 0 to %d", g, maxID)
			}
			out.User.Groups = append(out.User.Groups, int(g))
		}
	}
	var add, drop []string
	out.NoNewPrivs = true
	if s := c.SecurityContext; s != nil {
		if s.RunAsNonRoot != nil {
			nonRoot = s.RunAsNonRoot
		}
		out.Privileged = isTrue(s.Privileged)
		out.ReadOnlyRoot = isTrue(s.ReadOnlyRootFilesystem)
		out.NoNewPrivs = !isTrue(s.AllowPrivilegeEscalation) && !out.Privileged
		if s.Capabilities != nil {
			add, drop = names(s.Capabilities.Add), names(s.Capabilities.Drop)
		}
	}
	if isTrue(nonRoot) && uid == 0 {
		return configErrorf("container has runAsNonRoot and image will run as root (pod: %q, container: %s)", pod.Name+"_"+pod.Namespace, c.Name)
	}
	caps, err := runtime.Capabilities(add, drop)
	if err != nil {
		return &configError{err}
	}
	out.Caps = caps
	return nil
}

func names(caps []corev1.Capability) []string {
	out := make([]string, 0, len(caps))
	for _, c := range caps {
		out = append(out, string(c))
	}
	return out
}

// fileMounts are the files that a kubelet gives to every container, unless it
// mounts something there itself.
func (w *worker) fileMounts(c *corev1.Container) []runtime.Mount {
	own := map[string]bool{}
	for _, m := range c.VolumeMounts {
		own[m.MountPath] = true
	}
	var out []runtime.Mount
	for _, name := range []string{"hosts", "hostname", "resolv.conf"} {
		if !own["/etc/"+name] {
			out = append(out, runtime.Mount{Source: filepath.Join(w.dir(), "etc-"+name), Target: "/etc/" + name, File: true})
		}
	}
	return out
}

// stopSignal is what asks a container to end.
func stopSignal(c *corev1.Container, img image.Image) unix.Signal {
	if c.Lifecycle != nil && c.Lifecycle.StopSignal != nil {
		if s := unix.SignalNum(string(*c.Lifecycle.StopSignal)); s != 0 {
			return s
		}
	}
	if s := unix.SignalNum(img.StopSignal); s != 0 {
		return s
	}
	return unix.SIGTERM
}

// desc names a pod in messages as a kubelet does.
func desc(pod *corev1.Pod) string {
	return fmt.Sprintf("%s_%s(%s)", pod.Name, pod.Namespace, pod.UID)
}
