/* Server and client over a socket of the test's own. What grpc-go makes of the server is tested in tests/cases. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "snapshotter/wire-client.h"
#include "snapshotter/wire-listen.h"
#include "snapshotter/wire-server.h"

#define TIMEOUT 60000

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
	if (level == SOL_SOCKET && name == SO_SNDTIMEO)
		value = &moment;
	return (int)syscall(SYS_setsockopt, fd, level, name, value, size);
}

/* In libc's place: while `broken`, the server cannot wait for calls. */
static _Atomic bool broken;

int epoll_wait(int fd, struct epoll_event *events, int count, int timeout)
{
	if (!broken)
		return (int)syscall(SYS_epoll_pwait, fd, events, count, timeout, NULL, 8);
	errno = EBADF;
	return -1;
}

typedef struct Place {
	char directory[64], path[96];
	int listen_fd, stop_fd;
	WireServer *server;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned held; /* calls that wait in hold() */
	bool let_go;
} Place;

static int echo(WireCall *call, void *arg _unused_, Error *error)
{
	uint8_t *room = wire_call_message(call, call->size);
	if (!room)
		return error_set(error, -ENOMEM, "out of memory");
	if (call->size > 0)
		memcpy(room, call->message, call->size);
	return 0;
}

static int refuse(WireCall *call _unused_, void *arg _unused_, Error *error)
{
	return error_set(error, -EBUSY, "100%% \xc3\xa4\n");
}

/* Waits until it is let go. */
static int hold(WireCall *call, void *arg, Error *error)
{
	Place *place = arg;
	(void)pthread_mutex_lock(&place->lock);
	place->held++;
	(void)pthread_cond_broadcast(&place->changed);
	while (!place->let_go)
		(void)pthread_cond_wait(&place->changed, &place->lock);
	(void)pthread_mutex_unlock(&place->lock);
	return echo(call, arg, error);
}

/* Waits until nobody waits for it. */
static int linger(WireCall *call, void *arg, Error *error)
{
	Place *place = arg;
	(void)pthread_mutex_lock(&place->lock);
	place->held++;
	(void)pthread_cond_broadcast(&place->changed);
	(void)pthread_mutex_unlock(&place->lock);
	while (!atomic_load(&call->cancelled))
		(void)usleep(1000);
	return error_set(error, -ECANCELED, "cancelled");
}

/* As many messages as the request has bytes, the third and every further one of 300,000 bytes. */
static int stream(WireCall *call, void *arg _unused_, Error *error _unused_)
{
	if (call->cursor == call->size)
		return 0;
	size_t size = call->cursor < 2 ? call->cursor : 300000;
	uint8_t *room = wire_call_message(call, size);
	if (!room)
		return -ENOMEM;
	memset(room, (int)call->cursor, size);
	call->again = ++call->cursor < call->size;
	return 0;
}

static const WireMethod methods[] = {
	{ "/t/Echo", echo },     { "/t/Refuse", refuse }, { "/t/Hold", hold },
	{ "/t/Stream", stream }, { "/t/Linger", linger },
};

static void *run_server(void *arg)
{
	Place *place = arg;
	return wire_server_run(place->server, NULL) == 0 ? place : NULL;
}

static int start(Place *place)
{
	const WireServerOptions options = {
		.listen_fd = place->listen_fd,
		.stop_fd = place->stop_fd,
		.methods = methods,
		.method_count = ELEMENTS(methods),
		.arg = place,
	};
	if (wire_server_new(&options, &place->server, NULL) < 0)
		return -1;
	return pthread_create(&place->thread, NULL, run_server, place);
}

static int setup(void **state)
{
	static Place place;
	place = (Place){ 0 };
	(void)strcpy(place.directory, "/tmp/imgfs-wire-XXXXXX");
	if (!mkdtemp(place.directory))
		return -1;
	(void)snprintf(place.path, sizeof(place.path), "%s/below/s.sock", place.directory);
	(void)pthread_mutex_init(&place.lock, NULL);
	(void)pthread_cond_init(&place.changed, NULL);
	place.stop_fd = eventfd(0, EFD_CLOEXEC);
	if (place.stop_fd < 0 || wire_listen(place.path, &place.listen_fd, NULL) < 0)
		return -1;
	*state = &place;
	return start(&place);
}

