/* Metrics by HTTP, for a Prometheus on this machine. */
#pragma once

#include <stddef.h>

#include "fs/base/error.h"

/* Makes the text, malloc'ed, the caller's. Called by several threads, one at a time. Errors: a negative errno. */
typedef int MetricsMake(char **ret_text, size_t *ret_size);

/*
 * Answers GET /metrics on `where`, a loopback address with a port or "unix:" and a path, until SIGTERM or SIGINT. To be called before the process
 * has threads. Errors, with a sentence: -EINVAL (not such an address), bind's, -EIO.
 */
int metrics_listen(const char *where, MetricsMake *make, Error *error) _must_check_;
