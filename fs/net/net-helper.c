#include "fs/net/net-helper.h"

#include <fcntl.h>
#include <jansson.h>
#include <openssl/crypto.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fs/base/fd.h"
#include "fs/net/net-easy.h"
#include "fs/net/net-secret.h"

#define PREFIX     "docker-credential-"
#define NAME_MAX_  64u
#define ANSWER_MAX (64u << 10)
#define TIMEOUT    60000
#define END_TIME   5000 /* for a helper that has closed its output; milliseconds, as above */

void net_helper_login_done(NetHelperLogin *login)
{
	net_secret_wipe(&login->user);
	net_secret_wipe(&login->secret);
}

/* One line of text, as a header can carry it. */
static bool is_line(const char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < ' ' || *text == 0x7f)
			return false;
	return true;
}

int net_helper_parse(const char *json, size_t size, NetHelperLogin *ret_login)
{
	json_t *root = json_loadb(json, size, 0, NULL);
	const char *user = json_string_value(json_object_get(root, "Username"));
	const char *secret = json_string_value(json_object_get(root, "Secret"));
	NetHelperLogin login = { 0 };
	int r = -EBADMSG;
	if (user && secret && user[0] && secret[0] && is_line(user) && is_line(secret) && !strchr(user, ':')) {
		login = (NetHelperLogin){ .user = strdup(user), .secret = strdup(secret) };
		r = login.user && login.secret ? 0 : -ENOMEM;
	}
	json_decref(root);
	if (r < 0) {
		net_helper_login_done(&login);
		return r;
	}
	*ret_login = login;
	return 0;
}

static bool is_name(const char *name)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
	size_t length = strlen(name);
	return length > 0 && length <= NAME_MAX_ && strspn(name, letters) == length;
}

/* `host` becomes its standard input; what it prints comes from `ret_output`. */
static int spawn(char *program, const char *host, pid_t *ret_pid, int *ret_output)
{
	char verb[] = "get";
	char *argv[] = { program, verb, NULL };
	int ends[2];
	_cleanup_close_ int input = memfd_create("host", MFD_CLOEXEC);
	if (input < 0 || fd_pwrite_all(input, host, strlen(host), 0) < 0 || pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	_cleanup_close_ int output = ends[0], end = ends[1];
	posix_spawn_file_actions_t actions;
	int r = posix_spawn_file_actions_init(&actions);
	if (r != 0)
		return -r;
	r = posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO);
	if (r == 0)
		r = posix_spawn_file_actions_adddup2(&actions, end, STDOUT_FILENO);
	if (r == 0)
		r = posix_spawnp(ret_pid, program, &actions, NULL, argv, environ);
	(void)posix_spawn_file_actions_destroy(&actions);
	if (r == 0)
		*ret_output = TAKE_FD(output);
	return -r;
}

/* Reads to the end, which has to come in time. */
static ssize_t read_answer(int output, char *answer, size_t room)
{
	int64_t end = net_now() + TIMEOUT;
	size_t used = 0;
	for (;;) {
		int64_t left = end - net_now();
		struct pollfd waited = { .fd = output, .events = POLLIN };
		int ready = left > 0 ? poll(&waited, 1, (int)left) : 0;
		if (ready == 0)
			return -ETIMEDOUT;
		ssize_t count = ready < 0 ? -1 : read(output, answer + used, room - used);
		if (count < 0 && errno == EINTR)
			continue;
		if (count < 0)
			return -errno;
		if (count == 0)
			return (ssize_t)used;
		used += (size_t)count;
		if (used == room)
			return -EFBIG;
	}
}

/* Reaps a helper, which is ended if it does not end by itself in time. Says whether it did. */
static bool reap(pid_t pid, int64_t time, int *ret_status)
{
	int64_t end = net_now() + time;
	_cleanup_close_ int fd = pidfd_open(pid, 0);
	struct pollfd waited = { .fd = fd, .events = POLLIN };
	int64_t left = time;
	while (fd >= 0 && left > 0 && poll(&waited, 1, (int)left) < 0 && errno == EINTR)
		left = end - net_now();
	bool ended = fd >= 0 && waited.revents != 0;
	if (!ended)
		(void)kill(pid, SIGKILL);
	while (waitpid(pid, ret_status, 0) < 0 && errno == EINTR)
		;
	return ended;
}

/* The helper's own words, of which it says that they are printed where the login would be; the first line, and no more than fits. */
static int explain(const char *program, int status, char *answer, size_t size, Error *error)
{
	answer[size < ANSWER_MAX ? size : ANSWER_MAX - 1] = '\0';
	answer[strcspn(answer, "\r\n")] = '\0';
	if (strstr(answer, "credentials not found"))
		return error_set(error, -ENOENT, "%s: %.200s", program, answer);
	if (WIFSIGNALED(status))
		return error_set(error, -EIO, "%s was ended by signal %d", program, WTERMSIG(status));
	return error_set(error, -EIO, "%s fails: %.200s", program,
			 is_line(answer) && answer[0] ? answer : "it does not say why");
}

static int run(char *program, const char *host, char *answer, NetHelperLogin *ret_login, Error *error)
{
	pid_t pid;
	_cleanup_close_ int output = -1;
	int r = spawn(program, host, &pid, &output);
	if (r == -ENOENT || r == -EACCES)
		return error_set(error, -ENOEXEC, "%s cannot be run: %s", program, error_text(NULL, r));
	if (r < 0)
		return error_set(error, r, "%s cannot be run: %s", program, error_text(NULL, r));
	ssize_t size = read_answer(output, answer, ANSWER_MAX);
	int status = 0;
	bool ended = reap(pid, size < 0 ? 0 : END_TIME, &status);
	if (size == -ETIMEDOUT)
		return error_set(error, -ETIMEDOUT, "%s does not end within %d s", program, TIMEOUT / 1000);
	if (size < 0)
		return error_set(error, -EIO, "%s: %s", program, error_text(NULL, (int)size));
	if (!ended)
		return error_set(error, -ETIMEDOUT, "%s has closed its output, but does not end within %d s", program,
				 END_TIME / 1000);
	if (status != 0)
		return explain(program, status, answer, (size_t)size, error);
	r = net_helper_parse(answer, (size_t)size, ret_login);
	return r < 0 ? error_set(error, r == -EBADMSG ? -EIO : r, "%s prints no login", program) : 0;
}

int net_helper_get(const char *name, const char *host, NetHelperLogin *ret_login, Error *error)
{
	char program[sizeof(PREFIX) + NAME_MAX_];
	if (!is_name(name))
		return error_set(error, -ENOEXEC, "\"%.80s\" is no name of a credential helper", name);
	(void)snprintf(program, sizeof(program), PREFIX "%s", name);
	char *answer = calloc(1, ANSWER_MAX);
	if (!answer)
		return error_set(error, -ENOMEM, "out of memory");
	int r = run(program, host, answer, ret_login, error);
	OPENSSL_cleanse(answer, ANSWER_MAX);
	free(answer);
	return r;
}
