/*
 * Numbers of slots. A number is written to the disk before it is used, and never given out again: a kernel may remember nodes of it for as
 * long as the mounts live. The file has a line for each, "NUMBER CHAINID"; the last line of a crash may be torn.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "fs/base/digest.h"
#include "fs/base/error.h"

#define NODE_SLOT_MAX 0x7fffffffu

typedef struct NodeSlots {
	int fd;
	uint32_t last;
	bool damaged; /* it had lines that are none: what they said is for records and the keeper to say */
} NodeSlots;

/* Opens or makes the file `slots` of a directory, and mends it. Errors: open's, write's, with a sentence. */
int node_slots_open(int dirfd, NodeSlots *ret_slots, Error *error) _must_check_;
void node_slots_close(NodeSlots *slots);

/* The next number, durable when this returns. One thread at a time. Errors: -ENOSPC (all are used up), write's. */
int node_slots_take(NodeSlots *slots, const Digest *chain_id, uint32_t *ret_slot) _must_check_;
