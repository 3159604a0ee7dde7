/* The store a verb works on. */
#pragma once

#include "tools/cmd/verbs.h"
#include "tools/export/store.h"

/* The --store option, the same for each verb that has it. */
#define CMD_STORE_OPTION                                                                                \
	{                                                                                               \
		"store", 's', "DIR", "the store; default /var/lib/imgfs/store, or below $XDG_DATA_HOME" \
	}

/* Opens the store at `path`, or the default one when that is NULL. Errors: as store_open(). */
int cmd_store_open(const char *path, bool create, Store **ret_store, Error *error) _must_check_;
