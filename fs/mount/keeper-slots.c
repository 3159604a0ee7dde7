#include <errno.h>
#include <string.h>

#include "fs/mount/keeper-daemon.h"

KeeperSlot *keeper_slot_new(const DaemonMessage *attach, int client)
{
	KeeperSlot *slot = calloc(1, sizeof(*slot) + attach->count * sizeof(slot->fds[0]));
	if (!slot)
		return NULL;
	slot->number = attach->slot;
	slot->flags = attach->flags;
	memcpy(slot->name, attach->name, sizeof(slot->name));
	slot->client = client;
	slot->fd_total = attach->count;
	return slot;
}

KeeperSlot *keeper_slot_free(KeeperSlot *slot)
{
	if (slot) {
		for (size_t i = 0; i < slot->fd_count; i++)
			close_p(&slot->fds[i]);
		free(slot);
	}
	return NULL;
}

KeeperSlot *keeper_slot_find(const KeeperDaemon *daemon, uint32_t number)
{
	for (size_t i = 0; i < daemon->slot_count; i++) {
		if (daemon->slots[i]->number == number)
			return daemon->slots[i];
	}
	return NULL;
}

static bool same_place(const KeeperSlot *left, const KeeperSlot *right)
{
	return ((left->flags ^ right->flags) & DAEMON_FLAG_XATTR) == 0 && strcmp(left->name, right->name) == 0;
}

int keeper_slot_add(KeeperDaemon *daemon, KeeperSlot *slot)
{
	if (daemon->slot_count == KEEPER_SLOTS_MAX)
		return -ENOSPC;
	for (size_t i = 0; i < daemon->slot_count; i++) {
		if (daemon->slots[i]->number == slot->number || same_place(daemon->slots[i], slot))
			return -EEXIST;
	}
	KeeperSlot **larger = reallocarray(daemon->slots, daemon->slot_count + 1, sizeof(KeeperSlot *));
	if (!larger)
		return -ENOMEM;
	daemon->slots = larger;
	daemon->slots[daemon->slot_count++] = slot;
	return 0;
}

void keeper_slot_remove(KeeperDaemon *daemon, KeeperSlot *slot)
{
	size_t at = 0;
	while (daemon->slots[at] != slot)
		at++;
	daemon->slot_count--;
	memmove(&daemon->slots[at], &daemon->slots[at + 1], (daemon->slot_count - at) * sizeof(KeeperSlot *));
	(void)keeper_slot_free(slot);
}

bool keeper_slot_charge(KeeperSlot *slot, int64_t now)
{
	if (slot->deaths > 0 && now - slot->died > KEEPER_DEATH_MEMORY)
		slot->deaths = 0;
	slot->deaths++;
	slot->died = now;
	return slot->deaths >= KEEPER_SLOT_DEATHS;
}
