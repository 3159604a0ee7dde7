/* The control socket with its real client, and with clients that do not behave. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>

#include <cmocka.h>

#include "fs/base/bytes.h"
#include "fs/base/fd.h"
#include "fs/control/control-client.h"
#include "fs/control/control-frame.h"
#include "fs/control/control-server.h"

#define PULLS 20

/* In libc's place: while `starved`, there are no descriptors for whoever comes. */
static _Atomic bool starved;
static _Atomic unsigned refusals;

int accept4(int fd, __SOCKADDR_ARG address, socklen_t *restrict size, int flags)
{
	if (!starved)
		return (int)syscall(SYS_accept4, fd, address.__sockaddr__, size, flags);
	refusals++;
	errno = EMFILE;
	return -1;
}

/* In libc's place: limits of time are for people, so here they are short. */
int setsockopt(int fd, int level, int name, const void *value, socklen_t size)
{
	const struct timeval moment = { .tv_usec = 20000 };
	const struct timeval *time = value;
	if (level == SOL_SOCKET && name == SO_SNDTIMEO && time->tv_sec > 0)
		value = &moment;
	return (int)syscall(SYS_setsockopt, fd, level, name, value, size);
}

/* A daemon whose "pull" waits until it is let go. */
typedef struct Daemon {
	char directory[64], path[96];
	ControlServer *server;
	pthread_t thread;
	_Atomic bool end;

	pthread_mutex_t mutex;
	pthread_cond_t changed;
	unsigned pulling;
	bool release;
	bool gone; /* what the last pull saw of its client */
} Daemon;

static void wait_for_release(Daemon *daemon, ControlCall *call)
{
	(void)pthread_mutex_lock(&daemon->mutex);
	daemon->pulling++;
	(void)pthread_cond_broadcast(&daemon->changed);
	while (!daemon->release)
		(void)pthread_cond_wait(&daemon->changed, &daemon->mutex);
	daemon->gone = control_call_gone(call);
	(void)pthread_mutex_unlock(&daemon->mutex);
}

static int handle(void *arg, ControlCall *call, const ControlRequest *request, json_t **ret_answer, Error *error)
{
	switch ((int)request->verb) {
	case CONTROL_PING:
		return 0;
	case CONTROL_LIST: { /* the largest answer there is, or one too large */
		size_t size = CONTROL_FRAME_MAX - (request->after ? 0 : 20);
		_cleanup_free_ char *text = malloc(size);
		assert_non_null(text);
		memset(text, 'x', size);
		*ret_answer = json_pack("{s:s#}", "text", text, size);
		return 0;
	}
	case CONTROL_PULL:
		for (int i = 0; i < 100; i++)
			control_call_progress(call, json_pack("{s:i}", "done", i));
		wait_for_release(arg, call);
		*ret_answer = json_pack("{s:s}", "reference", request->reference);
		return 0;
	default:
		return error_set(error, -ENOENT, "nobody is called \xff%s", request->owner);
	}
}

static void *run(void *arg)
{
	Daemon *daemon = arg;
	while (!daemon->end)
		assert_int_equal(control_server_turn(daemon->server, NULL, 0, 20), 0);
	return NULL;
}

static int set_up(void **state)
{
	Daemon *daemon = calloc(1, sizeof(*daemon));
	assert_non_null(daemon);
	(void)pthread_mutex_init(&daemon->mutex, NULL);
	(void)pthread_cond_init(&daemon->changed, NULL);
	(void)snprintf(daemon->directory, sizeof(daemon->directory), "/tmp/imgfs-control-XXXXXX");
	assert_non_null(mkdtemp(daemon->directory));
	(void)snprintf(daemon->path, sizeof(daemon->path), "%s/socket", daemon->directory);
	*state = daemon;
	return 0;
}

static void start_for(Daemon *daemon, uid_t user)
{
	ControlServerOptions options = {
		.path = daemon->path,
		.user = user,
		.quick = 1u << CONTROL_PING,
		.handle = handle,
		.arg = daemon,
	};
	assert_int_equal(control_server_new(&options, &daemon->server, NULL), 0);
	assert_int_equal(pthread_create(&daemon->thread, NULL, run, daemon), 0);
}

static void start(Daemon *daemon)
{
	start_for(daemon, geteuid());
}

static void release(Daemon *daemon)
{
	(void)pthread_mutex_lock(&daemon->mutex);
	daemon->release = true;
	(void)pthread_cond_broadcast(&daemon->changed);
	(void)pthread_mutex_unlock(&daemon->mutex);
}

static void await_pulls(Daemon *daemon, unsigned count)
{
	(void)pthread_mutex_lock(&daemon->mutex);
	while (daemon->pulling < count)
		(void)pthread_cond_wait(&daemon->changed, &daemon->mutex);
	(void)pthread_mutex_unlock(&daemon->mutex);
}

