#include "tools/cmd/metrics-listen.h"

#include <microhttpd.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "tools/serve/serve-listen.h"

#define CONNECTIONS_MAX 16u
#define TIMEOUT_SECONDS 30u
#define BACKLOG         16
#define UNIX_PREFIX     "unix:"

/* Looking at all mounts takes a while; who asks at the same time waits. */
typedef struct Endpoint {
	MetricsMake *make;
	pthread_mutex_t turn;
} Endpoint;

static enum MHD_Result send_text(struct MHD_Connection *connection, unsigned status, char *text, size_t size)
{
	struct MHD_Response *response = MHD_create_response_from_buffer(size, text, MHD_RESPMEM_MUST_FREE);
	if (!response) {
		free(text);
		return MHD_NO;
	}
	(void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, "text/plain; version=0.0.4");
	enum MHD_Result result = MHD_queue_response(connection, status, response);
	MHD_destroy_response(response);
	return result;
}

static enum MHD_Result send_nothing(struct MHD_Connection *connection, unsigned status)
{
	return send_text(connection, status, strdup(""), 0);
}

static enum MHD_Result handle(void *arg, struct MHD_Connection *connection, const char *path, const char *method,
			      const char *version _unused_, const char *data _unused_, size_t *data_size _unused_,
			      void **context _unused_)
{
	Endpoint *endpoint = arg;
	char *text;
	size_t size;
	if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
		return send_nothing(connection, MHD_HTTP_METHOD_NOT_ALLOWED);
	if (strcmp(path, "/metrics") != 0)
		return send_nothing(connection, MHD_HTTP_NOT_FOUND);
	(void)pthread_mutex_lock(&endpoint->turn);
	int r = endpoint->make(&text, &size);
	(void)pthread_mutex_unlock(&endpoint->turn);
	return r < 0 ? send_nothing(connection, MHD_HTTP_INTERNAL_SERVER_ERROR)
		     : send_text(connection, MHD_HTTP_OK, text, size);
}

/* A socket that nobody listens on any more is taken away; anything else at the path stays. */
static int listen_unix(const char *path, int *ret_fd, Error *error)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct stat status;
	if (!path[0] || strlen(path) >= sizeof(address.sun_path))
		return error_set(error, -EINVAL, "\"%s\" is %s for a socket; write unix:PATH", path,
				 path[0] ? "too long" : "no path");
	memcpy(address.sun_path, path, strlen(path) + 1);
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && lstat(path, &status) == 0 && S_ISSOCK(status.st_mode) &&
	    connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 && errno == ECONNREFUSED)
		(void)unlink(path);
	if (fd < 0 || bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, BACKLOG) < 0)
		return error_set(error, -errno, "cannot listen on %s: %s", path, strerror(errno));
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static int listen_on(const char *where, int *ret_fd, Error *error)
{
	ServeAddress address, actual;
	char text[SERVE_ADDRESS_TEXT];
	if (strncmp(where, UNIX_PREFIX, strlen(UNIX_PREFIX)) == 0) {
		int r = listen_unix(where + strlen(UNIX_PREFIX), ret_fd, error);
		if (r == 0)
			printf("listening on %s\n", where);
		return r;
	}
	int r = serve_address_parse(where, &address, error);
	if (r < 0)
		return r;
	if (!serve_address_is_loopback(&address))
		return error_set(
			error, -EINVAL,
			"%s can be reached by other machines, which may not see what is mounted here; listen on "
			"127.0.0.1 or a Unix socket, or let node_exporter's textfile collector have them",
			where);
	r = serve_listen(&address, ret_fd, &actual, error);
	if (r == 0)
		printf("listening on http://%s\n", serve_address_text((const struct sockaddr *)&actual.storage, text));
	return r;
}

static int serve(int fd, MetricsMake *make, const sigset_t *signals, Error *error)
{
	Endpoint endpoint = { .make = make };
	int number;
	(void)pthread_mutex_init(&endpoint.turn, NULL);
	struct MHD_Daemon *daemon = MHD_start_daemon(
		MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION | MHD_USE_POLL | MHD_USE_ITC, 0, NULL,
		NULL, handle, &endpoint, MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS_MAX,
		MHD_OPTION_CONNECTION_TIMEOUT, TIMEOUT_SECONDS, MHD_OPTION_END);
	if (!daemon)
		return error_set(error, -EIO, "the HTTP server did not start");
	/* Scripts wait for the line that was printed. */
	(void)fflush(stdout);
	(void)sigwait(signals, &number);
	MHD_stop_daemon(daemon);
	(void)pthread_mutex_destroy(&endpoint.turn);
	return 0;
}

int metrics_listen(const char *where, MetricsMake *make, Error *error)
{
	sigset_t signals;
	int fd = -1;
	(void)sigemptyset(&signals);
	(void)sigaddset(&signals, SIGTERM);
	(void)sigaddset(&signals, SIGINT);
	(void)pthread_sigmask(SIG_BLOCK, &signals, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
	int r = listen_on(where, &fd, error);
	if (r == 0)
		r = serve(fd, make, &signals, error);
	if (r == 0 && strncmp(where, UNIX_PREFIX, strlen(UNIX_PREFIX)) == 0)
		(void)unlink(where + strlen(UNIX_PREFIX));
	return r;
}
