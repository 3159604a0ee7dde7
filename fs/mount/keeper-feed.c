#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "fs/base/log.h"
#include "fs/mount/arguments.h"
#include "fs/mount/journal.h"
#include "fs/mount/keeper-daemon.h"

#define READY_MS  30000 /* a new program that takes longer is no better than the old one */
#define KILLS_MAX 16u   /* of servers of a new program that were not ready yet, before it is doubted */
#define NUMBERS   9u

static int start(KeeperDaemon *daemon)
{
	int ends[2];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		return -errno;
	_cleanup_close_ int own = ends[0], other = ends[1];
	if (fcntl(own, F_SETFL, O_NONBLOCK) < 0)
		return -errno;
	const KeeperMount *plain = &daemon->mounts[0], *xattr = &daemon->mounts[1];
	const int fds[] = { other,          plain->fuse_fd, plain->init_fd,    plain->journal_fd,
			    xattr->fuse_fd, xattr->init_fd, xattr->journal_fd, daemon->metrics_fd };
	char numbers[NUMBERS][16];
	const char *words[NUMBERS + 1] = { KEEPER_DAEMON_WORD };
	(void)snprintf(numbers[0], sizeof(numbers[0]), "%d", getpid());
	for (size_t i = 0; i < NUMBERS; i++) {
		if (i > 0)
			(void)snprintf(numbers[i], sizeof(numbers[i]), "%d", fds[i - 1]);
		words[i + 1] = numbers[i];
	}
	int r = keeper_server_start(&daemon->server, words, ELEMENTS(words), fds, ELEMENTS(fds));
	if (r < 0)
		return r;
	daemon->control_fd = TAKE_FD(own);
	daemon->busy = NULL;
	daemon->blocked = false;
	daemon->start_sent = false;
	return 0;
}

void keeper_feed_start(KeeperDaemon *daemon)
{
	if (daemon->server.pid > 0 || keeper_now() < daemon->start_at)
		return;
	int r = start(daemon);
	if (r < 0) {
		log_error("cannot start the server dir=%s reason=\"%s\"", daemon->directory, strerror(-r));
		daemon->start_at = keeper_now() + BACKOFF_MAX;
	}
}

/* Notes that the server takes no more at the moment; a server that is gone is noticed by its end. */
static bool has_sent(KeeperDaemon *daemon, int result)
{
	daemon->blocked = result == -EAGAIN;
	if (result < 0 && result != -EAGAIN && result != -EPIPE)
		log_error("cannot send to the server reason=\"%s\"", strerror(-result));
	return result == 0;
}

static bool send_next_descriptors(KeeperDaemon *daemon)
{
	const KeeperSlot *slot = daemon->busy;
	size_t left = slot->fd_total - daemon->sent, part = left < DAEMON_MESSAGE_FDS ? left : DAEMON_MESSAGE_FDS;
	DaemonMessage message = { .type = daemon->sent == 0 ? DAEMON_ATTACH : DAEMON_MORE,
				  .slot = slot->number,
				  .flags = slot->flags,
				  .count = (uint32_t)slot->fd_total };
	memcpy(message.name, slot->name, sizeof(message.name));
	if (!has_sent(daemon,
		      daemon_message_send(daemon->control_fd, &message, &slot->fds[daemon->sent], part, MSG_DONTWAIT)))
		return false;
	daemon->sent += part;
	return true;
}

static KeeperSlot *find_state(const KeeperDaemon *daemon, KeeperSlotState state)
{
	for (size_t i = 0; i < daemon->slot_count; i++) {
		if (daemon->slots[i]->state == state)
			return daemon->slots[i];
	}
	return NULL;
}

