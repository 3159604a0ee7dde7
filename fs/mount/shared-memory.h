/*
 * Memory that outlives a server: a memfd that the keeper inherits, its size fixed for good so that who maps it can rely on that. It begins with
 * a SharedHead.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "fs/base/cleanup.h"

typedef struct SharedHead {
	uint32_t magic, version; /* of what follows */
	int64_t began_real;      /* when it was made: milliseconds since 1970 */
	int64_t began;           /* and by CLOCK_MONOTONIC, microseconds */
} SharedHead;

/* CLOCK_MONOTONIC in microseconds; CLOCK_REALTIME in milliseconds since 1970. */
int64_t shared_memory_clock(void);
int64_t shared_memory_real_clock(void);

/* Creates one of `size` bytes, close-on-exec, zero behind its head. Errors: memfd_create's, ftruncate's, fcntl's. */
int shared_memory_create(const char *name, uint32_t magic, uint32_t version, size_t size, int *ret_fd) _must_check_;

/* Maps one, to write to as well. It may be larger than `size`. Errors: -EBADMSG (smaller, or another head), mmap's. */
int shared_memory_map(int fd, uint32_t magic, uint32_t version, size_t size, void **ret_memory) _must_check_;

/* A copy of it, malloc'ed, the caller's. Errors: as above, -ENOMEM, read's. */
int shared_memory_copy(int fd, uint32_t magic, uint32_t version, size_t size, void **ret_copy) _must_check_;
