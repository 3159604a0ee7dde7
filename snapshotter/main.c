/* imgfs-snapshotter: containerd's proxy plugin for imgfs; docs/operations.md, "containerd". */
#include <getopt.h>
#include <inttypes.h>
#include <malloc.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>

#include "fs/base/conf.h"
#include "fs/base/fd.h"
#include "fs/base/log.h"
#include "fs/control/control-client.h"
#include "snapshotter/service.h"
#include "snapshotter/wire-listen.h"

#define DEFAULT_ADDRESS "/run/imgfs/snapshotter.sock"
#define DEFAULT_CONFIG  "/etc/imgfs/imgfs.conf"
#define DEFAULT_ROOT    "/var/lib/imgfs/snapshotter"
#define ARENAS_MAX      2 /* of malloc: threads come and go, and each would keep one for itself */

#define EXIT_USAGE 2

typedef struct Options {
	const char *address, *root;
	const char *daemon_socket, *metrics;
	const char *config; /* NULL: the machine's own, if there is one */
	bool no_daemon;
	LogLevel log_level;
} Options;

static void usage(FILE *file)
{
	(void)fputs("usage: imgfs-snapshotter [--address SOCKET] [--root DIRECTORY] [--daemon-socket SOCKET | "
		    "--no-daemon]\n"
		    "  --address SOCKET   where containerd connects to; default: " DEFAULT_ADDRESS "\n"
		    "                     (not used when systemd hands a socket over)\n"
		    "  --root DIRECTORY   metadata and layers; default: " DEFAULT_ROOT "\n"
		    "  --daemon-socket SOCKET\n"
		    "                     where imgfsd listens; default: " CONTROL_SOCKET "\n"
		    "  --no-daemon        serve ordinary images only\n"
		    "  --metrics FILE     write counters there, in the form of Prometheus's textfile collector\n"
		    "  --debug            log also what is as it should be\n"
		    "  --config FILE      section [snapshotter] has these options; default: " DEFAULT_CONFIG "\n"
		    "SIGTERM ends it; containers keep running.\n",
		    file);
}

/* 0, or the exit status plus one. */
static int parse_options(int argc, char **argv, Options *options)
{
	static const struct option known[] = {
		{ "address", required_argument, NULL, 'a' },
		{ "root", required_argument, NULL, 'r' },
		{ "daemon-socket", required_argument, NULL, 's' },
		{ "metrics", required_argument, NULL, 'm' },
		{ "no-daemon", no_argument, NULL, 'n' },
		{ "debug", no_argument, NULL, 'd' },
		{ "config", required_argument, NULL, 'c' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	int option;
	while ((option = getopt_long(argc, argv, "h", known, NULL)) >= 0) {
		switch (option) {
		case 'a':
			options->address = optarg;
			break;
		case 'r':
			options->root = optarg;
			break;
		case 's':
			options->daemon_socket = optarg;
			break;
		case 'm':
			options->metrics = optarg;
			break;
		case 'n':
			options->no_daemon = true;
			break;
		case 'd':
			options->log_level = LOG_LEVEL_DEBUG;
			break;
		case 'c':
			options->config = optarg;
			break;
		case 'h':
			usage(stdout);
			return EXIT_SUCCESS + 1;
		default:
			usage(stderr);
			return EXIT_USAGE + 1;
		}
	}
	if (optind == argc)
		return 0;
	usage(stderr);
	return EXIT_USAGE + 1;
}

/* One line of the section. */
static int take_entry(const Conf *conf, const ConfEntry *entry, Options *options, Error *error)
{
	const struct {
		const char *key;
		const char **value;
	} keys[] = {
		{ "address", &options->address },
		{ "root", &options->root },
		{ "daemon-socket", &options->daemon_socket },
		{ "metrics", &options->metrics },
	};
	for (size_t i = 0; i < ELEMENTS(keys); i++) {
		if (strcmp(entry->key, keys[i].key) == 0) {
			*keys[i].value = entry->value;
			return 0;
		}
	}
	bool is_switch = strcmp(entry->key, "no-daemon") == 0;
	if (is_switch && (strcmp(entry->value, "yes") == 0 || strcmp(entry->value, "no") == 0)) {
		options->no_daemon = entry->value[0] == 'y';
		return 0;
	}
	return error_set(error, -EINVAL, "%s:%u: %s \"%s\"", conf->path, entry->line,
			 is_switch ? "neither yes nor no:" : "there is no key", is_switch ? entry->value : entry->key);
}

/* `conf` has to live as long as the options. */
static int read_config(const char *named, Conf *conf, Options *options, Error *error)
{
	const char *path = named ?: getenv("IMGFS_CONFIG");
	int r = path && !path[0] ? 0 : conf_read(path ?: DEFAULT_CONFIG, conf, error);
	if (r < 0)
		return !path && r == -ENOENT ? 0 : r;
	for (size_t i = 0; r == 0 && i < conf->count; i++) {
		const ConfEntry *entry = &conf->entries[i];
		if (strcmp(entry->section, "snapshotter") == 0 && entry->key)
			r = take_entry(conf, entry, options, error);
	}
	return r;
}

/* SIGTERM and SIGINT, from here on for every thread, become readable. */
static int open_signals(int *ret_fd, Error *error)
{
	sigset_t set;
	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGTERM);
	(void)sigaddset(&set, SIGINT);
	(void)pthread_sigmask(SIG_BLOCK, &set, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
	(void)signal(SIGHUP, SIG_IGN);
	int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		return error_set(error, -errno, "signals cannot be waited for: %s", strerror(errno));
	*ret_fd = fd;
	return 0;
}

/* Trees of files are walked with a descriptor a level. */
static void raise_limits(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &limit);
	}
	(void)mallopt(M_ARENA_MAX, ARENAS_MAX);
	(void)umask(0);
}

