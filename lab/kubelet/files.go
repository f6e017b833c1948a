package kubelet

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"podlab/lab"
)

// podHosts is a pod's /etc/hosts, as a kubelet writes it.
func podHosts(ips []netip.Addr, hostname, domain string, aliases []corev1.HostAlias) string {
	var b strings.Builder
	b.WriteString("# Kubernetes-managed hosts file.\n" +
		"127.0.0.1\tlocalhost\n" +
		"::1\tlocalhost ip6-localhost ip6-loopback\n" +
		"fe00::0\tip6-localnet\n" +
		"fe00::0\tip6-mcastprefix\n" +
		"fe00::1\tip6-allnodes\n" +
		"fe00::2\tip6-allrouters\n")
	for _, ip := range ips {
		if domain != "" {
			fmt.Fprintf(&b, "%s\t%s.%s\t%s\n", ip, hostname, domain, hostname)
		} else {
			fmt.Fprintf(&b, "%s\t%s\n", ip, hostname)
		}
	}
	b.WriteString(hostAliases(aliases))
	return b.String()
}

// hostNetworkHosts is /etc/hosts of a pod in its node's network.
func hostNetworkHosts(node string, aliases []corev1.HostAlias) string {
	return "# Kubernetes-managed hosts file (host network).\n" + node + hostAliases(aliases)
}

func hostAliases(aliases []corev1.HostAlias) string {
	if len(aliases) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("\n# Entries added by HostAliases.\n")
	for _, a := range aliases {
		fmt.Fprintf(&b, "%s\t%s\n", a.IP, strings.Join(a.Hostnames, "\t"))
	}
	return b.String()
}

// podResolvConf is a pod's /etc/resolv.conf by its DNS policy.
func podResolvConf(pod *corev1.Pod, spec lab.Spec) string {
	var servers, searches, options []string
	policy := pod.Spec.DNSPolicy
	if policy == corev1.DNSClusterFirst && pod.Spec.HostNetwork {
		policy = corev1.DNSDefault
	}
	if policy == corev1.DNSClusterFirst || policy == corev1.DNSClusterFirstWithHostNet || policy == "" {
		for _, a := range clusterDNS(spec) {
			servers = append(servers, a.String())
		}
		servers = servers[:min(len(servers), 1)] // kubelets are given one, of the first family
		searches = []string{pod.Namespace + ".svc." + spec.ClusterDomain, "svc." + spec.ClusterDomain, spec.ClusterDomain}
		options = []string{"ndots:5"}
	}
	if c := pod.Spec.DNSConfig; c != nil {
		servers = unique(servers, c.Nameservers)
		searches = unique(searches, c.Searches)
		for _, o := range c.Options {
			options = slices.DeleteFunc(options, func(have string) bool { return strings.HasPrefix(have+":", o.Name+":") })
			if o.Value != nil && *o.Value != "" {
				options = append(options, o.Name+":"+*o.Value)
			} else {
				options = append(options, o.Name)
			}
		}
	}
	return resolvConf(servers, searches, options)
}

// resolvConf writes the file. Without servers the resolver asks the local host,
// where nothing listens, and fails at once.
func resolvConf(servers, searches, options []string) string {
	var b strings.Builder
	if len(searches) > 0 {
		b.WriteString("search " + strings.Join(searches, " ") + "\n")
	}
	for _, s := range servers {
		b.WriteString("nameserver " + s + "\n")
	}
	if len(options) > 0 {
		b.WriteString("options " + strings.Join(options, " ") + "\n")
	}
	return b.String()
}

func unique(a, b []string) []string {
	out := slices.Clone(a)
	for _, s := range b {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// hostnameAndDomain are a pod's, as a kubelet makes them (GeneratePodHostNameAndDomain).
func hostnameAndDomain(pod *corev1.Pod, clusterDomain string) (string, string) {
	if o := pod.Spec.HostnameOverride; o != nil {
		return *o, ""
	}
	name := pod.Name
	if pod.Spec.Hostname != "" {
		name = pod.Spec.Hostname
	}
	if len(name) > 63 { // a host name's limit, sethostname(2) and DNS
		name = strings.TrimRight(name[:63], "-.")
	}
	if pod.Spec.Subdomain == "" {
		return name, ""
	}
	return name, pod.Spec.Subdomain + "." + pod.Namespace + ".svc." + clusterDomain
}
