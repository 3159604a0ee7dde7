#include "fs/control/control-server.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#include "fs/control/control-frame.h"
#include "fs/control/control-socket.h"

#define HELLO_SECONDS 10 /* within which a client says which version it speaks */
#define STALL_SECONDS 60 /* within which a client reads something of what it is sent */
#define TICK_MS       1000
#define DEAF_SECONDS  1 /* without new clients, where there are no descriptors for them */
#define STACK_SIZE    ((size_t)1 << 20)

/* A frame on its way out. */
typedef struct Outgoing {
	uint8_t *bytes;
	size_t size, sent;
} Outgoing;

typedef struct Client Client;

struct ControlCall {
	ControlServer *server;
	Client *client; /* NULL once it has hung up; under the server's mutex */
	ControlRequest request;
};

/* Owned by the loop's thread; what calls write is under the server's mutex. */
struct Client {
	int fd;
	ControlReader reader;
	bool greeted;
	bool leaving; /* to be closed once all is sent */
	time_t since; /* of the last byte that came or went */

	Outgoing now, next; /* next: an answer that came while progress was under way */
	ControlCall *call;  /* that runs, or NULL */
};

struct ControlServer {
	ControlServerOptions options;
	int listen_fd;
	int wake_fd;
	Client *clients[CONTROL_CLIENTS];
	size_t count;
	time_t deaf_until;  /* no client is accepted before: descriptors had run out; 0: one is */
	struct pollfd *fds; /* scratch of a turn */
	size_t room;

	pthread_mutex_t mutex;
	pthread_cond_t idle;
	unsigned calls;
};

static time_t now(void)
{
	struct timespec time;
	(void)clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec;
}

static void lock(ControlServer *server)
{
	(void)pthread_mutex_lock(&server->mutex);
}

static void unlock(ControlServer *server)
{
	(void)pthread_mutex_unlock(&server->mutex);
}

static void wake(const ControlServer *server)
{
	ssize_t written = write(server->wake_fd, &(uint64_t){ 1 }, sizeof(uint64_t));
	(void)written; /* it is full of wakes then */
}

static void outgoing_done(Outgoing *outgoing)
{
	free(outgoing->bytes);
	*outgoing = (Outgoing){ 0 };
}

/* Puts a frame into the queue, which takes `json` over. Under the mutex, or where no call runs. */
static int enqueue(Client *client, json_t *json)
{
	Outgoing *to = client->now.bytes ? &client->next : &client->now;
	if (!json)
		return -ENOMEM;
	int r = to->bytes ? -EBUSY : control_frame_encode(json, &to->bytes, &to->size);
	json_decref(json);
	return r;
}

static json_t *error_answer(int code, const Error *error)
{
	/* A sentence may quote what is no UTF-8. */
	json_t *text = json_string(error_text(error, code)) ?: json_string(strerror(-code));
	return json_pack("{s:{s:s, s:o}}", "error", "code", control_code_name(code), "text", text);
}

static json_t *answer_of(int r, json_t *answer, const Error *error)
{
	if (r < 0)
		return error_answer(r, error);
	return json_pack("{s:o}", "ok", answer ?: json_object());
}

/* An answer that cannot be sent ends the connection, so that nobody waits for it for ever. */
static void send_answer(Client *client, json_t *json)
{
	int r = enqueue(client, json);
	if (r == -EMSGSIZE)
		r = enqueue(client, error_answer(r, NULL));
	if (r < 0)
		client->leaving = true;
}

static void client_free(Client *client)
{
	if (client->fd >= 0)
		(void)close(client->fd);
	control_reader_done(&client->reader);
	outgoing_done(&client->now);
	outgoing_done(&client->next);
	free(client);
}

/* A call that runs for it goes on, and finds nobody to answer. */
static void drop_client(ControlServer *server, size_t number)
{
	Client *client = server->clients[number];
	lock(server);
	if (client->call)
		client->call->client = NULL;
	unlock(server);
	client_free(client);
	server->clients[number] = server->clients[--server->count];
}

