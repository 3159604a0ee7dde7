#include "snapshotter/wire-session.h"

#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <string.h>
#include <utlist.h>

#include "snapshotter/wire-header.h"

#define WINDOW          (1 << 20)  /* a stream's, and four times that the connection's */
#define RESETS          (1u << 30) /* a client may cancel as many calls as it likes: each costs it as much as us */
#define ACKS_MAX        100000
#define STATUS_TEXT_MAX 3072 /* encoded; a client's header limit is 16 KiB at least */
#define PATH_LENGTH_MAX 256

typedef struct Stream {
	struct Stream *prev, *next;
	int32_t id;
	char path[PATH_LENGTH_MAX];
	bool is_post, is_grpc;
	bool handed_over; /* request() was called */
	bool replied;     /* headers were submitted */
	Buffer request;   /* with the prefix */
	Buffer reply;
	size_t sent; /* of the reply */
	bool end;
	WireStatus status;
	char *text; /* encoded, or NULL */
} Stream;

struct WireSession {
	nghttp2_session *session;
	const WireSessionEvents *events;
	void *arg;
	Stream *streams;
	size_t stream_count;
	size_t buffered; /* bytes in all Stream.request */
};

static Stream *find_stream(const WireSession *session, int32_t id)
{
	return nghttp2_session_get_stream_user_data(session->session, id);
}

static void drop_request(WireSession *session, Stream *stream)
{
	session->buffered -= stream->request.size;
	buffer_done(&stream->request);
}

/* grpc-status and grpc-message. */
static size_t trailers(const Stream *stream, char number[static 12], nghttp2_nv ret_fields[static 2])
{
	(void)snprintf(number, 12, "%d", (int)stream->status);
	ret_fields[0] = wire_header("grpc-status", number);
	if (!stream->text)
		return 1;
	ret_fields[1] = wire_header("grpc-message", stream->text);
	return 2;
}

/* A reply with no message is one block of headers, which says all. */
static int submit_trailers_only(WireSession *session, Stream *stream)
{
	char number[12];
	nghttp2_nv fields[4] = { wire_header(":status", "200"), wire_header("content-type", "application/grpc") };
	size_t count = 2 + trailers(stream, number, fields + 2);
	stream->replied = true;
	return nghttp2_submit_response(session->session, stream->id, fields, count, NULL);
}

static ssize_t on_data(nghttp2_session *session, int32_t id, uint8_t *buffer, size_t length, uint32_t *flags,
		       nghttp2_data_source *source, void *arg)
{
	Stream *stream = source->ptr;
	const WireSession *owner = arg;
	size_t size = stream->reply.size - stream->sent;
	if (size > length)
		size = length;
	if (size > 0)
		memcpy(buffer, stream->reply.data + stream->sent, size);
	stream->sent += size;
	if (stream->sent < stream->reply.size)
		return (ssize_t)size;
	buffer_done(&stream->reply);
	stream->sent = 0;
	if (stream->end) {
		char number[12];
		nghttp2_nv fields[2];
		size_t count = trailers(stream, number, fields);
		*flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
		int r = nghttp2_submit_trailer(session, id, fields, count);
		return r == 0 ? (ssize_t)size : NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	}
	if (size > 0)
		return (ssize_t)size;
	owner->events->drained(owner->arg, id);
	return NGHTTP2_ERR_DEFERRED;
}

static int submit_headers(WireSession *session, Stream *stream)
{
	const nghttp2_nv fields[] = { wire_header(":status", "200"), wire_header("content-type", "application/grpc") };
	const nghttp2_data_provider provider = { .source.ptr = stream, .read_callback = on_data };
	stream->replied = true;
	return nghttp2_submit_response(session->session, stream->id, fields, ELEMENTS(fields), &provider);
}

