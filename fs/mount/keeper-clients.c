#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "fs/base/log.h"
#include "fs/mount/keeper-daemon.h"

#define BACKLOG      8
#define STALL_MS     10000 /* a client that stops in the middle of an image is let go */
#define DEAF_MS      1000  /* without new clients, where there are no descriptors for them */
#define SPARE_PART   8u /* of the limit of descriptors: what a server needs beside those of images, for connections */
#define SPARE_MAX    4096u
#define ENTRIES_SIZE ((size_t)DAEMON_MESSAGE_ENTRIES * DAEMON_ENTRY_SIZE)

int keeper_clients_listen(KeeperDaemon *daemon, Error *error)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", daemon->socket_path);
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	(void)unlink(daemon->socket_path);
	mode_t before = umask(0177);
	int r = fd < 0 || bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, BACKLOG) < 0
			? -errno
			: 0;
	(void)umask(before);
	if (r < 0)
		return error_set(error, r, "cannot listen on %s: %s", daemon->socket_path, strerror(-r));
	daemon->listen_fd = TAKE_FD(fd);
	return 0;
}

static bool may_ask(int fd)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);
	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && (peer.uid == 0 || peer.uid == geteuid());
}

void keeper_clients_accept(KeeperDaemon *daemon)
{
	int accepted = accept4(daemon->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (accepted < 0) {
		/* Who waits goes on waiting; asking again and again would not bring any about. */
		if (error_is_shortage(-errno))
			daemon->deaf_until = keeper_now() + DEAF_MS;
		return;
	}
	_cleanup_close_ int fd = accepted;
	if (!may_ask(fd))
		return;
	for (size_t i = 0; i < KEEPER_CLIENTS; i++) {
		if (daemon->clients[i].fd < 0) {
			daemon->clients[i] = (KeeperClient){ .fd = TAKE_FD(fd), .heard = keeper_now() };
			return;
		}
	}
	static const char busy[] = "too many others are connected to the keeper";
	DaemonMessage answer = {
		.type = DAEMON_ANSWER, .result = -EBUSY, .rest = (const uint8_t *)busy, .rest_size = sizeof(busy) - 1
	};
	_unused_ int r = daemon_message_send(fd, &answer, NULL, 0, MSG_DONTWAIT);
}

/* What it has asked for goes on without it. */
static void drop(KeeperDaemon *daemon, KeeperClient *client)
{
	for (size_t i = 0; i < daemon->slot_count; i++) {
		if (daemon->slots[i]->client == client->fd)
			daemon->slots[i]->client = -1;
	}
	client->incoming = keeper_slot_free(client->incoming);
	(void)close(TAKE_FD(client->fd));
}

/* A client that does not take its answer is not waited for. */
static void reply(KeeperDaemon *daemon, KeeperClient *client, const DaemonMessage *message, const int *fds,
		  size_t count)
{
	client->waiting = false;
	if (daemon_message_send(client->fd, message, fds, count, MSG_DONTWAIT) < 0)
		drop(daemon, client);
}

static void answer(KeeperDaemon *daemon, KeeperClient *client, uint32_t slot, int result, const char *text)
{
	DaemonMessage message = { .type = DAEMON_ANSWER,
				  .slot = slot,
				  .result = result,
				  .rest = (const uint8_t *)text,
				  .rest_size = text ? strnlen(text, 1000) : 0 };
	reply(daemon, client, &message, NULL, 0);
}

void keeper_clients_answer(KeeperDaemon *daemon, KeeperSlot *slot, int result, const char *text)
{
	for (size_t i = 0; i < KEEPER_CLIENTS; i++) {
		if (slot->client >= 0 && daemon->clients[i].fd == slot->client)
			answer(daemon, &daemon->clients[i], slot->number, result, text);
	}
	slot->client = -1;
}

static void greet(KeeperDaemon *daemon, KeeperClient *client, const DaemonMessage *hello)
{
	client->greeted = hello->count == DAEMON_PROTOCOL;
	DaemonMessage message = { .type = DAEMON_HELLO, .slot = daemon->highest, .count = DAEMON_PROTOCOL };
	reply(daemon, client, &message, NULL, 0);
}

/*
 * Would the image take descriptors that a server cannot do without? It is given the same ones, and without any left it would end, and the next one, too, whatever
 * else they have. So the limit is not reached.
 */
static bool has_room(const KeeperDaemon *daemon, size_t count)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY)
		return true;
	rlim_t spare = limit.rlim_cur / SPARE_PART, used = count;
	for (size_t i = 0; i < daemon->slot_count; i++)
		used += daemon->slots[i]->fd_total;
	for (size_t i = 0; i < KEEPER_CLIENTS; i++)
		used += daemon->clients[i].incoming ? daemon->clients[i].incoming->fd_total : 0;
	return used + (spare < SPARE_MAX ? spare : SPARE_MAX) <= limit.rlim_cur;
}

