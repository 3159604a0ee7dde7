#include "tests/fake/fake-server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#include "fs/base/digest.h"
#include "fs/base/fd.h"

#define REQUEST_MAX     4096
#define RANGES_MAX      64
#define CONNECTIONS_MAX 256

typedef struct Connection {
	FakeServer *server;
	pthread_t thread;
	int fd;
	bool used; /* the thread must be joined */
	bool over;
} Connection;

struct FakeServer {
	char *directory;
	char host[32];
	struct sockaddr_in address;

	pthread_mutex_t mutex; /* of all below */
	pthread_cond_t changed;
	int listener;
	pthread_t acceptor;
	bool killed;
	bool hold;
	FakeFault fault;
	unsigned fault_count; /* 0: without end */
	unsigned epoch;       /* changes whenever stalls end */
	unsigned under_way;
	bool parts;
	FakeCounts counts;
	Connection connections[CONNECTIONS_MAX];
};

typedef struct Request {
	char path[1024];
	bool head;
	bool ranged;
	uint64_t first, last;
	unsigned ranges;
	struct {
		uint64_t first, last;
	} range[RANGES_MAX];
	FakeFault fault;
	unsigned epoch;
} Request;

const char *fake_server_host(const FakeServer *server)
{
	return server->host;
}

static void lock(FakeServer *server)
{
	(void)pthread_mutex_lock(&server->mutex);
}

static void unlock(FakeServer *server)
{
	(void)pthread_mutex_unlock(&server->mutex);
}

static bool send_all(int fd, const void *data, size_t size)
{
	const uint8_t *from = data;
	while (size > 0) {
		ssize_t count = send(fd, from, size, MSG_NOSIGNAL);
		if (count < 0)
			return false;
		from += count;
		size -= (size_t)count;
	}
	return true;
}

