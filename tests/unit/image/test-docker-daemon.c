/* The docker engine's API, played by a thread on a Unix socket. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "fs/base/fd.h"
#include "tests/unit/image/source-fixture.h"
#include "tools/image/image-docker.h"

typedef struct FakeEngine {
	const char *directory;
	char socket[100];
	int listener;
	pthread_t thread;
	const char *ping; /* response to the ping, header and body */
	const char *head; /* of the response to what follows */
	const void *body; /* and its body */
	size_t body_size;
	bool stall;      /* then send nothing more, and wait until the client is gone */
	char asked[512]; /* the path asked for after the ping */
} FakeEngine;

/* One request of a connection; its path. */
static void read_request(int fd, char *path, size_t size)
{
	char text[4096];
	size_t used = 0;
	while (used < sizeof(text) - 1) {
		ssize_t count = read(fd, text + used, sizeof(text) - 1 - used);
		if (count <= 0)
			break;
		used += (size_t)count;
		text[used] = '\0';
		if (strstr(text, "\r\n\r\n"))
			break;
	}
	text[used] = '\0';
	char *end = strstr(text, " HTTP/");
	path[0] = '\0';
	if (strncmp(text, "GET ", 4) == 0 && end)
		(void)snprintf(path, size, "%.*s", (int)(end - text - 4), text + 4);
}

static void answer(int fd, const char *head, const void *body, size_t size)
{
	(void)send(fd, head, strlen(head), MSG_NOSIGNAL);
	for (size_t sent = 0; sent < size;) {
		ssize_t count = send(fd, (const char *)body + sent, size - sent, MSG_NOSIGNAL);
		if (count <= 0)
			break;
		sent += (size_t)count;
	}
}

/* Two connections: the ping, and the image. */
static void *engine_main(void *arg)
{
	FakeEngine *engine = arg;
	char path[512];
	for (int fd; (fd = accept(engine->listener, NULL, NULL)) >= 0; (void)close(fd)) {
		read_request(fd, path, sizeof(path));
		if (strcmp(path, "/_ping") == 0) {
			answer(fd, engine->ping, "OK", 2);
			continue;
		}
		memcpy(engine->asked, path, sizeof(path));
		answer(fd, engine->head, engine->body, engine->body_size);
		while (engine->stall && read(fd, path, 1) > 0)
			continue;
	}
	return NULL;
}

#define PING "HTTP/1.1 200 OK\r\nApi-Version: 1.44\r\nConnection: close\r\nContent-Length: 2\r\n\r\n"
#define GOOD "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/x-tar\r\n\r\n"

static void engine_start(FakeEngine *engine, const Buffer *archive)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	*engine = (FakeEngine){ .directory = fake_directory_make(),
				.ping = PING,
				.head = GOOD,
				.body = archive ? archive->data : NULL,
				.body_size = archive ? archive->size : 0 };
	(void)snprintf(engine->socket, sizeof(engine->socket), "%s/docker.sock", engine->directory);
	memcpy(address.sun_path, engine->socket, sizeof(engine->socket));
	engine->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(engine->listener >= 0);
	assert_int_equal(bind(engine->listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(engine->listener, 8), 0);
}

static void engine_run(FakeEngine *engine)
{
	assert_int_equal(pthread_create(&engine->thread, NULL, engine_main, engine), 0);
}

static void engine_stop(FakeEngine *engine)
{
	(void)shutdown(engine->listener, SHUT_RDWR);
	assert_int_equal(pthread_join(engine->thread, NULL), 0);
	(void)close(engine->listener);
	fake_directory_remove(engine->directory);
}

static void open_daemon(const FakeEngine *engine, const char *reference, ImageSource **ret_source)
{
	Error error = { 0 };
	assert_int_equal(image_docker_daemon_open(engine->socket, reference, ret_source, &error), 0);
}

/* Starts the engine, transfers, expects an error, stops it. */
static void expect_error(FakeEngine *engine, int code, const char *words)
{
	_cleanup_(image_source_free_p) ImageSource *source = NULL;
	FakeSink sink;
	engine_run(engine);
	open_daemon(engine, "whisk/invoker:v2", &source);
	fake_sink_init(&sink);
	fake_expect_error(source, &sink, code, words);
	engine_stop(engine);
}

static void check_image(const char *reference, const char *ping, const char *asked)
{
	FakeImage image;
	Buffer archive = { 0 };
	FakeEngine engine;
	FakeSink sink;
	_cleanup_(image_source_free_p) ImageSource *source = NULL;
	fake_image_make(&image, 3, "a");
	fake_archive(&archive, &image, FAKE_OLD, "whisk/invoker:v2");
	engine_start(&engine, &archive);
	engine.ping = ping;
	engine_run(&engine);
	open_daemon(&engine, reference, &source);
	fake_sink_init(&sink);
	fake_expect_image(source, &sink, &image);
	engine_stop(&engine);
	assert_string_equal(engine.asked, asked);
	buffer_done(&archive);
	fake_image_done(&image);
}

