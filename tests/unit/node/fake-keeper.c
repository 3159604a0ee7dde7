#include "tests/unit/node/fake-keeper.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "fs/mount/daemon-mounts.h"

#define SLOTS 256

struct DaemonMounts {
	int fd;          /* the manager's end */
	unsigned keeper; /* which one it speaks to */
	uint32_t highest;
	_Atomic bool late;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static DaemonSlot slots[SLOTS];
static size_t slot_count;
static uint32_t highest;
static FakeKeeperCounts counts;
static unsigned keeper; /* counts those that have lived */
static int own_fd = -1; /* the keeper's end */
static int fail_code, refuse_code;
static unsigned fail_count, busy_count;
static bool die_next, late_next;
static _Atomic bool in_use; /* one thread at a time may call */

static void lock(void)
{
	(void)pthread_mutex_lock(&mutex);
}

static void unlock(void)
{
	(void)pthread_mutex_unlock(&mutex);
}

/* With the mutex. */
static void die(void)
{
	slot_count = 0;
	highest = 0;
	keeper++;
	close_p(&own_fd);
	own_fd = -1;
}

void fake_keeper_reset(void)
{
	lock();
	die();
	counts = (FakeKeeperCounts){ 0 };
	fail_count = busy_count = 0;
	refuse_code = 0;
	die_next = late_next = false;
	unlock();
}

void fake_keeper_die(void)
{
	lock();
	die();
	unlock();
}

void fake_keeper_fail(int code, unsigned count)
{
	lock();
	fail_code = code;
	fail_count = count;
	unlock();
}

void fake_keeper_be_busy(unsigned count)
{
	lock();
	busy_count = count;
	unlock();
}

void fake_keeper_die_at_next_attach(void)
{
	lock();
	die_next = true;
	unlock();
}

void fake_keeper_be_late_at_next_attach(void)
{
	lock();
	late_next = true;
	unlock();
}

void fake_keeper_refuse(int code)
{
	lock();
	refuse_code = code;
	unlock();
}

void fake_keeper_add(uint32_t slot, const char *chain_id)
{
	lock();
	DaemonSlot *added = &slots[slot_count++];
	*added = (DaemonSlot){ .slot = slot };
	highest = slot > highest ? slot : highest;
	(void)snprintf(added->chain_id, sizeof(added->chain_id), "%s", chain_id);
	unlock();
}

FakeKeeperCounts fake_keeper_counts(void)
{
	lock();
	FakeKeeperCounts copy = counts;
	unlock();
	return copy;
}

static DaemonSlot *find(uint32_t slot)
{
	for (size_t i = 0; i < slot_count; i++)
		if (slots[i].slot == slot)
			return &slots[i];
	return NULL;
}

bool fake_keeper_has(uint32_t slot)
{
	lock();
	bool has = find(slot);
	unlock();
	return has;
}

size_t fake_keeper_size(void)
{
	lock();
	size_t size = slot_count;
	unlock();
	return size;
}

int daemon_mounts_open(_unused_ const DaemonMountsOptions *options, DaemonMounts **ret_mounts, Error *error)
{
	int ends[2];
	lock();
	counts.opens++;
	int refused = refuse_code;
	unlock();
	if (refused < 0)
		return error_set(error, refused, "the fake keeper refuses");
	DaemonMounts *mounts = calloc(1, sizeof(*mounts));
	if (!mounts || pipe(ends) < 0)
		abort();
	lock();
	close_p(&own_fd);
	own_fd = ends[1];
	*mounts = (DaemonMounts){ .fd = ends[0], .keeper = keeper, .highest = highest };
	unlock();
	*ret_mounts = mounts;
	return 0;
}

DaemonMounts *daemon_mounts_close(DaemonMounts *mounts)
{
	if (mounts)
		(void)close(mounts->fd);
	free(mounts);
	return NULL;
}

int daemon_mounts_fd(const DaemonMounts *mounts)
{
	return mounts->fd;
}

bool daemon_mounts_was_late(const DaemonMounts *mounts)
{
	return mounts->late;
}

pid_t daemon_mounts_keeper(const DaemonMounts *mounts)
{
	return (pid_t)mounts->keeper + 1;
}

uint32_t daemon_mounts_highest(const DaemonMounts *mounts)
{
	return mounts->highest;
}

int daemon_mounts_metrics(_unused_ DaemonMounts *mounts, _unused_ int *ret_fd, _unused_ Error *error)
{
	return -ENOENT;
}

int daemon_mounts_access(_unused_ DaemonMounts *mounts, _unused_ uint32_t slot, _unused_ char **ret_access,
			 _unused_ Error *error)
{
	return -ENOENT;
}

/* Fails the test when two threads are in at once. */
static void enter(void)
{
	if (atomic_exchange(&in_use, true))
		abort();
	usleep(200);
	lock();
}

static void leave(void)
{
	unlock();
	atomic_store(&in_use, false);
}

static int attach(DaemonMounts *mounts, const DaemonAttach *wanted, DaemonSlot *ret_slot, Error *error)
{
	counts.attaches++;
	if (die_next) {
		die_next = false;
		die();
	}
	if (mounts->keeper != keeper)
		return -EPIPE;
	if (late_next) {
		late_next = false;
		mounts->late = true;
		return error_set(error, -ETIMEDOUT, "the fake keeper is late");
	}
	if (fail_count > 0) {
		fail_count--;
		return error_set(error, fail_code, "the fake keeper fails");
	}
	DaemonSlot slot = { .slot = wanted->slot, .xattr = wanted->slot % 2 };
	(void)digest_hex(&wanted->image->chain_id, slot.chain_id);
	for (size_t i = 0; i < slot_count; i++)
		if (slots[i].slot == slot.slot || strcmp(slots[i].chain_id, slot.chain_id) == 0)
			return error_set(error, -EEXIST, "the slot or the chain is attached");
	if (slot_count == SLOTS)
		abort();
	slots[slot_count++] = slot;
	highest = slot.slot > highest ? slot.slot : highest;
	*ret_slot = slot;
	return 0;
}

int daemon_mounts_attach(DaemonMounts *mounts, const DaemonAttach *wanted, DaemonSlot *ret_slot, Error *error)
{
	enter();
	int r = attach(mounts, wanted, ret_slot, error);
	leave();
	return r;
}

int daemon_mounts_detach(DaemonMounts *mounts, uint32_t slot, _unused_ Error *error)
{
	enter();
	counts.detaches++;
	DaemonSlot *found = find(slot);
	int r = mounts->keeper != keeper ? -EPIPE : found ? 0 : -ENOENT;
	if (r == 0 && busy_count > 0) {
		busy_count--;
		r = -EBUSY;
	}
	if (r == 0)
		*found = slots[--slot_count];
	leave();
	return r;
}

int daemon_mounts_list(DaemonMounts *mounts, DaemonSlot **ret_slots, size_t *ret_count, _unused_ Error *error)
{
	enter();
	int r = mounts->keeper == keeper ? 0 : -EPIPE;
	DaemonSlot *copy = calloc(slot_count + 1, sizeof(*copy));
	if (!copy)
		abort();
	memcpy(copy, slots, slot_count * sizeof(*copy));
	if (r == 0) {
		*ret_slots = copy;
		*ret_count = slot_count;
	} else {
		free(copy);
	}
	leave();
	return r;
}

int daemon_mounts_upgrade(_unused_ DaemonMounts *mounts, _unused_ Error *error)
{
	return 0;
}

int daemon_mounts_end(_unused_ DaemonMounts *mounts, _unused_ Error *error)
{
	fake_keeper_die();
	return 0;
}