/* All of an image has come: the server gets it next. */
static void attach(KeeperDaemon *daemon, KeeperClient *client)
{
	KeeperSlot *slot = TAKE_PTR(client->incoming);
	slot->flags = (slot->flags & DAEMON_FLAG_XATTR) | DAEMON_FLAG_FRESH;
	client->waiting = true;
	int r = daemon->ending ? -ESHUTDOWN : slot->too_many ? -EMFILE : keeper_slot_add(daemon, slot);
	if (r == 0 && slot->number > daemon->highest)
		daemon->highest = slot->number;
	if (r < 0) {
		(void)keeper_slot_free(slot);
		answer(daemon, client, 0, r,
		       r == -EEXIST   ? "the slot, or this chain of layers, is attached already"
		       : r == -EMFILE ? "the keeper has no descriptors left for it; raise its limit, LimitNOFILE= of "
					"its unit, or take images away"
		       : r == -ENOSPC ? "too many images are attached"
				      : strerror(-r));
	}
}

/* Those that a packet was to bring and did not: all but the last packet of an image are full. */
static void take_none(KeeperSlot *slot)
{
	size_t left = slot->fd_total - slot->fd_count, count = left < DAEMON_MESSAGE_FDS ? left : DAEMON_MESSAGE_FDS;
	slot->too_many = true;
	while (count-- > 0)
		slot->fds[slot->fd_count++] = -1;
}

/* Takes the descriptors of a packet. False: more than were announced, or not of this image. */
static bool take(KeeperClient *client, DaemonPacket *packet, bool lost)
{
	KeeperSlot *slot = client->incoming;
	if (!slot || slot->number != packet->message.slot || slot->fd_count == slot->fd_total)
		return false;
	if (lost) {
		take_none(slot);
		return true;
	}
	if (packet->fd_count == 0 || packet->fd_count > slot->fd_total - slot->fd_count)
		return false;
	for (size_t i = 0; i < packet->fd_count; i++) {
		if (slot->too_many)
			(void)close(packet->fds[i]);
		slot->fds[slot->fd_count++] = slot->too_many ? -1 : packet->fds[i];
	}
	packet->fd_count = 0;
	return true;
}

/* `lost`: its descriptors could not be had. */
static int receive_image(KeeperDaemon *daemon, KeeperClient *client, DaemonPacket *packet, bool lost)
{
	if (packet->message.type == DAEMON_ATTACH) {
		if (client->incoming)
			return -EPROTO;
		bool room = has_room(daemon, packet->message.count);
		client->incoming = keeper_slot_new(&packet->message, client->fd);
		if (!client->incoming)
			return -ENOMEM;
		client->incoming->too_many = !room;
	}
	if (!take(client, packet, lost))
		return -EPROTO;
	if (client->incoming->fd_count == client->incoming->fd_total)
		attach(daemon, client);
	return 0;
}

static void detach(KeeperDaemon *daemon, KeeperClient *client, uint32_t number)
{
	KeeperSlot *slot = keeper_slot_find(daemon, number);
	if (!slot) {
		answer(daemon, client, number, -ENOENT, "no image is attached in this slot");
	} else if (slot->client >= 0 || slot->state == KEEPER_SLOT_LEAVING) {
		answer(daemon, client, number, -EBUSY, "the image is just being attached or taken away");
	} else if (slot->state == KEEPER_SLOT_WANTED) {
		keeper_slot_remove(daemon, slot); /* the server that had it is dead, the next one has not got it yet */
		answer(daemon, client, number, 0, NULL);
	} else {
		/* One that a new server is just getting leaves once it has it. */
		slot->unwanted = slot->state == KEEPER_SLOT_SENT;
		if (!slot->unwanted)
			slot->state = KEEPER_SLOT_LEAVING;
		slot->client = client->fd;
		client->waiting = true;
	}
}

