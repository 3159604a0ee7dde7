/* imgfs serve: a read-only registry over the store, until SIGTERM or SIGINT; SIGHUP makes it read its files again. */
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "fs/base/log.h"
#include "tools/cmd/cmd-store.h"
#include "tools/cmd/serve-secure.h"
#include "tools/cmd/verbs.h"
#include "tools/serve/serve-listen.h"
#include "tools/serve/serve-names.h"
#include "tools/serve/serve.h"

#define VERB "serve"

#define CONNECTIONS_MAX  1000u
#define FILES_BESIDE_MAX 256u /* descriptors that are no connection's: open layers, the log */
#define FILES_CACHE_MAX  512u /* the same of a cache, whose blobs take five each */
#define FILES_CONNECTION 2u   /* a connection: its socket and the file it is sent */

#define ARENAS        4 /* of malloc(): a thread a connection would else make many, each with memory it keeps */
#define DRAIN         3000u
#define RENEW_SECONDS 3600

enum {
	OPTION_PLAIN_HTTP = VERB_OPTION_LONG,
	OPTION_CACHE,
	OPTION_ACCESS_LOG,
	OPTION_TLS_CERT,
	OPTION_TLS_KEY,
	OPTION_TLS_AUTO,
	OPTION_TLS_DIR,
	OPTION_TLS_NAME,
	OPTION_CLIENT_CA,
	OPTION_HTPASSWD,
	OPTION_PER_ADDRESS,
	OPTION_ACCEPT_PROFILES,
};

const VerbOption cmd_serve_options[] = {
	CMD_STORE_OPTION,
	{ "cache", OPTION_CACHE, "DIR", "instead: be a mirror of what this cache of a node has" },
	{ "listen", 'l', "ADDR:PORT", "where to listen; default 127.0.0.1:8500" },
	{ "plain-http", OPTION_PLAIN_HTTP, NULL, "let other machines in without TLS" },
	{ "tls-auto", OPTION_TLS_AUTO, NULL, "TLS with an authority of its own, which nodes take by `imgfs trust`" },
	{ "tls-dir", OPTION_TLS_DIR, "DIR", "where --tls-auto keeps its keys; default tls in the store" },
	{ "tls-name", OPTION_TLS_NAME, "NAME", "a host name or address nodes use; may be given several times" },
	{ "tls-cert", OPTION_TLS_CERT, "FILE", "TLS with this certificate and its chain, PEM" },
	{ "tls-key", OPTION_TLS_KEY, "FILE", "the key of --tls-cert, PEM" },
	{ "client-ca", OPTION_CLIENT_CA, "FILE", "let in who has a certificate of this authority, PEM" },
	{ "htpasswd", OPTION_HTPASSWD, "FILE", "let in these users, by their passwords" },
	{ "accept-profiles", OPTION_ACCEPT_PROFILES, NULL,
	  "take start-up profiles from nodes that --client-ca or --htpasswd know" },
	{ "connections-per-address", OPTION_PER_ADDRESS, "N", "at most so many from one address; default no limit" },
	{ "access-log", OPTION_ACCESS_LOG, "FILE", "a line a request; - is standard output" },
	{ 0 },
};

typedef struct ServeCommand {
	const char *store;
	const char *cache;
	const char *listen;
	const char *access_log;
	bool plain_http;
	unsigned long per_address;
	bool accept_profiles;
	ServeSecureOptions secure;
} ServeCommand;

static int parse_secure(int id, ServeSecureOptions *secure)
{
	switch (id) {
	case OPTION_TLS_AUTO:
		secure->automatic = true;
		return VERB_SUCCESS;
	case OPTION_TLS_DIR:
		secure->directory = optarg;
		return VERB_SUCCESS;
	case OPTION_TLS_NAME:
		if (secure->name_count == SERVE_TLS_NAMES_MAX)
			return verb_usage_error(VERB, "--tls-name: at most %u names", SERVE_TLS_NAMES_MAX);
		secure->names[secure->name_count++] = optarg;
		return VERB_SUCCESS;
	case OPTION_TLS_CERT:
		secure->certificate = optarg;
		return VERB_SUCCESS;
	case OPTION_TLS_KEY:
		secure->key = optarg;
		return VERB_SUCCESS;
	case OPTION_CLIENT_CA:
		secure->client_ca = optarg;
		return VERB_SUCCESS;
	case OPTION_HTPASSWD:
		secure->htpasswd = optarg;
		return VERB_SUCCESS;
	default:
		return VERB_USAGE;
	}
}

