#include "fs/mount/server-daemon.h"

#include <poll.h>
#include <pthread.h>
#include <string.h>

#include "fs/base/log.h"
#include "fs/mount/arguments.h"
#include "fs/mount/crash-note.h"
#include "fs/mount/daemon-message.h"
#include "fs/mount/process.h"
#include "fs/mount/sandbox.h"
#include "fs/mount/session.h"

#define WORD    "daemon"
#define NUMBERS 9
#define FIRST   2 /* of the numbers on the command line */

typedef struct Connection {
	int fuse_fd, init_fd, journal_fd;
	Journal *journal;
	Ops ops;
	Session *session;
	pthread_t thread;
} Connection;

/* An image of which not all descriptors have come yet. */
typedef struct Incoming {
	DaemonMessage attach;
	int *fds;
	size_t count;
} Incoming;

typedef struct Daemon {
	pid_t keeper;
	int control_fd;
	int metrics_fd;
	Connection connections[2]; /* plain, xattr */
	MountServer *server;
	ReadPool *pool;
	Incoming incoming;
	uint32_t opened; /* images up to this slot were opened, or need not be */
	bool started;
} Daemon;

bool server_daemon_is_meant(int argc, char **argv)
{
	return argc == FIRST + NUMBERS && strcmp(argv[1], WORD) == 0;
}

static int parse(char **argv, Daemon *daemon)
{
	long numbers[NUMBERS];
	for (size_t i = 0; i < NUMBERS; i++) {
		if (!argument_number(argv[FIRST + i], INT32_MAX, &numbers[i]))
			return -EINVAL;
	}
	daemon->keeper = (pid_t)numbers[0];
	daemon->control_fd = (int)numbers[1];
	for (size_t i = 0; i < 2; i++) {
		daemon->connections[i].fuse_fd = (int)numbers[2 + 3 * i];
		daemon->connections[i].init_fd = (int)numbers[3 + 3 * i];
		daemon->connections[i].journal_fd = (int)numbers[4 + 3 * i];
	}
	daemon->metrics_fd = (int)numbers[8];
	return 0;
}

/* Threads come after the privileges have gone: a filter is a thread's own. */
static int open_daemon(Daemon *daemon, Error *error)
{
	int r = digest_prepare();
	if (r < 0)
		return error_set(error, r, "out of memory");
	for (size_t i = 0; i < 2; i++) {
		r = journal_open(daemon->connections[i].journal_fd, &daemon->connections[i].journal);
		if (r < 0)
			return error_set(error, r, "cannot open the journal: %s", strerror(-r));
	}
	r = process_drop_privileges(daemon->keeper, error);
	if (r == 0)
		r = sandbox_enter(error);
	if (r < 0)
		return r;
	r = mount_server_new(daemon->metrics_fd, &daemon->server);
	if (r == 0)
		r = read_pool_new(mount_server_metrics(daemon->server), &daemon->pool);
	return r < 0 ? error_set(error, r, "cannot start threads: %s", strerror(-r)) : 0;
}

/* It ends with its mount; the other one goes on. */
static void *watch(void *arg)
{
	Connection *connection = arg;
	int r = session_wait(connection->session);
	if (r < 0) {
		log_error("cannot read requests reason=\"%s\"", strerror(-r));
		_exit(1);
	}
	return NULL;
}

static int open_session(Daemon *daemon, size_t number, Error *error)
{
	Connection *connection = &daemon->connections[number];
	FdMap init = { 0 };
	int r = fd_load(connection->init_fd, &init);
	if (r < 0)
		return error_set(error, r, "cannot read the saved FUSE_INIT: %s", strerror(-r));
	connection->ops =
		(Ops){ .kind = number == 0 ? OPS_PLAIN : OPS_XATTR, .server = daemon->server, .pool = daemon->pool };
	r = session_new(connection->fuse_fd, init.data, init.size, &connection->ops, connection->journal,
			&connection->session, error);
	fd_unmap(&init);
	return r;
}

