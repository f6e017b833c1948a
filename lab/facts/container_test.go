package facts

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
)

// container is what runs in the containers of the tests: it brings up lo,
// listens where it is told, says "ready" and ends when its input ends.
func container(args []string) error {
	if args[0] == "0" {
		if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
			return fmt.Errorf("ip link set lo up: %s", out)
		}
	}
	for _, spec := range args[1:] {
		network, addr, _ := strings.Cut(spec, " ")
		if strings.HasPrefix(network, "udp") {
			conn, err := net.ListenPacket(network, addr)
			if err != nil {
				return err
			}
			defer func() { _ = conn.Close() }()
			continue
		}
		l, err := net.Listen(network, addr)
		if err != nil {
			return err
		}
		defer l.Close()
		if strings.HasSuffix(addr, ":8080") { // the others accept and say nothing
			handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("X-Test", "1")
				_, _ = fmt.Fprintln(w, "GET", r.URL.Path, strings.Repeat("long ", 10_000)) // the probe cuts it off
			})
			go func() { _ = http.Serve(l, handler) }() // ends with the program
		}
	}
	fmt.Println("ready")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}
