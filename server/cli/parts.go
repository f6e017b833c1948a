package cli

import "github.com/spf13/cobra"

// partCommands are the commands of the other parts, one line each.
func partCommands(*Env) []*cobra.Command {
	return nil
}
