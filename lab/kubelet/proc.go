package kubelet

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// verifyNetwork asks the kernel whether the network namespace of a process has
// the addresses and, for each family, a default route.
func verifyNetwork(pid int, ips []string) (string, error) {
	var lines []string
	for _, ip := range parseAddrs(ips) {
		via, err := defaultRoute(pid, ip.Is6())
		if err != nil {
			return "", fmt.Errorf("%s: %w", ip, err)
		}
		ok, err := hasAddress(pid, ip)
		if err != nil {
			return "", err
		}
		if !ok {
			return "", fmt.Errorf("address %s is not there", ip)
		}
		lines = append(lines, ip.String()+" by "+via)
	}
	return strings.Join(lines, ", "), nil
}

func netFile(pid int, name string) ([][]string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, name))
	if err != nil {
		return nil, fmt.Errorf("cannot read the pod's %s: %w", name, err)
	}
	var rows [][]string
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 0 {
			rows = append(rows, f)
		}
	}
	return rows, nil
}

// defaultRoute returns the link of the default route (proc_pid_net(5)).
func defaultRoute(pid int, v6 bool) (string, error) {
	if v6 {
		rows, err := netFile(pid, "ipv6_route")
		if err != nil {
			return "", err
		}
		for _, f := range rows {
			if len(f) == 10 && f[0] == strings.Repeat("0", 32) && f[1] == "00" && f[9] != "lo" {
				return f[9], nil
			}
		}
		return "", fmt.Errorf("there is no default route")
	}
	rows, err := netFile(pid, "route")
	if err != nil {
		return "", err
	}
	for _, f := range rows {
		if len(f) > 7 && f[1] == "00000000" && f[7] == "00000000" {
			return f[0], nil
		}
	}
	return "", fmt.Errorf("there is no default route")
}

// hasAddress says whether an address is local to the namespace.
func hasAddress(pid int, ip netip.Addr) (bool, error) {
	if ip.Is6() {
		rows, err := netFile(pid, "if_inet6")
		want := hex.EncodeToString(ip.AsSlice())
		return slices.ContainsFunc(rows, func(f []string) bool { return f[0] == want }), err
	}
	rows, err := netFile(pid, "fib_trie")
	for i, f := range rows {
		if len(f) == 2 && f[1] == ip.String() && i+1 < len(rows) && strings.Join(rows[i+1], " ") == "/32 host LOCAL" {
			return true, nil
		}
	}
	return false, err
}

// connections counts the established TCP connections of a namespace.
func connections(pid int) int {
	n := 0
	for _, name := range []string{"tcp", "tcp6"} {
		rows, err := netFile(pid, name)
		if err != nil {
			continue // without IPv6 there is no tcp6
		}
		for _, f := range rows {
			if len(f) > 3 && f[3] == "01" { // TCP_ESTABLISHED, include/net/tcp_states.h
				n++
			}
		}
	}
	return n
}

func parseAddrs(list []string) []netip.Addr {
	var out []netip.Addr
	for _, s := range list {
		if a, err := netip.ParseAddr(s); err == nil {
			out = append(out, a)
		}
	}
	return out
}
