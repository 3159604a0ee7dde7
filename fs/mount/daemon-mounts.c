#include "fs/mount/daemon-mounts.h"

#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include "fs/base/fd.h"
#include "fs/mount/daemon-message.h"
#include "fs/mount/daemon-start.h"
#include "fs/mount/mount-plan.h"
#include "fs/mount/start-record.h"
#include "fs/mount/upgrade.h"

#define ANSWER_S 60
#define END_MS   5000

struct DaemonMounts {
	int socket;
	uint32_t highest;
	_Atomic bool late;   /* it did not answer in time, and is not heard any more */
	DaemonPacket packet; /* the last answer */
};

/* ---- the connection ---- */

static int connect_to(const char *runtime, int *ret_fd)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int length = snprintf(address.sun_path, sizeof(address.sun_path), "%s/keeper.sock", runtime);
	if (length >= (int)sizeof(address.sun_path))
		return -ENAMETOOLONG;
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	struct timeval patience = { .tv_sec = ANSWER_S };
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) < 0 ||
	    connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/*
 * What has failed between this process and the keeper, as opposed to what the keeper says. An answer that comes after all would be taken for that of
 * the next request: so there is none, on this connection.
 */
static int broken(DaemonMounts *mounts, Error *error, int code)
{
	if (code == -EAGAIN)
		mounts->late = true;
	(void)shutdown(mounts->socket, SHUT_RDWR);
	if (mounts->late && code != -EAGAIN)
		return error_set(error, -EPIPE,
				 "the keeper of the mounts did not answer somebody in time, and is connected to anew; "
				 "try again");
	if (code == -EAGAIN)
		return error_set(error, -ETIMEDOUT, "the keeper of the mounts has not answered within %d s", ANSWER_S);
	if (code == -EPIPE || code == -ECONNRESET)
		return error_set(error, -EPIPE, "the keeper of the mounts is gone");
	return error_set(error, code, "cannot speak to the keeper of the mounts: %s", strerror(-code));
}

static int send_to(DaemonMounts *mounts, const DaemonMessage *message, const int *fds, size_t count, Error *error)
{
	int r = daemon_message_send(mounts->socket, message, fds, count, 0);
	return r < 0 ? broken(mounts, error, r) : 0;
}

/* Waits for an answer of this type; one that says no becomes the error. */
static int hear(DaemonMounts *mounts, uint32_t type, Error *error)
{
	int r = daemon_message_receive(mounts->socket, &mounts->packet, 0);
	if (r < 0)
		return broken(mounts, error, r);
	const DaemonMessage *message = &mounts->packet.message;
	if (message->type == DAEMON_ANSWER && message->result < 0) {
		char text[sizeof(error->message)];
		daemon_packet_close(&mounts->packet);
		daemon_message_text(message, text, sizeof(text));
		return error_set(error, message->result, "%s", text[0] ? text : strerror(-message->result));
	}
	if (message->type == type)
		return 0;
	daemon_packet_close(&mounts->packet);
	return broken(mounts, error, -EPROTO);
}

static int ask(DaemonMounts *mounts, const DaemonMessage *request, uint32_t type, Error *error)
{
	int r = send_to(mounts, request, NULL, 0, error);
	return r < 0 ? r : hear(mounts, type, error);
}

static int greet(DaemonMounts *mounts, Error *error)
{
	DaemonMessage hello = { .type = DAEMON_HELLO, .count = DAEMON_PROTOCOL };
	int r = ask(mounts, &hello, DAEMON_HELLO, error);
	if (r == 0 && mounts->packet.message.count != DAEMON_PROTOCOL)
		r = error_set(error, -EPROTONOSUPPORT,
			      "the keeper of the mounts speaks version %u, not %u; end it and start anew",
			      mounts->packet.message.count, DAEMON_PROTOCOL);
	if (r == 0)
		mounts->highest = mounts->packet.message.slot;
	return r;
}

