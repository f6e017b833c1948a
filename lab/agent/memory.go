package agent

import (
	"bufio"
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
)

// gcPercent is the pace of the garbage collector after the start. Memory of an
// agent is multiplied by the number of labs on a host, its time is not, since
// an idle agent allocates little: so it runs early.
const gcPercent = 35

// trimMemory gives back what only the start needed: free heap, and the pages
// of the program that are not in use. The kernel maps a file's pages sixteen
// at a time (fault_around_bytes), so that a start has most of the program
// mapped; those that the lab goes on to use come back from the page cache,
// where they stay, at less than a microsecond each.
func trimMemory() error {
	debug.SetGCPercent(gcPercent)
	debug.FreeOSMemory()
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return fmt.Errorf("cannot trim the agent's memory: %w", err)
	}
	defer f.Close()
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("cannot trim the agent's memory: %w", err)
	}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// proc_pid_maps(5): from-to permissions offset device inode path
		fields := strings.Fields(lines.Text())
		if len(fields) < 6 || fields[5] != exe || !strings.HasPrefix(fields[1], "r") || strings.Contains(fields[1], "w") {
			continue // what is or was written to is not the file's any more
		}
		var from, to uintptr
		if _, err := fmt.Sscanf(fields[0], "%x-%x", &from, &to); err != nil {
			return fmt.Errorf("cannot trim the agent's memory: line %q of /proc/self/maps: %w", lines.Text(), err)
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("cannot trim the agent's memory: madvise: %w", errno)
		}
	}
	return lines.Err()
}
