#include "fs/mount/fuse-mount.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "fs/base/fd.h"
#include "fs/mount/handshake.h"
#include "fs/mount/mount-table.h"

#define HELPER      "fusermount3"
#define HELPER_TYPE "imgfs" /* it puts "fuse." before */
#define WORDS_MAX   512u
#define OPTIONS_MAX 4096u
#define NOT_FOUND   127 /* exit status of a child that cannot run the helper */

static int mount_as_root(const char *directory, const char *source, unsigned flags, int *ret_fd, Error *error)
{
	_cleanup_close_ int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return error_set(error, -errno, "cannot open /dev/fuse: %s; is the kernel module fuse loaded?",
				 strerror(errno));
	char options[256];
	(void)snprintf(options, sizeof(options),
		       "fd=%d,rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other,max_read=%d", fd,
		       HANDSHAKE_READ_MAX);
	unsigned long bits = MS_RDONLY;
	bits |= flags & FUSE_MOUNT_SUID ? 0 : MS_NOSUID;
	bits |= flags & FUSE_MOUNT_DEV ? 0 : MS_NODEV;
	bits |= flags & FUSE_MOUNT_NOEXEC ? MS_NOEXEC : 0;
	if (mount(source, directory, MOUNT_TABLE_TYPE, bits, options) < 0)
		return error_set(error, -errno, "cannot mount on %s: %s", directory, strerror(errno));
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* What the helper is given, and where its words and the descriptor come back. */
typedef struct Helper {
	char *argv[8];
	int socket; /* its end; -1: none */
	int words;  /* its standard error */
} Helper;

/* In the child: only async-signal-safe calls, and putenv's and execvp's, which may allocate: there is no other thread. */
_Noreturn static void run_helper(const Helper *helper)
{
	static char language[] = "LC_ALL=C";
	static char number[32];
	sigset_t none;
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)putenv(language); /* its words are shown, and looked at */
	if (helper->socket >= 0) {
		(void)snprintf(number, sizeof(number), "_FUSE_COMMFD=%d", helper->socket);
		(void)putenv(number);
		(void)fcntl(helper->socket, F_SETFD, 0);
	}
	(void)dup2(helper->words, STDERR_FILENO);
	(void)execvp(HELPER, helper->argv);
	_exit(NOT_FOUND);
}

/* The helper's last line, without its name. */
static const char *last_words(char *words)
{
	size_t length = strlen(words);
	while (length > 0 && words[length - 1] == '\n')
		words[--length] = '\0';
	char *line = strrchr(words, '\n');
	line = line ? line + 1 : words;
	return strncmp(line, HELPER ": ", sizeof(HELPER)) == 0 ? line + sizeof(HELPER) + 1 : line;
}

static int helper_result(int status, char *words, const char *directory, Error *error)
{
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	if (WIFEXITED(status) && WEXITSTATUS(status) == NOT_FOUND && words[0] == '\0')
		return error_set(error, -ENOENT,
				 "users other than root need " HELPER "; install it (package fuse3) or use sudo");
	const char *line = last_words(words);
	int code = strstr(line, "Device or resource busy") ? -EBUSY : -EPERM;
	return error_set(error, code, "%s: " HELPER " says: %s", directory, line[0] ? line : "nothing at all");
}

/* Runs the helper to its end and closes its descriptors here. Its words come first: it may block on a full pipe. */
static int call_helper(const Helper *helper, int words_fd, const char *directory, Error *error)
{
	pid_t pid = fork();
	int code = errno;
	if (pid == 0)
		run_helper(helper);
	close_p(&helper->words);
	close_p(&helper->socket);
	if (pid < 0)
		return error_set(error, -code, "cannot start " HELPER ": %s", strerror(code));
	char words[WORDS_MAX], rest[256];
	ssize_t size = fd_read_full(words_fd, words, sizeof(words) - 1);
	words[size > 0 ? size : 0] = '\0';
	while (size > 0)
		size = fd_read_full(words_fd, rest, sizeof(rest));
	int status = 0;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return helper_result(status, words, directory, error);
}

