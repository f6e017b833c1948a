package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"podlab/exercises"
	"podlab/exercises/author"
	"podlab/lab"
	"podlab/lab/agentapi"
	"podlab/server/api"
	"podlab/server/client"
)

func exerciseCommand(env *Env) *cobra.Command {
	var dir string
	c := group("exercise", "List, check and try the exercises, for authors",
		exerciseList(env, &dir), exerciseLint(env, &dir), exerciseTest(env, &dir), exerciseCoverage(env, &dir), exerciseNew(env, &dir))
	c.PersistentFlags().StringVar(&dir, "exercises", "", "folder of exercises, in place of those built in")
	return c
}

// loadCourse loads the exercises of a folder, or those built in.
func loadCourse(dir string) (*exercises.Course, error) {
	if dir == "" {
		return exercises.Embedded()
	}
	return exercises.Load(os.DirFS(dir))
}

// chosen are the exercises of the ids given, or all.
func chosen(course *exercises.Course, ids []string) ([]*exercises.Exercise, error) {
	if len(ids) == 0 {
		return course.Exercises, nil
	}
	var out []*exercises.Exercise
	for _, id := range ids {
		e := course.Get(id)
		if e == nil {
			var known []string
			for _, e := range course.Exercises {
				known = append(known, e.ID)
			}
			return nil, fmt.Errorf("there is no exercise %q; there are: %s", id, strings.Join(known, ", "))
		}
		out = append(out, e)
	}
	return out, nil
}

func exerciseList(env *Env, dir *string) *cobra.Command {
	var out output
	c := &cobra.Command{
		Use: "list", Short: "List the exercises", Example: "  podlab exercise list -o json", Args: args(cobra.NoArgs, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			course, err := loadCourse(*dir)
			if err != nil {
				return err
			}
			type row struct {
				ID      string   `json:"id"`
				Title   any      `json:"title"`
				Minutes int      `json:"minutes"`
				Covers  []string `json:"covers"`
				Checks  []string `json:"checks"`
			}
			rows := []row{}
			for _, e := range course.Exercises {
				rows = append(rows, row{e.ID, e.Title, e.Minutes, e.Covers, e.CheckIDs()})
			}
			return out.print(env.Out, rows, func(w io.Writer) error {
				t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
				fmt.Fprintln(t, "ID\tMINUTES\tCHECKS\tCOVERS\tTITLE")
				for _, e := range course.Exercises {
					fmt.Fprintf(t, "%s\t%d\t%d\t%s\t%s / %s\n", e.ID, e.Minutes, len(e.CheckIDs()), strings.Join(e.Covers, ","), e.Title.KO, e.Title.EN)
				}
				return t.Flush()
			})
		},
	}
	out.add(c)
	return c
}

func exerciseLint(env *Env, dir *string) *cobra.Command {
	return &cobra.Command{
		Use: "lint", Short: "Find mistakes in the exercises",
		Long: `Find mistakes in the exercises without a lab: what does not load, commands for
places that do not exist, languages that differ, checks that pass when nothing
was done, scripts that are missing or name what is not there.`,
		Example: "  podlab exercise lint --exercises ./exercises", Args: args(cobra.NoArgs, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			course, err := loadCourse(*dir)
			var problems exercises.Problems
			if err != nil && !errors.As(err, &problems) {
				return err
			}
			problems = append(problems, course.Lint()...)
			for _, p := range problems {
				fmt.Fprintln(env.Out, p.Error())
			}
			if len(problems) > 0 {
				return fmt.Errorf("%d problems", len(problems))
			}
			_, err = fmt.Fprintf(env.Out, "%d exercises, no problems\n", len(course.Exercises))
			return err
		},
	}
}

func exerciseCoverage(env *Env, dir *string) *cobra.Command {
	var out output
	c := &cobra.Command{
		Use: "coverage", Short: "Print the points of the course that no exercise covers",
		Example: "  podlab exercise coverage", Args: args(cobra.NoArgs, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			course, err := loadCourse(*dir)
			if err != nil {
				return err
			}
			missing := course.Uncovered()
			return out.print(env.Out, missing, func(w io.Writer) error {
				for _, r := range missing {
					fmt.Fprintf(w, "%-4s %s\n", r.ID, r.Point)
				}
				all := len(exercises.Rows())
				_, err := fmt.Fprintf(w, "%d of %d points covered\n", all-len(missing), all)
				return err
			})
		},
	}
	out.add(c)
	return c
}

