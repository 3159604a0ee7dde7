/* Which containers containerd knows, whoever has made them: Kubernetes, nerdctl, ctr. Only asks; nothing is changed. */
#pragma once

#include <stddef.h>

#include "snapshotter/client.h"

/* A container and its labels (to a NULL name), valid during the call. A negative result ends the asking, and is its result. */
typedef int ClientEach(void *arg, const char *id, const ClientLabel *labels, Error *error);

/*
 * Calls each() for the containers of all namespaces of containerd that one of `count` filters lets pass, in containerd's syntax. Blocks, some seconds at
 * most for each namespace. Errors, with a sentence: wire_client_connect()'s (-ENOENT, -ECONNREFUSED: nobody is there), wire_client_call()'s, -EBADMSG,
 * each()'s.
 */
int client_containers(const char *socket, const char *const *filters, size_t count, ClientEach *each, void *arg,
		      Error *error) _must_check_;
