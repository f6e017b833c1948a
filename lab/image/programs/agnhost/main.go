// agnhost is the network tool of the Kubernetes end-to-end tests: the same
// commands with the same arguments, without those that need a real cluster.
// `scripts/images` builds it into the image of that name.
package main

import (
	"os"

	"github.com/spf13/cobra"
	"k8s.io/kubernetes/test/images/agnhost/connect"
	"k8s.io/kubernetes/test/images/agnhost/dns"
	entrypoint "k8s.io/kubernetes/test/images/agnhost/entrypoint-tester"
	"k8s.io/kubernetes/test/images/agnhost/liveness"
	"k8s.io/kubernetes/test/images/agnhost/netexec"
	"k8s.io/kubernetes/test/images/agnhost/pause"
	portforwardtester "k8s.io/kubernetes/test/images/agnhost/port-forward-tester"
	"k8s.io/kubernetes/test/images/agnhost/porter"
	servehostname "k8s.io/kubernetes/test/images/agnhost/serve-hostname"
	tcpreset "k8s.io/kubernetes/test/images/agnhost/tcp-reset"
	testwebserver "k8s.io/kubernetes/test/images/agnhost/test-webserver"
)

// version is that of the image whose arguments these are.
const version = "2.43"

func main() {
	root := &cobra.Command{Use: "agnhost", Version: version}
	root.AddCommand(
		connect.CmdConnect,
		dns.CmdDNSSuffix, dns.CmdDNSServerList, dns.CmdEtcHosts,
		entrypoint.CmdEntrypointTester,
		liveness.CmdLiveness,
		netexec.CmdNetexec,
		pause.CmdPause,
		portforwardtester.CmdPortForwardTester,
		porter.CmdPorter,
		servehostname.CmdServeHostname,
		tcpreset.CmdTCPReset,
		testwebserver.CmdTestWebserver,
	)
	if root.Execute() != nil {
		os.Exit(1)
	}
}
