#include "snapshotter/wire-server.h"

#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <utlist.h>

#include "snapshotter/wire-private.h"

#define EVENTS_MAX   64
#define DRAIN_MILLIS 8000 /* what runs then is cancelled: all in all it takes no longer than 10 s to end */
#define DEAF_MILLIS  1000 /* without new connections, where there are no descriptors for them */

uint8_t *wire_call_message(WireCall *call, size_t size)
{
	if (size > WIRE_MESSAGE_MAX)
		return NULL;
	uint8_t *room = buffer_extend(&call->reply, WIRE_PREFIX_SIZE + size);
	if (!room)
		return NULL;
	wire_prefix_write(room, size);
	return room + WIRE_PREFIX_SIZE;
}

/* On a thread of the pool. */
static void run_task(WireJob *job)
{
	WireTask *task = (WireTask *)((char *)job - offsetof(WireTask, job));
	WireServer *server = task->server;
	task->error = (Error){ 0 };
	task->call.again = false;
	task->result = atomic_load(&task->call.cancelled)
			       ? -ECANCELED
			       : task->method->handle(&task->call, server->options.arg, &task->error);
	(void)pthread_mutex_lock(&server->lock);
	bool first = !server->done;
	DL_APPEND(server->done, job);
	(void)pthread_mutex_unlock(&server->lock);
	if (first)
		(void)eventfd_write(server->done_fd, 1);
}

void wire_task_start(WireTask *task)
{
	task->running = true;
	task->server->tasks++;
	wire_pool_add(task->server->pool, &task->job);
}

static void reply(WireTask *task)
{
	WireConnection *connection = task->connection;
	WireCall *call = &task->call;
	bool failed = task->result < 0;
	if (failed)
		buffer_done(&call->reply);
	bool end = failed || !call->again;
	int r = wire_session_reply(connection->session, task->stream, &call->reply, end, wire_status_of(task->result),
				   failed ? error_text(&task->error, task->result) : NULL);
	if (r < 0)
		connection->dead = true;
}

/* Sends what the pool has done. */
static void collect(WireServer *server)
{
	eventfd_t count;
	(void)eventfd_read(server->done_fd, &count);
	(void)pthread_mutex_lock(&server->lock);
	WireJob *done = TAKE_PTR(server->done);
	(void)pthread_mutex_unlock(&server->lock);
	WireJob *job, *next;
	DL_FOREACH_SAFE(done, job, next)
	{
		WireTask *task = (WireTask *)((char *)job - offsetof(WireTask, job));
		task->running = false;
		server->tasks--;
		if (task->connection)
			reply(task);
		else
			(void)wire_task_free(task);
	}
	WireConnection *connection;
	DL_FOREACH(server->connections, connection)
	wire_connection_write(connection);
}

static int64_t now_millis(void)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int watch(const WireServer *server, const int *fd)
{
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = (void *)(uintptr_t)fd };
	return epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, *fd, &event) < 0 ? -errno : 0;
}

/* Who cannot be accepted for want of descriptors or memory still waits: asking again and again would not bring them about. */
static void accept_failed(WireServer *server, int code)
{
	if (!error_is_shortage(-code))
		return;
	server->deaf_until = now_millis() + DEAF_MILLIS;
	(void)epoll_ctl(server->epoll_fd, EPOLL_CTL_DEL, server->options.listen_fd, NULL);
}

/* A watch that cannot be had again now is asked for once more later. */
static void accept_again(WireServer *server)
{
	if (server->deaf_until == 0 || server->stopping || now_millis() < server->deaf_until)
		return;
	server->deaf_until = watch(server, &server->options.listen_fd) < 0 ? now_millis() + DEAF_MILLIS : 0;
}