static bool is_busy(ControlServer *server, const Client *client)
{
	lock(server);
	bool busy = client->call != NULL;
	unlock(server);
	return busy;
}

/* The client that has been silent for the longest time; `count` where a call of each runs. */
static size_t find_idlest(ControlServer *server)
{
	size_t idlest = server->count;
	for (size_t i = 0; i < server->count; i++)
		if (!is_busy(server, server->clients[i]) &&
		    (idlest == server->count || server->clients[i]->since < server->clients[idlest]->since))
			idlest = i;
	return idlest;
}

/* Makes room for a new client at the cost of that one. */
static bool drop_idlest(ControlServer *server)
{
	size_t idlest = find_idlest(server);
	if (idlest == server->count)
		return false;
	drop_client(server, idlest);
	return true;
}

/* Can somebody be let in? Otherwise who comes waits in the socket's queue, for the end of a call. */
static bool is_open(ControlServer *server)
{
	if (now() > server->deaf_until)
		server->deaf_until = 0;
	return !server->deaf_until && (server->count < CONTROL_CLIENTS || find_idlest(server) < server->count);
}

static bool is_welcome(const ControlServer *server, int fd)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);
	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == server->options.user;
}

/* Who cannot be accepted for want of descriptors or memory still waits: asking again and again would not bring them about. */
static void accept_failed(ControlServer *server, int code)
{
	if (error_is_shortage(-code))
		server->deaf_until = now() + DEAF_SECONDS;
}

static void accept_client(ControlServer *server)
{
	_cleanup_close_ int fd = accept4(server->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0)
		accept_failed(server, errno);
	if (fd < 0 || (server->count == CONTROL_CLIENTS && !drop_idlest(server)))
		return;
	Client *client = calloc(1, sizeof(*client));
	if (!client)
		return;
	client->since = now();
	Error error = { 0 };
	if (is_welcome(server, fd)) {
		send_answer(client, control_hello());
	} else {
		int r = error_set(&error, -EPERM, "only root may use the control socket of imgfsd");
		send_answer(client, error_answer(r, &error));
		client->leaving = true;
	}
	client->fd = TAKE_FD(fd);
	server->clients[server->count++] = client;
}

/* The end of a call, whose answer it takes over. */
static void finish(ControlCall *call, json_t *answer)
{
	ControlServer *server = call->server;
	control_request_done(&call->request);
	lock(server);
	if (call->client) {
		call->client->call = NULL;
		call->client->since = now();
		send_answer(call->client, answer);
	} else {
		json_decref(answer);
	}
	free(call);
	/* What follows is still the server's: control_server_free() waits for the mutex. */
	if (--server->calls == 0)
		(void)pthread_cond_broadcast(&server->idle);
	wake(server);
	unlock(server);
}

static void *run_call(void *arg)
{
	ControlCall *call = arg;
	Error error = { 0 };
	json_t *answer = NULL;
	int r = call->server->options.handle(call->server->options.arg, call, &call->request, &answer, &error);
	finish(call, answer_of(r, answer, &error));
	return NULL;
}

static int start_thread(ControlCall *call)
{
	pthread_attr_t attributes;
	pthread_t thread;
	(void)pthread_attr_init(&attributes);
	(void)pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	(void)pthread_attr_setstacksize(&attributes, STACK_SIZE);
	int r = -pthread_create(&thread, &attributes, run_call, call);
	(void)pthread_attr_destroy(&attributes);
	return r;
}

static void start_call(ControlServer *server, Client *client, ControlRequest *request)
{
	bool quick = server->options.quick & 1u << request->verb;
	ControlCall *call = calloc(1, sizeof(*call));
	if (!call) {
		control_request_done(request);
		send_answer(client, error_answer(-ENOMEM, NULL));
		return;
	}
	*call = (ControlCall){ .server = server, .client = client, .request = *request };
	lock(server);
	client->call = call;
	server->calls++;
	unlock(server);
	if (quick) {
		(void)run_call(call);
		return;
	}
	int r = start_thread(call);
	if (r < 0)
		finish(call, error_answer(r, NULL));
}

