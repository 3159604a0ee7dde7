/* Private to the room: what a CacheStore is made of. */
#pragma once

#include "fs/cache/cache-store.h"

#define CACHE_KINDS          7u
#define CACHE_DIRECTORY_MODE 0700 /* images may hold secrets */
#define CACHE_FILE_MODE      0600

struct CacheStore {
	int dirfd;
	char *path;
};

extern const char *const cache_kind_directories[CACHE_KINDS];

/* A failed write, as a person should hear of it; returns `code`. */
int cache_write_failed(const CacheStore *store, const char *what, int code, Error *error);

#define CACHE_TEMPORARY_SIZE 32u

/* Opens a new file for writing, whose name the sweep knows. Returns its descriptor. Errors: -EIO (no random numbers), open's. */
int cache_temporary(int dirfd, char ret_name[static CACHE_TEMPORARY_SIZE]) _must_check_;
