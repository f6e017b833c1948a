// Command podlab is the server of pod-networking labs, and its tools. This
// file is the only one that reads the environment.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"podlab/lab/agent"
	"podlab/server/cli"
	"podlab/server/launch"
)

// version is set when the binary is built.
var version = "dev"

func main() {
	os.Exit(run())
}

func run() int {
	// PID 1 of a sandbox: the command that only the launcher gives.
	if len(os.Args) == 2 && os.Args[1] == launch.AgentCommand {
		return agent.Main(version)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	env := cli.Env{
		Args: os.Args[1:], In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Version: version,
		Server: os.Getenv("PODLAB_SERVER"), Token: os.Getenv("PODLAB_TOKEN"),
		Data: os.Getenv("PODLAB_DATA"), Addr: os.Getenv("PODLAB_ADDR"),
	}
	code, err := cli.Run(ctx, env)
	if err != nil {
		fmt.Fprintln(os.Stderr, "podlab:", err)
	}
	return code
}
