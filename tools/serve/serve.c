#include "tools/serve/serve.h"

#include <gnutls/abstract.h>
#include <string.h>

#include "tools/serve/serve-request.h"

/* Chunk tables are some 400 kB for a layer of 1 GB. */
#define TAR_STREAMS_MAX 128
#define TAR_MEMORY_MAX  (64u << 20)

#define CHUNKS       128u /* decoded, of 256 KiB */
#define DECODERS_MAX 16u

#define STACK_SIZE    (256u << 10)
#define IDLE_SECONDS  60u /* without a byte moved */
#define FIRST_REQUEST 20000u
#define NEXT_REQUEST  60000u

/* Escapes stay as they came: serve-route.c decodes them, and refuses what MHD would let through. */
static size_t keep_escapes(void *arg _unused_, struct MHD_Connection *connection _unused_, char *text)
{
	return strlen(text);
}

/* Called before a connection's thread begins, and again after its end, before its descriptor is closed. */
static void notify_connection(void *arg, struct MHD_Connection *connection, void **context,
			      enum MHD_ConnectionNotificationCode code)
{
	struct Server *server = arg;
	if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
		connections_remove(server->connections, *context);
		*context = NULL;
		return;
	}
	const union MHD_ConnectionInfo *socket = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	const union MHD_ConnectionInfo *tls =
		server->tls ? MHD_get_connection_info(connection, MHD_CONNECTION_INFO_GNUTLS_SESSION) : NULL;
	gnutls_session_t session = tls ? tls->tls_session : NULL;
	ServeTlsKeys *keys = session ? serve_tls_attach(server->tls, session) : NULL;
	*context = connections_add(server->connections, socket->connect_fd, session, keys);
}

/* MHD wants to know of some certificate, though each session is given its own by notify_connection(). */
static int no_certificate(gnutls_session_t session _unused_, const struct gnutls_cert_retr_st *info _unused_,
			  gnutls_pcert_st **certificates _unused_, unsigned *count _unused_,
			  gnutls_ocsp_data_st **ocsp _unused_, unsigned *ocsp_count _unused_,
			  gnutls_privkey_t *key _unused_, unsigned *flags _unused_)
{
	return -1;
}

/*
 * A thread a connection: reading the disk and decoding a tar block, and one client's must not hold up another's. An epoll pool
 * needs about the same processor time for a byte, so nothing is paid for that but the thread's stack.
 */
static struct MHD_Daemon *start_daemon(struct Server *server, const ServeOptions *options)
{
	unsigned flags = MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION | MHD_USE_POLL | MHD_USE_ITC;
	struct MHD_OptionItem tls[] = {
		{ MHD_OPTION_HTTPS_CERT_CALLBACK2, 0, (void *)no_certificate },
		{ MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)(uintptr_t)SERVE_TLS_PRIORITIES },
		{ MHD_OPTION_END, 0, NULL },
	};
	if (options->tls)
		flags |= MHD_USE_TLS;
	else
		tls[0] = tls[2];
	return MHD_start_daemon(flags, 0, NULL, NULL, serve_handle, server, MHD_OPTION_LISTEN_SOCKET,
				options->listen_fd, MHD_OPTION_CONNECTION_LIMIT, options->connections,
				MHD_OPTION_PER_IP_CONNECTION_LIMIT, options->per_address, MHD_OPTION_CONNECTION_TIMEOUT,
				IDLE_SECONDS, MHD_OPTION_THREAD_STACK_SIZE, (size_t)STACK_SIZE,
				MHD_OPTION_NOTIFY_COMPLETED, serve_completed, server, MHD_OPTION_NOTIFY_CONNECTION,
				notify_connection, server, MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, NULL,
				MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_ARRAY, tls, MHD_OPTION_END);
}

static unsigned count_decoders(void)
{
	long processors = sysconf(_SC_NPROCESSORS_ONLN);
	if (processors < 1)
		processors = 1;
	/* Twice as many as processors, since each also reads the disk. */
	return 2 * (unsigned long)processors < DECODERS_MAX ? 2 * (unsigned)processors : DECODERS_MAX;
}

static int open_in_store(void *arg, const Digest *blob, int *ret_fd)
{
	uint64_t size;
	return store_blob_open(arg, blob, ret_fd, &size);
}

static int open_in_cache(void *arg, const Digest *blob, int *ret_fd)
{
	return fetch_share_file(arg, blob, ret_fd);
}

static int make_parts(Server *server, const ServeOptions *options)
{
	ConnectionsOptions times = {
		.first_request = options->first_request ? options->first_request : FIRST_REQUEST,
		.next_request = options->next_request ? options->next_request : NEXT_REQUEST,
	};
	int r = options->cache ? fetch_share_new(options->cache, &server->share) : 0;
	if (r == 0)
		r = tar_cache_new(server->share ? open_in_cache : open_in_store,
				  server->share ? (void *)server->share : (void *)options->store, TAR_STREAMS_MAX,
				  TAR_MEMORY_MAX, &server->tars);
	if (r == 0)
		r = chunk_cache_new(CHUNKS, count_decoders(), &server->chunks);
	if (r == 0)
		r = connections_new(&times, &server->metrics, &server->connections);
	return r;
}

int server_start(const ServeOptions *options, Server **ret_server, Error *error)
{
	Server *server = calloc(1, sizeof(*server));
	if (!server)
		return error_set(error, -ENOMEM, "no memory to start the server");
	server->store = options->store;
	server->access_log = options->access_log_fd;
	server->tls = options->tls;
	server->auth = options->auth;
	server->accept_profiles = options->accept_profiles;
	serve_metrics_init(&server->metrics);
	int r = make_parts(server, options);
	if (r < 0) {
		(void)server_stop(server);
		return error_set(error, r, "no memory or threads to start the server");
	}
	server->daemon = start_daemon(server, options);
	if (!server->daemon) {
		(void)server_stop(server);
		return error_set(error, -EIO,
				 "the HTTP server did not start; is the limit of threads or open files reached?");
	}
	*ret_server = server;
	return 0;
}

void server_drain(Server *server, unsigned milliseconds)
{
	/*
	 * The listening socket is the caller's then; without it new clients fail at once instead of waiting. The thread that polls it may
	 * hold it open a little longer, so closing is not enough.
	 */
	MHD_socket fd = MHD_quiesce_daemon(server->daemon);
	if (fd != MHD_INVALID_SOCKET) {
		(void)shutdown(fd, SHUT_RDWR);
		(void)close(fd);
	}
	connections_drain(server->connections, milliseconds);
}

Server *server_stop(Server *server)
{
	if (!server)
		return NULL;
	if (server->daemon)
		MHD_stop_daemon(server->daemon);
	(void)connections_free(server->connections);
	(void)chunk_cache_free(server->chunks);
	(void)tar_cache_free(server->tars);
	(void)fetch_share_free(server->share);
	free(server);
	return NULL;
}
