// fluentd is a small log collector that speaks the Fluentd forward protocol,
// version 1, as its input and prints the records as Fluentd's stdout output
// does. It reads the same configuration file, of which it knows the source
// forward and the match stdout. `scripts/images` builds it into the image of
// that name.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

func main() {
	conf := flag.String("c", "", "configuration file (default /fluentd/etc/$FLUENTD_CONF)")
	flag.StringVar(conf, "config", "", "the same as -c")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	out := &output{w: os.Stdout, now: time.Now}
	if err := run(ctx, configPath(*conf), out); err != nil {
		out.log("error", "%v", err)
		os.Exit(1)
	}
	out.log("info", "Worker 0 finished")
}

func configPath(flag string) string {
	if flag != "" {
		return flag
	}
	name := os.Getenv("FLUENTD_CONF")
	if name == "" {
		name = "fluent.conf"
	}
	return filepath.Join("/fluentd/etc", name)
}

// run serves until ctx ends.
func run(ctx context.Context, path string, out *output) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("cannot read the configuration: %w", err)
	}
	cfg, err := parseConfig(string(text))
	if err != nil {
		return fmt.Errorf("config error file=%q error=%w", path, err)
	}
	out.log("info", "using configuration file path=%q", path)
	out.match = cfg.Matches
	var servers []*forward
	defer func() {
		for _, s := range servers {
			s.close()
		}
	}()
	for _, src := range cfg.Sources {
		s, err := listen(src, out)
		if errors.Is(err, syscall.EADDRINUSE) {
			return fmt.Errorf(`unexpected error error_class=Errno::EADDRINUSE error="Address already in use - bind(2) for %q port %d"`, src.Bind, src.Port)
		}
		if err != nil {
			return err
		}
		out.log("info", "listening port port=%d bind=%q", src.Port, src.Bind)
		servers = append(servers, s)
	}
	out.log("info", "fluentd worker is now running worker=0")
	<-ctx.Done()
	out.log("info", "fluentd worker is now stopping worker=0")
	return nil
}

// output prints records and log lines, one after the other.
type output struct {
	now   func() time.Time
	match []string // patterns of tags, in order

	mu sync.Mutex
	w  io.Writer
}

// timeFormat is Fluentd's.
const timeFormat = "2006-01-02 15:04:05.000000000 -0700"

// record prints one, if a pattern matches its tag.
func (o *output) record(at time.Time, tag string, json []byte) {
	if at.Unix() == 0 { // in_forward takes a time of 0 as "now"
		at = o.now()
	}
	if !matchAny(o.match, tag) {
		o.log("warn", "no patterns matched tag=%q", tag)
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	_, _ = fmt.Fprintf(o.w, "%s %s: %s\n", at.Format(timeFormat), tag, json)
}

func (o *output) log(level, format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, _ = fmt.Fprintf(o.w, "%s [%s]: #0 %s\n", o.now().Format("2006-01-02 15:04:05 -0700"), level, fmt.Sprintf(format, args...))
}