/* A frame is whole: the greeting or a request. */
static void take_frame(ControlServer *server, Client *client)
{
	Error error = { 0 };
	json_t *json = NULL;
	ControlRequest request;
	int r = control_reader_take(&client->reader, &json, &error);
	if (r == 0 && !client->greeted) {
		r = control_check_hello(json, &error);
		json_decref(json);
		client->greeted = r == 0;
		client->leaving = r < 0;
	} else if (r == 0) {
		r = control_request_parse(json, &request, &error);
		if (r == 0) {
			start_call(server, client, &request);
			return;
		}
	}
	if (r < 0)
		send_answer(client, error_answer(r, &error));
}

/* False: the client is to be dropped. */
static bool read_client(ControlServer *server, Client *client)
{
	int r = control_reader_read(&client->reader, client->fd);
	if (r == -EAGAIN)
		return true;
	client->since = now();
	if (r == -EMSGSIZE) {
		/* Where the next frame begins is not known any more. */
		Error error = { 0 };
		(void)error_set(&error, r, "a frame is 1 byte to %u bytes long", CONTROL_FRAME_MAX);
		send_answer(client, error_answer(r, &error));
		client->leaving = true;
		return true;
	}
	if (r > 0)
		take_frame(server, client);
	return r >= 0;
}

/* Sends what can be sent. False: the client is to be dropped. */
static bool write_client(ControlServer *server, Client *client)
{
	bool lives = true;
	lock(server);
	while (lives && client->now.bytes) {
		Outgoing *out = &client->now;
		ssize_t count = send(client->fd, out->bytes + out->sent, out->size - out->sent, MSG_NOSIGNAL);
		if (count < 0) {
			lives = errno == EAGAIN || errno == EINTR;
			break;
		}
		client->since = now();
		out->sent += (size_t)count;
		if (out->sent < out->size)
			continue;
		outgoing_done(out);
		client->now = client->next;
		client->next = (Outgoing){ 0 };
	}
	lives = lives && !(client->leaving && !client->now.bytes);
	unlock(server);
	return lives;
}

/* One request at a time: the next is read when the answer to the last one has gone. */
static short events_of(ControlServer *server, const Client *client)
{
	lock(server);
	bool silent = client->call || client->leaving;
	short events = (short)(client->now.bytes ? POLLOUT : silent ? 0 : POLLIN);
	unlock(server);
	return events;
}

static bool is_late(const Client *client, time_t time)
{
	if (client->now.bytes)
		return time - client->since > STALL_SECONDS;
	return !client->greeted && time - client->since > HELLO_SECONDS;
}

static bool serve_client(ControlServer *server, Client *client, short revents, time_t time)
{
	/* What a client sent before it hung up may still be read; a call is not stopped by it. */
	if (revents & POLLERR || (revents & POLLHUP && !(revents & POLLIN)))
		return false;
	if (revents & POLLIN && !read_client(server, client))
		return false;
	lock(server);
	bool late = is_late(client, time);
	unlock(server);
	return !late && write_client(server, client);
}

static int make_room(ControlServer *server, size_t wanted)
{
	if (wanted <= server->room)
		return 0;
	struct pollfd *fds = reallocarray(server->fds, wanted, sizeof(*fds));
	if (!fds)
		return -ENOMEM;
	server->fds = fds;
	server->room = wanted;
	return 0;
}

/* Some client waits for something that only the clock brings about. */
static bool needs_clock(ControlServer *server)
{
	bool needs = server->deaf_until != 0;
	lock(server);
	for (size_t i = 0; i < server->count; i++)
		needs |= !server->clients[i]->greeted || server->clients[i]->now.bytes;
	unlock(server);
	return needs;
}

