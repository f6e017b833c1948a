package facts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"podlab/lab"
)

// probe runs one probe within its time.
func (c *Collector) probe(ctx context.Context, p places, probe lab.Probe) lab.ProbeResult {
	millis := probe.TimeoutMillis
	if millis == 0 {
		millis = lab.DefaultProbeMillis
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(millis)*time.Millisecond)
	defer cancel()
	pid, err := p.process(probe.From)
	if err != nil && probe.Log == nil { // the log of a container that has ended is still there
		return lab.ProbeResult{Skipped: err.Error()}
	}
	start := time.Now()
	var r lab.ProbeResult
	switch {
	case probe.HTTP != nil:
		r = withAddress(p, probe.HTTP.URL, func(url string) lab.ProbeResult { return httpGet(ctx, pid, url) })
	case probe.TCP != nil:
		r = withAddress(p, probe.TCP.Addr, func(addr string) lab.ProbeResult { return tcpConnect(ctx, pid, addr) })
	case probe.Ping != nil:
		r = withAddress(p, probe.Ping.Addr, func(addr string) lab.ProbeResult { return ping(ctx, pid, addr) })
	case probe.DNS != nil:
		r = lookup(ctx, pid, *probe.DNS)
	case probe.Exec != nil:
		r = c.run(ctx, probe.From, probe.Exec.Command)
	case probe.Log != nil:
		r = c.readLog(ctx, p, probe.From, probe.Log.Match)
	}
	r.Millis = float64(time.Since(start).Microseconds()) / 1000
	return r
}

// withAddress fills in the addresses of pods and nodes; without one there is
// nothing to try.
func withAddress(p places, text string, try func(string) lab.ProbeResult) lab.ProbeResult {
	expanded, err := lab.ExpandAddresses(text, p.address)
	if err != nil {
		return lab.ProbeResult{Skipped: err.Error()}
	}
	return try(expanded)
}

// dial connects from a process's network namespace. addr is an address and
// port: a name would be looked up in the agent's own namespace.
func dial(ctx context.Context, pid int, network, addr string) (conn net.Conn, err error) {
	if _, err := netip.ParseAddrPort(addr); err != nil {
		return nil, fmt.Errorf("cannot connect to %q: ADDRESS:PORT is wanted", addr)
	}
	// One address, so that net.Dialer makes the socket on this very thread.
	err = inNetNS(pid, func() (err error) {
		conn, err = (&net.Dialer{FallbackDelay: -1}).DialContext(ctx, network, addr)
		return err
	})
	return conn, err
}

func tcpConnect(ctx context.Context, pid int, addr string) lab.ProbeResult {
	conn, err := dial(ctx, pid, "tcp", addr)
	if err != nil {
		return lab.ProbeResult{Error: reason(ctx, err)}
	}
	conn.Close()
	return lab.ProbeResult{OK: true}
}

func httpGet(ctx context.Context, pid int, url string) lab.ProbeResult {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return dialName(ctx, pid, network, addr)
		},
		DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: 16 << 10,
	}
	defer transport.CloseIdleConnections()
	client := http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return lab.ProbeResult{Skipped: err.Error()}
	}
	req.Header.Set("User-Agent", "podlab-probe")
	res, err := client.Do(req)
	if err != nil {
		return lab.ProbeResult{Error: reason(ctx, err)}
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxText))
	r := lab.ProbeResult{OK: true, Status: res.StatusCode, Body: strings.ToValidUTF8(string(body), "?"), Headers: map[string]string{}}
	if err != nil && len(body) == 0 {
		r.OK, r.Error = false, reason(ctx, err)
	}
	for name := range res.Header {
		if len(r.Headers) < 32 {
			r.Headers[name] = cut(res.Header.Get(name), 256)
		}
	}
	return r
}

// dialName connects to an address, or to a name as the place's resolver has it.
func dialName(ctx context.Context, pid int, network, addr string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return dial(ctx, pid, network, addr)
	}
	addrs, err := resolve(ctx, pid, host)
	if err != nil {
		return nil, err
	}
	for _, a := range addrs {
		var conn net.Conn
		if conn, err = dial(ctx, pid, network, net.JoinHostPort(a.String(), port)); err == nil {
			return conn, nil
		}
	}
	return nil, err
}

