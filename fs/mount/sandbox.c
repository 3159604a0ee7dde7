#include "fs/mount/sandbox.h"

#include <string.h>

#if IMGFS_SANDBOX

#include <fcntl.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <termios.h>

const int sandbox_built = 1;

/* Whatever their arguments are. Names, since not every architecture has each. */
static const char *const allowed[] = {
	/* files that are there, and descriptors at hand */
	"read",
	"readv",
	"pread64",
	"preadv",
	"preadv2",
	"write",
	"writev",
	"pwrite64",
	"pwritev",
	"pwritev2",
	"lseek",
	"_llseek",
	"close",
	"close_range",
	"fstat",
	"fstat64",
	"fstatat64",
	"newfstatat",
	"stat",
	"stat64",
	"lstat",
	"lstat64",
	"statx",
	"fstatfs",
	"statfs",
	"fcntl",
	"fcntl64",
	"dup",
	"dup2",
	"dup3",
	"fsync",
	"fdatasync",
	"syncfs",
	"fadvise64",
	"fadvise64_64",
	"readahead",
	"ftruncate",
	"ftruncate64",
	"fallocate",
	"flock",
	"access",
	"faccessat",
	"faccessat2",
	"readlink",
	"readlinkat",
	"getdents64",
	"getcwd",
	"pipe",
	"pipe2",
	"eventfd2",
	/* memory */
	"brk",
	"mmap2",
	"munmap",
	"mremap",
	"madvise",
	"mlock",
	"mlock2",
	"munlock",
	"membarrier",
	/* threads, signals, time */
	"futex",
	"futex_time64",
	"set_robust_list",
	"get_robust_list",
	"rseq",
	"rt_sigaction",
	"rt_sigprocmask",
	"rt_sigreturn",
	"sigreturn",
	"sigaltstack",
	"tgkill",
	"restart_syscall",
	"exit",
	"exit_group",
	"sched_yield",
	"sched_getaffinity",
	"setpriority",
	"getpriority",
	"set_tid_address",
	"getpid",
	"gettid",
	"getppid",
	"getuid",
	"geteuid",
	"getgid",
	"getegid",
	"prlimit64",
	"getrlimit",
	"getrusage",
	"sysinfo",
	"uname",
	"getrandom",
	"nanosleep",
	"clock_nanosleep",
	"clock_nanosleep_time64",
	"clock_gettime",
	"clock_gettime64",
	"clock_getres",
	"gettimeofday",
	"time",
	"getcpu",
	/* waiting, and the network */
	"poll",
	"ppoll",
	"ppoll_time64",
	"select",
	"pselect6",
	"_newselect",
	"epoll_create1",
	"epoll_ctl",
	"epoll_wait",
	"epoll_pwait",
	"epoll_pwait2",
	"connect",
	"bind",
	"getsockname",
	"getpeername",
	"getsockopt",
	"setsockopt",
	"send",
	"sendto",
	"sendmsg",
	"sendmmsg",
	"recv",
	"recvfrom",
	"recvmsg",
	"recvmmsg",
	"shutdown",
};

static int allow_all(scmp_filter_ctx filter)
{
	for (size_t i = 0; i < ELEMENTS(allowed); i++) {
		int number = seccomp_syscall_resolve_name(allowed[i]);
		int r = number == __NR_SCMP_ERROR ? 0 : seccomp_rule_add(filter, SCMP_ACT_ALLOW, number, 0);
		if (r < 0 && r != -EDOM)
			return r;
	}
	return 0;
}

static int allow_if(scmp_filter_ctx filter, int number, struct scmp_arg_cmp condition)
{
	return seccomp_rule_add(filter, SCMP_ACT_ALLOW, number, 1, condition);
}

/* Reading files, and writing to those that have a name already, as far as an unprivileged process may: nothing is made. */
static int allow_opening(scmp_filter_ctx filter)
{
	int r = allow_if(filter, SCMP_SYS(openat), SCMP_A2(SCMP_CMP_MASKED_EQ, O_CREAT, 0));
	return r < 0 ? r : allow_if(filter, SCMP_SYS(open), SCMP_A1(SCMP_CMP_MASKED_EQ, O_CREAT, 0));
}

/* Memory that can be run comes from files only, of which none can be written by this process and mapped so. */
static int allow_mapping(scmp_filter_ctx filter)
{
	int r = allow_if(filter, SCMP_SYS(mmap), SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	if (r == 0) /* a library that is loaded late: glibc's for names and for threads that end */
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 2,
				     SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_WRITE, 0),
				     SCMP_A3(SCMP_CMP_MASKED_EQ, MAP_ANONYMOUS, 0));
	return r < 0 ? r : allow_if(filter, SCMP_SYS(mprotect), SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
}

static int allow_sockets(scmp_filter_ctx filter)
{
	static const unsigned families[] = { AF_UNIX, AF_INET, AF_INET6, AF_NETLINK };
	int r = allow_if(filter, SCMP_SYS(socketpair), SCMP_A0(SCMP_CMP_EQ, AF_UNIX, 0));
	for (size_t i = 0; r == 0 && i < ELEMENTS(families); i++)
		r = allow_if(filter, SCMP_SYS(socket), SCMP_A0(SCMP_CMP_EQ, families[i], 0));
	return r;
}

static int allow_devices(scmp_filter_ctx filter)
{
	static const unsigned long requests[] = { FIONBIO, FIONREAD, TCGETS };
	int r = 0;
	for (size_t i = 0; r == 0 && i < ELEMENTS(requests); i++)
		r = allow_if(filter, SCMP_SYS(ioctl), SCMP_A1(SCMP_CMP_EQ, requests[i], 0));
	return r == 0 ? allow_if(filter, SCMP_SYS(prctl), SCMP_A0(SCMP_CMP_EQ, PR_SET_NAME, 0)) : r;
}

/* The flags of clone3() are in memory, where no filter looks: without it glibc starts threads by clone(). */
static int allow_threads(scmp_filter_ctx filter)
{
	int r = allow_if(filter, SCMP_SYS(clone), SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD));
	return r < 0 ? r : seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
}

static int make(scmp_filter_ctx filter)
{
	static int (*const parts[])(scmp_filter_ctx) = { allow_all,     allow_opening, allow_mapping,
							 allow_sockets, allow_devices, allow_threads };
	int r = 0;
	for (size_t i = 0; r == 0 && i < ELEMENTS(parts); i++)
		r = parts[i](filter);
	return r < 0 ? r : seccomp_load(filter);
}

int sandbox_enter(Error *error)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	int r = filter ? make(filter) : -ENOMEM;
	seccomp_release(filter);
	return r < 0 ? error_set(error, r, "cannot restrict the server's system calls: %s", strerror(-r)) : 0;
}

#else

const int sandbox_built = 0;

int sandbox_enter(_unused_ Error *error)
{
	return 0;
}

#endif