/* Gives the server the next thing to do; false when there is none, or it cannot be sent now. */
static bool give_next(KeeperDaemon *daemon)
{
	KeeperSlot *slot = find_state(daemon, KEEPER_SLOT_LEAVING);
	if (slot) {
		DaemonMessage message = { .type = DAEMON_DETACH, .slot = slot->number };
		if (!has_sent(daemon, daemon_message_send(daemon->control_fd, &message, NULL, 0, MSG_DONTWAIT)))
			return false;
		daemon->busy = slot;
		daemon->sent = slot->fd_total;
		return true;
	}
	slot = find_state(daemon, KEEPER_SLOT_WANTED);
	if (slot) {
		slot->state = KEEPER_SLOT_SENT;
		daemon->busy = slot;
		daemon->sent = 0;
		return true;
	}
	DaemonMessage message = { .type = DAEMON_START };
	if (!daemon->start_sent)
		daemon->start_sent =
			has_sent(daemon, daemon_message_send(daemon->control_fd, &message, NULL, 0, MSG_DONTWAIT));
	return false;
}

/* One image after the other, each answered before the next: so it is known which one a server died of. */
void keeper_feed(KeeperDaemon *daemon)
{
	while (daemon->control_fd >= 0) {
		if (!daemon->busy && !give_next(daemon))
			return;
		if (daemon->sent == daemon->busy->fd_total || !send_next_descriptors(daemon))
			return;
	}
}

static void slot_answered(KeeperDaemon *daemon, const DaemonMessage *message)
{
	KeeperSlot *slot = daemon->busy;
	char text[sizeof(((Error *)0)->message)];
	daemon_message_text(message, text, sizeof(text));
	daemon->busy = NULL;
	bool gone = slot->state == KEEPER_SLOT_LEAVING || (message->result < 0 && slot->flags & DAEMON_FLAG_FRESH);
	if (slot->state == KEEPER_SLOT_SENT) {
		slot->state = KEEPER_SLOT_ATTACHED;
		slot->flags &= ~(uint32_t)DAEMON_FLAG_FRESH;
		if (message->result < 0)
			log_error("the server refuses an image slot=%u reason=\"%s\"", slot->number, text);
	}
	if (slot->unwanted && !gone) {
		slot->state = KEEPER_SLOT_LEAVING;
		slot->unwanted = false;
		return;
	}
	keeper_clients_answer(daemon, slot, slot->unwanted ? 0 : message->result, text);
	if (gone)
		keeper_slot_remove(daemon, slot);
}

static void is_ready(KeeperDaemon *daemon)
{
	daemon->ready = true;
	if (daemon->old_program_fd >= 0)
		(void)close(TAKE_FD(daemon->old_program_fd));
	if (daemon->ready_fd >= 0 && ready_send(TAKE_FD(daemon->ready_fd), NULL) < 0)
		log_warning("nobody waits for the server dir=%s", daemon->directory);
}

void keeper_feed_handle(KeeperDaemon *daemon)
{
	static DaemonPacket packet;
	int r = daemon_message_receive(daemon->control_fd, &packet, MSG_DONTWAIT);
	if (r == -EAGAIN)
		return;
	if (r == 0) {
		daemon_packet_close(&packet);
		if (packet.message.type == DAEMON_READY && daemon->start_sent)
			is_ready(daemon);
		else if (packet.message.type == DAEMON_ANSWER && daemon->busy &&
			 packet.message.slot == daemon->busy->number && daemon->sent == daemon->busy->fd_total)
			slot_answered(daemon, &packet.message);
		else
			r = -EPROTO;
	}
	if (r == 0)
		return;
	/* Its end says why; one that says what it must not is no server any more. */
	(void)close(TAKE_FD(daemon->control_fd));
	if (r != -EPIPE)
		(void)kill(daemon->server.pid, SIGKILL);
}

static void charge(KeeperDaemon *daemon, KeeperSlot *slot)
{
	if (!keeper_slot_charge(slot, keeper_now()) || slot->flags & DAEMON_FLAG_REFUSED)
		return;
	log_error("every request is answered with EIO, since %u servers died of it image=%s slot=%u "
		  "way_out=\"take the image away and attach it again\"",
		  slot->deaths, slot->name, slot->number);
	if (slot->flags & DAEMON_FLAG_FRESH) {
		keeper_clients_answer(daemon, slot, -EUCLEAN, "servers died of it one after the other");
		keeper_slot_remove(daemon, slot);
	} else {
		slot->flags |= DAEMON_FLAG_REFUSED;
	}
}