static int tear_down(void **state)
{
	Daemon *daemon = *state;
	if (daemon->server) {
		release(daemon);
		daemon->end = true;
		assert_int_equal(pthread_join(daemon->thread, NULL), 0);
		assert_null(control_server_free(daemon->server));
	}
	assert_int_equal(access(daemon->path, F_OK), -1);
	assert_int_equal(rmdir(daemon->directory), 0);
	(void)pthread_cond_destroy(&daemon->changed);
	(void)pthread_mutex_destroy(&daemon->mutex);
	free(daemon);
	return 0;
}

static int ask(ControlClient *client, json_t *request, json_t **ret_answer, Error *error)
{
	int r = control_call(client, request, NULL, NULL, ret_answer, error);
	json_decref(request);
	return r;
}

static void ping(ControlClient *client)
{
	json_t *answer = NULL;
	assert_int_equal(ask(client, json_pack("{s:s}", "call", "ping"), &answer, NULL), 0);
	json_decref(answer);
}

static void test_calls(void **state)
{
	Daemon *daemon = *state;
	start(daemon);
	struct stat status;
	assert_int_equal(stat(daemon->path, &status), 0);
	assert_int_equal(status.st_mode & 0777, 0600);
	_cleanup_(control_client_free_p) ControlClient *client = NULL;
	assert_int_equal(control_connect(daemon->path, &client, NULL), 0);
	for (int i = 0; i < 3; i++)
		ping(client);
	/* A failure is told with code and sentence, and the connection goes on. */
	json_t *answer = NULL;
	Error error = { 0 };
	assert_int_equal(ask(client, json_pack("{s:s, s:s}", "call", "unpin", "reference", "r"), &answer, &error),
			 -ENOENT);
	assert_int_equal(ask(client, json_pack("{s:s, s:s}", "call", "detach", "owner", "who"), &answer, &error),
			 -ENOENT);
	assert_int_equal(error.code, -ENOENT);
	assert_int_equal(ask(client, json_pack("{s:s}", "call", "detach"), &answer, &error), -EINVAL);
	assert_non_null(strstr(error.message, "\"owner\""));
	assert_null(answer);
	ping(client);
}

static void test_large_answers(void **state)
{
	Daemon *daemon = *state;
	start(daemon);
	_cleanup_(control_client_free_p) ControlClient *client = NULL;
	assert_int_equal(control_connect(daemon->path, &client, NULL), 0);
	json_t *answer = NULL;
	assert_int_equal(ask(client, json_pack("{s:s}", "call", "list"), &answer, NULL), 0);
	assert_int_equal(json_string_length(json_object_get(answer, "text")), CONTROL_FRAME_MAX - 20);
	json_decref(answer);
	assert_int_equal(ask(client, json_pack("{s:s, s:s}", "call", "list", "after", "a"), &answer, NULL), -EMSGSIZE);
	ping(client);
}

static void count_progress(void *arg, const json_t *progress)
{
	unsigned *count = arg;
	assert_true(json_is_integer(json_object_get(progress, "done")));
	++*count;
}

static void *pull(void *arg)
{
	Daemon *daemon = arg;
	_cleanup_(control_client_free_p) ControlClient *client = NULL;
	assert_int_equal(control_connect(daemon->path, &client, NULL), 0);
	json_t *request = json_pack("{s:s, s:s}", "call", "pull", "reference", "r"), *answer = NULL;
	unsigned count = 0;
	assert_int_equal(control_call(client, request, count_progress, &count, &answer, NULL), 0);
	assert_in_range(count, 1, 100);
	assert_string_equal(json_string_value(json_object_get(answer, "reference")), "r");
	json_decref(request);
	json_decref(answer);
	return NULL;
}

static void test_long_calls_hold_up_nobody(void **state)
{
	Daemon *daemon = *state;
	start(daemon);
	pthread_t threads[PULLS];
	for (size_t i = 0; i < PULLS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, pull, daemon), 0);
	await_pulls(daemon, PULLS);
	_cleanup_(control_client_free_p) ControlClient *client = NULL;
	assert_int_equal(control_connect(daemon->path, &client, NULL), 0);
	ping(client);
	assert_int_equal(control_server_calls(daemon->server), PULLS);
	release(daemon);
	for (size_t i = 0; i < PULLS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	ping(client);
}

/* A socket without the client's manners. */
static int dial(const Daemon *daemon)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", daemon->path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

static void say(int fd, const char *body)
{
	uint8_t header[CONTROL_HEADER_SIZE];
	store_le32(header, (uint32_t)strlen(body));
	assert_int_equal(fd_write_all(fd, header, sizeof(header)), 0);
	assert_int_equal(fd_write_all(fd, body, strlen(body)), 0);
}

