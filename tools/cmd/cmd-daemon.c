/* imgfs daemon: be imgfsd, the manager of this node's images. */
#include "tools/cmd/cmd-daemon.h"

#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "fs/base/log.h"
#include "fs/mount/daemon-mounts.h"
#include "fs/node/node-notify.h"
#include "fs/node/node.h"
#include "tools/cmd/local-image.h"
#include "tools/cmd/remote-options.h"
#include "tools/cmd/verb-conf.h"

#define VERB "daemon"

#define DEFAULT_RUNTIME "/run/imgfs"
#define DEFAULT_SECONDS 30
#define SECONDS_MAX     86400
#define READ_AHEAD_MAX  (64 * 1024)
#define LOG_MODE        0640

enum {
	OPTION_FOREGROUND = VERB_OPTION_LONG,
	OPTION_RUNTIME,
	OPTION_STATE,
	OPTION_DEADLINE,
	OPTION_TIMEOUT,
	OPTION_READ_AHEAD,
	OPTION_LOG,
	OPTION_EXTERNAL_KEEPER,
	OPTION_SOURCE,
	OPTION_DECODED,
	OPTION_KEEPER,
	OPTION_QUOTA = VERB_OPTION_SHARED,
};

const VerbOption cmd_daemon_options[] = {
	{ "foreground", OPTION_FOREGROUND, NULL, "stay in the foreground: what a service manager wants" },
	{ "runtime", OPTION_RUNTIME, "DIR", "sockets and mounts; default " DEFAULT_RUNTIME },
	{ "state", OPTION_STATE, "DIR", "what is attached, across reboots; default " DAEMON_STATE },
	{ "cache", REMOTE_OPTION_CACHE, "DIR", "what was fetched; default " REMOTE_CACHE },
	{ "quota", OPTION_QUOTA, "SIZE", "of the cache (20G): beyond it what was used longest ago goes; default none" },
	{ "decoded", OPTION_DECODED, NULL,
	  "what is filled is kept decoded as well: faster first reads, for the images' full size on the disk" },
	{ "deadline", OPTION_DEADLINE, "SECONDS", "a read fails that got no bytes for so long; default 30" },
	{ "timeout", OPTION_TIMEOUT, "SECONDS", "of a request to a registry; default 30" },
	{ "certs-dir", REMOTE_OPTION_CERTS, "DIR", "whom to trust by host; default " NET_CERTS_DIRECTORY },
	{ "login", REMOTE_OPTION_LOGIN, "FILE", "user and password; default docker's config.json" },
	{ "source", OPTION_SOURCE, "HOST:PORT",
	  "an imgfs serve that has the layers which are asked for without a reference" },
	{ "read-ahead", OPTION_READ_AHEAD, "KB", "how far the kernel reads ahead; default 512" },
	{ "log", OPTION_LOG, "FILE", "append the log to FILE; default standard error" },
	{ "keeper", OPTION_KEEPER, NULL, "start the keeper, tell the service manager of it, and end" },
	{ "external-keeper", OPTION_EXTERNAL_KEEPER, NULL,
	  "start no keeper, but wait for the one that a service manager starts" },
	{ 0 },
};

typedef struct Arguments {
	RemoteOptions remote;
	const char *runtime, *state, *source, *log;
	unsigned long deadline, timeout, read_ahead;
	uint64_t quota;
	bool decoded, foreground, external_keeper, keeper;
} Arguments;

static const DaemonStart *daemon_start;

void daemon_set_start(const DaemonStart *start)
{
	daemon_start = start;
}

bool daemon_is(const char *program)
{
	const char *slash = program ? strrchr(program, '/') : NULL;
	return program && strcmp(slash ? slash + 1 : program, DAEMON_NAME) == 0;
}

static int take_seconds(const char *name, unsigned long *ret_seconds)
{
	if (verb_number(optarg, 1, SECONDS_MAX, ret_seconds) < 0)
		return verb_usage_error(VERB, "--%s %s: give seconds, 1 to %d", name, optarg, SECONDS_MAX);
	return VERB_SUCCESS;
}

