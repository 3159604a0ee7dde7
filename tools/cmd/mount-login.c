#include "tools/cmd/mount-login.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <stdbool.h>
#include <string.h>
#include <termios.h>

#include "fs/base/fd.h"

#define PASSWORD_MAX 512u

char *mount_login_take(char *value)
{
	char *copy = strdup(value), *colon = strchr(value, ':');
	if (copy && colon)
		memset(colon + 1, 'x', strlen(colon + 1));
	return copy;
}

void mount_login_free(char *login)
{
	if (login)
		OPENSSL_cleanse(login, strlen(login));
	free(login);
}

/* The first line of what a descriptor gives, without its end. */
static int read_line(int fd, char *line, size_t room)
{
	size_t used = 0;
	while (used < room) {
		ssize_t count = read(fd, line + used, 1);
		if (count < 0)
			return -errno;
		if (count == 0 || line[used] == '\n') {
			if (used > 0 && line[used - 1] == '\r')
				used--;
			line[used] = '\0';
			return 0;
		}
		used++;
	}
	return -EFBIG;
}

static int read_file(const char *file, char *line, size_t room, Error *error)
{
	_cleanup_close_ int fd = -1;
	if (strcmp(file, "-") != 0) {
		fd = open(file, O_RDONLY | O_CLOEXEC | O_NOCTTY);
		if (fd < 0)
			return error_set(error, -errno, "the password cannot be read from %s: %s", file,
					 strerror(errno));
	}
	int r = read_line(fd < 0 ? STDIN_FILENO : fd, line, room);
	if (r < 0)
		return error_set(error, r, "the password cannot be read from %s: %s", file, error_text(NULL, r));
	return 0;
}

static int ask(const char *user, char *line, size_t room, Error *error)
{
	_cleanup_close_ int terminal = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
	struct termios before;
	if (terminal < 0 || tcgetattr(terminal, &before) < 0)
		return error_set(error, -EINVAL,
				 "there is no terminal to ask for the password of %s; give --password-file", user);
	struct termios silent = before;
	silent.c_lflag &= ~(tcflag_t)ECHO;
	/* In this order: what is typed on seeing the question is neither shown nor flushed. */
	(void)tcsetattr(terminal, TCSAFLUSH, &silent);
	(void)dprintf(terminal, "Password of %s: ", user);
	int r = read_line(terminal, line, room);
	(void)tcsetattr(terminal, TCSAFLUSH, &before);
	(void)dprintf(terminal, "\n");
	return r < 0 ? error_set(error, r, "the password cannot be read: %s", error_text(NULL, r)) : 0;
}

int mount_login_read(const char *user, const char *file, char **ret_login, Error *error)
{
	bool whole = strchr(user, ':') != NULL;
	if (whole && file)
		return error_set(error, -EINVAL,
				 "--user has a password already; give it there or with --password-file");
	char password[PASSWORD_MAX + 1] = "";
	int r = whole  ? 0
		: file ? read_file(file, password, sizeof(password), error)
		       : ask(user, password, sizeof(password), error);
	if (r == 0 && asprintf(ret_login, "%s%s%s", user, whole ? "" : ":", password) < 0)
		r = error_set(error, -ENOMEM, "out of memory");
	OPENSSL_cleanse(password, sizeof(password));
	return r;
}