static json_t *hear(int fd)
{
	_cleanup_(control_reader_done) ControlReader reader = { 0 };
	json_t *json = NULL;
	int r;
	while ((r = control_reader_read(&reader, fd)) == 0)
		;
	if (r == 1)
		assert_int_equal(control_reader_take(&reader, &json, NULL), 0);
	return json;
}

static void expect_error(int fd, const char *code)
{
	json_t *json = hear(fd);
	assert_non_null(json);
	assert_string_equal(json_string_value(json_object_get(json_object_get(json, "error"), "code")), code);
	json_decref(json);
}

static void expect_hello(int fd)
{
	json_t *json = hear(fd);
	assert_int_equal(control_check_hello(json, NULL), 0);
	json_decref(json);
}

static void expect_end(int fd)
{
	json_t *json = hear(fd);
	assert_null(json);
	(void)close(fd);
}

static void test_bad_manners(void **state)
{
	Daemon *daemon = *state;
	start(daemon);
	int fd = dial(daemon);
	expect_hello(fd);
	say(fd, "{\"imgfsd\":2}");
	expect_error(fd, "EPROTONOSUPPORT");
	expect_end(fd);

	fd = dial(daemon);
	expect_hello(fd);
	say(fd, "{\"call\":\"ping\"}"); /* without a greeting */
	expect_error(fd, "EBADMSG");
	expect_end(fd);

	fd = dial(daemon);
	expect_hello(fd);
	say(fd, "{\"imgfsd\":1}");
	say(fd, "[]"); /* what is no request is answered, and the next is heard */
	expect_error(fd, "EBADMSG");
	say(fd, "{\"call\":\"fly\"}");
	expect_error(fd, "ENOSYS");
	assert_int_equal(fd_write_all(fd, "\xff\xff\xff\xff", 4), 0);
	expect_error(fd, "EMSGSIZE");
	expect_end(fd);
}

static bool gives_up(void *arg)
{
	unsigned *asked = arg;
	return ++*asked == 3;
}

/* A daemon that hangs after the greeting has its client wait for so long, or until nobody wants the answer; it sees that. */
static void test_limit(void **state)
{
	Daemon *daemon = *state;
	start(daemon);
	unsigned asked = 0;
	for (unsigned i = 0; i < 2; i++) {
		_cleanup_(control_client_free_p) ControlClient *client = NULL;
		json_t *answer = NULL;
		Error error = { 0 };
		assert_int_equal(control_connect(daemon->path, &client, NULL), 0);
		control_client_limit(client, i == 0 ? 100 : 600000, i == 0 ? NULL : gives_up, &asked);
		int r = ask(client, json_pack("{s:s, s:s}", "call", "pull", "reference", "r"), &answer, &error);
		assert_int_equal(r, i == 0 ? -ETIMEDOUT : -ECANCELED);
		assert_null(answer);
	}
	assert_int_equal(asked, 3);
	await_pulls(daemon, 2);
	_cleanup_(control_client_free_p) ControlClient *other = NULL;
	assert_int_equal(control_connect(daemon->path, &other, NULL), 0);
	ping(other);
	release(daemon);
	while (control_server_calls(daemon->server) > 0)
		ping(other);
	assert_true(daemon->gone);
}

static bool is_given_up(_unused_ void *arg)
{
	return true;
}

/* Nor is a connection waited for that nobody takes: the backlog of one that hangs is full. */
static void test_full_backlog(void **state)
{
	Daemon *daemon = *state;
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", daemon->path);
	_cleanup_close_ int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(listener, 0), 0);
	_cleanup_close_ int first = dial(daemon);
	ControlClient *client = NULL;
	Error error = { 0 };
	assert_true(first >= 0);
	assert_int_equal(control_connect_within(daemon->path, 20, NULL, NULL, &client, &error), -ETIMEDOUT);
	assert_non_null(strstr(error.message, "takes no connection"));
	assert_int_equal(control_connect_within(daemon->path, 1000000, is_given_up, NULL, &client, &error), -ECANCELED);
	/* Nor for a greeting. */
	_cleanup_close_ int taken = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	assert_true(taken >= 0);
	assert_int_equal(control_connect_within(daemon->path, 20, NULL, NULL, &client, &error), -ETIMEDOUT);
	assert_non_null(strstr(error.message, "does not greet"));
	_cleanup_close_ int again = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	assert_true(again >= 0);
	assert_int_equal(control_connect_within(daemon->path, 1000000, is_given_up, NULL, &client, &error), -ECANCELED);
	assert_int_equal(unlink(daemon->path), 0);
}