int control_server_turn(ControlServer *server, struct pollfd *more, size_t count, int timeout)
{
	size_t clients = server->count, first = count + 2;
	int r = make_room(server, first + clients);
	if (r < 0)
		return r;
	struct pollfd *fds = server->fds;
	for (size_t i = 0; i < count; i++)
		fds[i] = more[i];
	fds[count] = (struct pollfd){ .fd = is_open(server) ? server->listen_fd : -1, .events = POLLIN };
	fds[count + 1] = (struct pollfd){ .fd = server->wake_fd, .events = POLLIN };
	for (size_t i = 0; i < clients; i++)
		fds[first + i] = (struct pollfd){ .fd = server->clients[i]->fd,
						  .events = events_of(server, server->clients[i]) };
	if (needs_clock(server) && (timeout < 0 || timeout > TICK_MS))
		timeout = TICK_MS;
	r = poll(fds, first + clients, timeout);
	for (size_t i = 0; i < count; i++)
		more[i].revents = (short)(r > 0 ? fds[i].revents : 0);
	if (r < 0)
		return errno == EINTR ? 0 : -errno;
	if (fds[count + 1].revents & POLLIN) {
		uint64_t wakes;
		ssize_t size = read(server->wake_fd, &wakes, sizeof(wakes));
		(void)size;
	}
	/* From the last one on: who is dropped is replaced by the last. */
	time_t time = now();
	for (size_t i = clients; i-- > 0;)
		if (!serve_client(server, server->clients[i], fds[first + i].revents, time))
			drop_client(server, i);
	if (fds[count].revents & POLLIN)
		accept_client(server);
	return 0;
}

unsigned control_server_calls(ControlServer *server)
{
	lock(server);
	unsigned calls = server->calls;
	unlock(server);
	return calls;
}

bool control_server_is_quiet(ControlServer *server)
{
	lock(server);
	bool quiet = server->calls == 0;
	for (size_t i = 0; i < server->count; i++)
		quiet = quiet && !server->clients[i]->now.bytes;
	unlock(server);
	return quiet;
}

void control_call_progress(ControlCall *call, json_t *progress)
{
	ControlServer *server = call->server;
	json_t *frame = progress ? json_pack("{s:o}", "progress", progress) : NULL;
	lock(server);
	bool wanted = call->client && !call->client->now.bytes;
	if (frame && wanted) {
		(void)enqueue(call->client, json_incref(frame));
		wake(server);
	}
	unlock(server);
	json_decref(frame);
}

bool control_call_gone(ControlCall *call)
{
	lock(call->server);
	bool gone = !call->client;
	unlock(call->server);
	return gone;
}

int control_server_new(const ControlServerOptions *options, ControlServer **ret_server, Error *error)
{
	_cleanup_(control_server_free_p) ControlServer *server = calloc(1, sizeof(*server));
	if (!server)
		return error_set(error, -ENOMEM, "out of memory");
	server->listen_fd = server->wake_fd = -1;
	(void)pthread_mutex_init(&server->mutex, NULL);
	(void)pthread_cond_init(&server->idle, NULL);
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (fd < 0)
		return error_set(error, -errno, "cannot make an event: %s", strerror(errno));
	server->wake_fd = fd;
	int r = control_socket_listen(options->path, &server->listen_fd, error);
	if (r < 0)
		return r;
	server->options = *options;
	*ret_server = TAKE_PTR(server);
	return 0;
}

ControlServer *control_server_free(ControlServer *server)
{
	if (!server)
		return NULL;
	while (server->count > 0)
		drop_client(server, 0);
	lock(server);
	while (server->calls > 0)
		(void)pthread_cond_wait(&server->idle, &server->mutex);
	unlock(server);
	if (server->listen_fd >= 0) {
		(void)close(server->listen_fd);
		(void)unlink(server->options.path);
	}
	close_p(&server->wake_fd);
	free(server->fds);
	(void)pthread_cond_destroy(&server->idle);
	(void)pthread_mutex_destroy(&server->mutex);
	free(server);
	return NULL;
}
