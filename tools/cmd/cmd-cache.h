/* Private to `imgfs cache`: its actions, each with the arguments of the command line. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "fs/base/digest-list.h"
#include "fs/cache/cache-store.h"
#include "tools/cmd/output.h"
#include "tools/cmd/remote-options.h"

typedef struct CacheArguments {
	const char *action;
	const char *reference; /* NULL: the action takes none */
	const char *state;     /* what imgfsd remembers; NULL: DAEMON_STATE */
	const char *socket;    /* of imgfsd; NULL: the usual one */
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

/*
 * cache-held.c: adds what imgfsd holds, by the records that it keeps across reboots; also when it does not run. Manifests of images, and what belongs to
 * chains of layers. Errors: -EBADMSG (a record is damaged, so that nobody knows what it holds) and the like, with a sentence.
 */
int cache_held_add(const CacheArguments *arguments, DigestList *manifests, DigestList *objects, Error *error)
	_must_check_;

/* cache-keep.c: what stays */
CacheAction cache_action_pin, cache_action_unpin;

/* cache-verify.c; -EBADMSG when something was rotten */
CacheAction cache_action_verify;
