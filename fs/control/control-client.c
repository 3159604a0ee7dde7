#include "fs/control/control-client.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "fs/base/deadline.h"
#include "fs/control/control-frame.h"
#include "fs/control/control-socket.h"

#define CONNECT_MILLIS 10000 /* to be taken, and to be greeted */

struct ControlClient {
	int fd;
	ControlReader reader;
	unsigned limit;           /* of a call, in milliseconds; 0: none */
	struct timespec deadline; /* of the call under way, where there is a limit */
	ControlGivenUp *given_up; /* NULL: nobody does */
	void *given_up_arg;
};

ControlClient *control_client_free(ControlClient *client)
{
	if (client) {
		close_p(&client->fd);
		control_reader_done(&client->reader);
		free(client);
	}
	return NULL;
}

void control_client_limit(ControlClient *client, unsigned milliseconds, ControlGivenUp *given_up, void *arg)
{
	client->limit = milliseconds;
	client->given_up = given_up;
	client->given_up_arg = arg;
}

/* Until the socket is ready for `event`. Without a limit the socket blocks by itself. */
static int await_socket(const ControlClient *client, short event)
{
	while (client->limit > 0) {
		struct pollfd waited = { .fd = client->fd, .events = event };
		if (client->given_up && client->given_up(client->given_up_arg))
			return -ECANCELED;
		if (deadline_is_over(&client->deadline))
			return -ETIMEDOUT;
		int r = poll(&waited, 1, CONTROL_LOOK_MILLIS);
		if (r > 0)
			return 0;
		if (r < 0 && errno != EINTR)
			return -errno;
	}
	return 0;
}

static int send_frame(ControlClient *client, const json_t *json)
{
	_cleanup_free_ uint8_t *bytes = NULL;
	size_t size;
	int flags = MSG_NOSIGNAL | (client->limit > 0 ? MSG_DONTWAIT : 0);
	int r = json ? control_frame_encode(json, &bytes, &size) : -ENOMEM;
	for (size_t sent = 0; r == 0 && sent < size;) {
		r = await_socket(client, POLLOUT);
		ssize_t count = r == 0 ? send(client->fd, bytes + sent, size - sent, flags) : 0;
		if (count >= 0)
			sent += (size_t)count;
		else if (errno != EINTR && (client->limit == 0 || errno != EAGAIN))
			r = errno == EPIPE ? -ECONNRESET : -errno;
	}
	return r;
}

static int receive_frame(ControlClient *client, json_t **ret_json, Error *error)
{
	int r;
	do
		r = await_socket(client, POLLIN) ?: control_reader_read(&client->reader, client->fd);
	while (r == 0 || (r == -EAGAIN && errno == EINTR));
	return r < 0 ? r : control_reader_take(&client->reader, ret_json, error);
}

/* The sentence of a frame that holds an error; 0 if it holds none. */
static int error_of(const json_t *frame, Error *error)
{
	const json_t *fault = json_object_get(frame, "error");
	if (!fault)
		return 0;
	const char *text = json_string_value(json_object_get(fault, "text"));
	int code = control_code_of(json_string_value(json_object_get(fault, "code")));
	return error_set(error, code, "%s", text ?: strerror(-code));
}

static int greet(ControlClient *client, Error *error)
{
	json_t *mine = control_hello(), *hello = NULL;
	client->deadline = deadline_in(client->limit);
	int r = send_frame(client, mine);
	json_decref(mine);
	/* Who is refused may have been hung up on, with the reason still to be read. */
	if (r == 0 || r == -ECONNRESET)
		r = receive_frame(client, &hello, error);
	if (r < 0)
		return error_set(error, r, "imgfsd does not greet: %s", strerror(-r));
	r = error_of(hello, error);
	if (r == 0)
		r = control_check_hello(hello, error);
	json_decref(hello);
	return r;
}

int control_connect_within(const char *socket, unsigned milliseconds, ControlGivenUp *given_up, void *arg,
			   ControlClient **ret_client, Error *error)
{
	_cleanup_(control_client_free_p) ControlClient *client = calloc(1, sizeof(*client));
	if (!client)
		return error_set(error, -ENOMEM, "out of memory");
	client->fd = -1;
	int r = control_socket_connect(socket, milliseconds, given_up, arg, &client->fd, error);
	control_client_limit(client, milliseconds, given_up, arg);
	if (r == 0)
		r = greet(client, error);
	if (r < 0)
		return r;
	control_client_limit(client, 0, NULL, NULL);
	*ret_client = TAKE_PTR(client);
	return 0;
}

int control_connect(const char *socket, ControlClient **ret_client, Error *error)
{
	return control_connect_within(socket, CONNECT_MILLIS, NULL, NULL, ret_client, error);
}

int control_wait_end(ControlClient *client, int timeout)
{
	struct pollfd waited = { .fd = client->fd, .events = POLLRDHUP };
	int r;
	do
		r = poll(&waited, 1, timeout);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : r == 0 ? -ETIMEDOUT : 0;
}

static int await(ControlClient *client, ControlProgress *progress, void *arg, json_t **ret_answer, Error *error)
{
	for (;;) {
		json_t *frame;
		int r = receive_frame(client, &frame, error);
		if (r == -ECONNRESET)
			return error_set(error, r,
					 "imgfsd ended before it answered; what it had begun may be half done");
		if (r == -ETIMEDOUT)
			return error_set(error, r, "imgfsd has not answered within %u seconds", client->limit / 1000);
		if (r < 0)
			return error_set(error, r, "the answer of imgfsd cannot be read: %s", strerror(-r));
		const json_t *step = json_object_get(frame, "progress");
		if (step && progress)
			progress(arg, step);
		json_t *answer = json_object_get(frame, "ok");
		r = error_of(frame, error);
		if (r == 0 && answer)
			*ret_answer = json_incref(answer);
		else if (r == 0 && !step)
			r = error_set(error, -EBADMSG, "the answer of imgfsd is none");
		json_decref(frame);
		if (r < 0 || answer)
			return r;
	}
}

int control_call(ControlClient *client, const json_t *request, ControlProgress *progress, void *arg,
		 json_t **ret_answer, Error *error)
{
	client->deadline = deadline_in(client->limit);
	int r = send_frame(client, request);
	if (r < 0 && r != -ECONNRESET)
		return error_set(error, r, "the request cannot be sent to imgfsd: %s", strerror(-r));
	return await(client, progress, arg, ret_answer, error);
}