static void set_reset(int fd)
{
	struct linger linger = { .l_onoff = 1 };
	(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}

/* Sleeps until faults change or the server dies; the connection is then reset. */
static bool stall(FakeServer *server, int fd, unsigned epoch)
{
	lock(server);
	while (server->epoch == epoch && !server->killed)
		(void)pthread_cond_wait(&server->changed, &server->mutex);
	unlock(server);
	set_reset(fd);
	return false;
}

static bool is_over(FakeServer *server, unsigned epoch)
{
	lock(server);
	bool over = server->killed || server->epoch != epoch;
	unlock(server);
	return over;
}

static bool trickle(FakeServer *server, int fd, const uint8_t *body, uint64_t size, unsigned epoch)
{
	for (uint64_t i = 0; i < size; i++) {
		struct timespec pause = { .tv_nsec = 100000000 };
		if (is_over(server, epoch) || !send_all(fd, body + i, 1))
			return false;
		(void)nanosleep(&pause, NULL);
	}
	return true;
}

static bool send_interim(FakeServer *server, int fd, unsigned epoch)
{
	char interim[512];
	(void)snprintf(interim, sizeof(interim), "HTTP/1.1 102 Processing\r\nX-Long: %0400d\r\n\r\n", 0);
	const struct timespec pause = { .tv_nsec = 50000000 };
	while (!is_over(server, epoch) && send_all(fd, interim, strlen(interim)))
		(void)nanosleep(&pause, NULL);
	return false;
}

static bool send_body(FakeServer *server, int fd, const Request *request, uint8_t *body, uint64_t size)
{
	static const uint8_t more[100000];
	switch ((int)request->fault) {
	case FAKE_STALL_BODY:
		return send_all(fd, body, size / 2) && stall(server, fd, request->epoch);
	case FAKE_RESET_BODY:
		set_reset(fd);
		return send_all(fd, body, size / 2) && false;
	case FAKE_TRUNCATE:
		return send_all(fd, body, size / 2) && false;
	case FAKE_CORRUPT:
		body[size / 2] ^= 0x10;
		return send_all(fd, body, size);
	case FAKE_TOO_LONG:
		return send_all(fd, body, size) && send_all(fd, more, sizeof(more)) && false;
	case FAKE_TRICKLE:
		return trickle(server, fd, body, size, request->epoch);
	default:
		return send_all(fd, body, size);
	}
}

static bool send_status(int fd, const char *status, const char *header, const char *value)
{
	char *text;
	int length = asprintf(&text, "HTTP/1.1 %s\r\nContent-Length: 0\r\n%s%s\r\n\r\n", status, header, value);
	if (length < 0)
		return false;
	bool sent = send_all(fd, text, (size_t)length);
	free(text);
	return sent;
}

static bool redirect(int fd, const FakeServer *server, const Request *request)
{
	char target[1200];
	if (request->fault == FAKE_REDIRECT_FILE)
		return send_status(fd, "307 Temporary Redirect", "Location: ", "file:///etc/passwd");
	(void)snprintf(target, sizeof(target), "http://%s%s%s", server->host,
		       request->fault == FAKE_REDIRECT ? "/moved" : "", request->path);
	return send_status(fd, "307 Temporary Redirect", "Location: ", target);
}

static bool want_token(FakeServer *server, int fd, const Request *request)
{
	char challenge[128];
	if (strncmp(request->path, "/token", 6) == 0)
		return stall(server, fd, request->epoch);
	(void)snprintf(challenge, sizeof(challenge), "Bearer realm=\"http://%s/token\"", server->host);
	return send_status(fd, "401 Unauthorized", "WWW-Authenticate: ", challenge);
}

/* Reads [first, last] of the file, all of it if there is no range. */
static uint8_t *read_body(const FakeServer *server, const Request *request, uint64_t *ret_size, uint64_t *ret_total)
{
	char path[2048];
	const char *name = strncmp(request->path, "/moved/", 7) == 0 ? request->path + 6 : request->path;
	(void)snprintf(path, sizeof(path), "%s%s", server->directory, name);
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat status;
	if (fd < 0 || fstat(fd, &status) < 0 || !S_ISREG(status.st_mode))
		return NULL;
	uint64_t total = (uint64_t)status.st_size, first = 0, size = total;
	if (request->ranged && request->fault != FAKE_WHOLE) {
		if (request->first > request->last || request->last >= total)
			return NULL;
		first = request->first;
		size = request->last - request->first + 1;
	}
	uint8_t *body = malloc(size + 1);
	if (body && fd_pread_all(fd, body, size, first) < 0) {
		free(body);
		return NULL;
	}
	*ret_size = size;
	*ret_total = total;
	return body;
}

static int format_headers(const Request *request, const uint8_t *body, uint64_t size, uint64_t total, char *text,
			  size_t room)
{
	bool partial = request->ranged && request->fault != FAKE_WHOLE;
	uint64_t shift = request->fault == FAKE_WRONG_RANGE ? 1 : 0;
	int used = snprintf(text, room, "HTTP/1.1 %s\r\n", partial ? "206 Partial Content" : "200 OK");
	if (partial && request->fault != FAKE_NO_RANGE)
		used += snprintf(text + used, room - (size_t)used, "Content-Range: bytes %llu-%llu/%llu\r\n",
				 (unsigned long long)(request->first + shift),
				 (unsigned long long)(request->last + shift), (unsigned long long)(total + shift));
	if (request->fault != FAKE_TOO_LONG)
		used += snprintf(text + used, room - (size_t)used, "Content-Length: %llu\r\n",
				 (unsigned long long)size);
	if (!partial && request->fault != FAKE_NO_DIGEST) {
		Digest digest = { 0 };
		char digest_string[DIGEST_TEXT_SIZE];
		if (request->fault != FAKE_WRONG_DIGEST && digest_of(body, size, &digest) < 0)
			return -1;
		used += snprintf(text + used, room - (size_t)used, "docker-content-digest: %s\r\n",
				 digest_text(&digest, digest_string));
	}
	return used + snprintf(text + used, room - (size_t)used, "\r\n");
}

#define BOUNDARY "0123456789-of-parts"

/* The same of several ranges, as one body. */
static uint8_t *read_parts(const FakeServer *server, const Request *request, uint64_t *ret_size)
{
	_cleanup_free_ uint8_t *body = NULL;
	uint64_t size = 0, shift = request->fault == FAKE_WRONG_RANGE ? 1 : 0;
	for (unsigned i = 0; i <= request->ranges; i++) {
		Request one = *request;
		uint64_t part_size = 0, total = 0;
		_cleanup_free_ uint8_t *part = NULL;
		char text[256] = "\r\n--" BOUNDARY "--\r\n";
		if (i < request->ranges) {
			one.first = request->range[i].first;
			one.last = request->range[i].last;
			part = read_body(server, &one, &part_size, &total);
			if (!part)
				return NULL;
			(void)snprintf(text, sizeof(text), "\r\n--" BOUNDARY "\r\n%s bytes %llu-%llu/%llu\r\n\r\n",
				       request->fault == FAKE_NO_RANGE ? "X-Range:" : "Content-Range:",
				       (unsigned long long)(one.first + shift), (unsigned long long)(one.last + shift),
				       (unsigned long long)(total + shift));
		}
		uint8_t *longer = realloc(body, size + strlen(text) + part_size);
		if (!longer)
			return NULL;
		body = longer;
		memcpy(body + size, text, strlen(text));
		size += strlen(text);
		if (part)
			memcpy(body + size, part, part_size);
		size += part_size;
	}
	*ret_size = size;
	return TAKE_PTR(body);
}

static int format_parts_headers(uint64_t size, char *text, size_t room)
{
	return snprintf(text, room,
			"HTTP/1.1 206 Partial Content\r\nContent-Type: multipart/byteranges; boundary=" BOUNDARY
			"\r\nContent-Length: %llu\r\n\r\n",
			(unsigned long long)size);
}

static bool gives_parts(FakeServer *server)
{
	lock(server);
	bool parts = server->parts;
	unlock(server);
	return parts;
}

/* Answers a request; false ends the connection. */
static bool answer(FakeServer *server, int fd, const Request *request)
{
	switch ((int)request->fault) {
	case FAKE_STALL_REQUEST:
		return stall(server, fd, request->epoch);
	case FAKE_INTERIM:
		return send_interim(server, fd, request->epoch);
	case FAKE_WANT_TOKEN:
		return want_token(server, fd, request);
	case FAKE_ERROR:
		return send_status(fd, "503 Service Unavailable", "Retry-After: 1", "");
	case FAKE_DENIED:
		return send_status(fd, "403 Forbidden", "X-Reason: none", "");
	case FAKE_CLOSE_PARTS:
		if (request->ranges > 1)
			return send_all(fd, "HTTP/1.1 206 Some\r\n", 19) && false;
		break;
	case FAKE_REDIRECT:
	case FAKE_REDIRECT_LOOP:
	case FAKE_REDIRECT_FILE:
		return redirect(fd, server, request);
	default:
		break;
	}
	uint64_t size = 0, total = 0;
	bool several = request->ranges > 1 && gives_parts(server) && request->fault != FAKE_WHOLE;
	_cleanup_free_ uint8_t *body = NULL;
	if (request->fault != FAKE_NOT_FOUND)
		body = several ? read_parts(server, request, &size) : read_body(server, request, &size, &total);
	if (!body)
		return send_status(fd, "404 Not Found", "X-Reason: none", "");
	char headers[1024];
	int length = several ? format_parts_headers(size, headers, sizeof(headers))
			     : format_headers(request, body, size, total, headers, sizeof(headers));
	if (request->fault == FAKE_STALL_HEADERS)
		return send_all(fd, headers, (size_t)length / 2) && stall(server, fd, request->epoch);
	if (!send_all(fd, headers, (size_t)length))
		return false;
	lock(server);
	server->counts.bytes += request->head ? 0 : size;
	unlock(server);
	return request->head || send_body(server, fd, request, body, size);
}

/* Waits for whole headers; bytes behind them are not expected, since nobody pipelines. */
static bool read_request(int fd, char *text, size_t room)
{
	size_t used = 0;
	while (used + 1 < room) {
		ssize_t count = recv(fd, text + used, room - 1 - used, 0);
		if (count <= 0)
			return false;
		used += (size_t)count;
		text[used] = '\0';
		if (strstr(text, "\r\n\r\n"))
			return true;
	}
	return false;
}

static bool parse_request(const char *text, Request *request)
{
	*request = (Request){ 0 };
	char method[8];
	if (sscanf(text, "%7s %1023s", method, request->path) != 2)
		return false;
	request->head = strcmp(method, "HEAD") == 0;
	const char *range = strcasestr(text, "\r\nRange: bytes=");
	unsigned long long first, last;
	int used = 0;
	range = range ? range + strlen("\r\nRange: bytes=") : "";
	while (request->ranges < RANGES_MAX && sscanf(range, "%llu-%llu%n", &first, &last, &used) == 2) {
		request->range[request->ranges].first = first;
		request->range[request->ranges++].last = last;
		range += used + (range[used] == ',');
	}
	request->ranged = request->ranges > 0;
	request->first = request->range[0].first;
	request->last = request->range[0].last;
	return request->head || strcmp(method, "GET") == 0;
}

/* Counts the request and gives it its fault; a redirect's target is served well. */
static void begin(FakeServer *server, Request *request, const char *text)
{
	lock(server);
	FakeCounts *counts = &server->counts;
	counts->requests++;
	counts->heads += request->head;
	counts->accept_encoding |= strcasestr(text, "\r\nAccept-Encoding:") != NULL;
	if (request->ranged) {
		counts->last_first = request->first;
		counts->last_last = request->last;
		counts->last_ranges = request->ranges;
	}
	if (++server->under_way > counts->at_once)
		counts->at_once = server->under_way;
	if (strncmp(request->path, "/moved/", 7) != 0) {
		request->fault = server->fault;
		if (server->fault_count > 0 && --server->fault_count == 0)
			server->fault = FAKE_NONE;
	}
	request->epoch = server->epoch;
	while (server->hold && !server->killed)
		(void)pthread_cond_wait(&server->changed, &server->mutex);
	unlock(server);
}

static void *serve_connection(void *arg)
{
	Connection *connection = arg;
	FakeServer *server = connection->server;
	char text[REQUEST_MAX];
	Request request;
	while (read_request(connection->fd, text, sizeof(text)) && parse_request(text, &request)) {
		begin(server, &request, text);
		bool go_on = answer(server, connection->fd, &request);
		lock(server);
		server->under_way--;
		go_on = go_on && !server->killed;
		unlock(server);
		if (!go_on)
			break;
	}
	lock(server);
	(void)close(connection->fd);
	connection->fd = -1;
	connection->over = true;
	unlock(server);
	return NULL;
}

static void adopt(FakeServer *server, int fd)
{
	int on = 1;
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	lock(server);
	server->counts.connections++;
	for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
		Connection *connection = &server->connections[i];
		if (connection->used && !connection->over)
			continue;
		if (connection->used)
			(void)pthread_join(connection->thread, NULL);
		*connection = (Connection){ .server = server, .fd = fd };
		connection->used = pthread_create(&connection->thread, NULL, serve_connection, connection) == 0;
		if (connection->used)
			fd = -1;
		break;
	}
	unlock(server);
	close_p(&fd);
}

