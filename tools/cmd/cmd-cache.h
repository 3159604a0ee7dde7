/* Private to `imgfs cache`: its actions, each with the arguments of the command line. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "fs/cache/cache-store.h"
#include "tools/cmd/output.h"
#include "tools/cmd/remote-options.h"

typedef struct CacheArguments {
	const char *action;
	const char *reference; /* NULL: the action takes none */
	RemoteOptions remote;
	unsigned long keep;
	uint64_t quota; /* bytes; 0: none */
	uint64_t free;
	bool all;
	bool dry_run;
	bool json;
	bool quiet;
} CacheArguments;

typedef int CacheAction(const CacheArguments *arguments, CacheStore *cache, Error *error);

/* cache-list.c */
CacheAction cache_action_ls, cache_action_size;

/* cache-room.c: what can go */
CacheAction cache_action_prune, cache_action_evict;

/* cache-keep.c: what stays */
CacheAction cache_action_pin, cache_action_unpin;

/* cache-verify.c; -EBADMSG when something was rotten */
CacheAction cache_action_verify;