static int receive_descriptor(int socket, int *ret_fd)
{
	char byte;
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	ssize_t size = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
	struct cmsghdr *header = size > 0 ? CMSG_FIRSTHDR(&message) : NULL;
	if (size < 0)
		return -errno;
	if (!header || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS ||
	    header->cmsg_len != CMSG_LEN(sizeof(int)))
		return -EPROTO;
	memcpy(ret_fd, CMSG_DATA(header), sizeof(int));
	return 0;
}

/* Commas and backslashes of the source would end the option. */
static int write_options(const char *source, unsigned flags, char ret_options[static OPTIONS_MAX])
{
	char escaped[2 * MOUNT_SOURCE_MAX + 1];
	size_t used = 0;
	if (strlen(source) > MOUNT_SOURCE_MAX)
		return -ENAMETOOLONG;
	for (; *source; source++) {
		if (*source == ',' || *source == '\\')
			escaped[used++] = '\\';
		escaped[used++] = *source;
	}
	escaped[used] = '\0';
	(void)snprintf(ret_options, OPTIONS_MAX,
		       "ro,nosuid,nodev%s%s,default_permissions,max_read=%d,subtype=" HELPER_TYPE ",fsname=%s",
		       flags & FUSE_MOUNT_NOEXEC ? ",noexec" : "", flags & FUSE_MOUNT_ALLOW_OTHER ? ",allow_other" : "",
		       HANDSHAKE_READ_MAX, escaped);
	return 0;
}

static int mount_as_user(const char *directory, const char *source, unsigned flags, int *ret_fd, Error *error)
{
	char options[OPTIONS_MAX];
	if (flags & (FUSE_MOUNT_SUID | FUSE_MOUNT_DEV))
		return error_set(error, -EPERM, "cannot mount on %s: only root may allow set-uid files or devices",
				 directory);
	int r = write_options(source, flags, options);
	if (r < 0)
		return error_set(error, r, "cannot mount on %s: the image's name is too long", directory);
	int sockets[2], words[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) < 0)
		return error_set(error, -errno, "cannot make a socket: %s", strerror(errno));
	_cleanup_close_ int socket = sockets[0];
	if (pipe2(words, O_CLOEXEC) < 0) {
		r = -errno;
		(void)close(sockets[1]);
		return error_set(error, r, "cannot make a pipe: %s", strerror(-r));
	}
	_cleanup_close_ int words_fd = words[0];
	char name[] = HELPER, o[] = "-o", end[] = "--";
	Helper helper = {
		.argv = { name, o, options, end, (char *)(uintptr_t)directory, NULL },
		.socket = sockets[1],
		.words = words[1],
	};
	r = call_helper(&helper, words_fd, directory, error);
	if (r < 0)
		return r;
	r = receive_descriptor(socket, ret_fd);
	return r < 0 ? error_set(error, r, "cannot mount on %s: " HELPER " sends no descriptor", directory) : 0;
}

int fuse_mount(const char *directory, const char *source, unsigned flags, int *ret_fd, Error *error)
{
	return geteuid() == 0 ? mount_as_root(directory, source, flags, ret_fd, error)
			      : mount_as_user(directory, source, flags, ret_fd, error);
}

int fuse_unmount(const char *directory, bool lazy, Error *error)
{
	if (geteuid() == 0) {
		if (umount2(directory, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) < 0)
			return error_set(error, -errno, "cannot unmount %s: %s", directory, strerror(errno));
		return 0;
	}
	int words[2];
	if (pipe2(words, O_CLOEXEC) < 0)
		return error_set(error, -errno, "cannot make a pipe: %s", strerror(errno));
	_cleanup_close_ int words_fd = words[0];
	char name[] = HELPER, u[] = "-u", z[] = "-z", end[] = "--";
	Helper helper = {
		.argv = { name, u, lazy ? z : end, lazy ? end : (char *)(uintptr_t)directory,
			  lazy ? (char *)(uintptr_t)directory : NULL, NULL },
		.socket = -1,
		.words = words[1],
	};
	return call_helper(&helper, words_fd, directory, error);
}