static void *accept_connections(void *arg)
{
	FakeServer *server = arg;
	lock(server);
	int listener = server->listener;
	unlock(server);
	for (;;) {
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		lock(server);
		bool killed = server->killed;
		unlock(server);
		if (killed) {
			close_p(&fd);
			return NULL;
		}
		if (fd >= 0)
			adopt(server, fd);
	}
}

static int listen_on(FakeServer *server)
{
	_cleanup_close_ int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int on = 1;
	socklen_t length = sizeof(server->address);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
	    bind(fd, (struct sockaddr *)&server->address, sizeof(server->address)) < 0 || listen(fd, 64) < 0 ||
	    getsockname(fd, (struct sockaddr *)&server->address, &length) < 0)
		return -errno;
	server->listener = fd;
	server->killed = false;
	int r = pthread_create(&server->acceptor, NULL, accept_connections, server);
	if (r == 0)
		fd = -1;
	else
		server->killed = true;
	return -r;
}

int fake_server_new(const char *directory, FakeServer **ret_server)
{
	FakeServer *server = calloc(1, sizeof(*server));
	if (!server)
		return -ENOMEM;
	(void)pthread_mutex_init(&server->mutex, NULL);
	(void)pthread_cond_init(&server->changed, NULL);
	server->killed = true;
	server->directory = strdup(directory);
	server->address.sin_family = AF_INET;
	server->address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	int r = server->directory ? listen_on(server) : -ENOMEM;
	if (r < 0) {
		(void)fake_server_free(server);
		return r;
	}
	(void)snprintf(server->host, sizeof(server->host), "127.0.0.1:%u", ntohs(server->address.sin_port));
	*ret_server = server;
	return 0;
}

