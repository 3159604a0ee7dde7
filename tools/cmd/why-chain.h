/* What is below a container, as imgfs-snapshotter's metadata say. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "fs/base/error.h"

typedef struct WhyChain {
	size_t count;
	char **chains; /* chain IDs of its layers, the topmost first */
	bool lazy;     /* what is lowest is fetched as it is read */
} WhyChain;

void why_chain_done(WhyChain *chain); /* safe on a zeroed one */

/*
 * Looks for the container's snapshot in the snapshotter's directory. containerd's clients call a container's snapshot as the container, which may
 * be named by the beginning of its id, too. 1: found, and `ret_chain` is the caller's. 0: not known, or not for who is not root. Blocks on the
 * disk. Errors: -ENOMEM.
 */
int why_chain(const char *root, const char *container, WhyChain *ret_chain);
