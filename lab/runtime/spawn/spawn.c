/*
 * spawn: makes the processes of a lab. The agent starts it once, inside the
 * lab's `work` cgroup, and talks to it over a SOCK_SEQPACKET socket on fd 3.
 * Each request is a list of steps (ops) that a new process performs between
 * its clone3(2) and its execve(2); what they are is decided in Go (ops.go),
 * where the same codes stand. New processes are cloned with CLONE_PARENT, so
 * that the agent is their parent and reaps them, and they are never in the
 * agent's own cgroup.
 *
 * Request:  struct request, then ops: struct op, then its strings, each ended
 *           by NUL. SCM_RIGHTS: fd 0 is the status socket of the new process,
 *           the others are named by the ops.
 * Answer:   struct answer, with the pidfd by SCM_RIGHTS when pid > 0.
 * Status:   the status socket closes when the program runs (or the pause has
 *           begun); before, it may carry a pseudo-terminal's master (struct
 *           status with op -1), or the op that failed and its errno.
 *
 * Without a request at hand the process sleeps in recvmsg(2). A second process
 * stands by and replaces the first if the kernel's OOM killer takes it.
 *
 *   spawn serve [DIR…]   serve on fd 3; DIRs are unmounted first, so that no
 *                        process of the lab ever has them in its mounts
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41)
#endif
#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC (1U << 2)
#endif

enum { CONTROL = 3, HELLO = -1, MAXFDS = 64, MAXREQ = 256 << 10, MAXSTR = 8192 };

/* The codes of ops; ops.go has the same. */
enum {
	OP_SETNS = 1, OP_MOUNT, OP_MKDIR, OP_SYMLINK, OP_WRITE, OP_TOUCH, OP_PIVOT,
	OP_CHDIR, OP_HOSTNAME, OP_CAPS, OP_IDS, OP_NONEWPRIVS, OP_DUP, OP_OPEN,
	OP_SETSID, OP_PTY, OP_EXEC, OP_PAUSE, OP_UMOUNT, OP_MASK, OP_READONLY,
	OP_UMASK, OP_EXIT, OP_BINDFD, OP_REMOVE,
};

struct request {
	uint32_t id;
	uint32_t nops;
	uint64_t flags;  /* of clone3, without CLONE_PARENT and CLONE_PIDFD */
	int32_t pidns;   /* index of an fd (pidfd or namespace) to set for the child, or -1 */
	uint32_t pad;
};

struct op {
	uint16_t code;
	uint16_t nstr;
	uint32_t pad;
	int64_t a, b;
};

struct answer {
	uint32_t id;
	int32_t pid;  /* in the agent's pid namespace, or -errno */
	uint32_t where;  /* with an error: 1 bad request, 2 setns of the pid namespace, 3 clone3 */
	int32_t helper;  /* a process that has ended and is the agent's to reap, or 0 */
};

struct status {
	int32_t op;  /* index of the op that failed; -1: a pseudo-terminal's master comes along */
	int32_t err;
};

static char buf[MAXREQ];
static char *strs[MAXSTR + 2];
static int fds[MAXFDS], nfds;
static char *title;
static size_t title_len;

static void send_fd(int sock, const void *data, size_t len, int fd)
{
	char c[CMSG_SPACE(sizeof(int))];
	struct iovec iov = {(void *)data, len};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	memset(c, 0, sizeof c);
	if (fd >= 0) {
		m.msg_control = c;
		m.msg_controllen = sizeof c;
		struct cmsghdr *h = CMSG_FIRSTHDR(&m);
		h->cmsg_level = SOL_SOCKET;
		h->cmsg_type = SCM_RIGHTS;
		h->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(h), &fd, sizeof fd);
	}
	while (sendmsg(sock, &m, MSG_NOSIGNAL) < 0 && errno == EINTR)
		;
}

/* fd_at returns the request's fd of that index, or -1 with errno EBADF. */
static int fd_at(int64_t i)
{
	if (i < 0 || i >= nfds) {
		errno = EBADF;
		return -1;
	}
	return fds[i];
}

