package cli

import (
	"errors"
	"io"

	"github.com/spf13/cobra"

	"podlab/server/doctor"
)

// errNoLabs ends doctor with 1 where labs cannot run; the report has said why.
var errNoLabs = errors.New("something that labs need is missing on this host")

func doctorCommand(env *Env) *cobra.Command {
	var out output
	opt := doctor.Options{}
	c := &cobra.Command{
		Use: "doctor", Short: "Tell what this host offers for labs",
		Long: `Tell what this host offers for labs: kernel features, each one tried in a
throwaway namespace, OCI runtime, cgroups, root file system, and how many labs
there is room for; what podlab uses in place of what is absent, and what to do.
It changes nothing. It ends with 1 where something that labs need is missing.`,
		Example: "  podlab doctor\n  podlab doctor -o json",
		Args:    args(cobra.NoArgs, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			if opt.Data == "" {
				opt.Data = env.dataDir()
			}
			r := doctor.Run(c.Context(), opt)
			if err := out.print(env.Out, r, func(w io.Writer) error { return r.Print(w) }); err != nil {
				return err
			}
			if !r.OK() {
				return errNoLabs
			}
			return nil
		},
	}
	c.Flags().StringVar(&opt.Data, "data", "", "the server's data directory")
	c.Flags().StringVar(&opt.Runtime, "runtime", "", "OCI runtime to look at; without it crun, else runc")
	out.add(c)
	return c
}

// doctorProbeCommand is the child in which doctor tries the kernel's features.
func doctorProbeCommand() *cobra.Command {
	return &cobra.Command{
		Use: doctor.ProbeCommand, Hidden: true, Args: args(cobra.NoArgs, "no arguments"),
		Run: func(*cobra.Command, []string) { doctor.ProbeMain() },
	}
}
