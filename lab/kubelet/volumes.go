package kubelet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"podlab/lab/runtime"
)

// volume is a pod's volume once it is made.
type volume struct {
	dir      string
	readOnly bool
}

// makeVolumes makes all volumes of a pod in its folder.
func (k *Kubelet) makeVolumes(ctx context.Context, pod *corev1.Pod, ips podIPs) (map[string]volume, error) {
	out := map[string]volume{}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		dir := filepath.Join(k.cfg.Runtime.Dir(string(pod.UID)), "volumes", v.Name)
		made, err := k.makeVolume(ctx, pod, v, dir, ips)
		if err != nil {
			return nil, fmt.Errorf("MountVolume.SetUp failed for volume %q : %w", v.Name, err)
		}
		out[v.Name] = made
	}
	return out, nil
}

func (k *Kubelet) makeVolume(ctx context.Context, pod *corev1.Pod, v *corev1.Volume, dir string, ips podIPs) (volume, error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return volume{}, err
	}
	if err := os.Chmod(dir, 0o777); err != nil { // past the umask, as emptyDir is
		return volume{}, err
	}
	if v.EmptyDir != nil {
		return volume{dir: dir}, nil
	}
	files, err := k.volumeFiles(ctx, pod, v, ips)
	if err != nil {
		return volume{}, err
	}
	return volume{dir: dir, readOnly: true}, writeFiles(dir, files)
}

// file is one file of a volume that is made from objects of the API.
type file struct {
	data []byte
	mode os.FileMode
}

// volumeFiles are the files, by path, of configMap, secret, downwardAPI and
// projected volumes.
func (k *Kubelet) volumeFiles(ctx context.Context, pod *corev1.Pod, v *corev1.Volume, ips podIPs) (map[string]file, error) {
	switch {
	case v.ConfigMap != nil:
		return k.configMapFiles(ctx, pod.Namespace, v.ConfigMap.Name, v.ConfigMap.Optional, v.ConfigMap.Items, v.ConfigMap.DefaultMode)
	case v.Secret != nil:
		return k.secretFiles(ctx, pod.Namespace, v.Secret.SecretName, v.Secret.Optional, v.Secret.Items, v.Secret.DefaultMode)
	case v.DownwardAPI != nil:
		return downwardFiles(pod, v.DownwardAPI.Items, v.DownwardAPI.DefaultMode, ips)
	case v.Projected != nil:
		return k.projectedFiles(ctx, pod, v.Projected, ips)
	}
	return nil, errors.New("this lab has no such kind of volume; there are emptyDir, configMap, secret, downwardAPI and projected")
}

func (k *Kubelet) projectedFiles(ctx context.Context, pod *corev1.Pod, p *corev1.ProjectedVolumeSource, ips podIPs) (map[string]file, error) {
	all := map[string]file{}
	for _, s := range p.Sources {
		var files map[string]file
		var err error
		switch {
		case s.ConfigMap != nil:
			files, err = k.configMapFiles(ctx, pod.Namespace, s.ConfigMap.Name, s.ConfigMap.Optional, s.ConfigMap.Items, p.DefaultMode)
		case s.Secret != nil:
			files, err = k.secretFiles(ctx, pod.Namespace, s.Secret.Name, s.Secret.Optional, s.Secret.Items, p.DefaultMode)
		case s.DownwardAPI != nil:
			files, err = downwardFiles(pod, s.DownwardAPI.Items, p.DefaultMode, ips)
		default:
			err = errors.New("this lab has no such source of a projected volume; there are configMap, secret and downwardAPI")
		}
		if err != nil {
			return nil, err
		}
		for name, f := range files {
			all[name] = f
		}
	}
	return all, nil
}

func (k *Kubelet) configMapFiles(ctx context.Context, namespace, name string, optional *bool, items []corev1.KeyToPath, mode *int32) (map[string]file, error) {
	cm, err := k.configMap(ctx, namespace, name, optional)
	if cm == nil {
		return nil, err
	}
	data := map[string][]byte{}
	for key, v := range cm.Data {
		data[key] = []byte(v)
	}
	for key, v := range cm.BinaryData {
		data[key] = v
	}
	return keyFiles(data, items, mode, optional)
}

func (k *Kubelet) secretFiles(ctx context.Context, namespace, name string, optional *bool, items []corev1.KeyToPath, mode *int32) (map[string]file, error) {
	s, err := k.secret(ctx, namespace, name, optional)
	if s == nil {
		return nil, err
	}
	return keyFiles(s.Data, items, mode, optional)
}

// defaultMode of files where a volume says nothing.
const defaultMode = 0o644

