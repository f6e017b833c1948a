package cli

import (
	"fmt"
	"io"
	"runtime"

	"github.com/spf13/cobra"
)

func versionCommand(env *Env) *cobra.Command {
	var out output
	c := &cobra.Command{
		Use: "version", Short: "Print the version", Args: args(cobra.NoArgs, "no arguments"),
		Example: "  podlab version -o json",
		RunE: func(*cobra.Command, []string) error {
			v := map[string]string{"version": env.Version, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH}
			return out.print(env.Out, v, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "podlab %s (%s, %s)\n", v["version"], v["go"], v["platform"])
				return err
			})
		},
	}
	out.add(c)
	return c
}

func linkCommand(env *Env) *cobra.Command {
	return &cobra.Command{
		Use: "instructor-link", Short: "Print a new one-time sign-in link for the instructor",
		Long: `Print a new one-time sign-in link for the instructor. Former links that were
not used no longer work; sessions go on. Only root on the server's host may.`,
		Example: "  podlab instructor-link", Args: args(cobra.NoArgs, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			server, err := env.client()
			if err != nil {
				return err
			}
			link, err := server.InstructorLink(c.Context())
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(env.Out, link)
			return err
		},
	}
}