static int teardown(void **state)
{
	Place *place = *state;
	void *result;
	if (eventfd_write(place->stop_fd, 1) < 0 || pthread_join(place->thread, &result) != 0 || !result)
		return -1;
	place->server = wire_server_free(place->server);
	wire_listen_unlink(place->path, place->listen_fd);
	(void)close(place->listen_fd);
	(void)close(place->stop_fd);
	*strrchr(place->path, '/') = '\0';
	return rmdir(place->path) < 0 || rmdir(place->directory) < 0;
}

static WireClient *connect_client(const Place *place)
{
	WireClient *client;
	assert_int_equal(wire_client_connect(place->path, "default", &client, NULL), 0);
	return client;
}

/* A call whose request is one message; the sizes of the reply's messages are added up. */
static int call(WireClient *client, const char *method, size_t size, size_t *ret_size, unsigned *ret_count,
		Error *error)
{
	_cleanup_(buffer_done) Buffer request = { 0 };
	_cleanup_(buffer_done) Buffer reply = { 0 };
	uint8_t *room = wire_client_message(&request, size);
	assert_non_null(room);
	memset(room, 'x', size);
	int r = wire_client_call(client, method, &request, TIMEOUT, &reply, error);
	size_t offset = 0, length;
	const uint8_t *message;
	*ret_size = *ret_count = 0;
	while (r == 0 && wire_client_next(&reply, &offset, &message, &length)) {
		*ret_size += length;
		++*ret_count;
	}
	return r;
}

static void test_calls(void **state)
{
	_cleanup_(wire_client_close_p) WireClient *client = connect_client(*state);
	static const size_t sizes[] = { 0, 1, 70000, 3000000, WIRE_MESSAGE_MAX };
	Error error = { 0 };
	size_t size;
	unsigned count;
	for (size_t i = 0; i < ELEMENTS(sizes); i++) {
		assert_int_equal(call(client, "/t/Echo", sizes[i], &size, &count, &error), 0);
		assert_int_equal(size, sizes[i]);
		assert_int_equal(count, 1);
	}
	assert_int_equal(call(client, "/t/Refuse", 5, &size, &count, &error), -EBUSY);
	assert_string_equal(error.message, "100% \xc3\xa4\n");
	assert_int_equal(call(client, "/t/Other", 5, &size, &count, &error), -EOPNOTSUPP);
	assert_int_equal(call(client, "/t/Echo", 5, &size, &count, &error), 0);
}

static void test_stream(void **state)
{
	_cleanup_(wire_client_close_p) WireClient *client = connect_client(*state);
	size_t size;
	unsigned count;
	assert_int_equal(call(client, "/t/Stream", 12, &size, &count, NULL), 0);
	assert_int_equal(count, 12);
	assert_int_equal(size, 1 + 10 * 300000);
	assert_int_equal(call(client, "/t/Stream", 0, &size, &count, NULL), 0);
	assert_int_equal(count, 0);
}

static int call_raw(WireClient *client, const void *bytes, size_t size, Error *error)
{
	_cleanup_(buffer_done) Buffer request = { 0 };
	_cleanup_(buffer_done) Buffer reply = { 0 };
	assert_int_equal(buffer_append(&request, bytes, size), 0);
	return wire_client_call(client, "/t/Echo", &request, TIMEOUT, &reply, error);
}

/* Requests that are not one whole message, none of which ends the connection. */
static void test_refused(void **state)
{
	_cleanup_(wire_client_close_p) WireClient *client = connect_client(*state);
	Error error = { 0 };
	assert_int_equal(call_raw(client, "\0\0", 2, &error), -EIO);
	assert_string_equal(error.message, "the request has no message");
	assert_int_equal(call_raw(client, "\0\0\0\0\2x", 6, &error), -EIO);
	assert_string_equal(error.message, "the request is not one whole message");
	assert_int_equal(call_raw(client, "\1\0\0\0\1x", 6, &error), -EOPNOTSUPP);
	assert_int_equal(call_raw(client, "\0\0\0\0\1x", 6, &error), 0);
}

static void *call_hold(void *arg)
{
	_cleanup_(wire_client_close_p) WireClient *client = connect_client(arg);
	size_t size;
	unsigned count;
	return call(client, "/t/Hold", 3, &size, &count, NULL) == 0 && size == 3 ? arg : NULL;
}

static void wait_until_held(Place *place, unsigned count)
{
	(void)pthread_mutex_lock(&place->lock);
	while (place->held < count)
		(void)pthread_cond_wait(&place->changed, &place->lock);
	(void)pthread_mutex_unlock(&place->lock);
}

