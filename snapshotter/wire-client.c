#include "snapshotter/wire-client.h"

#include <nghttp2/nghttp2.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>

#include "snapshotter/wire-header.h"

#define READ_SIZE       (16u << 10)
#define WINDOW          (4 << 20)
#define CONNECT_SECONDS 10

struct WireClient {
	int fd;
	char *name_space, *lease;
	nghttp2_session *session;

	/* The call under way. */
	int32_t stream;
	const Buffer *request;
	size_t sent;
	Buffer reply;
	bool closed, has_status;
	WireStatus status;
	char text[512];
};

static ssize_t on_data(nghttp2_session *session _unused_, int32_t id _unused_, uint8_t *buffer, size_t length,
		       uint32_t *flags, nghttp2_data_source *source _unused_, void *arg)
{
	WireClient *client = arg;
	size_t size = client->request->size - client->sent;
	if (size > length)
		size = length;
	memcpy(buffer, client->request->data + client->sent, size);
	client->sent += size;
	if (client->sent == client->request->size)
		*flags |= NGHTTP2_DATA_FLAG_EOF;
	return (ssize_t)size;
}

static int on_header(nghttp2_session *session _unused_, const nghttp2_frame *frame, const uint8_t *name,
		     size_t name_length, const uint8_t *value, size_t value_length, uint8_t flags _unused_, void *arg)
{
	WireClient *client = arg;
	char number[12] = "";
	if (frame->hd.stream_id != client->stream)
		return 0;
	if (name_length == 11 && memcmp(name, "grpc-status", 11) == 0 && value_length < sizeof(number)) {
		memcpy(number, value, value_length);
		client->status = (WireStatus)strtoul(number, NULL, 10);
		client->has_status = true;
	} else if (name_length == 12 && memcmp(name, "grpc-message", 12) == 0) {
		wire_text_decode((const char *)value, value_length, client->text, sizeof(client->text));
	}
	return 0;
}

static int on_chunk(nghttp2_session *session _unused_, uint8_t flags _unused_, int32_t id, const uint8_t *data,
		    size_t size, void *arg)
{
	WireClient *client = arg;
	if (id != client->stream)
		return 0;
	return buffer_append(&client->reply, data, size) < 0 ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static int on_close(nghttp2_session *session _unused_, int32_t id, uint32_t code _unused_, void *arg)
{
	WireClient *client = arg;
	client->closed = client->closed || id == client->stream;
	return 0;
}

static int open_session(WireClient *client)
{
	static const nghttp2_settings_entry settings[] = {
		{ NGHTTP2_SETTINGS_ENABLE_PUSH, 0 },
		{ NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WINDOW },
	};
	nghttp2_session_callbacks *callbacks;
	if (nghttp2_session_callbacks_new(&callbacks) != 0)
		return -ENOMEM;
	nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_chunk);
	nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
	int r = nghttp2_session_client_new(&client->session, callbacks, client);
	nghttp2_session_callbacks_del(callbacks);
	if (r == 0)
		r = nghttp2_submit_settings(client->session, NGHTTP2_FLAG_NONE, settings, ELEMENTS(settings));
	if (r == 0)
		r = nghttp2_session_set_local_window_size(client->session, NGHTTP2_FLAG_NONE, 0, WINDOW);
	return r == 0 ? 0 : -ENOMEM;
}

static int open_socket(const char *path, int *ret_fd)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	(void)stpcpy(address.sun_path, path);
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	/* While the backlog is full connect() waits, for as long as send() may. */
	const struct timeval patience = { .tv_sec = CONNECT_SECONDS };
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
		return errno == EAGAIN ? -ETIMEDOUT : -errno;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int wire_client_connect(const char *path, const char *name_space, WireClient **ret_client, Error *error)
{
	_cleanup_(wire_client_close_p) WireClient *client = calloc(1, sizeof(*client));
	if (!client)
		return error_set(error, -ENOMEM, "out of memory");
	client->fd = -1;
	int r = open_socket(path, &client->fd);
	if (r < 0)
		return error_set(error, r, "connecting to %s failed: %s", path, strerror(-r));
	if (name_space && !(client->name_space = strdup(name_space)))
		r = -ENOMEM;
	if (r == 0)
		r = open_session(client);
	if (r < 0)
		return error_set(error, r, "out of memory");
	*ret_client = TAKE_PTR(client);
	return 0;
}

WireClient *wire_client_close(WireClient *client)
{
	if (!client)
		return NULL;
	nghttp2_session_del(client->session);
	close_p(&client->fd);
	buffer_done(&client->reply);
	free(client->name_space);
	free(client->lease);
	free(client);
	return NULL;
}