/* pause is the first process of a pod's or node's pid namespace: it holds the
 * namespaces and reaps what others leave behind. */
static void do_pause(void)
{
	memset(title, 0, title_len);
	strncpy(title, "/pause", title_len);
	prctl(PR_SET_NAME, "pause");
	signal(SIGTERM, SIG_DFL);
	sigset_t all;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	setsid();
	if (chdir("/"))
		_exit(1);
	syscall(SYS_close_range, 0U, ~0U, 0U);
	for (;;) {
		int sig;
		sigemptyset(&all);
		sigaddset(&all, SIGCHLD);
		sigaddset(&all, SIGTERM);
		sigaddset(&all, SIGINT);
		if (sigwait(&all, &sig))
			continue;
		if (sig != SIGCHLD)
			_exit(0);
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
	}
}

static int do_pty(int64_t size)
{
	struct winsize ws = {.ws_col = size >> 16, .ws_row = size & 0xffff};
	int unlock = 0;
	int m = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (m < 0)
		return -1;
	if (ioctl(m, TIOCSPTLCK, &unlock))
		return -1;
	int s = ioctl(m, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (s < 0)
		return -1;
	if (ioctl(m, TIOCSWINSZ, &ws))
		return -1;
	setsid();
	if (ioctl(s, TIOCSCTTY, 0))
		return -1;
	struct status st = {-1, 0};
	send_fd(fds[0], &st, sizeof st, m);
	close(m);
	for (int i = 0; i < 3; i++)
		if (dup2(s, i) < 0)
			return -1;
	return 0;
}

/* do_caps drops what is not in bound for good, and then has what have says; all
 * ones leave either as it is. */
static int do_caps(uint64_t have, uint64_t bound)
{
	for (int i = 0; i < 64; i++)
		if (!(bound >> i & 1) && prctl(PR_CAPBSET_READ, i, 0, 0, 0) == 1 && prctl(PR_CAPBSET_DROP, i, 0, 0, 0))
			return -1;
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) && errno != EINVAL)
		return -1;
	if (have == ~0ULL)
		return 0;
	struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct d[2];
	memset(d, 0, sizeof d);
	for (int i = 0; i < 2; i++)
		d[i].effective = d[i].permitted = have >> (32 * i);
	return syscall(SYS_capset, &h, d);
}

static int do_ids(int64_t uid, int64_t gid, char **groups, int n)
{
	gid_t g[64];
	if (n > 64) {
		errno = EINVAL;
		return -1;
	}
	for (int i = 0; i < n; i++)
		g[i] = strtoul(groups[i], NULL, 10);
	if (setgroups(n, g) || setresgid(gid, gid, gid))
		return -1;
	return setresuid(uid, uid, uid);
}

static int do_write(const char *path, const char *text, int mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode);
	if (fd < 0)
		return -1;
	size_t n = strlen(text);
	ssize_t w = write(fd, text, n);
	int e = errno;
	close(fd);
	errno = w < 0 ? e : ENOSPC;
	return w == (ssize_t)n ? 0 : -1;
}