static int start(Daemon *daemon, Error *error)
{
	ServerMetrics *metrics = mount_server_metrics(daemon->server);
	for (size_t i = 0; i < 2; i++) {
		int r = open_session(daemon, i, error);
		if (r < 0)
			return r;
	}
	for (size_t i = 0; i < 2; i++) {
		Connection *connection = &daemon->connections[i];
		(void)atomic_fetch_add(&metrics->taken_over, session_recover(connection->session));
		int r = session_start(connection->session);
		if (r == 0)
			r = -pthread_create(&connection->thread, NULL, watch, connection);
		if (r < 0)
			return error_set(error, r, "cannot start threads: %s", strerror(-r));
	}
	daemon->started = true;
	DaemonMessage ready = { .type = DAEMON_READY };
	return daemon_message_send(daemon->control_fd, &ready, NULL, 0, 0);
}

/* Puts the descriptor at a place of the list where the plan names the place; each belongs to one. */
static int place_descriptor(void *arg, int *fd)
{
	Incoming *incoming = arg;
	if (*fd < 1 || (size_t)*fd >= incoming->count || incoming->fds[*fd] < 0)
		return -EBADMSG;
	*fd = TAKE_FD(incoming->fds[*fd]);
	return 0;
}

static int forget_descriptor(_unused_ void *arg, int *fd)
{
	*fd = -1;
	return 0;
}

/* What was placed is the plan's then; after a failure nothing is. */
static int read_plan(Incoming *incoming, MountPlan *ret_plan, Error *error)
{
	MountPlan plan;
	int r = mount_plan_read(incoming->fds[0], &plan, error);
	if (r < 0)
		return r;
	_cleanup_free_ int *before = calloc(incoming->count, sizeof(*before));
	if (before)
		memcpy(before, incoming->fds, incoming->count * sizeof(*before));
	r = before ? mount_plan_each(&plan, place_descriptor, incoming) : -ENOMEM;
	if (r < 0) {
		if (before)
			memcpy(incoming->fds, before, incoming->count * sizeof(*before));
		(void)!mount_plan_each(&plan, forget_descriptor, NULL);
		mount_plan_done(&plan);
		return error_set(error, r, "the plan names files that did not come with it");
	}
	*ret_plan = plan;
	return 0;
}

/*
 * An image that there was before, and that cannot even be added: what the kernel knows of it is answered with EIO, not with ESTALE as if it had been taken
 * away, and its name does not vanish.
 */
static void add_refused(Daemon *daemon, const MountPlace *place)
{
	MountPlan none = MOUNT_PLAN_NULL;
	_cleanup_(mount_image_unref_p) MountImage *image = NULL;
	if (mount_server_add(daemon->server, place, &none, &image) == 0)
		mount_image_refuse(image);
}

static int add_image(Daemon *daemon, Error *error)
{
	const DaemonMessage *attach = &daemon->incoming.attach;
	MountPlace place = {
		.slot = attach->slot,
		.xattr = attach->flags & DAEMON_FLAG_XATTR,
		.name = attach->name,
	};
	MountPlan plan;
	_cleanup_(mount_image_unref_p) MountImage *image = NULL;
	int r = read_plan(&daemon->incoming, &plan, error);
	if (r < 0 && !(attach->flags & DAEMON_FLAG_FRESH))
		add_refused(daemon, &place);
	if (r < 0)
		return r;
	r = mount_server_add(daemon->server, &place, &plan, &image);
	if (r < 0)
		return error_set(error, r, "cannot add the image: %s", strerror(-r));
	if (attach->flags & DAEMON_FLAG_REFUSED)
		mount_image_refuse(image);
	if (attach->flags & DAEMON_FLAG_FRESH)
		r = mount_image_open(image, error);
	if (r < 0)
		(void)!mount_server_remove(daemon->server, attach->slot);
	return r;
}

static int answer(const Daemon *daemon, uint32_t slot, int result, const Error *error)
{
	const char *text = result < 0 ? error_text(error, result) : "";
	DaemonMessage message = { .type = DAEMON_ANSWER,
				  .slot = slot,
				  .result = result,
				  .rest = (const uint8_t *)text,
				  .rest_size = strlen(text) };
	return daemon_message_send(daemon->control_fd, &message, NULL, 0, 0);
}