/* Whoever kills a server from outside says nothing about the images it has. */
static void find_culprits(KeeperDaemon *daemon, int status)
{
	uint32_t culprits[3] = { daemon->busy ? daemon->busy->number : 0 };
	for (size_t i = 0; i < 2; i++)
		culprits[i + 1] = journal_take_culprit(daemon->mounts[i].journal_fd);
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
		return;
	for (size_t i = 0; i < ELEMENTS(culprits); i++) {
		KeeperSlot *slot = culprits[i] != 0 ? keeper_slot_find(daemon, culprits[i]) : NULL;
		if (slot)
			charge(daemon, slot);
	}
}

/* All that the dead one had, the next one has to get; but for what it was to let go. */
static void want_all(KeeperDaemon *daemon)
{
	for (size_t i = daemon->slot_count; i > 0; i--) {
		KeeperSlot *slot = daemon->slots[i - 1];
		if (slot->state == KEEPER_SLOT_LEAVING || slot->unwanted) {
			keeper_clients_answer(daemon, slot, 0, NULL);
			keeper_slot_remove(daemon, slot);
		} else {
			slot->state = KEEPER_SLOT_WANTED;
		}
	}
}

/* A new program was to be tried; goes back to the old one once that has failed. */
static void judge_trial(KeeperDaemon *daemon, int status)
{
	bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
	if (daemon->old_program_fd < 0 || (killed && ++daemon->trial_kills < KILLS_MAX))
		return;
	char end[KEEPER_END_MAX];
	Error error = { 0 };
	keeper_server_describe(status, end);
	(void)close(daemon->server.program_fd);
	daemon->server.program_fd = TAKE_FD(daemon->old_program_fd);
	(void)error_set(&error, -EIO,
			"the old server goes on, since the new one does not start: %s ended with %s before it was "
			"ready",
			daemon->server.program, end);
	log_error("no upgrade of the server dir=%s reason=\"%s\"", daemon->directory, error.message);
	if (daemon->ready_fd >= 0)
		(void)!ready_send(TAKE_FD(daemon->ready_fd), error.message);
}

void keeper_feed_ended(KeeperDaemon *daemon, int status)
{
	unsigned delay = keeper_server_ended(&daemon->server, status, daemon->directory);
	daemon->start_at = keeper_now() + delay;
	if (daemon->control_fd >= 0)
		(void)close(TAKE_FD(daemon->control_fd));
	find_culprits(daemon, status);
	daemon->busy = NULL;
	want_all(daemon);
	judge_trial(daemon, status);
}

int keeper_feed_try(KeeperDaemon *daemon, Error *error)
{
	int program = open(daemon->server.program, O_RDONLY | O_CLOEXEC);
	if (program < 0)
		return error_set(error, -errno, "cannot open %s: %s; the server stays as it was",
				 daemon->server.program, strerror(errno));
	daemon->old_program_fd = daemon->server.program_fd;
	daemon->server.program_fd = program;
	daemon->trial_kills = 0;
	daemon->trial_until = keeper_now() + READY_MS;
	if (daemon->server.pid > 0) {
		(void)kill(daemon->server.pid, SIGKILL);
		(void)waitpid(daemon->server.pid, NULL, 0);
		daemon->server.pid = 0;
	}
	return 0;
}

void keeper_feed_expire(KeeperDaemon *daemon, int64_t now)
{
	if (daemon->old_program_fd < 0 || now < daemon->trial_until)
		return;
	daemon->trial_kills = KILLS_MAX; /* its end will be the end of the trial */
	if (daemon->server.pid > 0)
		(void)kill(daemon->server.pid, SIGKILL);
}
