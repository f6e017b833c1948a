// Package image says what an image name stands for: the layers on top of the
// lab's root file system, the entry point and its surroundings. There is no
// registry: the catalogue is a folder of small YAML files, one for each image,
// and the layers lie in a folder that `scripts/images` makes.
//
// The kubelet is the caller. A Catalogue does not change once it is loaded, so
// it may be used from anywhere.
package image

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/distribution/reference"
	"golang.org/x/sys/unix"
	"sigs.k8s.io/yaml"

	"podlab/lab"
)

// Image is what one file of the catalogue says.
type Image struct {
	// Names are the image's, without registry and tag: "nginx",
	// "prometheus/node-exporter". The first is how people call it.
	Names []string `json:"names"`
	// Description for people, one line.
	Description string `json:"description"`
	// Layers are folders of the image folder, the uppermost first; below them
	// is the lab's root file system.
	Layers []string `json:"layers,omitempty"`
	// Entrypoint and Args are what runs where a pod says nothing else.
	Entrypoint []string `json:"entrypoint,omitempty"`
	Args       []string `json:"args,omitempty"`
	// Env are variables, "NAME=value".
	Env []string `json:"env,omitempty"`
	// Ports that it listens on, "80/tcp".
	Ports []string `json:"ports,omitempty"`
	// User is "UID" or "UID:GID", root if empty.
	User string `json:"user,omitempty"`
	// WorkingDir is absolute; "/" if empty.
	WorkingDir string `json:"workingDir,omitempty"`
	// StopSignal ends it in good order, "SIGTERM" if empty.
	StopSignal string `json:"stopSignal,omitempty"`

	digest string
}

// UID and GID are User taken apart.
func (i Image) UID() (uid, gid int) {
	u, g, _ := strings.Cut(i.User, ":")
	uid, _ = strconv.Atoi(u) // checked when it was loaded
	gid, _ = strconv.Atoi(g)
	return uid, gid
}

// Digest names the content of the image's file, "sha256:…".
func (i Image) Digest() string { return i.digest }

// Catalogue is the images that there are.
type Catalogue struct {
	byName map[string]Image
	names  []string // the first name of each, sorted
}

//go:embed catalogue/*.yaml
var embedded embed.FS

// Default is the catalogue that podlab brings.
func Default() (*Catalogue, error) {
	files, err := fs.Sub(embedded, "catalogue")
	if err != nil {
		return nil, fmt.Errorf("cannot open the embedded catalogue: %w", err)
	}
	return Load(files)
}

// Load reads all files of a folder that end in .yaml. All errors are reported
// at once, each with its file and field.
func Load(files fs.FS) (*Catalogue, error) {
	paths, err := fs.Glob(files, "*.yaml")
	if err != nil {
		return nil, fmt.Errorf("cannot list the catalogue: %w", err)
	}
	c := &Catalogue{byName: map[string]Image{}}
	var errs []error
	from := map[string]string{}
	for _, p := range paths {
		img, err := loadFile(files, p)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for i, name := range img.Names {
			if other, ok := from[name]; ok {
				errs = append(errs, invalid(p, fmt.Sprintf("names[%d]", i), "%q is an image of %s already", name, other))
				continue
			}
			from[name], c.byName[name] = p, img
		}
		c.names = append(c.names, img.Names[0])
	}
	slices.Sort(c.names)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return c, nil
}

func loadFile(files fs.FS, name string) (Image, error) {
	text, err := fs.ReadFile(files, name)
	if err != nil {
		return Image{}, fmt.Errorf("cannot read %s: %w", name, err)
	}
	var img Image
	if err := yaml.UnmarshalStrict(text, &img); err != nil {
		return Image{}, &lab.Error{Code: lab.CodeInvalid, Field: name, Message: strings.TrimPrefix(err.Error(), "error unmarshaling JSON: while decoding JSON: json: ")}
	}
	sum := sha256.Sum256(text)
	img.digest = "sha256:" + hex.EncodeToString(sum[:])
	return img, img.validate(name)
}