int wire_client_set_lease(WireClient *client, const char *lease, Error *error)
{
	free(client->lease);
	client->lease = strdup(lease);
	return client->lease ? 0 : error_set(error, -ENOMEM, "out of memory");
}

uint8_t *wire_client_message(Buffer *request, size_t size)
{
	uint8_t *room = size <= WIRE_MESSAGE_MAX ? buffer_extend(request, WIRE_PREFIX_SIZE + size) : NULL;
	if (!room)
		return NULL;
	wire_prefix_write(room, size);
	return room + WIRE_PREFIX_SIZE;
}

bool wire_client_next(const Buffer *reply, size_t *offset, const uint8_t **ret_message, size_t *ret_size)
{
	bool compressed;
	uint32_t size;
	if (reply->size - *offset < WIRE_PREFIX_SIZE)
		return false;
	wire_prefix_read(reply->data + *offset, &compressed, &size);
	if (compressed || size > reply->size - *offset - WIRE_PREFIX_SIZE)
		return false;
	*ret_message = reply->data + *offset + WIRE_PREFIX_SIZE;
	*ret_size = size;
	*offset += WIRE_PREFIX_SIZE + size;
	return true;
}

static int submit(WireClient *client, const char *method)
{
	const nghttp2_data_provider provider = { .read_callback = on_data };
	size_t count = 6;
	nghttp2_nv fields[8] = {
		wire_header(":method", "POST"),
		wire_header(":scheme", "http"),
		wire_header(":path", method),
		wire_header(":authority", "localhost"),
		wire_header("content-type", "application/grpc"),
		wire_header("te", "trailers"),
	};
	if (client->name_space)
		fields[count++] = wire_header("containerd-namespace", client->name_space);
	if (client->lease)
		fields[count++] = wire_header("containerd-lease", client->lease);
	client->stream = nghttp2_submit_request(client->session, NULL, fields, count, &provider, NULL);
	return client->stream < 0 ? -ENOMEM : 0;
}

static int64_t now_millis(void)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Waits until the socket can be read, or written for `out`. */
static int wait_for(const WireClient *client, bool out, int64_t deadline)
{
	struct pollfd poll_fd = { .fd = client->fd, .events = (short)(POLLIN | (out ? POLLOUT : 0)) };
	int64_t left = deadline - now_millis();
	if (left <= 0)
		return -ETIMEDOUT;
	int r = poll(&poll_fd, 1, left > INT32_MAX ? INT32_MAX : (int)left);
	if (r < 0)
		return errno == EINTR ? 0 : -errno;
	return r == 0 ? -ETIMEDOUT : poll_fd.revents;
}

static int read_some(WireClient *client)
{
	uint8_t data[READ_SIZE];
	ssize_t size = recv(client->fd, data, sizeof(data), MSG_DONTWAIT);
	if (size < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	if (size == 0)
		return -ECONNRESET;
	return nghttp2_session_mem_recv(client->session, data, (size_t)size) < 0 ? -EPROTO : 0;
}

/* Sends all of it, and reads meanwhile: the server may wait for that before it reads itself. */
static int send_all(WireClient *client, const uint8_t *data, size_t size, int64_t deadline)
{
	while (size > 0) {
		ssize_t sent = send(client->fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		if (sent > 0) {
			data += sent;
			size -= (size_t)sent;
			continue;
		}
		int r = wait_for(client, true, deadline);
		if (r > 0 && r & POLLIN)
			r = read_some(client);
		if (r < 0)
			return r;
	}
	return 0;
}

static int exchange(WireClient *client, int64_t deadline)
{
	while (!client->closed) {
		const uint8_t *data;
		ssize_t size = nghttp2_session_mem_send(client->session, &data);
		int r = size < 0 ? -EPROTO : send_all(client, data, (size_t)size, deadline);
		if (r == 0 && size == 0) {
			r = wait_for(client, false, deadline);
			r = r < 0 ? r : read_some(client);
		}
		if (r < 0)
			return r;
	}
	return client->has_status ? 0 : -EPROTO;
}

int wire_client_call(WireClient *client, const char *method, const Buffer *request, unsigned timeout, Buffer *ret_reply,
		     Error *error)
{
	client->request = request;
	client->sent = 0;
	client->closed = client->has_status = false;
	client->text[0] = '\0';
	buffer_done(&client->reply);
	int r = submit(client, method);
	if (r == 0)
		r = exchange(client, now_millis() + timeout);
	if (r < 0)
		return error_set(error, r, "the call %s failed: %s", method, strerror(-r));
	if (client->status != WIRE_OK) {
		r = wire_status_errno(client->status);
		return error_set(error, r, "%s", client->text[0] ? client->text : strerror(-r));
	}
	*ret_reply = client->reply;
	client->reply = (Buffer){ 0 };
	return 0;
}
