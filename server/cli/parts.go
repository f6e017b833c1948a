package cli

import "github.com/spf13/cobra"

// partCommands are the commands of the other parts, one line each.
func partCommands(env *Env) []*cobra.Command {
	return []*cobra.Command{
		exerciseCommand(env),
		doctorCommand(env), doctorProbeCommand(),
		benchCommand(env), benchInsideCommand(),
	}
}