static void let_go(Place *place)
{
	(void)pthread_mutex_lock(&place->lock);
	place->let_go = true;
	(void)pthread_cond_broadcast(&place->changed);
	(void)pthread_mutex_unlock(&place->lock);
}

#define SLOW 20

/* Slow calls hold up no other; and those begun are finished though the server has been told to end. */
static void test_slow(void **state)
{
	Place *place = *state;
	pthread_t threads[SLOW];
	size_t size;
	unsigned count;
	for (size_t i = 0; i < SLOW; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, call_hold, place), 0);
	wait_until_held(place, SLOW);
	WireClient *client = connect_client(place);
	assert_int_equal(call(client, "/t/Echo", 5, &size, &count, NULL), 0);
	client = wire_client_close(client);
	assert_int_equal(eventfd_write(place->stop_fd, 1), 0);
	let_go(place);
	for (size_t i = 0; i < SLOW; i++) {
		void *result;
		assert_int_equal(pthread_join(threads[i], &result), 0);
		assert_non_null(result);
	}
}

/* A client that goes away in the middle. */
static void test_gone(void **state)
{
	Place *place = *state;
	WireClient *client = connect_client(place);
	_cleanup_(buffer_done) Buffer request = { 0 };
	_cleanup_(buffer_done) Buffer reply = { 0 };
	assert_non_null(wire_client_message(&request, 0));
	assert_int_equal(wire_client_call(client, "/t/Hold", &request, 100, &reply, NULL), -ETIMEDOUT);
	wait_until_held(place, 1);
	client = wire_client_close(client);
	let_go(place);
	client = connect_client(place);
	size_t size;
	unsigned count;
	assert_int_equal(call(client, "/t/Echo", 5, &size, &count, NULL), 0);
	client = wire_client_close(client);
}

/* The end does not wait for what nobody waits for any more. */
static void test_end(void **state)
{
	Place *place = *state;
	WireClient *client = connect_client(place);
	_cleanup_(buffer_done) Buffer request = { 0 };
	_cleanup_(buffer_done) Buffer reply = { 0 };
	eventfd_t count;
	void *result;
	assert_non_null(wire_client_message(&request, 0));
	assert_int_equal(wire_client_call(client, "/t/Linger", &request, 100, &reply, NULL), -ETIMEDOUT);
	wait_until_held(place, 1);
	broken = true;
	assert_int_equal(eventfd_write(place->stop_fd, 1), 0);
	assert_int_equal(pthread_join(place->thread, &result), 0);
	assert_null(result);
	broken = false;
	place->server = wire_server_free(place->server);
	client = wire_client_close(client);
	assert_int_equal(eventfd_read(place->stop_fd, &count), 0);
	assert_int_equal(start(place), 0);
}

/* What is no HTTP/2 ends its own connection only. */
static void test_garbage(void **state)
{
	Place *place = *state;
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	(void)strcpy(address.sun_path, place->path);
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char bytes[4096];
	assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(send(fd, "GET / HTTP/1.1\r\n\r\n", 18, 0), 18);
	while (recv(fd, bytes, sizeof(bytes), 0) > 0)
		;
	_cleanup_(wire_client_close_p) WireClient *client = connect_client(place);
	size_t size;
	unsigned count;
	assert_int_equal(call(client, "/t/Echo", 5, &size, &count, NULL), 0);
}

/* A peer that reads nothing before all of what it sends itself has been taken, and then answers the first call. */
#define FRAME_SIZE 16384

static bool write_frame(int fd, uint8_t type, uint8_t flags, uint8_t stream, const void *payload, size_t size)
{
	const uint8_t head[] = { 0, (uint8_t)(size >> 8), (uint8_t)size, type, flags, 0, 0, 0, stream };
	return send(fd, head, sizeof(head), MSG_NOSIGNAL) == sizeof(head) &&
	       send(fd, payload, size, MSG_NOSIGNAL) == (ssize_t)size;
}

