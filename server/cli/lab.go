package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"podlab/lab"
	"podlab/lab/agentapi"
	"podlab/server/api"
	"podlab/server/client"
	"podlab/server/labs"
)

func labCommand(env *Env) *cobra.Command {
	return group("lab", "Make labs and work in them, through the server",
		createCommand(env), listCommand(env), showCommand(env), deleteCommand(env), restartCommand(env), applyCommand(env),
		execCommand(env), kubeconfigCommand(env), factsCommand(env))
}

// find returns the lab of a name or id: one's own, or, for the instructor,
// anybody's.
func find(ctx context.Context, c *client.Client, name string) (api.Lab, error) {
	mine, err := c.Labs(ctx, false)
	if err != nil {
		return api.Lab{}, err
	}
	if l, err := match(mine, name); err == nil {
		return l, nil
	}
	all, err := c.Labs(ctx, true)
	if e, ok := errors.AsType[*lab.Error](err); ok && e.Code == lab.CodeForbidden {
		all, err = mine, nil
	}
	if err != nil {
		return api.Lab{}, err
	}
	return match(all, name)
}

func match(all []api.Lab, name string) (api.Lab, error) {
	var found []api.Lab
	for _, l := range all {
		if l.ID == name {
			return l, nil
		}
		if l.Name == name && l.Phase != lab.PhaseDeleting {
			found = append(found, l)
		}
	}
	switch len(found) {
	case 0:
		return api.Lab{}, fmt.Errorf("there is no lab %q; `podlab lab list` shows those there are", name)
	case 1:
		return found[0], nil
	}
	var ids []string
	for _, l := range found {
		ids = append(ids, l.ID)
	}
	return api.Lab{}, fmt.Errorf("%d labs are named %q; name one by its id: %s", len(found), name, strings.Join(ids, ", "))
}

// withLab runs f with the lab that the first argument names.
func withLab(env *Env, f func(ctx context.Context, c *client.Client, l api.Lab, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c, err := env.client()
		if err != nil {
			return err
		}
		l, err := find(cmd.Context(), c, args[0])
		if err != nil {
			return err
		}
		return f(cmd.Context(), c, l, args[1:])
	}
}

// readFile reads a manifest; "-" is standard input.
func readFile(env *Env, name string) ([]byte, error) {
	var r io.Reader = env.In
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		r = f
	}
	b, err := io.ReadAll(io.LimitReader(r, labs.MaxManifest+1))
	if err == nil && len(b) > labs.MaxManifest {
		err = fmt.Errorf("%s is larger than %d KiB", name, labs.MaxManifest>>10)
	}
	return b, err
}

func printLabs(all ...api.Lab) func(io.Writer) error {
	return func(w io.Writer) error {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "NAME\tID\tPHASE\tEXERCISE\tAGE")
		for _, l := range all {
			phase := string(l.Phase)
			if l.Queue > 0 {
				phase += fmt.Sprintf(" (waits for room, place %d)", l.Queue)
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", l.Name, l.ID, phase, orDash(l.Exercise), time.Since(l.CreatedAt).Round(time.Second))
			if l.Reason != "" {
				fmt.Fprintf(t, "  reason: %s\t\t\t\t\n", l.Reason)
			}
		}
		return t.Flush()
	}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func createCommand(env *Env) *cobra.Command {
	var out output
	var in api.NewLab
	var file string
	var noWait bool
	c := &cobra.Command{
		Use: "create [NAME]", Short: "Make a lab and wait until it is ready",
		Long: `Make a lab and wait until it is ready: the default one, one of an exercise, or
one of a manifest (at most one document of kind Lab, and Kubernetes documents).`,
		Example: `  podlab lab create
  podlab lab create try --exercise 01-three-containers
  podlab lab create big -f lab.yaml --no-wait -o json`,
		Args: args(cobra.MaximumNArgs(1), "at most a name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				in.Name = args[0]
			}
			if file != "" && in.Exercise != "" {
				return usagef("give either --exercise or -f, not both")
			}
			if file != "" {
				b, err := readFile(env, file)
				if err != nil {
					return err
				}
				in.Manifest = string(b)
			}
			c, err := env.client()
			if err != nil {
				return err
			}
			began := time.Now()
			l, err := c.CreateLab(cmd.Context(), in)
			if err != nil {
				return err
			}
			if !noWait {
				err = c.Await(cmd.Context(), l.ID, func(place int) {
					fmt.Fprintf(env.Err, "no room just now: place %d in the queue\n", place)
				})
				if err != nil {
					return err
				}
				if l, err = c.Lab(cmd.Context(), l.ID); err != nil {
					return err
				}
			}
			return out.print(env.Out, l, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "lab %s (%s) is %s after %s\n", l.Name, l.ID, l.Phase, time.Since(began).Round(time.Millisecond))
				return err
			})
		},
	}
	c.Flags().StringVar(&in.Exercise, "exercise", "", "id of an exercise")
	c.Flags().StringVarP(&file, "file", "f", "", "manifest, - for standard input")
	c.Flags().BoolVar(&noWait, "no-wait", false, "return at once")
	out.add(c)
	return c
}