static int parse_option(int id, Arguments *arguments)
{
	switch (id) {
	case OPTION_FOREGROUND:
		arguments->foreground = true;
		return VERB_SUCCESS;
	case OPTION_RUNTIME:
		arguments->runtime = optarg;
		return VERB_SUCCESS;
	case OPTION_STATE:
		arguments->state = optarg;
		return VERB_SUCCESS;
	case OPTION_DEADLINE:
		return take_seconds("deadline", &arguments->deadline);
	case OPTION_TIMEOUT:
		return take_seconds("timeout", &arguments->timeout);
	case OPTION_READ_AHEAD:
		if (verb_number(optarg, 4, READ_AHEAD_MAX, &arguments->read_ahead) < 0)
			return verb_usage_error(VERB, "--read-ahead %s: give KiB, 4 to %d", optarg, READ_AHEAD_MAX);
		return VERB_SUCCESS;
	case OPTION_LOG:
		arguments->log = optarg;
		return VERB_SUCCESS;
	case OPTION_EXTERNAL_KEEPER:
		arguments->external_keeper = true;
		return VERB_SUCCESS;
	case OPTION_QUOTA:
		if (conf_size(optarg, &arguments->quota) < 0)
			return verb_usage_error(VERB, "--quota %s: give bytes, as 20G, 500M or 64Mi", optarg);
		return VERB_SUCCESS;
	case OPTION_DECODED:
		arguments->decoded = true;
		return VERB_SUCCESS;
	case OPTION_KEEPER:
		arguments->keeper = true;
		return VERB_SUCCESS;
	case OPTION_SOURCE:
		if (!remote_options_is_host(optarg))
			return verb_usage_error(VERB, "--source %s: give HOST:PORT, as in build:8500", optarg);
		arguments->source = optarg;
		return VERB_SUCCESS;
	default:
		return remote_options_take(&arguments->remote, id);
	}
}

static int parse(int argc, char **argv, Arguments *arguments)
{
	*arguments = (Arguments){
		.runtime = DEFAULT_RUNTIME,
		.state = DAEMON_STATE,
		.deadline = DEFAULT_SECONDS,
		.timeout = DEFAULT_SECONDS,
	};
	for (int id; (id = verb_getopt(argc, argv, cmd_daemon_options)) != -1;) {
		int status = parse_option(id, arguments);
		if (status != VERB_SUCCESS)
			return status;
	}
	if (optind < argc)
		return verb_usage_error(VERB, "it takes no argument such as %s", argv[optind]);
	const char *const directories[] = { arguments->runtime, arguments->state, arguments->remote.cache ?: "/" };
	for (size_t i = 0; i < ELEMENTS(directories); i++)
		if (directories[i][0] != '/')
			return verb_usage_error(VERB, "%s: give an absolute path", directories[i]);
	return VERB_SUCCESS;
}

static NodeSettings settings_of(const Arguments *arguments, const NetHosts *hosts)
{
	return (NodeSettings){
		.deadline = (int64_t)arguments->deadline * 1000,
		.timeout = (int64_t)arguments->timeout * 1000,
		.certs = arguments->remote.access.certs,
		.login = arguments->remote.access.login,
		.source = arguments->source,
		.quota = arguments->quota,
		.decoded = arguments->decoded,
		.hosts = hosts,
	};
}

/* What the last reload read: the settings point into it until the next one, and so does verb_conf_hosts(), which is why it does not move. */
static VerbConf *reloaded;

static VerbConf *conf_free(VerbConf *conf)
{
	if (conf)
		verb_conf_done(conf);
	free(conf);
	return NULL;
}

/* Only what NodeSettings has takes effect; the rest needs a new start. */
static int reload(void *arg _unused_, NodeSettings *ret_settings, Error *error)
{
	Arguments arguments;
	VerbConf *conf = calloc(1, sizeof(*conf));
	if (!conf)
		return error_set(error, -ENOMEM, "out of memory");
	int status = verb_conf_load(daemon_start->conf_path, verbs_find(VERB), daemon_start->argc_own,
				    daemon_start->argv_own, conf);
	optind = 0;
	if (status == VERB_SUCCESS)
		status = parse(conf->argc, conf->argv, &arguments);
	if (status != VERB_SUCCESS) {
		(void)conf_free(conf);
		return error_set(error, -EINVAL, "the configuration is wrong; the log of imgfsd says where");
	}
	(void)conf_free(reloaded);
	reloaded = conf;
	*ret_settings = settings_of(&arguments, &conf->hosts);
	return 0;
}

static int open_local(void *arg _unused_, const char *store, const char *text, CacheStore *cache, FetchImage *ret_image,
		      Error *error)
{
	Reference reference;
	return local_image_open(store, text, cache, &reference, ret_image, error);
}

/* The program that stands where this one was started from: after an upgrade, the new one. Returns only when that fails. */
static int execute_anew(void)
{
	static const char deleted[] = " (deleted)";
	static char foreground[] = "--foreground";
	char path[PATH_MAX];
	ssize_t size = readlink("/proc/self/exe", path, sizeof(path) - 1);
	if (size < 0)
		return -errno;
	path[size] = '\0';
	char *end = strstr(path, deleted);
	if (end && end[strlen(deleted)] == '\0')
		*end = '\0';
	size_t count = 0;
	while (daemon_start->argv[count])
		count++;
	_cleanup_free_ char **argv = calloc(count + 2, sizeof(*argv));
	if (!argv)
		return -ENOMEM;
	memcpy(argv, daemon_start->argv, count * sizeof(*argv));
	argv[count] = foreground; /* as the same process */
	sigset_t none;
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)execv(path, argv);
	return -errno;
}