/* By ascending slots, so that who asks can go on where an answer ended. */
static void list(KeeperDaemon *daemon, KeeperClient *client, uint32_t above)
{
	static uint8_t bytes[ENTRIES_SIZE];
	DaemonMessage message = { .type = DAEMON_SLOTS, .rest = bytes };
	while (message.count < DAEMON_MESSAGE_ENTRIES) {
		const KeeperSlot *next = NULL;
		for (size_t i = 0; i < daemon->slot_count; i++) {
			const KeeperSlot *slot = daemon->slots[i];
			if (slot->number > above && !(slot->flags & DAEMON_FLAG_FRESH) &&
			    (!next || slot->number < next->number))
				next = slot;
		}
		if (!next)
			break;
		DaemonEntry entry = { .slot = next->number, .flags = next->flags };
		memcpy(entry.name, next->name, sizeof(entry.name));
		daemon_entry_write(&entry, bytes + message.rest_size);
		message.rest_size += DAEMON_ENTRY_SIZE;
		message.count++;
		above = next->number;
	}
	reply(daemon, client, &message, NULL, 0);
}

static void get(KeeperDaemon *daemon, KeeperClient *client, const DaemonMessage *request)
{
	const KeeperSlot *slot = request->slot == 0 ? NULL : keeper_slot_find(daemon, request->slot);
	int fd = -1;
	if (request->slot == 0 && request->count == 0)
		fd = daemon->metrics_fd;
	else if (slot && request->count < slot->fd_total)
		fd = slot->fds[request->count];
	DaemonMessage message = { .type = DAEMON_ANSWER, .slot = request->slot };
	if (fd < 0)
		answer(daemon, client, request->slot, -ENOENT, "there is no such image or file");
	else
		reply(daemon, client, &message, &fd, 1);
}

void keeper_daemon_end(KeeperDaemon *daemon)
{
	if (daemon->ending)
		return;
	daemon->ending = true;
	keeper_restore_stop(daemon);
	for (size_t i = 0; i < 2; i++)
		keeper_mount_unmount(&daemon->mounts[i]);
	(void)unlink(daemon->socket_path);
	close_p(&daemon->listen_fd);
	daemon->listen_fd = -1;
}

static int handle(KeeperDaemon *daemon, KeeperClient *client, DaemonPacket *packet, bool lost)
{
	const DaemonMessage *message = &packet->message;
	uint32_t type = message->type;
	if (type == DAEMON_HELLO && !client->greeted) {
		greet(daemon, client, message);
		return 0;
	}
	bool image = type == DAEMON_ATTACH || type == DAEMON_MORE;
	if (!client->greeted || (client->incoming && !image))
		return -EPROTO;
	if (image)
		return receive_image(daemon, client, packet, lost);
	if (type == DAEMON_DETACH)
		detach(daemon, client, message->slot);
	else if (type == DAEMON_LIST)
		list(daemon, client, message->slot);
	else if (type == DAEMON_GET)
		get(daemon, client, message);
	else if (type == DAEMON_END) {
		keeper_daemon_end(daemon);
		answer(daemon, client, 0, 0, NULL);
	} else
		return -EPROTO;
	return 0;
}

void keeper_clients_handle(KeeperDaemon *daemon, KeeperClient *client)
{
	static DaemonPacket packet;
	int r = daemon_message_receive(client->fd, &packet, MSG_DONTWAIT);
	if (r == -EAGAIN)
		return;
	client->heard = keeper_now();
	if (r == 0 || r == -EMFILE) {
		r = handle(daemon, client, &packet, r == -EMFILE);
		daemon_packet_close(&packet);
	}
	if (r == 0 || client->fd < 0)
		return;
	if (r != -EPIPE)
		log_warning("a client of the keeper is let go reason=\"%s\"", strerror(-r));
	drop(daemon, client);
}

void keeper_clients_expire(KeeperDaemon *daemon, int64_t now)
{
	for (size_t i = 0; i < KEEPER_CLIENTS; i++) {
		KeeperClient *client = &daemon->clients[i];
		if (client->fd >= 0 && client->incoming && now - client->heard > STALL_MS)
			drop(daemon, client);
	}
}

bool keeper_clients_idle(const KeeperDaemon *daemon)
{
	for (size_t i = 0; i < KEEPER_CLIENTS; i++) {
		const KeeperClient *client = &daemon->clients[i];
		if (client->fd >= 0 && (client->incoming || client->waiting))
			return false;
	}
	return true;
}