func listCommand(env *Env) *cobra.Command {
	var out output
	var all bool
	c := &cobra.Command{
		Use: "list", Short: "List labs", Example: "  podlab lab list --all -o json", Args: args(cobra.NoArgs, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := env.client()
			if err != nil {
				return err
			}
			labs, err := c.Labs(cmd.Context(), all)
			if err != nil {
				return err
			}
			return out.print(env.Out, labs, printLabs(labs...))
		},
	}
	c.Flags().BoolVar(&all, "all", false, "everybody's labs, not only one's own (instructor)")
	out.add(c)
	return c
}

func showCommand(env *Env) *cobra.Command {
	var out output
	c := &cobra.Command{
		Use: "show NAME", Short: "Show a lab", Example: "  podlab lab show try -o json", Args: args(cobra.ExactArgs(1), "a lab's name or id"),
		RunE: withLab(env, func(_ context.Context, _ *client.Client, l api.Lab, _ []string) error {
			return out.print(env.Out, l, printLabs(l))
		}),
	}
	out.add(c)
	return c
}

func deleteCommand(env *Env) *cobra.Command {
	return &cobra.Command{
		Use: "delete NAME", Short: "Delete a lab and all that is in it", Example: "  podlab lab delete try",
		Args: args(cobra.ExactArgs(1), "a lab's name or id"),
		RunE: withLab(env, func(ctx context.Context, c *client.Client, l api.Lab, _ []string) error {
			if err := c.DeleteLab(ctx, l.ID); err != nil {
				return err
			}
			_, err := fmt.Fprintf(env.Out, "lab %s (%s) is deleted\n", l.Name, l.ID)
			return err
		}),
	}
}

func restartCommand(env *Env) *cobra.Command {
	var fresh bool
	c := &cobra.Command{
		Use: "restart NAME", Short: "Start a ready or failed lab again",
		Long:    "Start a ready or failed lab again, with its Kubernetes objects as they are. Shells end.",
		Example: "  podlab lab restart try --fresh", Args: args(cobra.ExactArgs(1), "a lab's name or id"),
		RunE: withLab(env, func(ctx context.Context, c *client.Client, l api.Lab, _ []string) error {
			if _, err := c.RestartLab(ctx, l.ID, fresh); err != nil {
				return err
			}
			if err := c.Await(ctx, l.ID, nil); err != nil {
				return err
			}
			_, err := fmt.Fprintf(env.Out, "lab %s (%s) is ready again\n", l.Name, l.ID)
			return err
		}),
	}
	c.Flags().BoolVar(&fresh, "fresh", false, "start from the manifests as at the beginning")
	return c
}

func applyCommand(env *Env) *cobra.Command {
	var out output
	var file string
	c := &cobra.Command{
		Use: "apply NAME -f FILE", Short: "Apply Kubernetes documents to a lab, all or none",
		Example: "  podlab lab apply try -f pod.yaml\n  cat pod.yaml | podlab lab apply try -f -",
		Args:    args(cobra.ExactArgs(1), "a lab's name or id"),
		RunE: withLab(env, func(ctx context.Context, c *client.Client, l api.Lab, _ []string) error {
			if file == "" {
				return usagef("-f FILE is wanted, - for standard input")
			}
			b, err := readFile(env, file)
			if err != nil {
				return err
			}
			result, err := c.Apply(ctx, l.ID, b)
			if err != nil {
				return err
			}
			var failed []error
			for _, e := range result.Errors {
				failed = append(failed, fmt.Errorf("%s:%d:%d: %w", file, e.Line, e.Column, e))
			}
			if len(failed) > 0 {
				return errors.Join(failed...)
			}
			return out.print(env.Out, result, func(w io.Writer) error {
				for _, o := range result.Objects {
					fmt.Fprintf(w, "%s/%s %s\n", strings.ToLower(o.Kind), o.Name, o.Action)
				}
				return nil
			})
		}),
	}
	c.Flags().StringVarP(&file, "file", "f", "", "manifest, - for standard input")
	out.add(c)
	return c
}

func kubeconfigCommand(env *Env) *cobra.Command {
	return &cobra.Command{
		Use: "kubeconfig NAME", Short: "Print a kubeconfig for kubectl, with a token for this lab",
		Example: "  podlab lab kubeconfig try > try.yaml && kubectl --kubeconfig try.yaml get pods",
		Args:    args(cobra.ExactArgs(1), "a lab's name or id"),
		RunE: withLab(env, func(ctx context.Context, c *client.Client, l api.Lab, _ []string) error {
			b, err := c.Kubeconfig(ctx, l.ID)
			if err != nil {
				return err
			}
			_, err = env.Out.Write(b)
			return err
		}),
	}
}

func factsCommand(env *Env) *cobra.Command {
	return &cobra.Command{
		Use: "facts NAME", Short: "Print what the checks read of a lab, as JSON",
		Long:    "Print what the checks read of a lab, as JSON: the kernel's state, each pod's processes and sockets.",
		Example: "  podlab lab facts try | jq .pods", Args: args(cobra.ExactArgs(1), "a lab's name or id"),
		RunE: withLab(env, func(ctx context.Context, c *client.Client, l api.Lab, _ []string) error {
			facts, err := c.Facts(ctx, l.ID, agentapi.FactsRequest{})
			if err != nil {
				return err
			}
			return (&output{"json"}).print(env.Out, facts, nil)
		}),
	}
}