/* Half a frame, silence, an answer that nobody reads, a call that nobody waits for: others are served all the same. */
static void test_slow_and_dead_clients(void **state)
{
	Daemon *daemon = *state;
	start(daemon);
	int half = dial(daemon), deaf = dial(daemon), leaver = dial(daemon);
	assert_int_equal(fd_write_all(half, "\x40\0", 2), 0);
	say(deaf, "{\"imgfsd\":1}");
	say(deaf, "{\"call\":\"list\"}");
	say(leaver, "{\"imgfsd\":1}");
	say(leaver, "{\"call\":\"pull\",\"reference\":\"r\"}");
	await_pulls(daemon, 1);
	(void)close(leaver);
	_cleanup_(control_client_free_p) ControlClient *client = NULL;
	assert_int_equal(control_connect(daemon->path, &client, NULL), 0);
	for (int i = 0; i < 100; i++)
		ping(client);
	release(daemon);
	while (control_server_calls(daemon->server) > 0)
		ping(client);
	assert_true(daemon->gone);
	expect_hello(deaf);
	json_t *json = hear(deaf);
	assert_non_null(json_object_get(json, "ok"));
	json_decref(json);
	(void)close(deaf);
	(void)close(half);
}

/* More than there is room for: those that are silent make room. */
static void test_crowd(void **state)
{
	Daemon *daemon = *state;
	start(daemon);
	int fds[CONTROL_CLIENTS + 10];
	for (size_t i = 0; i < ELEMENTS(fds); i++) {
		fds[i] = dial(daemon);
		expect_hello(fds[i]);
	}
	_cleanup_(control_client_free_p) ControlClient *client = NULL;
	assert_int_equal(control_connect(daemon->path, &client, NULL), 0);
	ping(client);
	size_t dropped = 0;
	for (size_t i = 0; i < ELEMENTS(fds); i++) {
		struct pollfd poll_fd = { .fd = fds[i], .events = POLLIN };
		dropped += poll(&poll_fd, 1, 0) == 1;
		(void)close(fds[i]);
	}
	assert_int_equal(dropped, 11);
}

/* A call of each runs: who comes is not turned away, but let in when one has ended. */
static void test_busy_crowd(void **state)
{
	Daemon *daemon = *state;
	start(daemon);
	int fds[CONTROL_CLIENTS];
	for (size_t i = 0; i < ELEMENTS(fds); i++) {
		fds[i] = dial(daemon);
		expect_hello(fds[i]);
		say(fds[i], "{\"imgfsd\":1}");
		say(fds[i], "{\"call\":\"pull\",\"reference\":\"r\"}");
	}
	await_pulls(daemon, CONTROL_CLIENTS);
	int late = dial(daemon);
	struct pollfd poll_fd = { .fd = late, .events = POLLIN };
	assert_int_equal(poll(&poll_fd, 1, 50), 0);
	release(daemon);
	expect_hello(late);
	(void)close(late);
	for (size_t i = 0; i < ELEMENTS(fds); i++)
		(void)close(fds[i]);
}

static void test_other_users(void **state)
{
	Daemon *daemon = *state;
	start_for(daemon, geteuid() + 1);
	ControlClient *client = NULL;
	Error error = { 0 };
	assert_int_equal(control_connect(daemon->path, &client, &error), -EPERM);
	assert_string_equal(error.message, "only root may use the control socket of imgfsd");
}

static void test_no_daemon(void **state)
{
	Daemon *daemon = *state;
	ControlClient *client = NULL;
	Error error = { 0 };
	assert_int_equal(control_connect(daemon->path, &client, &error), -ENOENT);
	start(daemon);
	daemon->end = true;
	assert_int_equal(pthread_join(daemon->thread, NULL), 0);
	/* What a daemon that was killed leaves is there, and nobody behind it. */
	char left[128];
	(void)snprintf(left, sizeof(left), "%s.left", daemon->path);
	assert_int_equal(link(daemon->path, left), 0);
	daemon->server = control_server_free(daemon->server);
	assert_int_equal(control_connect(left, &client, &error), -ECONNREFUSED);
	assert_int_equal(rename(left, daemon->path), 0);
	daemon->end = false;
	start(daemon);
	assert_int_equal(control_connect(daemon->path, &client, NULL), 0);
	ping(client);
	(void)control_client_free(client);
}

/* Who comes while there are no descriptors is asked in later, and the loop does not run in circles until then. */
static void test_out_of_descriptors(void **state)
{
	Daemon *daemon = *state;
	starved = true;
	refusals = 0;
	start(daemon);
	int fd = dial(daemon);
	while (refusals == 0)
		(void)usleep(1000);
	(void)usleep(300000);
	assert_in_range(refusals, 1, 1000);
	starved = false;
	json_t *hello = hear(fd);
	assert_non_null(json_object_get(hello, "imgfsd"));
	json_decref(hello);
	(void)close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_calls, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_large_answers, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_long_calls_hold_up_nobody, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_bad_manners, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_slow_and_dead_clients, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_limit, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_full_backlog, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_crowd, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_busy_crowd, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_other_users, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_no_daemon, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_out_of_descriptors, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
