#include "fs/node/node.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <time.h>

#include "fs/base/deadline.h"
#include "fs/base/fd.h"
#include "fs/base/log.h"
#include "fs/node/node-bind.h"
#include "fs/node/node-notify.h"
#include "fs/node/node-private.h"

#define SOCKET_NAME  "imgfsd.sock"
#define END_SECONDS  10 /* that calls under way have before the program is executed anew */
#define STOP_SECONDS 3  /* that they have where a signal ends it */
#define TICK_MS      200

/* What the loop waits for beside clients. */
enum { WATCH_SIGNAL, WATCH_WAKE, WATCH_TABLE, WATCH_KEEPER, WATCHES };

static int open_directory(int above, const char *path, mode_t mode, int *ret_fd, Error *error)
{
	int r = fd_make_directories(above, path, mode);
	int fd = r == 0 ? openat(above, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	if (r == 0 && fd < 0)
		r = -errno;
	if (r < 0)
		return error_set(error, r, "the directory %s cannot be used: %s", path, strerror(-r));
	*ret_fd = fd;
	return 0;
}

/* One manager at a time, for as long as it lives. `option` is what names the directory. */
static int lock_directory(int fd, const char *name, const char *path, const char *option, int *ret_fd, Error *error)
{
	_cleanup_close_ int lock_fd = openat(fd, name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (lock_fd >= 0 && flock(lock_fd, LOCK_EX | LOCK_NB) == 0) {
		*ret_fd = TAKE_FD(lock_fd);
		return 0;
	}
	int r = lock_fd >= 0 && errno == EWOULDBLOCK ? -EBUSY : -errno;
	return r == -EBUSY ? error_set(error, r, "another imgfsd has %s; stop it, or give --%s another directory", path,
				       option)
			   : error_set(error, r, "%s cannot be locked: %s", path, strerror(-r));
}

static int open_state(Node *node, Error *error)
{
	_cleanup_close_ int state = -1, runtime = -1;
	int r = open_directory(AT_FDCWD, node->options.state, 0700, &state, error);
	if (r == 0)
		r = lock_directory(state, "lock", node->options.state, "state", &node->lock_fd, error);
	if (r == 0)
		r = open_directory(state, "attached", 0700, &node->attached_fd, error);
	if (r == 0)
		r = node_slots_open(state, &node->slots, error);
	if (r == 0 && node->slots.damaged)
		log_error("the file of slots was damaged; what it says no more is asked of records and keeper "
			  "file=%s/slots",
			  node->options.state);
	if (r == 0)
		r = open_directory(AT_FDCWD, node->options.runtime, 0755, &runtime, error);
	/* With a state of its own another one would take away all that this one has. */
	if (r == 0)
		r = lock_directory(runtime, "imgfsd.lock", node->options.runtime, "runtime", &node->runtime_lock_fd,
				   error);
	if (r == 0)
		r = open_directory(runtime, "bound", 0700, &node->bound_fd, error);
	if (r == 0)
		r = cache_store_open(node->options.cache, true, &node->cache, error);
	return r;
}

static void holders_free(Node *node)
{
	while (node->holders) {
		NodeHolder *holder = node->holders;
		node->holders = holder->next;
		node_record_done(&holder->record);
		free(holder->owner);
		free(holder->fault);
		free(holder);
	}
	while (node->images) {
		NodeImage *image = node->images;
		node->images = image->next;
		free(image);
	}
}

Node *node_free(Node *node)
{
	if (!node)
		return NULL;
	(void)node_keeping_stop(node);
	(void)daemon_mounts_close(node->mounts);
	holders_free(node);
	node_settings_done(&node->defaults);
	node_slots_close(&node->slots);
	(void)cache_store_free(node->cache);
	close_p(&node->attached_fd);
	close_p(&node->bound_fd);
	close_p(&node->lock_fd);
	close_p(&node->runtime_lock_fd);
	close_p(&node->wake_fd);
	free(node->socket);
	(void)pthread_cond_destroy(&node->changed);
	(void)pthread_mutex_destroy(&node->mutex);
	free(node);
	return NULL;
}

int node_new(const NodeOptions *options, Node **ret_node, Error *error)
{
	_cleanup_(node_free_p) Node *node = calloc(1, sizeof(*node));
	if (!node)
		return error_set(error, -ENOMEM, "out of memory");
	node->options = *options;
	node->attached_fd = node->bound_fd = node->lock_fd = node->runtime_lock_fd = node->wake_fd = node->slots.fd =
		-1;
	node->generation = 1;
	node->started = time(NULL);
	(void)pthread_mutex_init(&node->mutex, NULL);
	deadline_cond_init(&node->changed);
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (fd < 0)
		return error_set(error, -errno, "cannot make an event: %s", strerror(errno));
	node->wake_fd = fd;
	if (node_settings_set(node, &options->settings) < 0)
		return error_set(error, -ENOMEM, "out of memory");
	int r = open_state(node, error);
	if (r < 0)
		return r;
	*ret_node = TAKE_PTR(node);
	return 0;
}

static int open_server(Node *node, ControlServer **ret_server, Error *error)
{
	if (asprintf(&node->socket, "%s/" SOCKET_NAME, node->options.runtime) < 0)
		return error_set(error, -ENOMEM, "out of memory");
	ControlServerOptions options = {
		.path = node->socket,
		.user = geteuid(),
		.quick = NODE_QUICK_CALLS,
		.handle = node_handle,
		.arg = node,
	};
	return control_server_new(&options, ret_server, error);
}

static void reload(Node *node)
{
	Error error = { 0 };
	node_notify_reloading();
	int r = node_reload(node, &error);
	if (r < 0)
		log_error("the configuration stays as it was: %s", error_text(&error, r));
	node_notify("READY=1");
}

/* Returns whether it is time to end. */
static bool take_signal(Node *node, int fd)
{
	struct signalfd_siginfo info;
	if (read(fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
		return false;
	if (info.ssi_signo != SIGHUP)
		return true;
	reload(node);
	return false;
}

static void drain(int fd)
{
	uint64_t wakes;
	ssize_t size = read(fd, &wakes, sizeof(wakes));
	(void)size;
}

/* While this thread waited, the keeper that it watched may have been replaced: so what is asked is the one that there is now. With the mutex. */
static bool is_lost(const Node *node)
{
	struct pollfd keeper = { .fd = node->mounts ? daemon_mounts_fd(node->mounts) : -1 };
	return poll(&keeper, 1, 0) > 0;
}

static void note_events(Node *node, const struct pollfd *watches)
{
	node_lock(node);
	if (watches[WATCH_KEEPER].revents && is_lost(node))
		node->lost = true;
	if (watches[WATCH_TABLE].revents)
		node->table_changed = true;
	if (watches[WATCH_KEEPER].revents || watches[WATCH_TABLE].revents)
		node_changed(node);
	node_unlock(node);
}

/* Somebody asked for it, and has had the answer; others have until the `deadline`, whose tv_sec is 0 as long as nobody has. */
static bool wants_end(Node *node, ControlServer *server, struct timespec *deadline)
{
	node_lock(node);
	bool wanted = node->upgrade || node->end;
	node_unlock(node);
	if (!wanted)
		return false;
	if (deadline->tv_sec == 0)
		*deadline = deadline_in((int64_t)END_SECONDS * 1000);
	return control_server_is_quiet(server) || deadline_is_over(deadline);
}

static int loop(Node *node, ControlServer *server, int signal_fd, Error *error)
{
	_cleanup_close_ int table = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
	struct timespec deadline = { 0 };
	for (;;) {
		struct pollfd watches[WATCHES] = {
			[WATCH_SIGNAL] = { .fd = signal_fd, .events = POLLIN },
			[WATCH_WAKE] = { .fd = node->wake_fd, .events = POLLIN },
			[WATCH_TABLE] = { .fd = table, .events = POLLPRI },
			[WATCH_KEEPER] = { .fd = node_keeper_fd(node) },
		};
		int r = control_server_turn(server, watches, WATCHES, deadline.tv_sec ? TICK_MS : -1);
		if (r < 0)
			return error_set(error, r, "the control socket cannot be served: %s", strerror(-r));
		if (watches[WATCH_WAKE].revents)
			drain(node->wake_fd);
		note_events(node, watches);
		if (watches[WATCH_SIGNAL].revents && take_signal(node, signal_fd))
			return 0;
		if (wants_end(node, server, &deadline))
			return 0;
	}
}

/* All mounts, then keeper and server; what is remembered stays, and comes back at the next start. */
static int end_all(Node *node, Error *error)
{
	_cleanup_free_ char **owners = node_owners(node);
	for (char **owner = owners; owner && *owner; owner++) {
		NodeHolder *holder;
		Error own = { 0 };
		if (node_holder_try(node, *owner, &holder) < 0)
			continue;
		const ControlRequest *request = &holder->record.request;
		int r = request->directory ? node_unbind(request->directory, &holder->record.chain_id, true, &own) : 0;
		if (r < 0)
			log_error("%s", own.message);
		node_mark_set(node, holder->owner, NULL);
		node_holder_give(node, holder);
	}
	DaemonMounts *mounts;
	int r = node_keeper_take(node, &mounts, error);
	if (r < 0)
		return r;
	r = daemon_mounts_end(mounts, error);
	node_keeper_give(node, r == -EPIPE ? 0 : r);
	return r;
}

static void tell_ready(Node *node)
{
	node_notify("READY=1");
	if (node->options.ready_fd < 0)
		return;
	ssize_t written = write(node->options.ready_fd, "\n", 1);
	(void)written;
	(void)close(TAKE_FD(node->options.ready_fd));
}

/* Calls are ended by the end of the process, unless they end soon. Returns whether all have. */
static bool wait_for_calls(ControlServer *server)
{
	struct timespec until = deadline_in((int64_t)STOP_SECONDS * 1000);
	while (!control_server_is_quiet(server))
		if (deadline_is_over(&until) || control_server_turn(server, NULL, 0, TICK_MS) < 0)
			return false;
	return true;
}

static int start(Node *node, Error *error)
{
	int r = node_restore(node, error);
	if (r == 0 && node_keeping_start(node) < 0)
		r = error_set(error, -EAGAIN, "cannot start a thread");
	if (r < 0)
		return r;
	log_info("ready version=%s runtime=%s state=%s cache=%s", node->options.version, node->options.runtime,
		 node->options.state, node->options.cache);
	tell_ready(node);
	return 0;
}

static int stop(Node **node, ControlServer **server, NodeEnd *ret_end, Error *error)
{
	Node *stopped = *node;
	node_notify("STOPPING=1");
	bool quiet = wait_for_calls(*server);
	quiet &= node_keeping_stop(stopped);
	int r = stopped->end ? end_all(stopped, error) : 0;
	*ret_end = stopped->upgrade && !stopped->end ? NODE_UPGRADE : NODE_ENDED;
	if (!quiet) {
		/* Threads still use both. */
		*server = NULL;
		*node = NULL;
	}
	return r;
}

int node_run(const NodeOptions *options, NodeEnd *ret_end, Error *error)
{
	sigset_t signals;
	(void)sigemptyset(&signals);
	(void)sigaddset(&signals, SIGTERM);
	(void)sigaddset(&signals, SIGINT);
	(void)sigaddset(&signals, SIGHUP);
	(void)pthread_sigmask(SIG_BLOCK, &signals, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
	_cleanup_close_ int signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
	if (signal_fd < 0)
		return error_set(error, -errno, "cannot wait for signals: %s", strerror(errno));
	_cleanup_(node_free_p) Node *node = NULL;
	_cleanup_(control_server_free_p) ControlServer *server = NULL;
	int r = node_new(options, &node, error);
	/* Who asks before all is back waits for the greeting. */
	if (r == 0)
		r = open_server(node, &server, error);
	if (r < 0)
		return r;
	node->server = server;
	r = start(node, error);
	if (r == 0)
		r = loop(node, server, signal_fd, error);
	if (r < 0) {
		(void)node_keeping_stop(node); /* who waits for a keeper waits no more */
		return r;
	}
	return stop(&node, &server, ret_end, error);
}