/* do_mask hides a file behind /dev/null and a folder behind an empty tmpfs. */
static int do_mask(const char *path)
{
	struct stat st;
	if (stat(path, &st))
		return errno == ENOENT || errno == EACCES ? 0 : -1;
	if (S_ISDIR(st.st_mode))
		return mount("tmpfs", path, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=0k");
	return mount("/dev/null", path, NULL, MS_BIND, NULL);
}

static int do_readonly(const char *path)
{
	if (mount(path, path, NULL, MS_BIND | MS_REC, NULL))
		return errno == ENOENT ? 0 : -1;
	return mount(NULL, path, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
}

/* do_exec looks argv[0] up in the new environment's PATH, as execvp(3) would. */
static int do_exec(char **argv, char **env)
{
	char path[PATH_MAX];
	const char *dirs = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	int err = ENOENT;

	syscall(SYS_close_range, 3U, ~0U, CLOSE_RANGE_CLOEXEC);
	if (!argv[0] || !*argv[0]) {
		errno = ENOENT;
		return -1;
	}
	if (strchr(argv[0], '/')) {
		execve(argv[0], argv, env);
		return -1;
	}
	for (char **e = env; *e; e++)
		if (!strncmp(*e, "PATH=", 5))
			dirs = *e + 5;
	for (const char *p = dirs;; p++) {
		const char *end = strchrnul(p, ':');
		if ((size_t)(end - p) + strlen(argv[0]) + 2 < sizeof path) {
			snprintf(path, sizeof path, "%.*s/%s", (int)(end - p), p, argv[0]);
			execve(end == p ? argv[0] : path, argv, env);
			if (errno != ENOENT && errno != ENOTDIR && errno != EACCES)
				return -1;
			if (errno == EACCES)
				err = EACCES;
		}
		if (!*end)
			break;
		p = end;
	}
	errno = err;
	return -1;
}

static int exec_args(const struct op *o, char **s)
{
	static char *argv[MAXSTR + 1], *env[MAXSTR + 1];
	int n = 0, m = 0;
	for (int i = 0; i < o->nstr; i++)
		if (i < o->a)
			argv[n++] = s[i];
		else
			env[m++] = s[i];
	return do_exec(argv, env);
}

/* parents makes the folders above path that are missing. */
static void parents(char *path)
{
	for (char *p = path + 1; *p; p++)
		if (*p == '/') {
			*p = 0;
			mkdir(path, 0755);
			*p = '/';
		}
}

/* touch makes a file to mount over; whatever is there already will do. */
static int touch(char *path)
{
	struct stat st;
	if (!lstat(path, &st))
		return 0;
	parents(path);
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644);
	return fd < 0 ? -1 : close(fd);
}

static int need(const struct op *o, int n)
{
	if (o->nstr >= n)
		return 1;
	errno = EINVAL;
	return 0;
}

static int run(const struct op *o, char **s)
{
	int fd;
	switch (o->code) {
	case OP_SETNS:
		return (fd = fd_at(o->a)) < 0 ? -1 : setns(fd, o->b);
	case OP_MOUNT: /* source target type data; a: flags, b: 1 = fine if there is no such source or target */
		if (!need(o, 4))
			return -1;
		if (mount(s[0], s[1], *s[2] ? s[2] : NULL, o->a, *s[3] ? s[3] : NULL))
			return o->b && errno == ENOENT ? 0 : -1;
		return 0;
	case OP_MKDIR:
		if (!need(o, 1))
			return -1;
		return mkdir(s[0], o->a) && errno != EEXIST ? -1 : 0;
	case OP_SYMLINK:
		return need(o, 2) ? symlink(s[0], s[1]) : -1;
	case OP_WRITE:
		return need(o, 2) ? do_write(s[0], s[1], o->a) : -1;
	case OP_TOUCH:
		return need(o, 1) ? touch(s[0]) : -1;
	case OP_PIVOT:
		if (!need(o, 1) || chdir(s[0]) || syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH))
			return -1;
		return chdir("/");
	case OP_CHDIR: /* a: 1 = make it if it is missing */
		if (!need(o, 1))
			return -1;
		if (!chdir(s[0]))
			return 0;
		if (!o->a || errno != ENOENT)
			return -1;
		parents(s[0]);
		mkdir(s[0], 0755);
		return chdir(s[0]);
	case OP_HOSTNAME:
		return need(o, 1) ? sethostname(s[0], strlen(s[0])) : -1;
	case OP_CAPS:
		return do_caps(o->a, o->b);
	case OP_IDS:
		return do_ids(o->a, o->b, s, o->nstr);
	case OP_NONEWPRIVS:
		return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	case OP_DUP:
		return (fd = fd_at(o->a)) < 0 || dup2(fd, o->b) < 0 ? -1 : 0;
	case OP_OPEN:
		if (!need(o, 1) || (fd = open(s[0], o->a | O_CLOEXEC)) < 0)
			return -1;
		return dup2(fd, o->b) < 0 ? -1 : 0;
	case OP_SETSID:
		return setsid() < 0 ? -1 : 0;
	case OP_PTY:
		return do_pty(o->a);
	case OP_EXEC:
		return exec_args(o, s);
	case OP_PAUSE:
		do_pause();
		return 0;
	case OP_UMOUNT:
		return need(o, 1) ? umount2(s[0], MNT_DETACH) : -1;
	case OP_MASK:
		return need(o, 1) ? do_mask(s[0]) : -1;
	case OP_READONLY:
		return need(o, 1) ? do_readonly(s[0]) : -1;
	case OP_UMASK:
		umask(o->a);
		return 0;
	case OP_BINDFD: { /* needs the /proc of the process's own pid namespace */
		char path[64];
		if (!need(o, 1) || (fd = fd_at(o->a)) < 0 || touch(s[0]))
			return -1;
		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
		return mount(path, s[0], NULL, MS_BIND, NULL);
	}
	case OP_REMOVE:
		return need(o, 1) ? unlink(s[0]) : -1;
	case OP_EXIT:
		_exit(0);
	}
	errno = ENOSYS;
	return -1;
}