/* What the process holds, in the order in which it is opened. */
typedef struct Process {
	int stop_fd, listen_fd;
	bool own_socket;
	Mounts mounts;
	Meta *meta;
	LazyDaemon daemon;
	LazyBackend lazy;
	Service *service;
	char *whole;
} Process;

static int open_state(const Options *options, Process *process, Error *error)
{
	_cleanup_free_ char *path = NULL;
	int r = mounts_open(options->root, &process->mounts, error);
	if (r < 0)
		return r;
	if (asprintf(&path, "%s/metadata.db", process->mounts.root) < 0 ||
	    asprintf(&process->whole, "%s/whole.json", process->mounts.root) < 0)
		return error_set(error, -ENOMEM, "out of memory");
	mode_t before = umask(0077);
	r = meta_open(path, &process->meta, error);
	(void)umask(before);
	if (r == 0)
		r = lazy_daemon(&process->daemon, options->daemon_socket, process->stop_fd, process->mounts.root,
				&process->lazy, error);
	const ServiceOptions service = {
		.meta = process->meta,
		.mounts = &process->mounts,
		.lazy = options->no_daemon ? NULL : &process->lazy,
		.metrics = options->metrics,
		.whole = process->whole,
	};
	return r < 0 ? r : service_new(&service, &process->service, error);
}

/* What a crash has left goes before anybody can ask. What cannot be removed is no reason not to serve. */
static void reconcile(Process *process)
{
	size_t count = 0;
	Error error = { 0 };
	int r = service_reconcile(process->service, NULL, &count, &error);
	if (r < 0)
		log_warning("cleanup left something reason=\"%s\"", error_text(&error, r));
	else if (count > 0)
		log_info("removed directories that no snapshot has count=%zu", count);
}

static int open_socket(const Options *options, Process *process, Error *error)
{
	int r = wire_listen_inherited(&process->listen_fd, error);
	if (r != 0)
		return r < 0 ? r : 0;
	process->own_socket = true;
	return wire_listen(options->address, &process->listen_fd, error);
}

static int serve(const Options *options, Process *process, Error *error)
{
	_cleanup_(wire_server_free_p) WireServer *server = NULL;
	const WireServerOptions wire = {
		.listen_fd = process->listen_fd,
		.stop_fd = process->stop_fd,
		.methods = service_methods,
		.method_count = service_method_count,
		.arg = process->service,
	};
	int r = wire_server_new(&wire, &server, error);
	if (r < 0)
		return r;
	log_info("serving address=%s root=%s", process->own_socket ? options->address : "inherited",
		 process->mounts.root);
	r = wire_server_run(server, error);
	if (process->own_socket)
		wire_listen_unlink(options->address, process->listen_fd);
	return r;
}

static int run(const Options *options, Process *process, Error *error)
{
	int r = open_signals(&process->stop_fd, error);
	if (r == 0)
		r = open_state(options, process, error);
	if (r < 0)
		return r;
	reconcile(process);
	r = open_socket(options, process, error);
	return r < 0 ? r : serve(options, process, error);
}

int main(int argc, char **argv)
{
	Options options = { .address = DEFAULT_ADDRESS,
			    .root = DEFAULT_ROOT,
			    .daemon_socket = CONTROL_SOCKET,
			    .log_level = LOG_LEVEL_INFO };
	Process process = { .stop_fd = -1, .listen_fd = -1, .mounts = { .lock_fd = -1, .snapshots_fd = -1 } };
	Conf conf = { 0 };
	Error error = { 0 };
	fd_open_standard();
	int r = parse_options(argc, argv, &options);
	if (r != 0)
		return r - 1;
	log_open("imgfs-snapshotter", options.log_level);
	raise_limits();
	r = read_config(options.config, &conf, &options, &error);
	if (r == 0) {
		/* The command line wins. */
		optind = 1;
		(void)parse_options(argc, argv, &options);
		r = run(&options, &process, &error);
	}
	if (r < 0)
		log_error("%s", error_text(&error, r));
	else
		log_info("ended");
	(void)service_free(process.service);
	free(process.whole);
	(void)meta_close(process.meta);
	mounts_close(&process.mounts);
	close_p(&process.listen_fd);
	close_p(&process.stop_fd);
	conf_done(&conf);
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
