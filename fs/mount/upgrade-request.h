/*
 * What `imgfs upgrade` asks of a keeper. It queues a signal (sigqueue(3)) whose value is the number of a descriptor of its own, a
 * memfd with this request; the keeper opens that below /proc/PID/fd, and the pipe for its answer likewise. Only who may signal the keeper
 * reaches it so. The answer is that of a ready pipe (arguments.h).
 */
#pragma once

#include <limits.h>
#include <signal.h>
#include <stddef.h>

#include "fs/base/cleanup.h"

#define UPGRADE_SIGNAL      (SIGRTMIN + 3) /* of those that queue: two that ask at once are both answered */
#define UPGRADE_REQUEST_MAX (2 * PATH_MAX + 64)

typedef struct UpgradeRequest {
	int reply_fd; /* a number in the process that asks */
	const char *keeper;
	const char *server; /* the programs to go on with: absolute paths */
} UpgradeRequest;

/* The bytes of a request; returns how many. Errors: -ENAMETOOLONG. */
ssize_t upgrade_request_write(const UpgradeRequest *request, char ret_bytes[static UPGRADE_REQUEST_MAX]) _must_check_;

/* Reads such bytes; the paths point into them. Errors: -EBADMSG. */
int upgrade_request_read(const char *bytes, size_t size, UpgradeRequest *ret_request) _must_check_;
