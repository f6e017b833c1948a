package cli

import (
	"encoding/json"
	"errors"
	"os"

	"github.com/spf13/cobra"

	"podlab/lab/labbench"
	"podlab/server/app"
	"podlab/server/bench"
)

// benchInside is the hidden command with which podlab measures itself as PID 1
// of a sandbox.
const benchInside = "bench-inside"

func benchCommand(env *Env) *cobra.Command {
	var rounds, labs int
	var output string
	data := app.DefaultConfig().Data
	if env.Data != "" {
		data = env.Data
	}
	c := &cobra.Command{
		Use:   "bench",
		Short: "Measure podlab on this machine, each figure beside its limit",
		Long: `Measure podlab on this machine: a server of its own is started, with labs that
are deleted again, and each figure is printed beside its limit, or beside a
peer that was measured in the same run. It needs root and the root file system
of a data directory, and takes about two minutes. The exit status is 1 when a
figure is over its limit.`,
		Example: `  podlab bench
  podlab bench --rounds 50 --labs 20 -o json`,
		Args: args(cobra.NoArgs, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			if rounds < 1 || rounds > 500 || labs < 1 || labs > 200 {
				return usagef("--rounds %d --labs %d: 1 to 500 rounds and 1 to 200 labs are allowed", rounds, labs)
			}
			if output != "text" && output != "json" {
				return usagef("-o %q: text or json is wanted", output)
			}
			if os.Geteuid() != 0 {
				return errors.New("cannot measure: root is needed to start sandboxes")
			}
			program, err := os.Executable()
			if err != nil {
				return err
			}
			rows, err := bench.Run(c.Context(), bench.Options{
				Data: data, Program: program, InsideCommand: benchInside, Rounds: rounds, Labs: labs, Progress: env.Err,
			})
			if err != nil {
				return err
			}
			if output == "json" {
				e := json.NewEncoder(env.Out)
				e.SetIndent("", "  ")
				err = e.Encode(rows)
			} else {
				err = bench.Print(env.Out, rows)
			}
			for _, r := range rows {
				if v := r.Verdict(); err == nil && (v == "over" || v == "failed") {
					err = errors.New("some figures are over their limits or could not be measured")
				}
			}
			return err
		},
	}
	f := c.Flags()
	f.StringVar(&data, "data", data, "data directory whose root file system and images are used")
	f.IntVar(&rounds, "rounds", 20, "how often a lab is created")
	f.IntVar(&labs, "labs", 50, "how many labs are created at once")
	f.StringVarP(&output, "output", "o", "text", "text or json")
	return c
}

func benchInsideCommand() *cobra.Command {
	return &cobra.Command{
		Use: benchInside, Hidden: true, Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if code := labbench.Main(); code != 0 {
				return exitError{code}
			}
			return nil
		},
	}
}
