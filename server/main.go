// Command podlab is the server of pod-networking labs, and its tools. This
// file is the only one that reads the environment.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"podlab/server/cli"
)

// version is set when the binary is built.
var version = "dev"

func main() {
	os.Exit(run())
}

func run() int {
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
