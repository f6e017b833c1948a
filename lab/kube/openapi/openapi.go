// Package openapi holds Kubernetes' own OpenAPI documents, trimmed to what the
// lab's API serves. They are made by scripts/openapi from the documents in
// k8s.io/kubernetes and embedded compressed; nothing is unpacked until someone
// asks, and nothing stays in memory.
//
// Handler serves /openapi/v2 and /openapi/v3; Schemas gives the types that
// server-side apply merges by. Both are safe for concurrent use.
package openapi

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"sync"

	"k8s.io/kube-openapi/pkg/validation/spec"
)

//go:embed all:bin
var files embed.FS

// ErrNotMade says that the documents are missing from this build.
var ErrNotMade = errors.New("this build has no OpenAPI documents; run scripts/openapi (make generate does) and build again")

// The files of bin/, each compressed with gzip.
const (
	schemasFile = "schemas.json.gz"
	v2File      = "v2"
	v3Dir       = "v3/"
	jsonExt     = ".json.gz"
	protoExt    = ".pb.gz"
)

// Schemas are the served types by name ("io.k8s.api.core.v1.Pod"), without
// their descriptions.
func Schemas() (map[string]*spec.Schema, error) {
	data, err := read(schemasFile)
	if err != nil {
		return nil, err
	}
	out := map[string]*spec.Schema{}
	if err := json.Unmarshal(data, &out); err != nil {
		return nil, fmt.Errorf("cannot read the embedded schemas: %w", err)
	}
	return out, nil
}

func read(name string) ([]byte, error) {
	packed, err := files.ReadFile("bin/" + name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotMade
	}
	if err != nil {
		return nil, err
	}
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// Handler serves the documents under /openapi/.
func Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/openapi/v2", func(w http.ResponseWriter, r *http.Request) { serve(w, r, v2File, "v2") })
	mux.HandleFunc("/openapi/v3", serveIndex)
	for _, gv := range Served {
		mux.HandleFunc("/openapi/v3/"+gv.Path(), func(w http.ResponseWriter, r *http.Request) {
			serve(w, r, v3Dir+fileName(gv), "v3")
		})
	}
	return mux
}

func fileName(gv GroupVersion) string { return strings.ReplaceAll(gv.Path(), "/", "__") }

// serve answers with protobuf where the client wants it, else with JSON.
func serve(w http.ResponseWriter, r *http.Request, name, version string) {
	ext, kind := jsonExt, "application/json"
	accept := r.Header.Get("Accept")
	if proto := "application/com.github.proto-openapi.spec." + version; strings.Contains(accept, proto) {
		// Clients ask for "@v1.0", which is no media type; a real server answers so.
		ext, kind = protoExt, proto+".v1.0+protobuf"
	}
	packed, err := files.ReadFile("bin/" + name + ext)
	if err != nil {
		http.Error(w, ErrNotMade.Error(), http.StatusNotFound)
		return
	}
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Vary", "Accept, Accept-Encoding")
	h.Set("Etag", `"`+hash(name+ext, packed)+`"`)
	if r.URL.Query().Get("hash") != "" {
		h.Set("Cache-Control", "public, immutable") // the address changes with the document
	}
	if r.Header.Get("If-None-Match") == h.Get("Etag") {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		_, _ = w.Write(packed) // the client has gone
		return
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		http.Error(w, "cannot read the embedded document", http.StatusInternalServerError)
		return
	}
	_, _ = io.Copy(w, z) // the client has gone
}

// serveIndex lists the documents of version 3.
func serveIndex(w http.ResponseWriter, _ *http.Request) {
	type entry struct {
		URL string `json:"serverRelativeURL"`
	}
	paths := map[string]entry{}
	for _, gv := range Served {
		name := v3Dir + fileName(gv) + jsonExt
		packed, err := files.ReadFile("bin/" + name)
		if err != nil {
			http.Error(w, ErrNotMade.Error(), http.StatusNotFound)
			return
		}
		paths[gv.Path()] = entry{"/openapi/v3/" + gv.Path() + "?hash=" + hash(name, packed)}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"paths": paths}) // the client has gone
}

var hashes sync.Map // file name to the hash of its content

func hash(name string, data []byte) string {
	if h, ok := hashes.Load(name); ok {
		return h.(string) // only strings are stored
	}
	sum := sha256.Sum256(data)
	h := strings.ToUpper(hex.EncodeToString(sum[:]))
	hashes.Store(name, h)
	return h
}
