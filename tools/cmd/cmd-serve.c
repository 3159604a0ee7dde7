/* imgfs serve: a read-only registry over the store, until SIGTERM or SIGINT. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "fs/base/log.h"
#include "tools/cmd/cmd-store.h"
#include "tools/cmd/verbs.h"
#include "tools/serve/serve-listen.h"
#include "tools/serve/serve.h"

#define VERB "serve"

#define CONNECTIONS_MAX  1000u
#define FILES_BESIDE_MAX 256u /* descriptors that are no connection's: open layers, the log */
#define FILES_CONNECTION 2u   /* a connection: its socket and the file it is sent */

enum { OPTION_PLAIN_HTTP = VERB_OPTION_LONG, OPTION_ACCESS_LOG };

const VerbOption cmd_serve_options[] = {
	CMD_STORE_OPTION,
	{ "listen", 'l', "ADDR:PORT", "where to listen; default 127.0.0.1:8500" },
	{ "plain-http", OPTION_PLAIN_HTTP, NULL, "let other machines in without TLS" },
	{ "access-log", OPTION_ACCESS_LOG, "FILE", "a line a request; - is standard output" },
	{ 0 },
};

typedef struct ServeCommand {
	const char *store;
	const char *listen;
	const char *access_log;
	bool plain_http;
} ServeCommand;

static int parse(int argc, char **argv, ServeCommand *command)
{
	for (int id; (id = verb_getopt(argc, argv, cmd_serve_options)) != -1;) {
		switch (id) {
		case 's':
			command->store = optarg;
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
		default:
			return VERB_USAGE;
		}
	}
	if (optind < argc)
		return verb_usage_error(VERB, "it takes no argument such as %s", argv[optind]);
	return VERB_SUCCESS;
}

/* Raises the limit of open files as far as connections need it; returns how many connections there can be. */
static unsigned fit_connections(void)
{
	const rlim_t wanted = FILES_CONNECTION * CONNECTIONS_MAX + FILES_BESIDE_MAX;
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= wanted)
		return CONNECTIONS_MAX;
	limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		(void)getrlimit(RLIMIT_NOFILE, &limit);
	if (limit.rlim_cur >= wanted)
		return CONNECTIONS_MAX;
	unsigned fit = limit.rlim_cur > 2 * FILES_BESIDE_MAX
			       ? (unsigned)(limit.rlim_cur - FILES_BESIDE_MAX) / FILES_CONNECTION
			       : 64;
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
	(void)pthread_sigmask(SIG_BLOCK, ret_signals, NULL);
}

static int announce(const ServeAddress *address, Error *error)
{
	char text[SERVE_ADDRESS_TEXT];
	/* Scripts wait for this line. */
	if (printf("listening on http://%s\n", serve_address_text((const struct sockaddr *)&address->storage, text)) <
		    0 ||
	    fflush(stdout) != 0)
		return error_set(error, -EIO, "standard output cannot be written to");
	return 0;
}

static int serve_until_signal(Store *store, const ServeAddress *address, const ServeCommand *command, Error *error)
{
	sigset_t signals;
	block_signals(&signals);
	_cleanup_close_ int access_log = -1;
	int r = open_access_log(command->access_log, &access_log, error);
	if (r < 0)
		return r;
	ServeOptions options = {
		.store = store, .listen_fd = -1, .access_log_fd = access_log, .connections = fit_connections()
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
	r = announce(&actual, error);
	if (r < 0)
		return r;
	int number;
	r = -sigwait(&signals, &number);
	return r < 0 ? error_set(error, r, "waiting for a signal failed") : 0;
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
	if (!serve_address_is_loopback(&address) && !command.plain_http)
		return verb_usage_error(
			argv[0],
			"%s can be reached by other machines, and there is no TLS: anyone on the way can read "
			"the images; give --plain-http if that network is trusted, or listen on 127.0.0.1",
			command.listen);

	log_open("imgfs-serve", LOG_LEVEL_INFO);
	_cleanup_(store_free_p) Store *store = NULL;
	int r = cmd_store_open(command.store, false, &store, &error);
	if (r == 0)
		r = serve_until_signal(store, &address, &command, &error);
	return r < 0 ? verb_fail(VERB, r, &error) : VERB_SUCCESS;
}