static int wrap(int fd, DaemonMounts **ret_mounts, Error *error)
{
	_cleanup_(daemon_mounts_close_p) DaemonMounts *mounts = calloc(1, sizeof(*mounts));
	if (!mounts) {
		(void)close(fd);
		return error_set(error, -ENOMEM, "out of memory");
	}
	mounts->socket = fd;
	int r = greet(mounts, error);
	if (r < 0)
		return r;
	*ret_mounts = TAKE_PTR(mounts);
	return 0;
}

static bool is_absent(int code)
{
	return code == -ENOENT || code == -ECONNREFUSED;
}

int daemon_mounts_open(const DaemonMountsOptions *options, DaemonMounts **ret_mounts, Error *error)
{
	DaemonMountsOptions own = *options;
	if (!own.runtime)
		own.runtime = DAEMON_RUNTIME;
	_cleanup_close_ int lock = -1;
	int fd = -1, r = connect_to(own.runtime, &fd);
	if (is_absent(r) && own.start) {
		r = daemon_start_lock(own.runtime, &lock, error);
		if (r < 0)
			return r;
		r = connect_to(own.runtime, &fd); /* somebody may have been faster */
		if (is_absent(r)) {
			r = daemon_start(&own, error);
			if (r < 0)
				return r;
			r = connect_to(own.runtime, &fd);
		}
	}
	if (r < 0)
		return error_set(error, is_absent(r) ? -ENOENT : r, "no keeper answers at %s/keeper.sock: %s",
				 own.runtime, strerror(-r));
	return wrap(fd, ret_mounts, error);
}

DaemonMounts *daemon_mounts_close(DaemonMounts *mounts)
{
	if (mounts) {
		(void)close(mounts->socket);
		free(mounts);
	}
	return NULL;
}

int daemon_mounts_fd(const DaemonMounts *mounts)
{
	return mounts->socket;
}

bool daemon_mounts_was_late(const DaemonMounts *mounts)
{
	return mounts->late;
}

