// Package web is the pages of podlab: templ components that are pure
// functions of view data, and the built files of the TypeScript client
// (web/client), embedded. It does no I/O beyond reading what is embedded, and
// is safe for concurrent use.
package web

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"
)

// static holds favicon.svg and, once `make generate` has run, app/: files
// whose names carry the hash of their content, and app/manifest.json.
//
//go:embed all:static
var static embed.FS

// StaticPrefix is where the server must mount Static.
const StaticPrefix = "/static/"

// Assets returns the addresses of the built files by logical name, such as
// "lab.js". It fails when the client was not built before the Go program.
func Assets() (map[string]string, error) {
	b, err := static.ReadFile("static/app/manifest.json")
	if err != nil {
		return nil, fmt.Errorf("cannot read the client's manifest: this binary was built without the browser's files; run `make generate` and build again")
	}
	names := map[string]string{}
	if err := json.Unmarshal(b, &names); err != nil {
		return nil, fmt.Errorf("cannot read the client's manifest: %w", err)
	}
	for name, file := range names {
		names[name] = StaticPrefix + "app/" + file
	}
	names["favicon.svg"] = StaticPrefix + "favicon.svg"
	return names, nil
}

// ContentSecurityPolicy is what the pages need and no more. Styles may be
// inline because xterm.js and CodeMirror put a style element of their own
// into the page; scripts may not. The worker lays out the map.
const ContentSecurityPolicy = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; " +
	"img-src 'self' data:; font-src 'self'; connect-src 'self'; worker-src 'self'; manifest-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// Static serves the embedded files under StaticPrefix. Files of app/ carry
// their hash in the name and may be kept for ever; where a .br or .gz twin
// was built, and the browser takes it, the twin is sent.
func Static() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := path.Join("static", path.Clean("/"+strings.TrimPrefix(r.URL.Path, StaticPrefix)))
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		info, err := fs.Stat(static, name)
		if err != nil || info.IsDir() {
			http.NotFound(w, r)
			return
		}
		h := w.Header()
		h.Set("Content-Type", contentType(name))
		h.Set("X-Content-Type-Options", "nosniff")
		if strings.HasPrefix(name, "static/app/") && !strings.HasSuffix(name, "manifest.json") {
			h.Set("Cache-Control", "public, max-age=31536000, immutable")
		} else {
			h.Set("Cache-Control", "no-cache")
		}
		h.Add("Vary", "Accept-Encoding")
		file := name
		for _, enc := range []struct{ name, ext string }{{"br", ".br"}, {"gzip", ".gz"}} {
			if !accepts(r.Header.Get("Accept-Encoding"), enc.name) {
				continue
			}
			if _, err := fs.Stat(static, name+enc.ext); err == nil {
				file = name + enc.ext
				h.Set("Content-Encoding", enc.name)
				break
			}
		}
		b, err := static.ReadFile(file)
		if err != nil {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
	})
}

func accepts(header, encoding string) bool {
	for part := range strings.SplitSeq(header, ",") {
		name, q, _ := strings.Cut(strings.TrimSpace(part), ";")
		if name == encoding {
			return strings.ReplaceAll(q, " ", "") != "q=0"
		}
	}
	return false
}

// contentType does not ask the host's table of types, which differs.
func contentType(name string) string {
	switch path.Ext(name) {
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".json", ".map":
		return "application/json"
	case ".svg":
		return "image/svg+xml"
	case ".woff2":
		return "font/woff2"
	case ".png":
		return "image/png"
	}
	return "application/octet-stream"
}

// The pages' Go code is generated from the *.templ files and not committed.
// If the compiler does not know the next name, run `make generate` first.
const _ = makeGenerateHasRun