static void test_image(void **state _unused_)
{
	check_image("whisk/invoker:v2", PING, "/v1.44/images/whisk/invoker:v2/get");
	check_image("whisk/invoker", PING, "/v1.44/images/whisk/invoker:latest/get");
	check_image("host:5000/invoker", PING, "/v1.44/images/host:5000/invoker:latest/get");
	check_image("0123456789ab", PING, "/v1.44/images/0123456789ab/get");
	check_image("sha256:0123", PING, "/v1.44/images/sha256:0123/get");
	check_image("x:1", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", "/v1.24/images/x:1/get");
	check_image("x:1", "HTTP/1.1 200 OK\r\nApi-Version: /../../evil\r\nConnection: close\r\n\r\n",
		    "/v1.24/images/x:1/get");
}

static void test_no_such_image(void **state _unused_)
{
	FakeEngine engine;
	engine_start(&engine, NULL);
	engine.head = "HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n{\"message\":\"reference does not exist\"}";
	expect_error(&engine, -ENOENT, "has no image whisk/invoker:v2");
}

static void test_engine_refuses(void **state _unused_)
{
	FakeEngine engine;
	engine_start(&engine, NULL);
	engine.head = "HTTP/1.1 500 Sorry\r\nConnection: close\r\n\r\n{\"message\":\"no room in /var/lib/docker/tmp\"}";
	expect_error(&engine, -EIO, "no room in /var/lib/docker/tmp");
}

static void test_engine_breaks_off(void **state _unused_)
{
	FakeImage image;
	Buffer archive = { 0 };
	FakeEngine engine;
	fake_image_make(&image, 2, "a");
	fake_archive(&archive, &image, FAKE_OLD, "x:1");
	engine_start(&engine, &archive);
	engine.head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 99999999\r\n\r\n";
	engine.body_size = 1u << 20;
	expect_error(&engine, -EIO, "broke off");
	buffer_done(&archive);
	fake_image_done(&image);
}

static void test_no_engine(void **state _unused_)
{
	FakeEngine engine = { .socket = "/nonexistent/docker.sock" };
	_cleanup_(image_source_free_p) ImageSource *source = NULL;
	FakeSink sink;
	open_daemon(&engine, "x:1", &source);
	fake_sink_init(&sink);
	fake_expect_error(source, &sink, -ECONNREFUSED, "no docker engine answers at /nonexistent/docker.sock");
}

/* The reader gives up while the engine is silent: the download is not waited for. */
static void test_sink_fails(void **state _unused_)
{
	FakeImage image;
	Buffer archive = { 0 };
	FakeEngine engine;
	FakeSink sink;
	_cleanup_(image_source_free_p) ImageSource *source = NULL;
	fake_image_make(&image, 2, "a");
	fake_archive(&archive, &image, FAKE_OLD, "x:1");
	engine_start(&engine, &archive);
	engine.body_size = 1u << 20;
	engine.stall = true;
	engine_run(&engine);
	open_daemon(&engine, "x:1", &source);
	fake_sink_init(&sink);
	sink.fail = -ENOSPC;
	fake_expect_error(source, &sink, -ENOSPC, "the sink refuses");
	engine_stop(&engine);
	buffer_done(&archive);
	fake_image_done(&image);
}

static void test_arguments(void **state _unused_)
{
	static const char *const bad[] = { "", "a b", "x?y", "x#y", "a/../b", "x%2e", "x\n" };
	ImageSource *source = NULL;
	Error error = { 0 };
	for (size_t i = 0; i < ELEMENTS(bad); i++)
		assert_int_equal(image_docker_daemon_open("/s", bad[i], &source, &error), -EINVAL);
	assert_int_equal(setenv("DOCKER_HOST", "tcp://127.0.0.1:2375", 1), 0);
	assert_int_equal(image_docker_daemon_open(NULL, "x:1", &source, &error), -EINVAL);
	assert_non_null(strstr(error.message, "DOCKER_HOST is tcp://127.0.0.1:2375"));
	assert_int_equal(unsetenv("DOCKER_HOST"), 0);
	assert_null(source);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_image),          cmocka_unit_test(test_no_such_image),
		cmocka_unit_test(test_engine_refuses), cmocka_unit_test(test_engine_breaks_off),
		cmocka_unit_test(test_no_engine),      cmocka_unit_test(test_sink_fails),
		cmocka_unit_test(test_arguments),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