pid_t daemon_mounts_keeper(const DaemonMounts *mounts)
{
	struct ucred peer = { 0 };
	socklen_t size = sizeof(peer);
	return getsockopt(mounts->socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 ? peer.pid : 0;
}

uint32_t daemon_mounts_highest(const DaemonMounts *mounts)
{
	return mounts->highest;
}

/* ---- images ---- */

/* The descriptors of an image in the order of its plan, the plan before them. */
typedef struct FdList {
	int *fds;
	size_t count;
} FdList;

/* The number in the plan becomes the place in the list. */
static int list_descriptor(void *arg, int *fd)
{
	FdList *list = arg;
	if (list->count == DAEMON_ATTACH_FDS)
		return -ENFILE;
	list->fds[list->count] = *fd;
	*fd = (int)list->count++;
	return 0;
}

static int send_image(DaemonMounts *mounts, const DaemonMessage *attach, const FdList *list, Error *error)
{
	DaemonMessage message = *attach;
	message.count = (uint32_t)list->count;
	for (size_t sent = 0; sent < list->count;) {
		size_t part = list->count - sent < DAEMON_MESSAGE_FDS ? list->count - sent : DAEMON_MESSAGE_FDS;
		int r = send_to(mounts, &message, &list->fds[sent], part, error);
		if (r < 0)
			return r;
		sent += part;
		message = (DaemonMessage){ .type = DAEMON_MORE, .slot = attach->slot };
	}
	return hear(mounts, DAEMON_ANSWER, error);
}

static int send_plan(DaemonMounts *mounts, MountPlan *plan, const FetchImage *image, const DaemonMessage *attach,
		     Error *error)
{
	_cleanup_close_ int record = -1, plan_fd = -1;
	FdList list = { .fds = calloc(DAEMON_ATTACH_FDS, sizeof(int)), .count = 1 };
	_cleanup_free_ int *fds = list.fds;
	char place[START_RECORD_PLACE];
	(void)snprintf(place, sizeof(place), "%s/%s", attach->flags & DAEMON_FLAG_XATTR ? "xattr" : "plain",
		       attach->name);
	int r = fds ? mount_plan_record(plan, place, image, &record) : -ENOMEM;
	if (r == 0) {
		plan->record_fd = record;
		r = mount_plan_each(plan, list_descriptor, &list);
	}
	if (r == 0)
		r = mount_plan_write(plan, MOUNT_PLAN_SLOT_NAME, &plan_fd);
	if (r < 0)
		return error_set(error, r, "cannot write the plan of the image: %s", strerror(-r));
	fds[0] = plan_fd;
	return send_image(mounts, attach, &list, error);
}

int daemon_mounts_attach(DaemonMounts *mounts, const DaemonAttach *attach, DaemonSlot *ret_slot, Error *error)
{
	bool xattr = false;
	if (attach->slot == 0 || attach->slot > DAEMON_SLOT_MAX)
		return error_set(error, -EINVAL, "slot %u cannot be", attach->slot);
	int r = mount_plan_has_xattrs(attach->image, &xattr, error);
	if (r < 0)
		return r;
	_cleanup_(mount_plan_done) MountPlan plan = MOUNT_PLAN_NULL;
	r = mount_plan_from_image(attach->image, attach->source, attach->deadline, &plan);
	if (r < 0)
		return error_set(error, r, "out of memory");
	/* The manager keeps the cache's quota. */
	mount_plan_use(
		&plan, attach->image,
		&(MountPlanUse){ .no_fill = attach->no_fill, .quota = attach->quota, .fill_rate = attach->fill_rate });
	DaemonSlot slot = { .slot = attach->slot, .xattr = xattr };
	(void)digest_hex(&attach->image->chain_id, slot.chain_id);
	DaemonMessage message = {
		.type = DAEMON_ATTACH,
		.slot = attach->slot,
		.flags = xattr ? DAEMON_FLAG_XATTR : 0,
	};
	memcpy(message.name, slot.chain_id, sizeof(message.name));
	r = send_plan(mounts, &plan, attach->image, &message, error);
	if (r < 0)
		return error_prefix(error, r, "cannot attach %s", attach->source);
	daemon_packet_close(&mounts->packet);
	*ret_slot = slot;
	return 0;
}

int daemon_mounts_detach(DaemonMounts *mounts, uint32_t slot, Error *error)
{
	if (slot == 0 || slot > DAEMON_SLOT_MAX)
		return error_set(error, -ENOENT, "no image is attached in slot %u", slot);
	int r = ask(mounts, &(DaemonMessage){ .type = DAEMON_DETACH, .slot = slot }, DAEMON_ANSWER, error);
	if (r == 0)
		daemon_packet_close(&mounts->packet);
	return r;
}

static int add_slots(const DaemonMessage *message, DaemonSlot **slots, size_t *count)
{
	DaemonSlot *larger = reallocarray(*slots, *count + message->count + 1, sizeof(*larger));
	if (!larger)
		return -ENOMEM;
	*slots = larger;
	for (uint32_t i = 0; i < message->count; i++) {
		DaemonEntry entry;
		daemon_entry_read(message, i, &entry);
		larger[*count] = (DaemonSlot){
			.slot = entry.slot,
			.xattr = entry.flags & DAEMON_FLAG_XATTR,
			.refused = entry.flags & DAEMON_FLAG_REFUSED,
		};
		memcpy(larger[*count].chain_id, entry.name, sizeof(entry.name));
		(*count)++;
	}
	return 0;
}

int daemon_mounts_list(DaemonMounts *mounts, DaemonSlot **ret_slots, size_t *ret_count, Error *error)
{
	_cleanup_free_ DaemonSlot *slots = NULL;
	size_t count = 0;
	DaemonMessage request = { .type = DAEMON_LIST };
	uint32_t got;
	do {
		int r = ask(mounts, &request, DAEMON_SLOTS, error);
		if (r < 0)
			return r;
		daemon_packet_close(&mounts->packet);
		got = mounts->packet.message.count;
		if (add_slots(&mounts->packet.message, &slots, &count) < 0)
			return error_set(error, -ENOMEM, "out of memory");
		request.slot = count > 0 ? slots[count - 1].slot : 0;
	} while (got > 0);
	*ret_slots = TAKE_PTR(slots);
	*ret_count = count;
	return 0;
}

/* ---- what is counted ---- */

static int get(DaemonMounts *mounts, uint32_t slot, uint32_t number, int *ret_fd, Error *error)
{
	DaemonMessage request = { .type = DAEMON_GET, .slot = slot, .count = number };
	int r = ask(mounts, &request, DAEMON_ANSWER, error);
	if (r < 0)
		return r;
	if (mounts->packet.fd_count == 1)
		*ret_fd = TAKE_FD(mounts->packet.fds[0]);
	else
		r = broken(mounts, error, -EPROTO);
	mounts->packet.fd_count = r == 0 ? 0 : mounts->packet.fd_count;
	daemon_packet_close(&mounts->packet);
	return r;
}

int daemon_mounts_metrics(DaemonMounts *mounts, int *ret_fd, Error *error)
{
	return get(mounts, 0, 0, ret_fd, error);
}

int daemon_mounts_record(DaemonMounts *mounts, uint32_t slot, int *ret_fd, Error *error)
{
	_cleanup_close_ int plan_fd = -1;
	_cleanup_(mount_plan_done) MountPlan plan = MOUNT_PLAN_NULL;
	if (slot == 0)
		return error_set(error, -ENOENT, "no image is attached in slot 0");
	int r = get(mounts, slot, 0, &plan_fd, error);
	if (r == 0)
		r = mount_plan_read(plan_fd, &plan, error);
	if (r < 0)
		return r;
	if (plan.record_fd < 1)
		return error_set(error, -ENODATA, "the reads of slot %u are not recorded", slot);
	return get(mounts, slot, (uint32_t)plan.record_fd, ret_fd, error);
}

int daemon_mounts_access(DaemonMounts *mounts, uint32_t slot, char **ret_access, Error *error)
{
	_cleanup_close_ int plan_fd = -1;
	_cleanup_(mount_plan_done) MountPlan plan = MOUNT_PLAN_NULL;
	int r = get(mounts, slot, 0, &plan_fd, error);
	if (r == 0)
		r = mount_plan_read(plan_fd, &plan, error);
	if (r == 0)
		*ret_access = TAKE_PTR(plan.access);
	return r;
}

/* ---- the keeper itself ---- */

int daemon_mounts_upgrade(DaemonMounts *mounts, Error *error)
{
	Programs programs;
	pid_t keeper = daemon_mounts_keeper(mounts);
	int r = programs_find(&programs, error);
	if (r < 0)
		return r;
	_cleanup_(keeper_processes_done) KeeperProcesses keepers = { 0 };
	r = keeper_find(NULL, &keepers);
	if (r < 0)
		return error_set(error, r, "cannot look at the processes of this machine: %s", strerror(-r));
	for (size_t i = 0; i < keepers.count; i++) {
		if (keepers.items[i].pid == keeper)
			return upgrade_keeper(&keepers.items[i], &programs, error);
	}
	return broken(mounts, error, -EPIPE);
}

int daemon_mounts_end(DaemonMounts *mounts, Error *error)
{
	int r = ask(mounts, &(DaemonMessage){ .type = DAEMON_END }, DAEMON_ANSWER, error);
	if (r < 0)
		return r;
	daemon_packet_close(&mounts->packet);
	struct pollfd end = { .fd = mounts->socket };
	if (poll(&end, 1, END_MS) > 0)
		return 0;
	return error_set(error, -EBUSY,
			 "the images are unmounted, but still in use; the keeper ends with their last user");
}
