package archtest

// A rule says what the packages that it is for may not do, and why. Packages
// are named by their path in the module: "lab" is that package, "lab/..." that
// package and all below it. Rules hold for tests too, unless Tests is false.
type rule struct {
	// Packages the rule is for, less those in Except.
	Packages []string
	Except   []string
	// Imports are forbidden import paths, "..." as above; "others" is every
	// module but this one and the standard library, "ours" every package of
	// this one. Allowed are packages of this module that may be imported still.
	Imports []string
	Allowed []string
	// Calls are forbidden selectors, such as "os.Getenv".
	Calls []string
	// Tests says whether the rule holds for _test.go files.
	Tests bool
	Why   string
}

var rules = []rule{
	{
		Packages: []string{"lab"},
		Imports:  []string{"others", "ours"},
		Tests:    true,
		Why:      "the words of a lab are shared by the agent, the server, the exercises and the browser's types: standard library only",
	},
	{
		Packages: []string{"lab/agentapi"},
		Imports:  []string{"others", "ours"},
		Allowed:  []string{"lab"},
		Tests:    true,
		Why:      "the wire protocol is data, for both of its ends",
	},
	{
		Packages: []string{"lab/..."},
		Imports:  []string{"server/...", "web/...", "exercises/..."},
		Tests:    true,
		Why:      "the lab side runs in a learner's sandbox and knows nothing of the host side, nor of the answers",
	},
	{
		Packages: []string{"lab/..."},
		Imports:  []string{"github.com/labstack/echo/...", "github.com/a-h/templ/...", "github.com/danielgtaylor/huma/..."},
		Tests:    true,
		Why:      "pages and the public API are the server's",
	},
	{
		Packages: []string{"lab/..."},
		Except:   []string{"lab/agent", "lab/kube/..."},
		Imports:  []string{"github.com/gorilla/websocket"},
		Why:      "the agent's socket and the Kubernetes streams are the only ways into a lab",
	},
	{
		Packages: []string{"..."},
		Except:   []string{"lab/kernel", "lab/netns", "lab/labtest", "server/launch/...", "server/doctor/...", "server/broker/..."},
		Imports:  []string{"github.com/vishvananda/netlink/...", "github.com/google/nftables/...", "github.com/mdlayher/netlink/..."},
		Why:      "netlink stands in lab/kernel, so that every change of the kernel is an Op with its command",
	},
	{
		Packages: []string{"..."},
		Except:   []string{"lab/netns", "server/launch/...", "server/doctor/...", "server/broker/..."},
		Imports:  []string{"github.com/vishvananda/netns"},
		Calls:    []string{"unix.Setns", "runtime.LockOSThread", "runtime.UnlockOSThread"},
		Why:      "a thread in the wrong namespace is the worst bug here: lab/netns is the only place that enters one",
	},
	{
		Packages: []string{"lab/plan/...", "lab/cni/...", "lab/fabric/...", "lab/check/...", "lab/service/...", "lab/policy/..."},
		Imports:  []string{"os", "os/exec", "net/http", "syscall", "golang.org/x/sys/...", "math/rand", "math/rand/v2", "crypto/rand"},
		Calls: []string{
			"time.Now", "time.Since", "time.Sleep", "time.After",
			"net.Dial", "net.Listen", "net.Interfaces", "net.InterfaceByName", "net.LookupHost", "net.LookupIP",
		},
		Why: "plans and checks are pure: the same input gives the same output on any machine",
	},
	{
		Packages: []string{"web/..."},
		Except:   []string{"web/client/...", "web/browsertest/..."},
		Imports:  []string{"server/...", "exercises/...", "lab/..."},
		Allowed:  []string{"lab", "lab/agentapi"},
		Why:      "pages are pure functions of view data",
	},
	{
		Packages: []string{"exercises/..."},
		Imports:  []string{"server/...", "web/...", "lab/..."},
		Allowed:  []string{"lab", "lab/check"},
		Why:      "the course is content and the package that loads it; it plays nothing itself",
	},
	{
		Packages: []string{"lab/...", "server/...", "web/...", "exercises/..."},
		Except:   []string{"server", "lab/labtest", "lab/runtime/runtimetest", "lab/image/programs/..."},
		Calls:    []string{"os.Getenv", "os.LookupEnv", "os.Environ", "os.ExpandEnv"},
		Why:      "configuration is read in one place, server/main.go, and passed by value",
	},
	{
		Packages: []string{"..."},
		Imports:  []string{"k8s.io/kubernetes/cmd/...", "k8s.io/kubernetes/test/..."},
		Except:   []string{"lab/image/programs/..."},
		Why:      "whole programs of Kubernetes are built beside podlab, never linked into it",
	},
	{
		Packages: []string{"..."},
		Except:   []string{"lab/image/programs/..."},
		Imports:  []string{"lab/image/programs/..."},
		Tests:    true,
		Why:      "they are programs of the images, not packages of podlab",
	},
	{
		Packages: []string{"..."},
		Calls:    []string{"time.Sleep"},
		Tests:    true,
		Why:      "wait for the event, not for a guess of how long it takes",
	},
}
