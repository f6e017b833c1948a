package launch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"

	"golang.org/x/sys/unix"

	"podlab/lab"
	"podlab/lab/agentapi"
)

// Dial connects to the agent of a sandbox. A socket that is not there (yet)
// gives lab.CodeUnavailable.
//
// The lab may put anything in its run directory, so the socket itself is
// opened first, without following links; what was opened is checked to be a
// socket of the lab's own user, and that very inode is connected to. This also
// knows no limit of 108 bytes for the path.
func (l *Launcher) Dial(ctx context.Context, id string) (net.Conn, error) {
	sb, err := l.get(id)
	if err != nil {
		return nil, err
	}
	fd, err := openSocket(filepath.Join(sb.dir, runDir), sb.rec.UIDBase)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return nil, lab.Errorf(lab.CodeUnavailable, "the agent of lab %s does not listen: %v", id, err)
	}
	return conn, nil
}

func openSocket(run string, owner uint32) (int, error) {
	dir, err := unix.Open(run, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, lab.Errorf(lab.CodeUnavailable, "cannot open the lab's directory: %v", err)
	}
	defer unix.Close(dir)
	fd, err := unix.Openat(dir, agentapi.Socket, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return -1, lab.Errorf(lab.CodeUnavailable, "the agent's socket is not there yet")
	}
	if err != nil {
		return -1, lab.Errorf(lab.CodeUnavailable, "cannot open the agent's socket: %v", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return -1, lab.Errorf(lab.CodeUnavailable, "cannot read the agent's socket: %v", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK || st.Uid != owner {
		unix.Close(fd)
		return -1, lab.Errorf(lab.CodeForbidden, "what stands at the agent's socket is not a socket of the lab")
	}
	return fd, nil
}
