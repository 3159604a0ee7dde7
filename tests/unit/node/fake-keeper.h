/*
 * A keeper that only takes notes: daemon_mounts_*() of fs/mount/daemon-mounts.h, for tests of the manager. It outlives a manager that is freed,
 * as the real one does, until it is made to die.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct FakeKeeperCounts {
	unsigned opens, attaches, detaches;
} FakeKeeperCounts;

/* A keeper without images, that is to be started first. */
void fake_keeper_reset(void);

/* As by kill -9: what it had is gone, and the manager's descriptor hangs up. */
void fake_keeper_die(void);

/* The next `count` attaches fail with this errno. */
void fake_keeper_fail(int code, unsigned count);

/* The next `count` detaches find that the keeper is busy with the image. */
void fake_keeper_be_busy(unsigned count);

/* The next attach finds that the keeper dies of it. */
void fake_keeper_die_at_next_attach(void);

/* The next attach is answered too late: the manager gives the connection up, and the keeper lives. */
void fake_keeper_be_late_at_next_attach(void);

/* Opening fails with this errno until it is 0 again. */
void fake_keeper_refuse(int code);

/* Puts an image there that no manager has asked for. */
void fake_keeper_add(uint32_t slot, const char *chain_id);

FakeKeeperCounts fake_keeper_counts(void);
bool fake_keeper_has(uint32_t slot);
size_t fake_keeper_size(void);