/* child performs the ops of a request; it returns only by execve or _exit. */
static void child(const struct request *r, const char *p, const char *end)
{
	/* Nothing of the spawner may stay visible to the lab's processes, which
	 * see this one as soon as it is in their pid namespace. */
	close(CONTROL);
	for (uint32_t i = 0; i < r->nops; i++) {
		struct op o;
		struct status st = {i, EINVAL};
		if ((size_t)(end - p) < sizeof o)
			goto fail;
		memcpy(&o, p, sizeof o);
		p += sizeof o;
		if (o.nstr > MAXSTR)
			goto fail;
		for (int k = 0; k < o.nstr; k++) {
			const char *z = memchr(p, 0, end - p);
			if (!z)
				goto fail;
			strs[k] = (char *)p;
			p = z + 1;
		}
		strs[o.nstr] = NULL;
		if (!run(&o, strs))
			continue;
		st.err = errno;
	fail:
		send_fd(fds[0], &st, sizeof st, -1);
		_exit(127);
	}
	_exit(0);
}

static void answer(uint32_t id, int32_t pid, uint32_t where, int helper, int pidfd)
{
	struct answer a = {id, pid, where, helper};
	send_fd(CONTROL, &a, sizeof a, pidfd);
}

static void refuse(uint32_t id, int err, uint32_t where)
{
	answer(id, -err, where, 0, -1);
}

static long clone_child(uint64_t flags, int *pidfd)
{
	struct clone_args c;
	memset(&c, 0, sizeof c);
	c.flags = flags | CLONE_PARENT | CLONE_PIDFD;
	c.pidfd = (uint64_t)(uintptr_t)pidfd;
	return syscall(SYS_clone3, &c, sizeof c);
}

/* birth is a request and what became of it. */
struct birth {
	struct request r;
	const char *p, *end;
	long pid;  /* or -errno */
	int pidfd;
};

static int bear(void *arg)
{
	struct birth *b = arg;
	b->pid = clone_child(b->r.flags, &b->pidfd);
	if (b->pid == 0)
		child(&b->r, b->p, b->end);
	if (b->pid < 0)
		b->pid = -errno;
	return 0;
}

/* pid_here is the pid of a process in the spawner's own pid namespace. */
static int pid_here(int pidfd)
{
	char path[64], text[1024], *at;
	snprintf(path, sizeof path, "/proc/self/fdinfo/%d", pidfd);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ssize_t n = read(fd, text, sizeof text - 1);
	close(fd);
	text[n < 0 ? 0 : n] = 0;
	at = strstr(text, "\nPid:");
	return at ? atoi(at + 5) : -ESRCH;
}

