//go:build deps

package main

// Keeps go.mod whole while the parts that import these grow.
import (
	_ "github.com/a-h/templ"
	_ "github.com/containerd/cgroups/v3"
	_ "github.com/creack/pty"
	_ "github.com/danielgtaylor/huma/v2/adapters/humaecho"
	_ "github.com/google/cel-go/cel"
	_ "github.com/gorilla/websocket"
	_ "github.com/labstack/echo/v4"
	_ "github.com/miekg/dns"
	_ "github.com/moby/profiles/seccomp"
	_ "github.com/opencontainers/runtime-spec/specs-go"
	_ "github.com/pressly/goose/v3"
	_ "github.com/prometheus/client_golang/prometheus/promhttp"
	_ "github.com/spf13/cobra"
	_ "github.com/vishvananda/netlink"
	_ "github.com/vishvananda/netns"
	_ "github.com/vmihailenco/msgpack/v5"
	_ "github.com/yuin/goldmark"
	_ "go.uber.org/goleak"
	_ "golang.org/x/sys/unix"
	_ "k8s.io/apiserver/pkg/endpoints"
	_ "k8s.io/apiserver/pkg/registry/generic/registry"
	_ "k8s.io/client-go/kubernetes/typed/core/v1"
	_ "k8s.io/cri-streaming/pkg/streaming"
	_ "k8s.io/kubernetes/cmd/kubectl"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	_ "k8s.io/kubernetes/pkg/apis/core/validation"
	_ "k8s.io/kubernetes/pkg/printers/internalversion"
	_ "k8s.io/kubernetes/pkg/registry/core/pod/storage"
	_ "k8s.io/kubernetes/test/images/agnhost/netexec"
	_ "modernc.org/sqlite"
	_ "sigs.k8s.io/yaml"
)