int wire_session_reply(WireSession *session, int32_t id, Buffer *messages, bool end, WireStatus status,
		       const char *text)
{
	Stream *stream = find_stream(session, id);
	int r = 0;
	if (!stream || stream->end) {
		buffer_done(messages);
		return 0;
	}
	if (stream->reply.size == 0) {
		buffer_done(&stream->reply);
		stream->reply = *messages;
		*messages = (Buffer){ 0 };
	} else {
		r = buffer_append(&stream->reply, messages->data, messages->size);
		buffer_done(messages);
	}
	stream->end = end;
	stream->status = status;
	/* Without memory for the text the status goes alone. */
	if (text && (stream->text = malloc(STATUS_TEXT_MAX)))
		wire_text_encode(text, stream->text, STATUS_TEXT_MAX);
	if (r == 0 && !stream->replied)
		r = end && stream->reply.size == 0 ? submit_trailers_only(session, stream)
						   : submit_headers(session, stream);
	else if (r == 0)
		r = nghttp2_session_resume_data(session->session, id);
	/* There is nothing to resume where it was not deferred, and so will be asked anyway. */
	if (r == 0 || r == NGHTTP2_ERR_INVALID_ARGUMENT)
		return 0;
	(void)nghttp2_submit_rst_stream(session->session, NGHTTP2_FLAG_NONE, id, NGHTTP2_INTERNAL_ERROR);
	return -ENOMEM;
}

