/*
 * Images of the docker engine, over its API (Docker Engine API, "Export an image"). The response is a docker archive; a
 * thread of its own downloads it into a socket pair, whose buffer bounds what is in flight, and the archive is read from the other end.
 */
#include <curl/curl.h>
#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fs/base/cleanup.h"
#include "tools/image/image-docker.h"

#define DEFAULT_SOCKET  "/var/run/docker.sock"
#define OLDEST_API      "1.24" /* an engine that does not tell its version is asked in this one */
#define API_SIZE        16
#define MESSAGE_MAX     4096
#define CONNECT_TIMEOUT 10L /* seconds */
#define REFERENCE_MAX   400

typedef struct DockerDaemon {
	ImageSource source;
	char *socket;
	char *reference;
} DockerDaemon;

/* One download. The thread owns all of it but `cancelled` from its start until it is joined. */
typedef struct Download {
	const DockerDaemon *daemon;
	char api[API_SIZE];
	CURL *curl;
	int fd; /* where the archive goes; -1: nowhere */
	atomic_bool cancelled;
	char message[MESSAGE_MAX]; /* of a response that is no archive */
	size_t message_size;
	int result;
	Error error;
} Download;

static int send_all(int fd, const char *data, size_t size)
{
	while (size > 0) {
		ssize_t count = send(fd, data, size, MSG_NOSIGNAL);
		if (count < 0 && errno == EINTR)
			continue;
		if (count < 0)
			return -errno;
		data += count;
		size -= (size_t)count;
	}
	return 0;
}

/* libcurl's write callback: fewer bytes than given end the transfer. */
static size_t on_body(char *data, size_t unit, size_t count, void *arg)
{
	Download *download = arg;
	size_t size = unit * count;
	long status = 0;
	(void)curl_easy_getinfo(download->curl, CURLINFO_RESPONSE_CODE, &status);
	if (status == 200)
		return download->fd < 0 || send_all(download->fd, data, size) == 0 ? size : 0;
	size_t room = sizeof(download->message) - 1 - download->message_size;
	memcpy(download->message + download->message_size, data, size < room ? size : room);
	download->message_size += size < room ? size : room;
	return size;
}

/* The engine tells the newest version of its API that it speaks; newer engines refuse old ones. */
static size_t on_header(char *line, size_t unit, size_t count, void *arg)
{
	static const char name[] = "Api-Version:";
	Download *download = arg;
	size_t size = unit * count, used = sizeof(name) - 1;
	if (size <= used || strncasecmp(line, name, used) != 0)
		return size;
	while (used < size && line[used] == ' ')
		used++;
	size_t length = 0;
	while (used + length < size && strchr("0123456789.", line[used + length]) && line[used + length])
		length++;
	if (length > 0 && length < sizeof(download->api)) {
		memcpy(download->api, line + used, length);
		download->api[length] = '\0';
	}
	return size;
}

/* Called about once a second also while nothing comes; anything but 0 ends the transfer. */
static int on_progress(void *arg, curl_off_t a _unused_, curl_off_t b _unused_, curl_off_t c _unused_,
		       curl_off_t d _unused_)
{
	const Download *download = arg;
	return atomic_load(&download->cancelled);
}

static int describe_curl(Download *download, CURLcode code)
{
	const char *socket = download->daemon->socket;
	if (code == CURLE_ABORTED_BY_CALLBACK || code == CURLE_WRITE_ERROR)
		return -ECANCELED;
	if (code == CURLE_COULDNT_CONNECT || code == CURLE_OPERATION_TIMEDOUT)
		return error_set(&download->error, -ECONNREFUSED,
				 "no docker engine answers at %s; start it, set DOCKER_HOST=unix://..., or export what "
				 "docker save wrote",
				 socket);
	return error_set(&download->error, -EIO, "the docker engine at %s broke off: %s", socket,
			 curl_easy_strerror(code));
}

static int describe_status(Download *download, long status)
{
	const DockerDaemon *daemon = download->daemon;
	if (status == 404)
		return error_set(&download->error, -ENOENT,
				 "the docker engine at %s has no image %s; `docker images` lists those it has",
				 daemon->socket, daemon->reference);
	json_t *answer = json_loadb(download->message, download->message_size, 0, NULL);
	const char *message = json_string_value(json_object_get(answer, "message"));
	int r = error_set(&download->error, -EIO, "the docker engine at %s would not hand out %s (status %ld): %.500s",
			  daemon->socket, daemon->reference, status, message ?: download->message);
	json_decref(answer);
	return r;
}

static int perform(Download *download, const char *url)
{
	CURL *curl = download->curl;
	long status = 0;
	download->message_size = 0;
	memset(download->message, 0, sizeof(download->message));
	CURLcode code = curl_easy_setopt(curl, CURLOPT_URL, url);
	if (code == CURLE_OK)
		code = curl_easy_perform(curl);
	if (code != CURLE_OK)
		return describe_curl(download, code);
	(void)curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
	return status == 200 ? 0 : describe_status(download, status);
}

static int prepare(Download *download)
{
	CURL *curl = curl_easy_init();
	if (!curl)
		return error_set(&download->error, -ENOMEM, "out of memory to ask the docker engine");
	download->curl = curl;
	/* No proxy: $http_proxy is for hosts, and this is a socket. */
	bool good = curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, download->daemon->socket) == CURLE_OK &&
		    curl_easy_setopt(curl, CURLOPT_PROXY, "") == CURLE_OK &&
		    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
		    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, CONNECT_TIMEOUT) == CURLE_OK &&
		    curl_easy_setopt(curl, CURLOPT_BUFFERSIZE, 256L << 10) == CURLE_OK &&
		    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body) == CURLE_OK &&
		    curl_easy_setopt(curl, CURLOPT_WRITEDATA, download) == CURLE_OK &&
		    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header) == CURLE_OK &&
		    curl_easy_setopt(curl, CURLOPT_HEADERDATA, download) == CURLE_OK &&
		    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L) == CURLE_OK &&
		    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress) == CURLE_OK &&
		    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, download) == CURLE_OK;
	return good ? 0 : error_set(&download->error, -EIO, "libcurl lacks Unix sockets");
}