static void accept_all(WireServer *server)
{
	for (;;) {
		int fd = accept4(server->options.listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		WireConnection *connection;
		if (fd < 0) {
			accept_failed(server, errno);
			return;
		}
		if (wire_connection_new(server, fd, &connection) == 0)
			wire_connection_write(connection);
	}
}

static void bury_dead(WireServer *server)
{
	WireConnection *connection, *next;
	DL_FOREACH_SAFE(server->connections, connection, next)
	{
		if (connection->dead)
			(void)wire_connection_free(connection);
	}
}

static void begin_stop(WireServer *server)
{
	WireConnection *connection;
	server->stopping = true;
	(void)epoll_ctl(server->epoll_fd, EPOLL_CTL_DEL, server->options.listen_fd, NULL);
	(void)epoll_ctl(server->epoll_fd, EPOLL_CTL_DEL, server->options.stop_fd, NULL);
	DL_FOREACH(server->connections, connection)
	{
		wire_session_goaway(connection->session);
		wire_connection_write(connection);
	}
}

static void handle_event(WireServer *server, const struct epoll_event *event)
{
	if (event->data.ptr == &server->done_fd) {
		collect(server);
	} else if (event->data.ptr == &server->options.stop_fd) {
		begin_stop(server);
	} else if (event->data.ptr == &server->options.listen_fd) {
		accept_all(server);
	} else {
		WireConnection *connection = event->data.ptr;
		if (event->events & EPOLLOUT)
			wire_connection_write(connection);
		if (!connection->dead && event->events & ~(uint32_t)EPOLLOUT)
			wire_connection_read(connection);
	}
}

/* Nothing runs and nothing is to be sent. */
static bool is_drained(const WireServer *server)
{
	const WireConnection *connection;
	if (server->tasks > 0)
		return false;
	DL_FOREACH(server->connections, connection)
	{
		if (wire_session_streams(connection->session) > 0 || connection->wants_write)
			return false;
	}
	return true;
}

int wire_server_run(WireServer *server, Error *error)
{
	struct epoll_event events[EVENTS_MAX];
	int64_t deadline = 0;
	while (!server->stopping || (!is_drained(server) && now_millis() < deadline)) {
		int patience = server->stopping ? 100 : server->deaf_until ? DEAF_MILLIS : -1;
		int count = epoll_wait(server->epoll_fd, events, EVENTS_MAX, patience);
		if (count < 0 && errno != EINTR)
			return error_set(error, -errno, "waiting for calls failed: %s", strerror(errno));
		for (int i = 0; i < count; i++)
			handle_event(server, &events[i]);
		bury_dead(server);
		accept_again(server);
		if (server->stopping && deadline == 0)
			deadline = now_millis() + DRAIN_MILLIS;
	}
	return 0;
}

static int open_server(WireServer *server)
{
	server->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	server->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (server->epoll_fd < 0 || server->done_fd < 0)
		return -errno;
	int r = watch(server, &server->done_fd);
	if (r == 0)
		r = watch(server, &server->options.listen_fd);
	if (r == 0)
		r = watch(server, &server->options.stop_fd);
	return r < 0 ? r : wire_pool_new(WIRE_THREADS_MAX, run_task, &server->pool);
}

int wire_server_new(const WireServerOptions *options, WireServer **ret_server, Error *error)
{
	_cleanup_(wire_server_free_p) WireServer *server = calloc(1, sizeof(*server));
	if (!server)
		return error_set(error, -ENOMEM, "out of memory");
	server->options = *options;
	server->epoll_fd = server->done_fd = -1;
	(void)pthread_mutex_init(&server->lock, NULL);
	int r = open_server(server);
	if (r < 0)
		return error_set(error, r, "the server cannot start: %s", strerror(-r));
	*ret_server = TAKE_PTR(server);
	return 0;
}

WireServer *wire_server_free(WireServer *server)
{
	if (!server)
		return NULL;
	/* Which cancels what is still running: without clients nobody waits for it. */
	while (server->connections)
		(void)wire_connection_free(server->connections);
	server->pool = wire_pool_free(server->pool);
	if (server->done_fd >= 0)
		collect(server);
	close_p(&server->done_fd);
	close_p(&server->epoll_fd);
	(void)pthread_mutex_destroy(&server->lock);
	free(server);
	return NULL;
}