/* Answers a request that no handler sees. What still comes of it is thrown away. */
static int refuse(WireSession *session, Stream *stream, WireStatus status, const char *text)
{
	Buffer none = { 0 };
	drop_request(session, stream);
	return wire_session_reply(session, stream->id, &none, true, status, text);
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
	WireSession *owner = arg;
	if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
		return 0;
	Stream *stream = calloc(1, sizeof(*stream));
	if (!stream)
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	stream->id = frame->hd.stream_id;
	if (nghttp2_session_set_stream_user_data(session, stream->id, stream) != 0) {
		free(stream);
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	}
	DL_APPEND(owner->streams, stream);
	owner->stream_count++;
	return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_length,
		     const uint8_t *value, size_t value_length, uint8_t flags _unused_, void *arg _unused_)
{
	static const char type[] = "application/grpc";
	Stream *stream = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
	if (!stream || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
		return 0;
	if (name_length == 5 && memcmp(name, ":path", 5) == 0) {
		if (value_length < sizeof(stream->path))
			memcpy(stream->path, value, value_length); /* zeroed before */
	} else if (name_length == 7 && memcmp(name, ":method", 7) == 0) {
		stream->is_post = value_length == 4 && memcmp(value, "POST", 4) == 0;
	} else if (name_length == 12 && memcmp(name, "content-type", 12) == 0) {
		stream->is_grpc = value_length >= sizeof(type) - 1 && memcmp(value, type, sizeof(type) - 1) == 0;
	}
	return 0;
}

/* PROTOCOL-HTTP2.md, "Requests": what is no gRPC gets 415. */
static int refuse_foreign(WireSession *session, Stream *stream)
{
	const nghttp2_nv fields[] = { wire_header(":status", "415") };
	stream->replied = true;
	stream->end = true;
	return nghttp2_submit_response(session->session, stream->id, fields, ELEMENTS(fields), NULL) == 0 ? 0 : -ENOMEM;
}

static int end_request(WireSession *session, Stream *stream)
{
	bool compressed;
	uint32_t size;
	if (stream->end)
		return 0;
	if (stream->request.size < WIRE_PREFIX_SIZE)
		return refuse(session, stream, WIRE_INTERNAL, "the request has no message");
	wire_prefix_read(stream->request.data, &compressed, &size);
	if (compressed)
		return refuse(session, stream, WIRE_UNIMPLEMENTED, "compressed messages are not understood");
	if (size != stream->request.size - WIRE_PREFIX_SIZE)
		return refuse(session, stream, WIRE_INTERNAL, "the request is not one whole message");
	Buffer message = stream->request;
	session->buffered -= message.size;
	stream->request = (Buffer){ 0 };
	message.size = size;
	memmove(message.data, message.data + WIRE_PREFIX_SIZE, size);
	stream->handed_over = true;
	session->events->request(session->arg, stream->id, stream->path, &message);
	return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
	WireSession *owner = arg;
	if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA)
		return 0;
	Stream *stream = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
	if (!stream)
		return 0;
	int r = 0;
	if (frame->hd.type == NGHTTP2_HEADERS && (!stream->is_post || !stream->is_grpc))
		r = stream->end ? 0 : refuse_foreign(owner, stream);
	if (r == 0 && frame->hd.flags & NGHTTP2_FLAG_END_STREAM)
		r = end_request(owner, stream);
	return r < 0 ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static int on_chunk(nghttp2_session *session, uint8_t flags _unused_, int32_t id, const uint8_t *data, size_t size,
		    void *arg)
{
	WireSession *owner = arg;
	Stream *stream = nghttp2_session_get_stream_user_data(session, id);
	int r = 0;
	if (!stream || stream->end)
		return 0;
	if (stream->request.size + size > WIRE_MESSAGE_MAX + WIRE_PREFIX_SIZE)
		r = refuse(owner, stream, WIRE_RESOURCE_EXHAUSTED, "a message of more than 16 MiB is not taken");
	else if (owner->buffered + size > WIRE_BUFFERED_MAX || buffer_append(&stream->request, data, size) < 0)
		r = refuse(owner, stream, WIRE_RESOURCE_EXHAUSTED, "too much of unfinished requests to be kept");
	else
		owner->buffered += size;
	return r < 0 ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static void end_stream(WireSession *session, Stream *stream)
{
	if (stream->handed_over)
		session->events->closed(session->arg, stream->id);
	DL_DELETE(session->streams, stream);
	session->stream_count--;
	drop_request(session, stream);
	buffer_done(&stream->reply);
	free(stream->text);
	free(stream);
}

static int on_close(nghttp2_session *session, int32_t id, uint32_t code _unused_, void *arg)
{
	Stream *stream = nghttp2_session_get_stream_user_data(session, id);
	if (stream) {
		(void)nghttp2_session_set_stream_user_data(session, id, NULL);
		end_stream(arg, stream);
	}
	return 0;
}

static int new_session(WireSession *owner)
{
	nghttp2_session_callbacks *callbacks;
	nghttp2_option *option;
	if (nghttp2_session_callbacks_new(&callbacks) != 0)
		return -ENOMEM;
	if (nghttp2_option_new(&option) != 0) {
		nghttp2_session_callbacks_del(callbacks);
		return -ENOMEM;
	}
	nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
	nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
	nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_chunk);
	nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
	nghttp2_option_set_stream_reset_rate_limit(option, RESETS, RESETS);
	nghttp2_option_set_max_outbound_ack(option, ACKS_MAX);
	nghttp2_option_set_no_closed_streams(option, 1);
	int r = nghttp2_session_server_new2(&owner->session, callbacks, owner, option);
	nghttp2_option_del(option);
	nghttp2_session_callbacks_del(callbacks);
	return r == 0 ? 0 : -ENOMEM;
}

static int submit_settings(WireSession *session)
{
	const nghttp2_settings_entry entries[] = {
		{ NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, WIRE_STREAMS_MAX },
		{ NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WINDOW },
	};
	if (nghttp2_submit_settings(session->session, NGHTTP2_FLAG_NONE, entries, ELEMENTS(entries)) != 0 ||
	    nghttp2_session_set_local_window_size(session->session, NGHTTP2_FLAG_NONE, 0, 4 * WINDOW) != 0)
		return -ENOMEM;
	return 0;
}

int wire_session_new(const WireSessionEvents *events, void *arg, WireSession **ret_session)
{
	_cleanup_(wire_session_free_p) WireSession *session = calloc(1, sizeof(*session));
	if (!session)
		return -ENOMEM;
	session->events = events;
	session->arg = arg;
	int r = new_session(session);
	if (r == 0)
		r = submit_settings(session);
	if (r < 0)
		return r;
	*ret_session = TAKE_PTR(session);
	return 0;
}

WireSession *wire_session_free(WireSession *session)
{
	if (!session)
		return NULL;
	nghttp2_session_del(session->session); /* which does not call on_close() */
	while (session->streams)
		end_stream(session, session->streams);
	free(session);
	return NULL;
}

static int error_of(int r)
{
	return r == NGHTTP2_ERR_NOMEM ? -ENOMEM : -EPROTO;
}

int wire_session_receive(WireSession *session, const uint8_t *data, size_t size)
{
	ssize_t taken = nghttp2_session_mem_recv(session->session, data, size);
	return taken < 0 ? error_of((int)taken) : 0;
}

ssize_t wire_session_send(WireSession *session, const uint8_t **ret_data)
{
	ssize_t size = nghttp2_session_mem_send(session->session, ret_data);
	return size < 0 ? error_of((int)size) : size;
}

bool wire_session_ended(WireSession *session)
{
	return !nghttp2_session_want_read(session->session) && !nghttp2_session_want_write(session->session);
}

size_t wire_session_streams(const WireSession *session)
{
	return session->stream_count;
}

void wire_session_goaway(WireSession *session)
{
	int32_t last = nghttp2_session_get_last_proc_stream_id(session->session);
	(void)nghttp2_submit_goaway(session->session, NGHTTP2_FLAG_NONE, last, NGHTTP2_NO_ERROR, NULL, 0);
}
