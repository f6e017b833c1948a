package launch

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"podlab/lab"
)

// Processes lists the host's process ids of all that runs in a sandbox, the
// agent among them.
func (l *Launcher) Processes(id string) ([]int, error) { return Processes(l.opt.Data, id) }

// Processes is the same for the sandboxes of any server's data directory.
func Processes(data, id string) ([]int, error) {
	rec, err := readRecord(filepath.Join(data, "labs", id))
	if errors.Is(err, errNoRecord) || err == nil && len(rec.Cgroups) == 0 {
		return nil, lab.Errorf(lab.CodeNotFound, "cannot list the processes of sandbox %s: there is none", id)
	}
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, group := range []string{agentGroup, workGroup} {
		text, err := os.ReadFile(filepath.Join(rec.Cgroups[0].Dir, group, "cgroup.procs"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		for field := range strings.FieldsSeq(string(text)) {
			if pid, err := strconv.Atoi(field); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids, nil
}