static int run(const Arguments *arguments, int ready_fd)
{
	Error error = { 0 };
	NodeEnd end = NODE_ENDED;
	NodeOptions options = {
		.runtime = arguments->runtime,
		.state = arguments->state,
		.cache = arguments->remote.cache ?: REMOTE_CACHE,
		.version = IMGFS_VERSION,
		.read_ahead_kb = (unsigned)arguments->read_ahead,
		.log_path = arguments->log,
		.start_keeper = !arguments->external_keeper,
		.settings = settings_of(arguments, verb_conf_hosts()),
		.open_local = open_local,
		.reload = reload,
		.ready_fd = ready_fd,
	};
	log_open(DAEMON_NAME, LOG_LEVEL_INFO);
	/* No reason not to start: what is attached comes back without a login. */
	if (options.settings.login && access(options.settings.login, R_OK) < 0)
		log_warning("the file of --login cannot be read, and no image can be attached until it can: %s path=%s",
			    strerror(errno), options.settings.login);
	int r = node_run(&options, &end, &error);
	if (r == 0 && end == NODE_UPGRADE) {
		r = execute_anew();
		(void)error_set(&error, r, "cannot go on as the program that is installed now: %s; start imgfsd again",
				strerror(-r));
	}
	if (r < 0)
		log_error("%s", error_text(&error, r));
	else
		log_info("ended; what is mounted goes on, unless it was to end too");
	/* Threads may still run: nothing of this process is to be torn down under them. */
	_exit(r < 0 ? VERB_FAILURE : VERB_SUCCESS);
}

/* -1: there is none, and standard error it stays. */
static int open_log(const Arguments *arguments, int *ret_fd, Error *error)
{
	*ret_fd = arguments->log ? open(arguments->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, LOG_MODE) : -1;
	if (arguments->log && *ret_fd < 0)
		return error_set(error, -errno, "cannot open the log %s: %s", arguments->log, strerror(errno));
	return 0;
}

static void use_log(int fd)
{
	if (fd >= 0)
		(void)dup2(fd, STDERR_FILENO);
}

/* The process that was started ends with success once the daemon answers. */
static int run_in_background(const Arguments *arguments, int log_fd, Error *error)
{
	int ready[2];
	if (pipe2(ready, O_CLOEXEC) < 0)
		return error_set(error, -errno, "cannot make a pipe: %s", strerror(errno));
	pid_t pid = fork();
	if (pid == 0) {
		int null = open("/dev/null", O_RDWR | O_CLOEXEC);
		(void)close(ready[0]);
		use_log(log_fd);
		(void)setsid();
		(void)dup2(null, STDIN_FILENO);
		(void)dup2(null, STDOUT_FILENO);
		return run(arguments, ready[1]);
	}
	int r = pid < 0 ? -errno : 0;
	(void)close(ready[1]);
	char byte;
	bool answers = r == 0 && read(ready[0], &byte, 1) == 1;
	(void)close(ready[0]);
	if (answers)
		return 0;
	if (pid > 0)
		(void)waitpid(pid, NULL, 0);
	return error_set(error, r < 0 ? r : -EIO, "imgfsd does not start; %s says why",
			 arguments->log ?: "the line above");
}

/* For the unit of the keeper: it goes on when this process has ended, as the main process of the unit. */
static int start_keeper(const Arguments *arguments, Error *error)
{
	DaemonMountsOptions options = {
		.runtime = arguments->runtime,
		.read_ahead_kb = (unsigned)arguments->read_ahead,
		.log_path = arguments->log,
		.start = true,
	};
	_cleanup_(daemon_mounts_close_p) DaemonMounts *mounts = NULL;
	struct ucred peer;
	socklen_t size = sizeof(peer);
	char state[64];
	int r = daemon_mounts_open(&options, &mounts, error);
	if (r < 0)
		return r;
	if (getsockopt(daemon_mounts_fd(mounts), SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
		return error_set(error, -errno, "the keeper does not say who it is: %s", strerror(errno));
	(void)snprintf(state, sizeof(state), "MAINPID=%d\nREADY=1", peer.pid);
	node_notify(state);
	return 0;
}

int cmd_daemon(int argc, char **argv)
{
	Error error = { 0 };
	Arguments arguments;
	int status = parse(argc, argv, &arguments);
	if (status != VERB_SUCCESS)
		return status;
	if (geteuid() != 0)
		return verb_fail(VERB, -EPERM,
				 &(Error){ .message = "imgfsd is for root: it mounts for all of this node" });
	remote_options_raise_file_limit();
	_cleanup_close_ int log_fd = -1;
	int r = open_log(&arguments, &log_fd, &error);
	if (r == 0 && arguments.keeper) {
		r = start_keeper(&arguments, &error);
	} else if (r == 0 && arguments.foreground) {
		use_log(log_fd);
		r = run(&arguments, -1);
	} else if (r == 0) {
		r = run_in_background(&arguments, log_fd, &error);
	}
	return r < 0 ? verb_fail(VERB, r, &error) : VERB_SUCCESS;
}