func exerciseNew(env *Env, dir *string) *cobra.Command {
	return &cobra.Command{
		Use: "new NN-NAME", Short: "Make the folder of a new exercise",
		Example: "  podlab exercise new 07-bridges --exercises ./exercises", Args: args(cobra.ExactArgs(1), "a name"),
		RunE: func(_ *cobra.Command, args []string) error {
			in := *dir
			if in == "" {
				in = "."
			}
			folder, err := author.New(in, args[0])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(env.Out, "%s is ready; its lint and test pass. Now write.\n", folder)
			return err
		},
	}
}

func exerciseTest(env *Env, dir *string) *cobra.Command {
	settle := 90 * time.Second
	c := &cobra.Command{
		Use: "test [ID...]", Short: "Play exercises in real labs",
		Long: `Play exercises in real labs of the server: in a fresh lab every check must
fail, after solution.sh every check must pass, after undo.sh every check must
fail again, and after each wrong-NAME.sh the checks that it names must not pass.`,
		Example: "  podlab exercise test\n  podlab exercise test 01-three-containers --exercises ./exercises",
		Args:    args(cobra.ArbitraryArgs, "ids of exercises"),
		RunE: func(cmd *cobra.Command, ids []string) error {
			course, err := loadCourse(*dir)
			if err != nil {
				return err
			}
			list, err := chosen(course, ids)
			if err != nil {
				return err
			}
			c, err := env.client()
			if err != nil {
				return err
			}
			defer c.Close()
			player := author.Player{Start: Starter(c), Out: env.Out, Settle: settle, Stay: time.Second}
			var errs []error
			for _, e := range list {
				if err := player.Play(cmd.Context(), e); err != nil {
					fmt.Fprintln(env.Out, err)
					errs = append(errs, fmt.Errorf("%s is not as it should be", e.ID))
				}
			}
			return errors.Join(errs...)
		},
	}
	c.Flags().DurationVar(&settle, "settle", settle, "most time for checks to become what is expected")
	return c
}

// Starter makes labs of a server to play exercises in. The exercise is taken
// as it is here, and the server does not watch its checks.
func Starter(c *client.Client) author.Starter {
	number := 0 // a name is free again only when all of its lab is gone
	return func(ctx context.Context, e *exercises.Exercise) (author.Lab, error) {
		shape, err := json.Marshal(e.Lab) // JSON is YAML
		if err != nil {
			return nil, err
		}
		number++
		l, err := c.CreateLab(ctx, api.NewLab{
			Name:     fmt.Sprintf("test-%s-%d-%d", e.ID, os.Getpid(), number),
			Manifest: string(shape) + "\n---\n" + lab.DefaultPods + "\n---\n" + e.Manifests,
		})
		if err != nil {
			return nil, err
		}
		played := playedLab{c: c, id: l.ID}
		if err := c.Await(ctx, l.ID, nil); err != nil {
			return nil, errors.Join(err, played.Close())
		}
		return played, nil
	}
}

// playedLab is a lab of the server as author.Lab.
type playedLab struct {
	c  *client.Client
	id string
}

// Facts implements author.Lab.
func (l playedLab) Facts(ctx context.Context, probes map[string]lab.Probe) (lab.Facts, error) {
	return l.c.Facts(ctx, l.id, agentapi.FactsRequest{Probes: probes})
}

// Apply implements author.Lab.
func (l playedLab) Apply(ctx context.Context, manifests string) error {
	r, err := l.c.Apply(ctx, l.id, []byte(manifests))
	for _, e := range r.Errors {
		err = errors.Join(err, e)
	}
	return err
}

// Run implements author.Lab.
func (l playedLab) Run(ctx context.Context, place lab.Target, command []string, input string) (string, int, error) {
	return l.c.Run(ctx, l.id, place, command, input)
}

// Close implements author.Lab.
func (l playedLab) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return l.c.DeleteLab(ctx, l.id)
}
