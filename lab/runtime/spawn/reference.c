/*
 * reference: what starting a container costs when nothing but the kernel's own
 * calls are made: clone3 with a mount and a pid namespace, setns into an
 * existing network, ipc and uts namespace, an overlay, /proc, pivot_root,
 * execve. The benchmark prints the lab's container start beside it.
 *
 *   reference N LOWER SCRATCH PID   starts N containers one after the other in
 *                                   the namespaces of PID; prints the
 *                                   microseconds of each from clone3 to execve
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int die(const char *what)
{
	perror(what);
	_exit(1);
}

static void child(int ns, const char *root, const char *data, int done)
{
	char *argv[] = {"/bin/sleep", "100", NULL}, *env[] = {NULL};
	char proc[4200];

	if (setns(ns, CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS))
		die("setns");
	if (mount("overlay", root, "overlay", 0, data))
		die("overlay");
	snprintf(proc, sizeof proc, "%s/proc", root);
	if (mount("proc", proc, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL))
		die("proc");
	if (chdir(root) || syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH) || chdir("/"))
		die("pivot_root");
	if (dup2(done, 3) < 0 || fcntl(3, F_SETFD, FD_CLOEXEC))
		die("dup2");
	syscall(SYS_close_range, 4U, ~0U, 0U);
	execve(argv[0], argv, env);
	die("execve");
}

int main(int argc, char **argv)
{
	if (argc != 5)
		return fprintf(stderr, "usage: reference N LOWER SCRATCH PID\n"), 2;
	int n = atoi(argv[1]);
	int ns = syscall(SYS_pidfd_open, atoi(argv[4]), 0);
	if (ns < 0 || unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		die("prepare");
	for (int i = 0; i < n; i++) {
		char root[4096], upper[4096], work[4096], data[16384];
		int p[2], status;
		struct timespec a, b;
		snprintf(root, sizeof root, "%s/reference-root", argv[3]);
		snprintf(upper, sizeof upper, "%s/reference-%d-u", argv[3], i);
		snprintf(work, sizeof work, "%s/reference-%d-w", argv[3], i);
		snprintf(data, sizeof data, "lowerdir=%s,upperdir=%s,workdir=%s,userxattr", argv[2], upper, work);
		clock_gettime(CLOCK_MONOTONIC, &a);
		mkdir(root, 0755);
		if (mkdir(upper, 0755) || mkdir(work, 0755) || pipe2(p, O_CLOEXEC))
			die("mkdir");
		struct clone_args c = {.flags = CLONE_NEWNS | CLONE_NEWPID, .exit_signal = SIGCHLD};
		long pid = syscall(SYS_clone3, &c, sizeof c);
		if (pid < 0)
			die("clone3");
		if (pid == 0)
			child(ns, root, data, p[1]);
		close(p[1]);
		char ch;
		while (read(p[0], &ch, 1) < 0 && errno == EINTR)
			;
		clock_gettime(CLOCK_MONOTONIC, &b);
		close(p[0]);
		if (waitpid(pid, &status, WNOHANG) != 0)
			return fprintf(stderr, "reference: the container did not stay\n"), 1;
		printf("%ld\n", (b.tv_sec - a.tv_sec) * 1000000 + (b.tv_nsec - a.tv_nsec) / 1000);
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
	}
	return 0;
}
