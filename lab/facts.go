package lab

import "net/netip"

// Facts are what the checks read: the state, what runs in each pod, and the
// outcomes of the probes that were asked for. They are read from the kernel
// and the lab's API at the moment of the request.
type Facts struct {
	State State `json:"state"`
	// Pods by "namespace/name".
	Pods map[string]PodFacts `json:"pods"`
	// Nodes by name.
	Nodes map[string]ProcessFacts `json:"nodes"`
	// Probes by the id given in the request.
	Probes map[string]ProbeResult `json:"probes"`
}

// PodFacts are a pod's containers by name, and its sockets.
type PodFacts struct {
	Pod        Pod                     `json:"pod"`
	Containers map[string]ProcessFacts `json:"containers"`
	// Sockets that listen in the pod's network namespace.
	Sockets []Socket `json:"sockets"`
}

// ProcessFacts is what /proc says of a container's or node's first process.
type ProcessFacts struct {
	Running bool `json:"running"`
	// Namespaces by name (net, ipc, uts, pid, mnt) to inode number.
	Namespaces map[string]uint64 `json:"namespaces"`
	// Args is the command line.
	Args []string `json:"args"`
}

// Socket is one listening socket, as in `ss -lntux`.
type Socket struct {
	// Proto is "tcp", "tcp6", "udp", "udp6" or "unix".
	Proto string     `json:"proto"`
	Addr  netip.Addr `json:"addr"`
	Port  uint16     `json:"port"`
	// V6Only: a socket of IPv6 that takes no IPv4 (IPV6_V6ONLY, ipv6(7)).
	V6Only bool `json:"v6only,omitempty"`
	// Path of a Unix socket; @ begins an abstract one.
	Path string `json:"path,omitempty"`
	// Container that owns it, where known, and its process name.
	Container string `json:"container,omitempty"`
	Process   string `json:"process,omitempty"`
}

// Probe is one thing to try for real from a place in the lab. Exactly one of
// the typed fields is set.
type Probe struct {
	// From is a pod or node, see Target.
	From Target     `json:"from"`
	HTTP *HTTPProbe `json:"http,omitempty"`
	TCP  *TCPProbe  `json:"tcp,omitempty"`
	DNS  *DNSProbe  `json:"dns,omitempty"`
	Ping *PingProbe `json:"ping,omitempty"`
	Exec *ExecProbe `json:"exec,omitempty"`
	Log  *LogProbe  `json:"log,omitempty"`
	// TimeoutMillis bounds the probe; 0 means 1000, at most 10000.
	TimeoutMillis int `json:"timeoutMillis,omitempty"`
}

// HTTPProbe is a GET of URL. In addresses, {ip4 TARGET} and {ip6 TARGET} stand
// for a pod's or node's address, see ExpandAddresses.
type HTTPProbe struct {
	URL string `json:"url"`
}

// TCPProbe is a TCP connect to Addr, "10.244.1.10:80" or "[fd00::1]:80".
type TCPProbe struct {
	Addr string `json:"addr"`
}

// DNSProbe is a lookup of Name with Type ("A", "AAAA", "SRV", "PTR", …) by the
// resolver of the place (its resolv.conf), or by Server if set.
type DNSProbe struct {
	Name   string `json:"name"`
	Type   string `json:"type"`
	Server string `json:"server,omitempty"`
}

// PingProbe is one ICMP echo to Addr.
type PingProbe struct {
	Addr string `json:"addr"`
}

// ExecProbe is a command run in the place without a terminal.
type ExecProbe struct {
	Command []string `json:"command"`
}

// LogProbe reads the log of the container that From names.
type LogProbe struct {
	// Match is a regular expression (RE2) that lines must match; empty is any.
	Match string `json:"match,omitempty"`
}

// ProbeResult is the outcome of a probe.
type ProbeResult struct {
	// OK: HTTP gave an answer, TCP connected, DNS answered NOERROR, the echo
	// came back, the command ended with 0, a line of the log matched.
	OK bool `json:"ok"`
	// Skipped says why the probe could not be tried at all, such as a pod that
	// is not there; then nothing else is set, and nothing was learnt.
	Skipped string `json:"skipped,omitempty"`
	// Error says why not, in the kernel's or the protocol's words.
	Error  string  `json:"error,omitempty"`
	Millis float64 `json:"millis"`
	// Status, Body and Headers of HTTP; Body is cut at 4 KiB.
	Status  int               `json:"status,omitempty"`
	Body    string            `json:"body,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`
	// Rcode and Answers of DNS ("NOERROR"; each answer as dig prints it).
	Rcode   string   `json:"rcode,omitempty"`
	Answers []string `json:"answers,omitempty"`
	// Stdout, Stderr (each cut at 4 KiB) and ExitCode of a command; Stdout holds
	// the last matching lines of a log.
	Stdout   string `json:"stdout,omitempty"`
	Stderr   string `json:"stderr,omitempty"`
	ExitCode int    `json:"exitCode,omitempty"`
}
