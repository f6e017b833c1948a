package doctor

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"podlab/server/launch"
)

// What one lab takes, as measured: an idle lab of four pods has 45 MiB of its
// own share and the kernel's 2 MiB for its namespaces; learners at work take
// more, so that is doubled. The server holds about a dozen files for each.
const (
	labMemory    = 94 << 20
	labFiles     = 12
	labProcesses = 40
	// labsPerCPU: an idle lab takes 0.2 % of a core, a learner who works more.
	labsPerCPU = 50
	// keepMemory stays free for the host.
	keepMemory = 512 << 20
)

// room is what bounds the number of labs.
type room struct {
	checks []Check
	bounds []bound
}

type bound struct {
	what string
	labs int
}

// labs is the tightest bound.
func (r room) labs() (int, string) {
	tightest := bound{"the number of uid ranges", launch.MaxLabs}
	for _, b := range r.bounds {
		if b.labs < tightest.labs {
			tightest = b
		}
	}
	return max(0, tightest.labs), tightest.what
}

func (r *room) add(c Check, what string, labs int) {
	r.checks = append(r.checks, c)
	if c.State == Works {
		r.bounds = append(r.bounds, bound{what, labs})
	}
}

func lookAtRoom() room {
	var r room
	cpus := runtime.NumCPU()
	r.add(Check{Group: GroupRoom, Name: "processors", State: Works, Found: strconv.Itoa(cpus)}, "processors", cpus*labsPerCPU)

	mem := Check{Group: GroupRoom, Name: "memory", State: Works}
	free, err := availableMemory()
	if limit, limited := launch.MemoryLimit(); limited {
		free = min(free, limit)
	}
	if mem.Found = fmt.Sprintf("%d MiB available", free>>20); err != nil {
		mem.State, mem.Found = Unknown, err.Error()
	}
	r.add(mem, "memory", int((free-keepMemory)/labMemory))

	files := Check{Group: GroupRoom, Name: "open files", State: Works}
	var lim unix.Rlimit
	err = unix.Getrlimit(unix.RLIMIT_NOFILE, &lim)
	if files.Found = fmt.Sprintf("hard limit %d", lim.Max); err != nil {
		files.State, files.Found = Unknown, err.Error()
	}
	r.add(files, "the limit of open files", int(min(lim.Max, math.MaxInt32))/labFiles)

	for _, k := range []struct {
		file, name string
		perLab     int
	}{
		{"/proc/sys/kernel/pid_max", "numbers for processes", labProcesses},
		{"/proc/sys/user/max_user_namespaces", "user namespaces to be had", 2},
		{"/proc/sys/user/max_net_namespaces", "network namespaces to be had", 8},
		{"/proc/sys/user/max_mnt_namespaces", "mount namespaces to be had", 20},
	} {
		c := Check{Group: GroupRoom, Name: k.name, State: Works}
		n, err := readNumber(k.file)
		if c.Found = fmt.Sprintf("at most %d", n); err != nil {
			c.State, c.Found = Unknown, err.Error()
		} else if n == 0 {
			c.State, c.Found, c.Fix = Absent, k.file+" is 0", "sysctl "+strings.ReplaceAll(strings.TrimPrefix(k.file, "/proc/sys/"), "/", ".")+"=100000"
		}
		r.add(c, k.name, n/k.perLab)
	}
	return r
}

func readNumber(file string) (int, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// availableMemory is the host's MemAvailable in bytes.
func availableMemory() (int64, error) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	_, rest, ok := bytes.Cut(b, []byte("MemAvailable:"))
	f := bytes.Fields(rest)
	if !ok || len(f) == 0 {
		return 0, fmt.Errorf("/proc/meminfo has no MemAvailable")
	}
	kib, err := strconv.ParseInt(string(f[0]), 10, 64)
	return kib << 10, err
}