static void *talk_first(void *arg)
{
	static const uint8_t window[] = { 0, 4, 0x7f, 0xff, 0xff, 0xff }, more[] = { 0x7f, 0xfe, 0, 0 };
	static const uint8_t answer[] = "\x88\x00\x0bgrpc-status\x01"
					"0";
	static const uint8_t unknown[FRAME_SIZE], preface = 24;
	const Place *place = arg;
	uint8_t head[9] = { 0 }, bytes[FRAME_SIZE];
	_cleanup_close_ int fd = accept4(place->listen_fd, NULL, NULL, SOCK_CLOEXEC);
	bool ok = write_frame(fd, 4, 0, 0, window, sizeof(window)) && write_frame(fd, 8, 0, 0, more, sizeof(more));
	for (int i = 0; ok && i < 200; i++)
		ok = write_frame(fd, 0xfa, 0, 0, unknown, sizeof(unknown));
	ok = ok && recv(fd, bytes, preface, MSG_WAITALL) == preface;
	/* DATA with END_STREAM ends the request. */
	while (ok && !(head[3] == 0 && head[4] & 1)) {
		ok = recv(fd, head, sizeof(head), MSG_WAITALL) == sizeof(head);
		ssize_t size = head[1] << 8 | head[2];
		ok = ok && (size == 0 || recv(fd, bytes, (size_t)size, MSG_WAITALL) == size);
	}
	ok = ok && write_frame(fd, 1, 5, 1, answer, sizeof(answer) - 1);
	while (ok && recv(fd, bytes, sizeof(bytes), 0) > 0)
		;
	return ok ? arg : NULL;
}

static void test_peer_that_talks_first(void **state)
{
	Place place = *(Place *)*state;
	pthread_t thread;
	void *result;
	size_t size;
	unsigned count;
	(void)snprintf(place.path, sizeof(place.path), "%s/peer", place.directory);
	assert_int_equal(wire_listen(place.path, &place.listen_fd, NULL), 0);
	assert_int_equal(fcntl(place.listen_fd, F_SETFL, 0), 0);
	assert_int_equal(pthread_create(&thread, NULL, talk_first, &place), 0);
	WireClient *client = connect_client(&place);
	int r = call(client, "/t/Echo", 4 << 20, &size, &count, NULL);
	client = wire_client_close(client);
	wire_listen_unlink(place.path, place.listen_fd);
	(void)close(place.listen_fd);
	assert_int_equal(r, 0);
	assert_int_equal(pthread_join(thread, &result), 0);
	assert_non_null(result);
}

static void test_listen(void **state)
{
	const Place *place = *state;
	char path[128];
	struct stat status;
	int fd;
	Error error = { 0 };
	assert_int_equal(stat(place->path, &status), 0);
	assert_int_equal(status.st_mode, S_IFSOCK | 0600);
	assert_int_equal(wire_listen(place->path, &fd, &error), -EADDRINUSE); /* somebody answers there */
	assert_non_null(strstr(error.message, place->path));
	(void)snprintf(path, sizeof(path), "%s/stale", place->directory);
	assert_int_equal(wire_listen(path, &fd, &error), 0);
	(void)close(fd);
	assert_int_equal(wire_listen(path, &fd, &error), 0);
	wire_listen_unlink(path, fd);
	(void)close(fd);
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(wire_listen(path, &fd, &error), -EADDRINUSE);
	assert_int_equal(rmdir(path), 0);
}

/* A connection that nobody takes is not waited for without end. */
static void test_full_backlog(void **state)
{
	Place place = *(Place *)*state;
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	WireClient *client;
	(void)snprintf(place.path, sizeof(place.path), "%s/full", place.directory);
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", place.path);
	_cleanup_close_ int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(listener, 0), 0);
	WireClient *first = connect_client(&place);
	assert_int_equal(wire_client_connect(place.path, NULL, &client, NULL), -ETIMEDOUT);
	first = wire_client_close(first);
	assert_int_equal(unlink(place.path), 0);
}

/* Who comes while there are no descriptors is asked in later, and the loop does not run in circles until then. */
static void test_out_of_descriptors(void **state)
{
	const Place *place = *state;
	size_t size;
	unsigned count;
	refusals = 0;
	starved = true;
	_cleanup_(wire_client_close_p) WireClient *client = connect_client(place);
	while (refusals == 0)
		(void)usleep(1000);
	(void)usleep(300000);
	assert_in_range(refusals, 1, 1000);
	starved = false;
	assert_int_equal(call(client, "/t/Echo", 5, &size, &count, NULL), 0);
	assert_int_equal(size, 5);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_calls),
		TEST(test_stream),
		TEST(test_refused),
		TEST(test_slow),
		TEST(test_gone),
		TEST(test_end),
		TEST(test_garbage),
		TEST(test_listen),
		TEST(test_full_backlog),
		TEST(test_peer_that_talks_first),
		TEST(test_out_of_descriptors),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
