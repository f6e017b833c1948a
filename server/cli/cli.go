// Package cli is the command line: each command parses its flags, makes one
// call and prints the answer, for people or, with -o json, for programs. It
// ends with 0 when done, 1 when failed, 2 when used wrongly.
//
// A new part adds its command to the list in root.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"podlab/server/app"
	"podlab/server/client"
)

// Env is what a command may know of the process.
type Env struct {
	Args     []string
	In       *os.File
	Out, Err io.Writer
	Version  string
	// Server, Token, Data and Addr are PODLAB_SERVER, PODLAB_TOKEN, PODLAB_DATA
	// and PODLAB_ADDR.
	Server, Token, Data, Addr string
}

// usageError is a wrong use.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

// usagef makes the error of a wrong use.
func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// exitError is a command in a lab that ended with a code of its own.
type exitError struct{ code int }

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", e.code) }

// Run runs the command line and returns the exit code and what to say.
func Run(ctx context.Context, env Env) (int, error) {
	root := newRoot(&env)
	root.SetArgs(env.Args)
	root.SetIn(env.In)
	root.SetOut(env.Out)
	root.SetErr(env.Err)
	ran, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0, nil
	}
	if exit, ok := errors.AsType[exitError](err); ok {
		return exit.code, nil
	}
	if wrong, ok := errors.AsType[usageError](err); ok {
		return 2, fmt.Errorf("%w\nSee '%s --help'", wrong.err, ran.CommandPath())
	}
	return 1, err
}

func newRoot(env *Env) *cobra.Command {
	root := &cobra.Command{
		Use:   "podlab",
		Short: "Labs for learning how pods talk to each other",
		Long: `podlab gives each learner a small, real cluster network on one Linux host and
shows it live in a browser.

Environment:
  PODLAB_DATA    the data directory (/var/lib/podlab)
  PODLAB_ADDR    the address that serve listens on (127.0.0.1:8080)
  PODLAB_SERVER  the server that lab commands talk to (https://…, http://… or a
                 path of a socket); without it, the server on this host, as root
  PODLAB_TOKEN   the token to talk to it with`,
		SilenceUsage: true, SilenceErrors: true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		Args:              subcommands,
		RunE:              func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(serveCommand(env), labCommand(env), linkCommand(env), versionCommand(env))
	root.AddCommand(partCommands(env)...)
	return root
}

// subcommands refuses a word that names none.
func subcommands(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	message := fmt.Sprintf("%q is no command of %s", args[0], c.CommandPath())
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		message += "; did you mean " + strings.Join(near, " or ") + "?"
	}
	return usagef("%s", message)
}

// args wraps cobra's checks of arguments.
func args(check cobra.PositionalArgs, wanted string) cobra.PositionalArgs {
	return func(c *cobra.Command, got []string) error {
		if check(c, got) == nil {
			return nil
		}
		return usagef("%s wants %s, got %d arguments", c.CommandPath(), wanted, len(got))
	}
}

// group is a command that only holds others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short, Args: subcommands,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(commands...)
	return c
}

// dataDir is the data directory that a command works with.
func (env *Env) dataDir() string {
	if env.Data != "" {
		return env.Data
	}
	return app.DefaultConfig().Data
}

// client connects to the server that the environment names.
func (env *Env) client() (*client.Client, error) {
	if env.Server != "" {
		return client.New(env.Server, env.Token)
	}
	socket := filepath.Join(env.dataDir(), app.SocketName)
	if _, err := os.Stat(socket); err != nil {
		return nil, fmt.Errorf("no server found on this host (%s is not there): start one with `podlab serve`, or set PODLAB_SERVER and PODLAB_TOKEN", socket)
	}
	return client.New(socket, env.Token)
}

// output is the -o flag.
type output struct{ format string }

func (o *output) add(c *cobra.Command) {
	c.Flags().StringVarP(&o.format, "output", "o", "text", "text or json")
	before := c.PreRunE
	c.PreRunE = func(c *cobra.Command, args []string) error {
		if o.format != "text" && o.format != "json" {
			return usagef("-o %q: text or json is wanted", o.format)
		}
		if before != nil {
			return before(c, args)
		}
		return nil
	}
}

// print writes v as JSON, or as text does.
func (o *output) print(w io.Writer, v any, text func(io.Writer) error) error {
	if o.format != "json" {
		return text(w)
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
