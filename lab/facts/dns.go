package facts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"podlab/lab"
)

const maxAnswers = 64

// lookup asks the place's resolver, by its search list, or the server named.
func lookup(ctx context.Context, pid int, p lab.DNSProbe) lab.ProbeResult {
	kind, ok := dns.StringToType[strings.ToUpper(p.Type)]
	if !ok {
		return lab.ProbeResult{Skipped: fmt.Sprintf("DNS has no type %q", p.Type)}
	}
	config, err := resolverOf(pid)
	if p.Server != "" {
		server, err := netip.ParseAddr(p.Server)
		if err != nil {
			return lab.ProbeResult{Skipped: fmt.Sprintf("server %q is not an address", p.Server)}
		}
		config = &dns.ClientConfig{Servers: []string{server.String()}, Port: "53", Ndots: 1}
	} else if err != nil {
		return lab.ProbeResult{Error: err.Error()}
	}
	answer, err := ask(ctx, pid, config, p.Name, kind)
	if err != nil {
		return lab.ProbeResult{Error: reason(ctx, err)}
	}
	r := lab.ProbeResult{OK: answer.Rcode == dns.RcodeSuccess, Rcode: dns.RcodeToString[answer.Rcode]}
	if !r.OK {
		r.Error = r.Rcode
	}
	for _, rr := range answer.Answer[:min(len(answer.Answer), maxAnswers)] {
		r.Answers = append(r.Answers, cut(strings.ReplaceAll(rr.String(), "\t", " "), 512))
	}
	return r
}

// ask walks the search list (resolv.conf(5)) until a name has answers; the
// last reply is the answer when none has.
func ask(ctx context.Context, pid int, config *dns.ClientConfig, name string, kind uint16) (*dns.Msg, error) {
	var last *dns.Msg
	err := errors.New("resolv.conf names no server")
	for _, full := range config.NameList(name) {
		for _, server := range config.Servers[:min(len(config.Servers), 3)] {
			var m *dns.Msg
			if m, err = exchange(ctx, pid, net.JoinHostPort(server, config.Port), full, kind); err != nil {
				continue
			}
			if m.Rcode == dns.RcodeSuccess && len(m.Answer) > 0 {
				return m, nil
			}
			if last == nil || last.Rcode != dns.RcodeSuccess {
				last = m
			}
			break
		}
	}
	if last != nil {
		return last, nil
	}
	return nil, err
}

// exchange asks one server, by UDP and, if cut short, by TCP.
func exchange(ctx context.Context, pid int, server, name string, kind uint16) (*dns.Msg, error) {
	question := new(dns.Msg)
	question.SetQuestion(dns.Fqdn(name), kind)
	for _, network := range []string{"udp", "tcp"} {
		conn, err := dial(ctx, pid, network, server)
		if err != nil {
			return nil, err
		}
		if deadline, ok := ctx.Deadline(); ok {
			if err := conn.SetDeadline(deadline); err != nil {
				conn.Close()
				return nil, err
			}
		}
		client := dns.Client{Net: network, UDPSize: 1232}
		answer, _, err := client.ExchangeWithConn(question, &dns.Conn{Conn: conn})
		conn.Close()
		if err != nil {
			return nil, err
		}
		if !answer.Truncated || network == "tcp" {
			return answer, nil
		}
	}
	return nil, errors.New("no answer")
}

// resolve gives the addresses of a name, IPv4 first.
func resolve(ctx context.Context, pid int, host string) ([]netip.Addr, error) {
	config, err := resolverOf(pid)
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	var last error
	for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA} {
		answer, err := ask(ctx, pid, config, host, kind)
		if err != nil {
			last = err
			continue
		}
		for _, rr := range answer.Answer {
			var ip net.IP
			switch rr := rr.(type) {
			case *dns.A:
				ip = rr.A
			case *dns.AAAA:
				ip = rr.AAAA
			}
			if a, ok := netip.AddrFromSlice(ip); ok {
				out = append(out, a.Unmap())
			}
		}
	}
	if len(out) == 0 {
		if last == nil {
			last = fmt.Errorf("no such host %s", host)
		}
		return nil, last
	}
	return out, nil
}

// resolverOf reads the resolv.conf that a process sees. The path is resolved
// inside the process's root, so that a link there cannot lead out of it.
func resolverOf(pid int) (*dns.ClientConfig, error) {
	text, err := readIn(pid, "etc/resolv.conf")
	if err != nil {
		return nil, fmt.Errorf("cannot read resolv.conf: %w", err)
	}
	config, err := dns.ClientConfigFromReader(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("cannot read resolv.conf: %w", err)
	}
	return config, nil
}

// readIn reads a regular file of a process's root, bounded.
func readIn(pid int, name string) ([]byte, error) {
	root, err := unix.Open(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	fd, err := unix.Openat2(root, name, &unix.OpenHow{
		Flags: unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), name)
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, fmt.Errorf("%s is not a regular file", name))
	}
	return io.ReadAll(io.LimitReader(file, 16<<10))
}
