package check

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"

	"podlab/lab"
)

// Function describes one helper for the authors' documentation.
type Function struct {
	Signature, Means string
}

// Functions are the helpers that expressions have beside CEL's own macros and
// string functions. exercises/README.md shows this list; a test compares them.
func Functions() []Function {
	return []Function{
		{`pod("NAME") -> PodFacts`, "short for pods[\"default/NAME\"]; \"NAMESPACE/NAME\" for another namespace"},
		{`listening(PodFacts, int) -> bool`, "a TCP socket listens on the port, on whatever address"},
		{`listens(PodFacts, string, int) -> bool`, "a TCP socket listens on exactly this address and port"},
		{`reachableAt(PodFacts, string, int) -> bool`, "a TCP socket listens on the port, on this address or on the wildcard of its family (:: takes IPv4 too)"},
		{`owner(PodFacts, int) -> string`, "the container whose process listens on the TCP port, or \"\""},
		{`sharesNS(PodFacts, string) -> bool`, "every running container of the pod (at least two) is in the same namespace of this kind: net, ipc, uts, pid, mnt"},
		{`sameNS(ProcessFacts, ProcessFacts, string) -> bool`, "both run and are in the same namespace of this kind"},
		{`state(PodFacts, string) -> Container`, "the container of this name as Kubernetes sees it; an empty one when there is none"},
		{`ip4(PodFacts) -> string, ip6(PodFacts) -> string`, "the pod's address of that family, or \"\""},
		{`inCIDR(string, string) -> bool`, "the address is in the range; false if either is not one"},
	}
}

func functions(p *provider) ([]cel.EnvOption, error) {
	podT, procT, contT := p.byName["lab.PodFacts"].cel, p.byName["lab.ProcessFacts"].cel, p.byName["lab.Container"].cel
	binary := func(name string, a, b, result *cel.Type, f func(a, b ref.Val) ref.Val) cel.EnvOption {
		return cel.Function(name, cel.Overload(name, []*cel.Type{a, b}, result, cel.BinaryBinding(f)))
	}
	unary := func(name string, a, result *cel.Type, f func(ref.Val) ref.Val) cel.EnvOption {
		return cel.Function(name, cel.Overload(name, []*cel.Type{a}, result, cel.UnaryBinding(f)))
	}
	return []cel.EnvOption{
		cel.Macros(cel.GlobalMacro("pod", 1, expandPod)),
		binary("listening", podT, cel.IntType, cel.BoolType, func(a, b ref.Val) ref.Val {
			return types.Bool(slices.ContainsFunc(podOf(a).Sockets, func(s lab.Socket) bool { return isTCP(s, b) }))
		}),
		cel.Function("listens", cel.Overload("listens", []*cel.Type{podT, cel.StringType, cel.IntType}, cel.BoolType,
			cel.FunctionBinding(func(args ...ref.Val) ref.Val {
				want, err := netip.ParseAddr(string(args[1].(types.String)))
				return types.Bool(err == nil && slices.ContainsFunc(podOf(args[0]).Sockets, func(s lab.Socket) bool {
					return isTCP(s, args[2]) && s.Addr == want
				}))
			}))),
		cel.Function("reachableAt", cel.Overload("reachableAt", []*cel.Type{podT, cel.StringType, cel.IntType}, cel.BoolType,
			cel.FunctionBinding(func(args ...ref.Val) ref.Val {
				want, err := netip.ParseAddr(string(args[1].(types.String)))
				return types.Bool(err == nil && slices.ContainsFunc(podOf(args[0]).Sockets, func(s lab.Socket) bool {
					return isTCP(s, args[2]) && takes(s, want)
				}))
			}))),
		binary("owner", podT, cel.IntType, cel.StringType, func(a, b ref.Val) ref.Val {
			for _, s := range podOf(a).Sockets {
				if isTCP(s, b) && s.Container != "" {
					return types.String(s.Container)
				}
			}
			return types.String("")
		}),
		binary("sharesNS", podT, cel.StringType, cel.BoolType, func(a, b ref.Val) ref.Val {
			return types.Bool(shares(podOf(a), string(b.(types.String))))
		}),
		cel.Function("sameNS", cel.Overload("sameNS", []*cel.Type{procT, procT, cel.StringType}, cel.BoolType,
			cel.FunctionBinding(func(args ...ref.Val) ref.Val {
				a, b, kind := args[0].Value().(lab.ProcessFacts), args[1].Value().(lab.ProcessFacts), string(args[2].(types.String))
				return types.Bool(a.Running && b.Running && a.Namespaces[kind] != 0 && a.Namespaces[kind] == b.Namespaces[kind])
			}))),
		binary("state", podT, cel.StringType, contT, func(a, b ref.Val) ref.Val {
			for _, c := range podOf(a).Pod.Containers {
				if c.Name == string(b.(types.String)) {
					return p.NativeToValue(c)
				}
			}
			return p.NativeToValue(lab.Container{})
		}),
		unary("ip4", podT, cel.StringType, func(a ref.Val) ref.Val { return address(podOf(a), netip.Addr.Is4) }),
		unary("ip6", podT, cel.StringType, func(a ref.Val) ref.Val { return address(podOf(a), netip.Addr.Is6) }),
		binary("inCIDR", cel.StringType, cel.StringType, cel.BoolType, func(a, b ref.Val) ref.Val {
			addr, err1 := netip.ParseAddr(string(a.(types.String)))
			prefix, err2 := netip.ParsePrefix(string(b.(types.String)))
			return types.Bool(err1 == nil && err2 == nil && prefix.Contains(addr))
		}),
	}, nil
}

// expandPod turns pod("a") into pods["default/a"].
func expandPod(f cel.MacroExprFactory, _ ast.Expr, args []ast.Expr) (ast.Expr, *cel.Error) {
	if args[0].Kind() != ast.LiteralKind {
		return nil, f.NewError(args[0].ID(), `pod() takes a pod's name in quotes`)
	}
	name, ok := args[0].AsLiteral().Value().(string)
	if !ok {
		return nil, f.NewError(args[0].ID(), `pod() takes a pod's name in quotes`)
	}
	if !strings.Contains(name, "/") {
		name = "default/" + name
	}
	return f.NewCall("_[_]", f.NewIdent("pods"), f.NewLiteral(types.String(name))), nil
}

func podOf(v ref.Val) lab.PodFacts { return v.Value().(lab.PodFacts) }

func isTCP(s lab.Socket, port ref.Val) bool {
	return strings.HasPrefix(s.Proto, "tcp") && int64(s.Port) == int64(port.(types.Int))
}

// takes reports whether a socket bound to bound gets connections to addr.
func takes(s lab.Socket, addr netip.Addr) bool {
	switch {
	case s.Addr == addr:
		return true
	case !s.Addr.IsUnspecified():
		return false
	}
	return s.Addr.Is6() == addr.Is6() || s.Addr.Is6() && !s.V6Only
}

func shares(pod lab.PodFacts, kind string) bool {
	var inode uint64
	n := 0
	for _, c := range pod.Containers {
		if !c.Running {
			continue
		}
		got := c.Namespaces[kind]
		if got == 0 || n > 0 && got != inode {
			return false
		}
		inode = got
		n++
	}
	return n >= 2
}

func address(pod lab.PodFacts, family func(netip.Addr) bool) ref.Val {
	if i := slices.IndexFunc(pod.Pod.IPs, family); i >= 0 {
		return types.String(pod.Pod.IPs[i].String())
	}
	return types.String("")
}