static int check_secure(const ServeSecureOptions *secure)
{
	if (!secure->certificate != !secure->key)
		return verb_usage_error(VERB, "--tls-cert and --tls-key go together");
	if (secure->automatic && secure->certificate)
		return verb_usage_error(VERB, "--tls-auto makes its own certificate: leave out --tls-cert");
	if (!secure->automatic && (secure->directory || secure->name_count > 0))
		return verb_usage_error(VERB, "--tls-dir and --tls-name are of --tls-auto");
	if (secure->client_ca && !secure->automatic && !secure->certificate)
		return verb_usage_error(VERB, "--client-ca wants TLS: give --tls-auto, or --tls-cert and --tls-key");
	return VERB_SUCCESS;
}

static int parse(int argc, char **argv, ServeCommand *command)
{
	for (int id; (id = verb_getopt(argc, argv, cmd_serve_options)) != -1;) {
		switch (id) {
		case 's':
			command->store = optarg;
			break;
		case OPTION_CACHE:
			command->cache = optarg;
			break;
		case 'l':
			command->listen = optarg;
			break;
		case OPTION_PLAIN_HTTP:
			command->plain_http = true;
			break;
		case OPTION_ACCESS_LOG:
			command->access_log = optarg;
			break;
		case OPTION_PER_ADDRESS:
			if (verb_number(optarg, 1, CONNECTIONS_MAX, &command->per_address) < 0)
				return verb_usage_error(VERB, "--connections-per-address %s: give 1 to %u", optarg,
							CONNECTIONS_MAX);
			break;
		case OPTION_ACCEPT_PROFILES:
			command->accept_profiles = true;
			break;
		default:
			if (parse_secure(id, &command->secure) != VERB_SUCCESS)
				return VERB_USAGE;
		}
	}
	if (optind < argc)
		return verb_usage_error(VERB, "it takes no argument such as %s", argv[optind]);
	if (command->cache && (command->store || command->accept_profiles))
		return verb_usage_error(VERB, "--cache takes neither --store nor --accept-profiles");
	/* What anybody may write, anybody may fill with nonsense. */
	if (command->accept_profiles && !command->secure.client_ca && !command->secure.htpasswd)
		return verb_usage_error(
			VERB, "--accept-profiles is for clients who are known: give --client-ca or --htpasswd");
	return check_secure(&command->secure);
}

/* Raises the limit of open files as far as connections need it; returns how many connections there can be. */
static unsigned fit_connections(unsigned beside)
{
	const rlim_t wanted = FILES_CONNECTION * CONNECTIONS_MAX + beside;
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= wanted)
		return CONNECTIONS_MAX;
	limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		(void)getrlimit(RLIMIT_NOFILE, &limit);
	if (limit.rlim_cur >= wanted)
		return CONNECTIONS_MAX;
	unsigned fit =
		limit.rlim_cur > 2 * (rlim_t)beside ? (unsigned)(limit.rlim_cur - beside) / FILES_CONNECTION : 64;
	log_warning("limit of open files is low: connections are limited too files=%ju connections=%u",
		    (uintmax_t)limit.rlim_cur, fit);
	return fit;
}

static int open_access_log(const char *path, int *ret_fd, Error *error)
{
	if (!path)
		return 0;
	int fd = strcmp(path, "-") == 0 ? fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 0)
					: open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0640);
	if (fd < 0)
		return error_set(error, -errno, "the access log %s cannot be opened: %s", path,
				 error_text(NULL, errno));
	*ret_fd = fd;
	return 0;
}

/* Blocked before threads start, so that all of them inherit it and sigwait() alone gets them. */
static void block_signals(sigset_t *ret_signals)
{
	(void)signal(SIGPIPE, SIG_IGN); /* a client that goes away is no reason to die */
	(void)sigemptyset(ret_signals);
	(void)sigaddset(ret_signals, SIGTERM);
	(void)sigaddset(ret_signals, SIGINT);
	(void)sigaddset(ret_signals, SIGHUP);
	(void)pthread_sigmask(SIG_BLOCK, ret_signals, NULL);
}

static int announce(const ServeAddress *address, const ServeSecure *secure, Error *error)
{
	char text[SERVE_ADDRESS_TEXT], best[512], fingerprint[DIGEST_TEXT_SIZE];
	const ServeSecureOptions *options = secure->options;
	if (options->automatic) {
		serve_names_best(address, options->names, options->name_count, best, sizeof(best));
		printf("imgfs trust %s --fingerprint %s\n", best, digest_text(&secure->fingerprint, fingerprint));
	}
	/* Scripts wait for this line. */
	printf("listening on %s://%s\n", secure->tls ? "https" : "http",
	       serve_address_text((const struct sockaddr *)&address->storage, text));
	if (fflush(stdout) != 0 || ferror(stdout))
		return error_set(error, -EIO, "standard output cannot be written to");
	return 0;
}

