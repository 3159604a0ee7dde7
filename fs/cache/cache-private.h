/* Private to the room: what a CacheStore is made of. */
#pragma once

#include <stdbool.h>

#include "fs/cache/cache-store.h"

#define CACHE_KINDS          5u
#define CACHE_DIRECTORY_MODE 0700 /* images may hold secrets */
#define CACHE_FILE_MODE      0600

struct CacheStore {
	int dirfd;
	char *path;
};

extern const char *const cache_kind_directories[CACHE_KINDS];

/* A failed write, as a person should hear of it; returns `code`. */
int cache_write_failed(const CacheStore *store, const char *what, int code, Error *error);

/*
 * The lock of who takes chunks away; closing the descriptor gives it back. Errors: -EWOULDBLOCK (another process has it, and this one does not
 * want to wait), open's (-EROFS...).
 */
int cache_lock_eviction(CacheStore *store, bool wait, int *ret_fd) _must_check_;

#define CACHE_TEMPORARY_SIZE 32u

/* Opens a new file for writing, whose name the sweep knows. Returns its descriptor. Errors: -EIO (no random numbers), open's. */
int cache_temporary(int dirfd, char ret_name[static CACHE_TEMPORARY_SIZE]) _must_check_;