static void incoming_done(Incoming *incoming)
{
	for (size_t i = 0; i < incoming->count; i++)
		close_p(&incoming->fds[i]);
	free(incoming->fds);
	*incoming = (Incoming){ 0 };
}

static int receive_image(Daemon *daemon, DaemonPacket *packet)
{
	Incoming *incoming = &daemon->incoming;
	const DaemonMessage *message = &packet->message;
	if (message->type == DAEMON_ATTACH) {
		incoming_done(incoming);
		incoming->attach = *message;
		incoming->fds = calloc(message->count, sizeof(int));
		if (!incoming->fds)
			return -ENOMEM;
	}
	if (!incoming->fds || message->slot != incoming->attach.slot ||
	    packet->fd_count > incoming->attach.count - incoming->count)
		return -EPROTO;
	memcpy(&incoming->fds[incoming->count], packet->fds, packet->fd_count * sizeof(int));
	incoming->count += packet->fd_count;
	packet->fd_count = 0;
	if (incoming->count < incoming->attach.count)
		return 0;
	Error error = { 0 };
	int r = add_image(daemon, &error);
	uint32_t slot = incoming->attach.slot;
	incoming_done(incoming);
	return answer(daemon, slot, r, &error);
}

static int detach(Daemon *daemon, uint32_t slot)
{
	Error error = { 0 };
	int r = mount_server_remove(daemon->server, slot);
	return answer(daemon, slot, r, &error);
}

static int handle(Daemon *daemon, DaemonPacket *packet, Error *error)
{
	const DaemonMessage *message = &packet->message;
	int r = -EPROTO;
	if (message->type == DAEMON_ATTACH || message->type == DAEMON_MORE)
		r = receive_image(daemon, packet);
	else if (message->type == DAEMON_DETACH)
		r = detach(daemon, message->slot);
	else if (message->type == DAEMON_START && !daemon->connections[0].session)
		r = start(daemon, error);
	if (r < 0 && error->code == 0)
		(void)error_set(error, r, "cannot do what the keeper asks for: %s", strerror(-r));
	return r;
}

/* The image with the lowest slot above `slot`, whichever mount it is in. */
static MountImage *next_image(Daemon *daemon, uint32_t slot)
{
	MountImage *plain = NULL, *xattr = NULL;
	(void)!mount_server_next(daemon->server, false, slot, &plain);
	(void)!mount_server_next(daemon->server, true, slot, &xattr);
	bool is_plain = plain && (!xattr || plain->slot < xattr->slot);
	(void)mount_image_unref(is_plain ? xattr : plain);
	return is_plain ? plain : xattr;
}

/*
 * Opens the images that no request has opened yet, until the keeper says something: so what is to be filled goes on being filled, and damage
 * is in the log before somebody runs into it.
 */
static void open_images(Daemon *daemon)
{
	struct pollfd control = { .fd = daemon->control_fd, .events = POLLIN };
	while (daemon->started && poll(&control, 1, 0) == 0) {
		_cleanup_(mount_image_unref_p) MountImage *image = next_image(daemon, daemon->opened);
		if (!image)
			return;
		daemon->opened = image->slot;
		/* Either journal will do: the keeper asks both. */
		crash_note_opening(daemon->connections[0].journal, image->slot);
		(void)!ops_open_image(image);
		crash_note_opening(daemon->connections[0].journal, 0);
	}
}

static int serve(Daemon *daemon, Error *error)
{
	static DaemonPacket packet;
	for (;;) {
		open_images(daemon);
		int r = daemon_message_receive(daemon->control_fd, &packet, 0);
		if (r < 0)
			return error_set(error, r, "cannot hear the keeper: %s", strerror(-r));
		r = handle(daemon, &packet, error);
		daemon_packet_close(&packet);
		if (r < 0)
			return r;
	}
}

int server_daemon_serve(int argc, char **argv, Error *error)
{
	static Daemon daemon;
	if (!server_daemon_is_meant(argc, argv) || parse(argv, &daemon) < 0)
		return error_set(error, -EINVAL, "a command line of another version");
	int r = open_daemon(&daemon, error);
	if (r < 0)
		return r;
	crash_note_install();
	return serve(&daemon, error);
}