/* The new file takes the old one's descriptor: nobody who is writing a line notices. */
static void reopen_access_log(const char *path, int fd)
{
	Error error = { 0 };
	_cleanup_close_ int new = -1;
	if (!path || strcmp(path, "-") == 0)
		return;
	if (open_access_log(path, &new, &error) < 0 || dup3(new, fd, O_CLOEXEC) < 0)
		log_error("the access log stays the file it was: %s", error_text(&error, -errno));
}

/* Until one says that it is over. */
static int mind_signals(const sigset_t *signals, const ServeCommand *command, ServeSecure *secure, int access_log,
			Error *error)
{
	for (;;) {
		const struct timespec hour = { .tv_sec = RENEW_SECONDS };
		int number = sigtimedwait(signals, NULL, &hour);
		if (number == SIGTERM || number == SIGINT)
			return 0;
		if (number == SIGHUP) {
			serve_secure_reload(secure);
			reopen_access_log(command->access_log, access_log);
		} else if (number < 0 && errno == EAGAIN) {
			serve_secure_renew(secure);
		} else if (number < 0 && errno != EINTR) {
			return error_set(error, -errno, "waiting for a signal failed");
		}
	}
}

static int serve_until_signal(Store *store, CacheStore *cache, const ServeAddress *address, const ServeCommand *command,
			      ServeSecure *secure, Error *error)
{
	sigset_t signals;
	block_signals(&signals);
	_cleanup_close_ int access_log = -1;
	int r = open_access_log(command->access_log, &access_log, error);
	if (r < 0)
		return r;
	ServeOptions options = {
		.store = store,
		.cache = cache,
		.listen_fd = -1,
		.access_log_fd = access_log,
		.connections = fit_connections(cache ? FILES_CACHE_MAX : FILES_BESIDE_MAX),
		.per_address = (unsigned)command->per_address,
		.tls = secure->tls,
		.auth = secure->auth,
		.accept_profiles = command->accept_profiles,
	};
	ServeAddress actual;
	r = serve_listen(address, &options.listen_fd, &actual, error);
	if (r < 0)
		return r;
	_cleanup_(server_stop_p) Server *server = NULL;
	r = server_start(&options, &server, error);
	if (r < 0) {
		(void)close(options.listen_fd);
		return r;
	}
	r = announce(&actual, secure, error);
	if (r == 0)
		r = mind_signals(&signals, command, secure, access_log, error);
	if (r == 0)
		server_drain(server, DRAIN);
	return r;
}

static int serve(const ServeCommand *command, const ServeAddress *address, Error *error)
{
	_cleanup_(store_free_p) Store *store = NULL;
	_cleanup_(cache_store_free_p) CacheStore *cache = NULL;
	_cleanup_(serve_secure_close) ServeSecure secure = { 0 };
	int r = command->cache ? cache_store_open(command->cache, false, &cache, error)
			       : cmd_store_open(command->store, false, &store, error);
	if (r == 0)
		r = serve_secure_open(&command->secure, cache ? command->cache : store_path(store), address, &secure,
				      error);
	if (r < 0)
		return r;
	if (secure.auth && !secure.tls && !serve_address_is_loopback(address))
		log_warning("passwords cross the network in the clear: without TLS anyone on the way can read them");
	return serve_until_signal(store, cache, address, command, &secure, error);
}

int cmd_serve(int argc, char **argv)
{
	Error error = { 0 };
	ServeCommand command = { .listen = "127.0.0.1:8500" };
	int status = parse(argc, argv, &command);
	if (status != VERB_SUCCESS)
		return status;
	ServeAddress address;
	if (serve_address_parse(command.listen, &address, &error) < 0)
		return verb_usage_error(VERB, "--listen: %s", error.message);
	bool tls = command.secure.automatic || command.secure.certificate;
	if (!serve_address_is_loopback(&address) && !tls && !command.plain_http)
		return verb_usage_error(
			argv[0],
			"%s can be reached by other machines, and there is no TLS: anyone on the way can read "
			"the images; give --tls-auto, or --plain-http if that network is trusted, or listen on "
			"127.0.0.1",
			command.listen);

	log_open("imgfs-serve", LOG_LEVEL_INFO);
	(void)mallopt(M_ARENA_MAX, ARENAS);
	int r = serve(&command, &address, &error);
	return r < 0 ? verb_fail(VERB, r, &error) : VERB_SUCCESS;
}
