// Package app is the server's composition root: it wires store, accounts, lab
// manager, API, pages and streams together, listens, and ends them in order.
// `podlab serve` and the tests are its callers.
package app

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"podlab/server/labs"
)

// Config is all that can be set. It is passed by value and checked once.
type Config struct {
	// Addr to listen on, "127.0.0.1:8080".
	Addr string
	// Data is the directory of store, labs and root file system.
	Data string
	// PublicURL is the address for people where a proxy stands between; empty
	// means http://Addr.
	PublicURL string
	// Proxies are the networks whose X-Forwarded-For and -Proto are believed.
	Proxies []netip.Prefix
	// TLSCert and TLSKey are files; both or none.
	TLSCert, TLSKey string
	// Runtime is the OCI runtime, empty for crun, else runc.
	Runtime string
	Limits  labs.Limits
	// Lab's own limits; 0 means the launcher's default.
	LabMemory, LabScratch int64 // bytes
	LabPIDs               int64
	LabCPUs               float64
	// ShutdownTimeout bounds the wait for requests under way.
	ShutdownTimeout time.Duration
	Version         string
}

// SocketName of the socket for the host's root, in the data directory.
const SocketName = "podlab.sock"

// DefaultConfig returns what holds where nothing else is said.
func DefaultConfig() Config {
	return Config{
		Addr: "127.0.0.1:8080", Data: "/var/lib/podlab",
		Limits:          labs.Limits{PerUser: 5, PerHost: 200, Starting: 4, Waiting: 500, StartTimeout: 60 * time.Second},
		ShutdownTimeout: 5 * time.Second,
		Version:         "dev",
	}
}

// Check says all that is wrong.
func (c Config) Check() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if _, _, err := net.SplitHostPort(c.Addr); err != nil {
		wrong("--addr %q: HOST:PORT is wanted, such as 127.0.0.1:8080", c.Addr)
	}
	if !filepath.IsAbs(c.Data) {
		wrong("--data %q: an absolute path is wanted", c.Data)
	}
	if u, err := url.Parse(c.PublicURL); c.PublicURL != "" &&
		(err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "") {
		wrong("--public-url %q: http://HOST or https://HOST without a path is wanted", c.PublicURL)
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		wrong("--tls-cert and --tls-key: give both or none")
	}
	l := c.Limits
	if l.PerUser < 1 || l.PerHost < 1 || l.Starting < 1 || l.Waiting < 0 || l.StartTimeout <= 0 {
		wrong("limits of labs: at least 1 is wanted")
	}
	if c.LabMemory < 0 || c.LabScratch < 0 || c.LabPIDs < 0 || c.LabCPUs < 0 {
		wrong("limits of a lab: 0 (the default) or more is wanted")
	}
	return errors.Join(errs...)
}
