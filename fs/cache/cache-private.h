/* Private to the room: what a CacheStore is made of. */
#pragma once

#include "fs/cache/cache-store.h"

#define CACHE_KINDS 4u

struct CacheStore {
	int dirfd;
	char *path;
};

extern const char *const cache_kind_directories[CACHE_KINDS];
