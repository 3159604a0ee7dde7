/*
 * What a server was working on, in shared memory that outlives it, so that its successor answers the requests the kernel
 * believes to be in good hands (docs/architecture.md, "Keeper and server").
 *
 * A request is read from /dev/fuse straight into a receive slot, one a receive thread. `len`, the first field of its
 * header, is the only mark: not 0 means that the request may still need a reply. A read that has to wait for the network
 * is parked: copied to a small slot, so that the receive slot is free again. A slot is released after the reply; a crash in
 * between makes the successor reply twice, which the kernel answers with ENOENT and nothing else.
 *
 * Every page is touched and locked before use: when one were missing, the kernel's copy into it could fail because the
 * process is being killed, and the request would end with EIO.
 *
 * Several servers use one journal one after the other, never at once. Within a server: a receive slot belongs to its
 * thread, a parked slot to whoever parked it; the rest is guarded by a lock of this object.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/base/cleanup.h"

#define JOURNAL_VERSION       1 /* of the layout */
#define JOURNAL_RECEIVE_SLOTS 3u
#define JOURNAL_PARKED_SLOTS  4096u
#define JOURNAL_SLOTS         (JOURNAL_RECEIVE_SLOTS + JOURNAL_PARKED_SLOTS)
#define JOURNAL_RECEIVE_SIZE  16384u
#define JOURNAL_PARKED_SIZE   128u /* a READ is 80 bytes long */
#define JOURNAL_TRIES_MAX     8u   /* a request that was being worked on at so many deaths is given up */

typedef struct Journal Journal;

/* Creates an empty journal as a memfd, close-on-exec. Errors: memfd_create's, ftruncate's. */
int journal_create(int *ret_fd) _must_check_;

/* Maps a journal. Errors: -EBADMSG (not a journal of this version), -ENOMEM, mmap's. */
int journal_open(int fd, Journal **ret_journal) _must_check_;
Journal *journal_free(Journal *journal);
DEFINE_CLEANUP(Journal, journal_free);

/* The memory of a slot: JOURNAL_RECEIVE_SIZE or JOURNAL_PARKED_SIZE bytes that start with a struct fuse_in_header. */
void *journal_slot(Journal *journal, unsigned slot);

/*
 * For a server's start, before its first journal_begin(): lists the slots whose requests need an answer, at most JOURNAL_SLOTS, and
 * counts one more try for each, unless it only waited. Broken ones, forgets and duplicates are dropped, interrupts applied.
 */
size_t journal_recover(Journal *journal, unsigned *ret_slots);

/* How many servers have died while they worked on this request. */
unsigned journal_tries(Journal *journal, unsigned slot);

/* Makes a receive slot ready for a read(). */
void journal_begin(Journal *journal, unsigned slot);

/* The request in the slot was answered, or never came. */
void journal_end(Journal *journal, unsigned slot);

/*
 * Moves a request to a parked slot, with its deadline (CLOCK_MONOTONIC, milliseconds), and returns that; a parked one stays
 * where it is and keeps the deadline that it has, through any number of servers. Waits while no slot is free. Errors:
 * -EMSGSIZE (the request is too long; it then stays).
 */
int journal_park(Journal *journal, unsigned slot, int64_t deadline, unsigned *ret_slot) _must_check_;
int64_t journal_deadline(Journal *journal, unsigned slot);

/* A parked request only waits (its deadline limits that), or is worked on again. */
void journal_set_waiting(Journal *journal, unsigned slot, bool waiting);

/* Notes that the kernel interrupts the request `unique`; one no longer there is ignored. */
void journal_interrupt(Journal *journal, uint64_t unique);
bool journal_interrupted(Journal *journal, unsigned slot);

/*
 * Notes the image (the upper half of the node) of the request in a slot, or one by its number, as what this server is dying of. Async-signal-safe. The keeper
 * asks for it by the journal's descriptor, and thereby clears it; 0: nothing was noted.
 */
void journal_blame(Journal *journal, unsigned slot);
void journal_blame_image(Journal *journal, uint32_t image);
uint32_t journal_take_culprit(int fd);