void fake_server_kill(FakeServer *server)
{
	lock(server);
	bool killed = server->killed;
	server->killed = true;
	(void)pthread_cond_broadcast(&server->changed);
	if (!killed)
		(void)shutdown(server->listener, SHUT_RDWR);
	for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
		Connection *connection = &server->connections[i];
		if (!connection->used || connection->fd < 0)
			continue;
		set_reset(connection->fd);
		(void)shutdown(connection->fd, SHUT_RDWR);
	}
	unlock(server);
	if (killed)
		return;
	(void)pthread_join(server->acceptor, NULL);
	(void)close(server->listener);
	for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
		if (server->connections[i].used)
			(void)pthread_join(server->connections[i].thread, NULL);
		server->connections[i].used = false;
	}
}

int fake_server_revive(FakeServer *server)
{
	return listen_on(server);
}

FakeServer *fake_server_free(FakeServer *server)
{
	if (!server)
		return NULL;
	fake_server_kill(server);
	(void)pthread_cond_destroy(&server->changed);
	(void)pthread_mutex_destroy(&server->mutex);
	free(server->directory);
	free(server);
	return NULL;
}

void fake_server_fault(FakeServer *server, FakeFault fault, unsigned count)
{
	lock(server);
	server->fault = fault;
	server->fault_count = count;
	server->epoch++;
	(void)pthread_cond_broadcast(&server->changed);
	unlock(server);
}

void fake_server_give_parts(FakeServer *server, bool parts)
{
	lock(server);
	server->parts = parts;
	unlock(server);
}

void fake_server_hold(FakeServer *server, bool hold)
{
	lock(server);
	server->hold = hold;
	(void)pthread_cond_broadcast(&server->changed);
	unlock(server);
}

void fake_server_counts(FakeServer *server, FakeCounts *ret_counts)
{
	lock(server);
	*ret_counts = server->counts;
	unlock(server);
}
