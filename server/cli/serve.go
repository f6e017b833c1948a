package cli

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"

	"github.com/spf13/cobra"

	"podlab/server/app"
	"podlab/server/grade"
	"podlab/server/launch"
)

func serveCommand(env *Env) *cobra.Command {
	config := app.DefaultConfig()
	config.Version = env.Version
	if env.Data != "" {
		config.Data = env.Data
	}
	if env.Addr != "" {
		config.Addr = env.Addr
	}
	var logFormat, logLevel string
	var proxies []string
	var exerciseDir string
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the server",
		Long: `Run the server. It prints its address and, until the instructor has signed in
once, a link to do so. It needs root, for the labs' sandboxes. Ending it leaves
the labs running; the next server finds them again.`,
		Example: `  podlab serve
  podlab serve --addr 0.0.0.0:8080 --public-url https://labs.example.org --proxy 10.0.0.0/8
  podlab serve --labs-per-user 2 --lab-memory 256MiB --lab-cpus 0.5`,
		Args: args(cobra.NoArgs, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			for _, p := range proxies {
				prefix, err := netip.ParsePrefix(p)
				if err != nil {
					return usagef("--proxy %q: a network such as 10.0.0.0/8 is wanted", p)
				}
				config.Proxies = append(config.Proxies, prefix.Masked())
			}
			if err := config.Check(); err != nil {
				return usageError{err}
			}
			log, err := newLog(env, logFormat, logLevel)
			if err != nil {
				return err
			}
			return serve(c.Context(), env, config, exerciseDir, log)
		},
	}
	f := c.Flags()
	f.StringVar(&config.Addr, "addr", config.Addr, "address to listen on, HOST:PORT")
	f.StringVar(&config.Data, "data", config.Data, "directory of store, labs and root file system")
	f.StringVar(&config.PublicURL, "public-url", "", "the server's address for people, where a proxy stands before it")
	f.StringArrayVar(&proxies, "proxy", nil, "network of proxies whose X-Forwarded-For and X-Forwarded-Proto are believed; may be repeated")
	f.StringVar(&config.TLSCert, "tls-cert", "", "file with the certificate (PEM)")
	f.StringVar(&config.TLSKey, "tls-key", "", "file with its key (PEM)")
	f.StringVar(&config.Runtime, "runtime", "", "OCI runtime of the sandboxes; without it crun, else runc")
	f.IntVar(&config.Limits.PerUser, "labs-per-user", config.Limits.PerUser, "most labs of one learner")
	f.IntVar(&config.Limits.PerHost, "labs-per-host", config.Limits.PerHost, "most labs that run; more wait in a queue")
	f.IntVar(&config.Limits.Starting, "labs-starting", config.Limits.Starting, "most labs that start at the same time")
	f.DurationVar(&config.Limits.StartTimeout, "lab-start-timeout", config.Limits.StartTimeout, "most time from a lab's start to ready")
	f.Var((*bytesFlag)(&config.LabMemory), "lab-memory", "memory of one lab's containers and shells, such as 512MiB; 0 is the launcher's default")
	f.Var((*bytesFlag)(&config.LabScratch), "lab-scratch", "room for one lab's files, such as 256MiB; 0 is the launcher's default")
	f.Int64Var(&config.LabPIDs, "lab-pids", 0, "most processes of one lab; 0 is the launcher's default")
	f.Float64Var(&config.LabCPUs, "lab-cpus", 0, "CPU of one lab, in cores; 0 is the launcher's default")
	f.DurationVar(&config.ShutdownTimeout, "shutdown-timeout", config.ShutdownTimeout, "most time to finish requests at the end")
	f.StringVar(&exerciseDir, "exercises", "", "folder of exercises, in place of those built in")
	f.StringVar(&logFormat, "log-format", "text", "text or json")
	f.StringVar(&logLevel, "log-level", "info", "debug, info, warn or error; debug has a line for each request")
	return c
}

func newLog(env *Env, format, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, usagef("--log-level %q: debug, info, warn or error is wanted", level)
	}
	options := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(env.Err, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(env.Err, options)), nil
	}
	return nil, usagef("--log-format %q: text or json is wanted", format)
}

// serve wires the real parts together.
func serve(ctx context.Context, env *Env, config app.Config, exerciseDir string, log *slog.Logger) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("cannot serve: root is needed to start sandboxes; run it as root or in the container image")
	}
	course, err := loadCourse(exerciseDir)
	if err != nil {
		return fmt.Errorf("cannot load the exercises: %w", err)
	}
	launcher, err := launch.New(launch.Options{Data: config.Data, Runtime: config.Runtime, Log: log})
	if err != nil {
		return err
	}
	defer launcher.Close()
	grader := grade.New(course.Get, log)
	limits := launch.DefaultLimits()
	for _, l := range []struct{ to, from *int64 }{
		{&limits.MemoryBytes, &config.LabMemory}, {&limits.ScratchBytes, &config.LabScratch}, {&limits.PIDs, &config.LabPIDs},
	} {
		if *l.from != 0 {
			*l.to = *l.from
		}
	}
	if config.LabCPUs != 0 {
		limits.CPUs = config.LabCPUs
	}
	a, err := app.New(ctx, config, app.Parts{
		Launcher: app.Sandboxes(launcher, limits), Exercises: app.Course{Course: course}, Grader: grader, Touch: grader.Touch,
		Log: log, Out: env.Out,
	})
	if err != nil {
		return err
	}
	return a.Run(ctx)
}