func invalid(file, field, format string, args ...any) *lab.Error {
	return &lab.Error{Code: lab.CodeInvalid, Field: file + ": " + field, Message: fmt.Sprintf(format, args...)}
}

// validate says all that is wrong with an image.
func (i Image) validate(file string) error {
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, invalid(file, field, format, args...))
	}
	if len(i.Names) == 0 {
		bad("names", "is missing; give at least one, without registry and tag")
	}
	for n, name := range i.Names {
		if got, err := Name(name); err != nil || got != name {
			bad(fmt.Sprintf("names[%d]", n), "%q is not an image name without registry and tag", name)
		}
	}
	for n, l := range i.Layers {
		if !fs.ValidPath(l) || l == "." || strings.ContainsAny(l, ":,\\") {
			bad(fmt.Sprintf("layers[%d]", n), "%q is not a relative path without ':' and ','", l)
		}
	}
	if len(i.Entrypoint)+len(i.Args) == 0 {
		bad("entrypoint", "is missing, and so are args; give one of them")
	}
	for n, e := range i.Env {
		if k, _, ok := strings.Cut(e, "="); !ok || k == "" {
			bad(fmt.Sprintf("env[%d]", n), "found %q, want NAME=value", e)
		}
	}
	for n, p := range i.Ports {
		number, proto, _ := strings.Cut(p, "/")
		if v, err := strconv.ParseUint(number, 10, 16); err != nil || v == 0 || !slices.Contains([]string{"tcp", "udp", "sctp"}, proto) {
			bad(fmt.Sprintf("ports[%d]", n), "found %q, want a port and tcp, udp or sctp, such as 80/tcp", p)
		}
	}
	if i.User != "" {
		u, g, hasGroup := strings.Cut(i.User, ":")
		if !isID(u) || hasGroup && !isID(g) {
			bad("user", "found %q, want UID or UID:GID", i.User)
		}
	}
	if i.WorkingDir != "" && (!path.IsAbs(i.WorkingDir) || path.Clean(i.WorkingDir) != i.WorkingDir) {
		bad("workingDir", "%q is not a clean absolute path", i.WorkingDir)
	}
	if i.StopSignal != "" && unix.SignalNum(i.StopSignal) == 0 {
		bad("stopSignal", "%q is not a signal's name, such as SIGQUIT", i.StopSignal)
	}
	return errors.Join(errs...)
}

func isID(s string) bool {
	_, err := strconv.ParseUint(s, 10, 16)
	return err == nil
}

// Name takes registry, "library/", tag and digest from an image reference:
// "docker.io/library/nginx:1.29" is "nginx". The error is that of a reference
// which is not one.
func Name(ref string) (string, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return "", fmt.Errorf("couldn't parse image name %q: %w", ref, err)
	}
	return strings.TrimPrefix(reference.Path(named), "library/"), nil
}

// Latest says whether a reference has the tag latest or none, which decides
// Kubernetes' default of imagePullPolicy.
func Latest(ref string) bool {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return false
	}
	tagged, ok := reference.TagNameOnly(named).(reference.Tagged)
	return ok && tagged.Tag() == "latest"
}

// Find returns the image of a reference, or says which there are.
func (c *Catalogue) Find(ref string) (Image, error) {
	name, err := Name(ref)
	if err != nil {
		return Image{}, lab.Errorf(lab.CodeInvalid, "%v", err)
	}
	if img, ok := c.byName[name]; ok {
		return img, nil
	}
	return Image{}, lab.Errorf(lab.CodeNotFound, "there is no image %q in this lab; there are: %s", name, strings.Join(c.names, ", "))
}

// Names are the images' first names, sorted.
func (c *Catalogue) Names() []string { return slices.Clone(c.names) }

// Images are all images, by first name.
func (c *Catalogue) Images() []Image {
	images := make([]Image, 0, len(c.names))
	for _, n := range c.names {
		images = append(images, c.byName[n])
	}
	return images
}
