/* One connection: bytes between its socket and its session, and the calls that are open on it. */
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <utlist.h>

#include "snapshotter/wire-private.h"

#define READ_SIZE   (64u << 10)
#define GATHER_SIZE (64u << 10) /* frames are small: they go out together */

static void on_request(void *arg, int32_t stream, const char *path, Buffer *message)
{
	WireConnection *connection = arg;
	WireServer *server = connection->server;
	const WireMethod *method = NULL;
	Buffer none = { 0 };
	for (size_t i = 0; i < server->options.method_count && !method; i++)
		if (strcmp(server->options.methods[i].path, path) == 0)
			method = &server->options.methods[i];
	WireTask *task = method ? calloc(1, sizeof(*task)) : NULL;
	if (!task) {
		buffer_done(message);
		int r = wire_session_reply(connection->session, stream, &none, true,
					   method ? WIRE_RESOURCE_EXHAUSTED : WIRE_UNIMPLEMENTED,
					   method ? "out of memory" : "there is no such method");
		connection->dead = connection->dead || r < 0;
		return;
	}
	task->server = server;
	task->method = method;
	task->message = *message;
	task->call.message = message->data;
	task->call.size = message->size;
	task->stream = stream;
	task->connection = connection;
	HASH_ADD(hh, connection->tasks, stream, sizeof(task->stream), task);
	wire_task_start(task);
}

static WireTask *find_task(const WireConnection *connection, int32_t stream)
{
	WireTask *task;
	HASH_FIND(hh, connection->tasks, &stream, sizeof(stream), task);
	return task;
}

static void on_drained(void *arg, int32_t stream)
{
	WireTask *task = find_task(arg, stream);
	if (task && !task->running)
		wire_task_start(task);
}

static void on_closed(void *arg, int32_t stream)
{
	WireConnection *connection = arg;
	WireTask *task = find_task(connection, stream);
	if (!task)
		return;
	HASH_DELETE(hh, connection->tasks, task);
	task->connection = NULL;
	if (task->running)
		atomic_store(&task->call.cancelled, true);
	else
		(void)wire_task_free(task);
}

WireTask *wire_task_free(WireTask *task)
{
	if (!task)
		return NULL;
	buffer_done(&task->message);
	buffer_done(&task->call.reply);
	free(task);
	return NULL;
}

int wire_connection_new(WireServer *server, int fd, WireConnection **ret_connection)
{
	static const WireSessionEvents events = { on_request, on_drained, on_closed };
	WireConnection *connection = calloc(1, sizeof(*connection));
	if (!connection) {
		(void)close(fd);
		return -ENOMEM;
	}
	connection->server = server;
	connection->fd = fd;
	DL_APPEND(server->connections, connection);
	int r = wire_session_new(&events, connection, &connection->session);
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = connection };
	if (r == 0 && epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		r = -errno;
	if (r < 0) {
		(void)wire_connection_free(connection);
		return r;
	}
	*ret_connection = connection;
	return 0;
}

WireConnection *wire_connection_free(WireConnection *connection)
{
	if (!connection)
		return NULL;
	(void)wire_session_free(connection->session); /* closes its calls */
	DL_DELETE(connection->server->connections, connection);
	(void)close(connection->fd); /* which takes it out of the epoll set */
	buffer_done(&connection->output);
	free(connection);
	return NULL;
}

/* Fills the output with frames, as long as it is small. Returns false when there is nothing to write. */
static bool gather(WireConnection *connection)
{
	Buffer *output = &connection->output;
	if (connection->written == output->size)
		connection->written = output->size = 0;
	while (output->size < GATHER_SIZE) {
		const uint8_t *data;
		ssize_t size = wire_session_send(connection->session, &data);
		if (size < 0 || (size > 0 && buffer_append(output, data, (size_t)size) < 0))
			connection->dead = true;
		if (size <= 0 || connection->dead)
			break;
	}
	return connection->written < output->size && !connection->dead;
}

static void want_write(WireConnection *connection, bool wants)
{
	if (connection->wants_write == wants)
		return;
	/* It is read from all the same: a peer that waits for us to read might otherwise never read itself. */
	struct epoll_event event = { .events = EPOLLIN | (wants ? EPOLLOUT : 0), .data.ptr = connection };
	if (epoll_ctl(connection->server->epoll_fd, EPOLL_CTL_MOD, connection->fd, &event) < 0)
		connection->dead = true;
	connection->wants_write = wants;
}

void wire_connection_write(WireConnection *connection)
{
	while (!connection->dead && gather(connection)) {
		const Buffer *output = &connection->output;
		ssize_t size = send(connection->fd, output->data + connection->written,
				    output->size - connection->written, MSG_NOSIGNAL);
		if (size < 0 && errno == EINTR)
			continue;
		if (size < 0 && errno == EAGAIN) {
			want_write(connection, true);
			return;
		}
		if (size < 0)
			connection->dead = true;
		else
			connection->written += (size_t)size;
	}
	if (connection->dead)
		return;
	want_write(connection, false);
	/* Closed with unread input, the peer would get an error instead of what was written last. */
	if (!connection->lingers && (connection->failed || wire_session_ended(connection->session))) {
		(void)shutdown(connection->fd, SHUT_WR);
		connection->lingers = true;
	}
}

void wire_connection_read(WireConnection *connection)
{
	static _Thread_local uint8_t data[READ_SIZE];
	ssize_t size = recv(connection->fd, data, sizeof(data), 0);
	if (size < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (size <= 0) {
		connection->dead = true;
		return;
	}
	if (connection->lingers)
		return;
	int r = wire_session_receive(connection->session, data, (size_t)size);
	connection->failed = r < 0;
	if (r == -ENOMEM)
		connection->dead = true;
	wire_connection_write(connection);
}
