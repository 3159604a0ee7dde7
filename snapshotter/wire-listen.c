#include "snapshotter/wire-listen.h"

#include <fcntl.h>
#include <libgen.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "fs/base/fd.h"

#define INHERITED_FD 3 /* SD_LISTEN_FDS_START */

static int fail(Error *error, int r, const char *path)
{
	return error_set(error, r, "listening on %s failed: %s", path, strerror(-r));
}

static int make_directory(const char *path)
{
	_cleanup_free_ char *copy = strdup(path);
	return copy ? fd_make_directories(AT_FDCWD, dirname(copy), 0755) : -ENOMEM;
}

/* Removes what a dead process left. */
static int clear_stale(const char *path, const struct sockaddr_un *address)
{
	struct stat status;
	if (lstat(path, &status) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(status.st_mode))
		return -EADDRINUSE;
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 || errno == EAGAIN)
		return -EADDRINUSE;
	if (errno != ECONNREFUSED && errno != ENOENT)
		return -errno;
	return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
}

int wire_listen(const char *path, int *ret_fd, Error *error)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof(address.sun_path))
		return error_set(error, -ENAMETOOLONG, "the path %s is too long for a socket: at most %zu bytes", path,
				 sizeof(address.sun_path) - 1);
	(void)stpcpy(address.sun_path, path);
	int r = make_directory(path);
	if (r == 0)
		r = clear_stale(path, &address);
	if (r == -EADDRINUSE)
		return error_set(error, r,
				 "%s is in use: end the process that listens there, or choose another --address", path);
	if (r < 0)
		return fail(error, r, path);
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return fail(error, -errno, path);
	mode_t before = umask(0177); /* so that the socket is never open to others */
	r = bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : 0;
	(void)umask(before);
	if (r == 0 && listen(fd, SOMAXCONN) < 0)
		r = -errno;
	if (r < 0)
		return fail(error, r, path);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static bool is_listening(int fd)
{
	int domain = 0, listening = 0;
	socklen_t size = sizeof(domain);
	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) < 0 || domain != AF_UNIX)
		return false;
	size = sizeof(listening);
	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) == 0 && listening;
}

int wire_listen_inherited(int *ret_fd, Error *error)
{
	const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
	bool mine = pid && count && strtol(pid, NULL, 10) == (long)getpid();
	bool one = mine && strcmp(count, "1") == 0;
	(void)unsetenv("LISTEN_PID");
	(void)unsetenv("LISTEN_FDS");
	(void)unsetenv("LISTEN_FDNAMES");
	if (!mine)
		return 0;
	if (!one || !is_listening(INHERITED_FD))
		return error_set(
			error, -EINVAL,
			"the sockets handed over by systemd are not one listening Unix socket: give the unit one "
			"ListenStream= with a path");
	if (fcntl(INHERITED_FD, F_SETFD, FD_CLOEXEC) < 0 || fcntl(INHERITED_FD, F_SETFL, O_NONBLOCK) < 0)
		return error_set(error, -errno, "the socket handed over by systemd cannot be used: %s",
				 strerror(errno));
	*ret_fd = INHERITED_FD;
	return 1;
}

void wire_listen_unlink(const char *path, int fd)
{
	struct sockaddr_un address = { 0 };
	socklen_t size = sizeof(address);
	/* A successor that has replaced it already has a socket with the same name: then somebody else answers there. */
	struct stat status;
	if (getsockname(fd, (struct sockaddr *)&address, &size) < 0 || strcmp(address.sun_path, path) != 0)
		return;
	if (lstat(path, &status) == 0 && S_ISSOCK(status.st_mode))
		(void)unlink(path);
}
