#include "fs/control/control-socket.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>

#include "fs/base/deadline.h"

#define BACKLOG 64

static int make_socket(const char *path, int flags, struct sockaddr_un *address, int *ret_fd, Error *error)
{
	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof(address->sun_path))
		return error_set(error, -ENAMETOOLONG, "the path of the socket %s is longer than %zu bytes", path,
				 sizeof(address->sun_path) - 1);
	memcpy(address->sun_path, path, strlen(path) + 1);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
	if (fd < 0)
		return error_set(error, -errno, "cannot make a socket: %s", strerror(errno));
	*ret_fd = fd;
	return 0;
}

int control_socket_listen(const char *path, int *ret_fd, Error *error)
{
	struct sockaddr_un address;
	_cleanup_close_ int fd = -1;
	int r = make_socket(path, SOCK_NONBLOCK, &address, &fd, error);
	if (r < 0)
		return r;
	(void)unlink(path);
	mode_t before = umask(0177);
	r = bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : 0;
	(void)umask(before);
	if (r == 0 && listen(fd, BACKLOG) < 0)
		r = -errno;
	if (r < 0)
		return error_set(error, r, "cannot listen on %s: %s", path, strerror(-r));
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int control_socket_connect(const char *path, unsigned milliseconds, ControlGivenUp *given_up, void *arg, int *ret_fd,
			   Error *error)
{
	struct sockaddr_un address;
	_cleanup_close_ int fd = -1;
	int r = make_socket(path, 0, &address, &fd, error);
	if (r < 0)
		return r;
	/* While the backlog is full connect() waits, for as long as send() may. */
	struct timespec until = deadline_in(milliseconds);
	struct timeval patience = { .tv_usec = CONTROL_LOOK_MILLIS * 1000 }, none = { 0 };
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	while (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		if (errno == EAGAIN && given_up && given_up(arg))
			return error_set(error, -ECANCELED, "imgfsd takes no connection at %s, and it was given up",
					 path);
		if (errno == EAGAIN && deadline_is_over(&until))
			return error_set(error, -ETIMEDOUT,
					 "imgfsd takes no connection at %s: it hangs, or has too much to do", path);
		if (errno != EINTR && errno != EAGAIN)
			return error_set(error, -errno,
					 "imgfsd does not answer at %s: %s; `systemctl start imgfsd` starts it", path,
					 strerror(errno));
	}
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &none, sizeof(none));
	*ret_fd = TAKE_FD(fd);
	return 0;
}