// keyFiles chooses keys by items, or takes all.
func keyFiles(data map[string][]byte, items []corev1.KeyToPath, mode *int32, optional *bool) (map[string]file, error) {
	files := map[string]file{}
	if items == nil {
		for key, v := range data {
			files[key] = file{v, fileMode(nil, mode)}
		}
		return files, nil
	}
	for _, item := range items {
		v, ok := data[item.Key]
		if !ok {
			if isTrue(optional) {
				continue
			}
			return nil, fmt.Errorf("references non-existent key: %s", item.Key)
		}
		files[item.Path] = file{v, fileMode(item.Mode, mode)}
	}
	return files, nil
}

func fileMode(own, general *int32) os.FileMode {
	switch {
	case own != nil:
		return os.FileMode(*own) & 0o777
	case general != nil:
		return os.FileMode(*general) & 0o777
	}
	return defaultMode
}

func downwardFiles(pod *corev1.Pod, items []corev1.DownwardAPIVolumeFile, mode *int32, ips podIPs) (map[string]file, error) {
	files := map[string]file{}
	for _, item := range items {
		var v string
		var err error
		switch {
		case item.FieldRef != nil:
			v, err = fieldValue(pod, item.FieldRef.FieldPath, ips)
		case item.ResourceFieldRef != nil:
			c := containerByName(pod, item.ResourceFieldRef.ContainerName)
			if c == nil {
				err = fmt.Errorf("there is no container %q", item.ResourceFieldRef.ContainerName)
				break
			}
			v, err = resourceValue(c, item.ResourceFieldRef)
		}
		if err != nil {
			return nil, err
		}
		files[item.Path] = file{[]byte(v), fileMode(item.Mode, mode)}
	}
	return files, nil
}

func containerByName(pod *corev1.Pod, name string) *corev1.Container {
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Name == name {
			return &pod.Spec.Containers[i]
		}
	}
	return nil
}

// writeFiles writes a volume's files. Their paths were validated by the API,
// and os.Root keeps them inside in any case.
func writeFiles(dir string, files map[string]file) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	for name, f := range files {
		if d := path.Dir(name); d != "." {
			if err := root.MkdirAll(d, 0o755); err != nil {
				return err
			}
		}
		if err := root.WriteFile(name, f.data, f.mode); err != nil {
			return err
		}
		if err := root.Chmod(name, f.mode); err != nil {
			return err
		}
	}
	return nil
}

// mounts are a container's, in the order of its manifest.
func mounts(c *corev1.Container, volumes map[string]volume, env map[string]string) ([]runtime.Mount, error) {
	var out []runtime.Mount
	for _, m := range c.VolumeMounts {
		v, ok := volumes[m.Name]
		if !ok {
			return nil, configErrorf("volume %q of the mount at %s is not made", m.Name, m.MountPath)
		}
		source, isFile, err := subPath(v.dir, m, env)
		if err != nil {
			return nil, err
		}
		target := path.Clean("/" + m.MountPath)
		if target == "/" {
			return nil, configErrorf("volume %q cannot be mounted at /", m.Name)
		}
		out = append(out, runtime.Mount{Source: source, Target: target, ReadOnly: m.ReadOnly || v.readOnly, File: isFile})
	}
	return out, nil
}

// subPath finds the part of a volume that is mounted; a folder that is missing
// is made. A container may have put symbolic links there: os.Root refuses
// those that lead out of the volume.
func subPath(dir string, m corev1.VolumeMount, env map[string]string) (source string, isFile bool, err error) {
	sub := m.SubPath
	if m.SubPathExpr != "" {
		sub = expandAll([]string{m.SubPathExpr}, mapping(env))[0]
	}
	sub = strings.Trim(path.Clean("/"+sub), "/")
	if sub == "" {
		return dir, false, nil
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", false, fmt.Errorf("cannot open volume %q: %w", m.Name, err)
	}
	defer func() { _ = root.Close() }()
	info, err := root.Stat(sub)
	if errors.Is(err, os.ErrNotExist) {
		if err = root.MkdirAll(sub, 0o777); err == nil {
			info, err = root.Stat(sub)
		}
	}
	if err != nil {
		return "", false, configErrorf("failed to prepare subPath for volumeMount %q of container: %v", m.Name, err)
	}
	source, err = filepath.EvalSymlinks(filepath.Join(dir, sub))
	if err != nil || source != dir && !strings.HasPrefix(source, dir+"/") {
		return "", false, configErrorf("failed to prepare subPath for volumeMount %q: it leads out of the volume", m.Name)
	}
	return source, !info.IsDir(), nil
}