/* First a ping, which tells the version to speak; its body goes nowhere. */
static int fetch(Download *download, int fd)
{
	char url[512];
	int r = prepare(download);
	if (r < 0)
		return r;
	download->fd = -1;
	(void)snprintf(download->api, sizeof(download->api), OLDEST_API);
	r = perform(download, "http://docker/_ping");
	if (r < 0)
		return r;
	(void)snprintf(url, sizeof(url), "http://docker/v%s/images/%s/get", download->api, download->daemon->reference);
	download->fd = fd;
	return perform(download, url);
}

static void *download_main(void *arg)
{
	Download *download = arg;
	int fd = download->fd;
	download->result = fetch(download, fd);
	curl_easy_cleanup(download->curl);
	(void)close(fd); /* the end of the archive, for whoever reads it */
	return NULL;
}

/* Reads the archive from `fd`, which is closed then. */
static int read_archive(const DockerDaemon *daemon, int fd, const ImageSink *sink, ImageContent *ret_content,
			Error *error)
{
	char name[512];
	_cleanup_(image_source_free_p) ImageSource *archive = NULL;
	(void)snprintf(name, sizeof(name), "of the docker engine at %.100s", daemon->socket);
	/* The engine was asked for one image; its archive names the reference in the engine's own form. */
	int r = image_docker_archive_stream(fd, name, NULL, &archive, error);
	return r < 0 ? r : image_source_transfer(archive, sink, ret_content, error);
}

static int daemon_transfer(ImageSource *source, const ImageSink *sink, ImageContent *ret_content, Error *error)
{
	const DockerDaemon *daemon = (const DockerDaemon *)source;
	Download download = { .daemon = daemon };
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return error_set(error, -errno, "cannot make a socket pair: %s", strerrordesc_np(errno));
	download.fd = pair[0];
	pthread_t thread;
	int r = -pthread_create(&thread, NULL, download_main, &download);
	if (r < 0) {
		(void)close(pair[0]);
		(void)close(pair[1]);
		return error_set(error, r, "cannot start a thread: %s", error_text(NULL, r));
	}
	r = read_archive(daemon, pair[1], sink, ret_content, error);
	/* Where the reader gave up, its end is closed, and the download ends at its next byte or tick. */
	atomic_store(&download.cancelled, true);
	(void)pthread_join(thread, NULL);
	/* An archive that ended early for a reason of the engine's is that reason's error, not the reader's. */
	if (r < 0 && download.result < 0 && download.result != -ECANCELED) {
		if (error)
			*error = download.error;
		return download.result;
	}
	return r;
}

static ImageSource *daemon_destroy(ImageSource *source)
{
	DockerDaemon *daemon = (DockerDaemon *)source;
	free(daemon->socket);
	free(daemon->reference);
	free(daemon);
	return NULL;
}

int image_docker_socket(const char *given, const char **ret_socket, Error *error)
{
	const char *host = getenv("DOCKER_HOST");
	if (given || !host || !host[0]) {
		*ret_socket = given ?: DEFAULT_SOCKET;
		return 0;
	}
	if (strncmp(host, "unix://", 7) != 0)
		return error_set(
			error, -EINVAL,
			"DOCKER_HOST is %s; only unix://... can be asked: export what docker save writes instead",
			host);
	*ret_socket = host + 7;
	return 0;
}

/*
 * The reference as the engine is to see it. For a name without a tag it would hand out every tag of that name; people mean
 * "latest". What may be the ID of an image stays as it is.
 */
static int complete_reference(const char *given, char **ret_reference, Error *error)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/:@";
	size_t length = strlen(given);
	if (length == 0 || length > REFERENCE_MAX || strspn(given, allowed) != length || strstr(given, ".."))
		return error_set(
			error, -EINVAL,
			"\"%s\" is no name of an image; write NAME[:TAG], docker-archive:FILE[:REF] or oci:DIR[:REF]",
			given);
	const char *slash = strrchr(given, '/');
	bool tagged = strchr(slash ?: given, ':') || strchr(given, '@');
	bool maybe_id = length >= 12 && strspn(given, "0123456789abcdef") == length;
	char *reference = NULL;
	if (asprintf(&reference, "%s%s", given, tagged || maybe_id ? "" : ":latest") < 0)
		return error_set(error, -ENOMEM, "out of memory for the name of an image");
	*ret_reference = reference;
	return 0;
}

int image_docker_daemon_open(const char *socket, const char *reference, ImageSource **ret_source, Error *error)
{
	const char *chosen = NULL;
	_cleanup_(image_source_free_p) ImageSource *source = NULL;
	int r = image_docker_socket(socket, &chosen, error);
	if (r < 0)
		return r;
	DockerDaemon *daemon = calloc(1, sizeof(*daemon));
	if (!daemon)
		return error_set(error, -ENOMEM, "out of memory to ask the docker engine");
	source = &daemon->source;
	daemon->source.transfer = daemon_transfer;
	daemon->source.destroy = daemon_destroy;
	daemon->socket = strdup(chosen);
	if (!daemon->socket)
		return error_set(error, -ENOMEM, "out of memory to ask the docker engine");
	r = complete_reference(reference, &daemon->reference, error);
	if (r < 0)
		return r;
	*ret_source = TAKE_PTR(source);
	return 0;
}