static void serve_one(ssize_t n)
{
	static char stack[64 << 10] __attribute__((aligned(16)));
	static int own = -1;
	struct birth b = {.p = buf + sizeof b.r, .end = buf + n, .pidfd = -1};
	int helper = 0;

	if (own < 0)
		own = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);
	if ((size_t)n < sizeof b.r) {
		refuse(0, EINVAL, 1);
		return;
	}
	memcpy(&b.r, buf, sizeof b.r);
	int ns = b.r.pidns < 0 ? own : fd_at(b.r.pidns);
	if (nfds < 1 || ns < 0) {
		refuse(b.r.id, EBADF, 1);
		return;
	}
	if (setns(ns, CLONE_NEWPID)) {
		refuse(b.r.id, errno, 2);
		return;
	}
	if (b.r.flags & CLONE_NEWPID && b.r.pidns >= 0) {
		/* Only a process that is in a pid namespace itself may make one
		 * below it: a helper, which shares all with this one. */
		helper = clone(bear, stack + sizeof stack, CLONE_VM | CLONE_VFORK | CLONE_FILES | CLONE_FS | CLONE_PARENT, &b);
		if (helper < 0) {
			b.pid = -errno;
			helper = 0;
		} else if (b.pid > 0) {
			b.pid = pid_here(b.pidfd);
		}
	} else {
		bear(&b);
	}
	if (b.pid == 0)
		b.pid = -ECHILD; /* the helper was killed */
	answer(b.r.id, b.pid, b.pid < 0 ? 3 : 0, helper, b.pidfd);
	if (b.pidfd >= 0)
		close(b.pidfd);
}

/* serve answers requests until the agent closes its end. */
static void serve(void)
{
	prctl(PR_SET_NAME, "spawn");
	answer(HELLO, getpid(), 0, 0, -1); /* so that the agent can reap this process */
	for (;;) {
		char c[CMSG_SPACE(sizeof(int) * MAXFDS)];
		struct iovec iov = {buf, sizeof buf};
		struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = c, .msg_controllen = sizeof c};
		ssize_t n = recvmsg(CONTROL, &m, MSG_CMSG_CLOEXEC);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			_exit(0);
		nfds = 0;
		for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h))
			if (h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS) {
				int k = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
				for (int i = 0; i < k && nfds < MAXFDS; i++)
					memcpy(&fds[nfds++], CMSG_DATA(h) + i * sizeof(int), sizeof(int));
			}
		if (m.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
			refuse(0, EMSGSIZE, 1);
		else
			serve_one(n);
		for (int i = 0; i < nfds; i++)
			close(fds[i]);
	}
}

/* stand_by keeps one serving process alive as long as the agent is there. */
static int stand_by(void)
{
	prctl(PR_SET_NAME, "spawn-standby");
	for (;;) {
		int pidfd = -1;
		long pid = clone_child(0, &pidfd);
		if (pid == 0)
			serve();
		struct pollfd p[2] = {{.fd = CONTROL}, {.fd = pidfd, .events = POLLIN}};
		while (poll(p, pid < 0 ? 1 : 2, pid < 0 ? 100 : -1) < 0 && errno == EINTR)
			;
		if (p[0].revents & (POLLHUP | POLLERR | POLLNVAL))
			return 0;
		if (pidfd >= 0)
			close(pidfd);
	}
}

int main(int argc, char **argv)
{
	if (argc < 2 || strcmp(argv[1], "serve")) {
		fprintf(stderr, "usage: spawn serve [DIR...]  (with a SOCK_SEQPACKET socket on fd 3)\n");
		return 2;
	}
	signal(SIGPIPE, SIG_DFL);
	fcntl(CONTROL, F_SETFD, FD_CLOEXEC);
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL)) {
		perror("spawn: cannot make a mount namespace");
		return 1;
	}
	for (int i = 2; i < argc; i++)
		while (!umount2(argv[i], MNT_DETACH))
			;
	title = argv[0];
	title_len = argv[argc - 1] + strlen(argv[argc - 1]) - argv[0];
	return stand_by();
}
