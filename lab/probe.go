package lab

import (
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
)

// The bounds of probes.
const (
	MaxProbes             = 64     // in one request
	MaxProbeMillis        = 10_000 // of one probe
	DefaultProbeMillis    = 1_000
	maxProbeText          = 1024 // of a URL, a name, an argument, in bytes
	maxProbeArguments     = 64
	maxProbeArgumentBytes = 4096
)

// addressHole is a place's address in a probe: "{ip4 pod-a}", "{ip6 web/api}",
// "{ip4 node:node1}". Pods get their addresses late, so the agent fills it in.
var addressHole = regexp.MustCompile(`\{(ip4|ip6) ([^{}\s]+)\}`)

// ExpandAddresses replaces each {ip4 TARGET} and {ip6 TARGET} in s by the
// address that lookup gives, and fails with its error.
func ExpandAddresses(s string, lookup func(t Target, v6 bool) (netip.Addr, error)) (string, error) {
	var first error
	out := addressHole.ReplaceAllStringFunc(s, func(hole string) string {
		m := addressHole.FindStringSubmatch(hole)
		addr, err := lookup(Target(m[2]), m[1] == "ip6")
		if err != nil {
			if first == nil {
				first = err
			}
			return hole
		}
		return addr.String()
	})
	return out, first
}

// withoutHoles is s with an address in place of each hole, for validation.
func withoutHoles(s string) (string, error) {
	s, err := ExpandAddresses(s, func(t Target, v6 bool) (netip.Addr, error) {
		if _, err := t.Parse(); err != nil {
			return netip.Addr{}, err
		}
		if v6 {
			return netip.IPv6LinkLocalAllNodes(), nil
		}
		return netip.AddrFrom4([4]byte{192, 0, 2, 1}), nil
	})
	if err == nil && strings.ContainsAny(s, "{}") {
		err = fmt.Errorf("%q: in braces, {ip4 TARGET} or {ip6 TARGET} is wanted", s)
	}
	return s, err
}

// Validate says what is wrong with a probe: where it starts, that it is exactly
// one thing, and its bounds.
func (p Probe) Validate() error {
	place, err := p.From.Parse()
	if err != nil {
		return err
	}
	kinds := 0
	check := func(set bool, err error) error {
		if !set {
			return nil
		}
		kinds++
		return err
	}
	for _, err := range []error{
		check(p.HTTP != nil, validHTTP(p.HTTP)),
		check(p.TCP != nil, validTCP(p.TCP)),
		check(p.DNS != nil, validDNS(p.DNS)),
		check(p.Ping != nil, validPing(p.Ping)),
		check(p.Exec != nil, validExec(p.Exec)),
		check(p.Log != nil, validLog(p.Log, place)),
	} {
		if err != nil {
			return err
		}
	}
	if kinds != 1 {
		return fmt.Errorf("has %d of http, tcp, dns, ping, exec, log; exactly one is wanted", kinds)
	}
	if p.TimeoutMillis < 0 || p.TimeoutMillis > MaxProbeMillis {
		return fmt.Errorf("timeoutMillis is %d; allowed are 0 (%d) to %d", p.TimeoutMillis, DefaultProbeMillis, MaxProbeMillis)
	}
	return nil
}

func validHTTP(p *HTTPProbe) error {
	if p == nil {
		return nil
	}
	text, err := withoutHoles(p.URL)
	if err != nil {
		return fmt.Errorf("http.url: %w", err)
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || len(p.URL) > maxProbeText {
		return fmt.Errorf("http.url is %q; http://HOST[:PORT]/PATH is wanted", p.URL)
	}
	return nil
}

func validTCP(p *TCPProbe) error {
	if p == nil {
		return nil
	}
	text, err := withoutHoles(p.Addr)
	if err != nil {
		return fmt.Errorf("tcp.addr: %w", err)
	}
	if _, err := netip.ParseAddrPort(text); err != nil {
		return fmt.Errorf("tcp.addr is %q; ADDRESS:PORT is wanted, IPv6 in brackets", p.Addr)
	}
	return nil
}

func validDNS(p *DNSProbe) error {
	if p == nil {
		return nil
	}
	if p.Name == "" || len(p.Name) > 255 || p.Type == "" {
		return fmt.Errorf("dns wants a name of at most 255 characters and a type such as A")
	}
	return nil
}

func validPing(p *PingProbe) error {
	if p == nil {
		return nil
	}
	text, err := withoutHoles(p.Addr)
	if err != nil {
		return fmt.Errorf("ping.addr: %w", err)
	}
	if _, err := netip.ParseAddr(text); err != nil {
		return fmt.Errorf("ping.addr is %q; an IPv4 or IPv6 address is wanted", p.Addr)
	}
	return nil
}

func validExec(p *ExecProbe) error {
	if p == nil {
		return nil
	}
	if len(p.Command) == 0 || p.Command[0] == "" || len(p.Command) > maxProbeArguments {
		return fmt.Errorf("exec.command wants 1 to %d words", maxProbeArguments)
	}
	for _, word := range p.Command {
		if len(word) > maxProbeArgumentBytes {
			return fmt.Errorf("exec.command has a word of %d bytes; at most %d are allowed", len(word), maxProbeArgumentBytes)
		}
	}
	return nil
}

func validLog(p *LogProbe, place TargetParts) error {
	if p == nil {
		return nil
	}
	if place.Container == "" {
		return fmt.Errorf("log wants a container: from is POD/CONTAINER")
	}
	if len(p.Match) > maxProbeText {
		return fmt.Errorf("log.match has %d bytes; at most %d are allowed", len(p.Match), maxProbeText)
	}
	if _, err := regexp.Compile(p.Match); err != nil {
		return fmt.Errorf("log.match: %w", err)
	}
	return nil
}
