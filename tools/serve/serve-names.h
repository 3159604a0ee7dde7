/* The names under which clients may reach a listener: what its certificate has to hold. */
#pragma once

#include <stddef.h>

#include "tools/serve/serve-listen.h"

typedef struct ServeNames {
	char **names; /* host names and addresses in numbers, each once */
	size_t count;
} ServeNames;

/*
 * This host's name, localhost, and the address of the listener, or all addresses of this machine if it listens on all; then `extra`.
 * Asks no name server. Errors: -ENOMEM, getifaddrs()'s.
 */
int serve_names_collect(const ServeAddress *address, const char *const *extra, size_t extra_count,
			ServeNames *ret_names) _must_check_;
void serve_names_done(ServeNames *names);

/* The one to tell others: the first of `extra`, the address if it is one, else the host's name. `ret_text` gets NAME:PORT. */
void serve_names_best(const ServeAddress *actual, const char *const *extra, size_t extra_count, char *ret_text,
		      size_t size);