// run runs a command in the place.
func (c *Collector) run(ctx context.Context, target lab.Target, command []string) lab.ProbeResult {
	stdout, stderr := &head{}, &head{}
	code, err := c.deps.Runner.Run(ctx, target, command, stdout, stderr)
	r := lab.ProbeResult{OK: err == nil && code == 0, ExitCode: code, Stdout: stdout.String(), Stderr: stderr.String()}
	switch {
	case ctx.Err() != nil:
		r.OK, r.Error = false, "timed out"
	case err != nil:
		r.Error = err.Error()
	}
	return r
}

// maxLog is how much of the end of a log is searched.
const maxLog = 256 << 10

// readLog searches the end of a container's log.
func (c *Collector) readLog(ctx context.Context, p places, target lab.Target, match string) lab.ProbeResult {
	place, err := target.Parse()
	if err == nil && !p.known(place) {
		err = fmt.Errorf("there is no pod %s/%s", place.Namespace, place.Pod)
	}
	if err != nil {
		return lab.ProbeResult{Skipped: err.Error()}
	}
	pattern, err := regexp.Compile(match)
	if err != nil {
		return lab.ProbeResult{Skipped: err.Error()}
	}
	r, err := c.deps.Logs.OpenLog(place)
	if err != nil {
		return lab.ProbeResult{Skipped: err.Error()}
	}
	defer r.Close()
	end, err := tail(ctx, r, maxLog)
	if err != nil {
		return lab.ProbeResult{Skipped: "cannot read the log: " + err.Error()}
	}
	var lines []string
	for line := range strings.Lines(strings.ToValidUTF8(string(end), "?")) {
		if pattern.MatchString(strings.TrimRight(line, "\n")) {
			lines = append(lines, line)
		}
	}
	out := lab.ProbeResult{OK: len(lines) > 0}
	if !out.OK {
		out.Error = "no such line"
	}
	size := 0
	for i := len(lines) - 1; i >= 0 && size+len(lines[i]) <= maxText; i-- {
		size += len(lines[i])
		out.Stdout = lines[i] + out.Stdout
	}
	if out.OK && out.Stdout == "" {
		out.Stdout = cut(lines[len(lines)-1], maxText)
	}
	return out
}

// tail reads r to its end and keeps the last whole lines of at most limit bytes.
func tail(ctx context.Context, r io.Reader, limit int) ([]byte, error) {
	var kept []byte
	whole := true
	trim := func() {
		whole = false
		kept = append(kept[:0:0], kept[len(kept)-limit:]...)
	}
	buf := make([]byte, 32<<10)
	for ctx.Err() == nil {
		n, err := r.Read(buf)
		kept = append(kept, buf[:n]...)
		if len(kept) > 2*limit {
			trim()
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	if len(kept) > limit {
		trim()
	}
	if i := bytes.IndexByte(kept, '\n'); !whole && i >= 0 {
		kept = kept[i+1:]
	}
	return kept, context.Cause(ctx)
}

// head keeps the first bytes written to it and drops the rest.
type head struct {
	mu sync.Mutex
	b  []byte
}

// Write implements io.Writer.
func (h *head) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.b = append(h.b, p[:min(len(p), maxText-len(h.b))]...)
	return len(p), nil
}

// String is what was kept, as valid text.
func (h *head) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.ToValidUTF8(string(h.b), "?")
}

// reason is an error of the network in few words: "connection refused",
// "timed out", "no route to host".
func reason(ctx context.Context, err error) string {
	var errno syscall.Errno
	var timeout interface{ Timeout() bool }
	var urlErr *url.Error
	switch {
	case errors.As(err, &errno):
		return errno.Error()
	case errors.Is(ctx.Err(), context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded),
		errors.As(err, &timeout) && timeout.Timeout():
		return "timed out"
	case errors.As(err, &urlErr):
		return cut(urlErr.Err.Error(), 256)
	}
	return cut(err.Error(), 256)
}

func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "")
}
