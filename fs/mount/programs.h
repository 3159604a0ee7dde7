/* Where the programs of a mount are: those that came with the program that asks. */
#pragma once

#include <limits.h>

#include "fs/base/error.h"

typedef struct Programs {
	char keeper[PATH_MAX];
	char server[PATH_MAX];
} Programs;

/* Errors: -ENOENT, with a sentence. */
int programs_find(Programs *ret_programs, Error *error) _must_check_;
