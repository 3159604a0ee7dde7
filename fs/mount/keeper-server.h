/*
 * The server of a keeper: one process at a time, started from a descriptor of its program. Private to imgfs-keeper. One thread
 * owns it.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "fs/base/cleanup.h"
#include "fs/mount/backoff.h"

typedef struct KeeperServer {
	const char *program;
	int program_fd; /* of the server that is started next: after an upgrade too it is the program its keeper knows */
	pid_t pid;      /* 0: there is none */
	int64_t started;
	Backoff backoff;
} KeeperServer;

/* CLOCK_MONOTONIC in milliseconds. */
int64_t keeper_now(void);

/*
 * Starts it with these words (at most 16) and descriptors, which are close-on-exec in the keeper and open in the server. All signals are
 * unblocked in it. Errors: fork's.
 */
int keeper_server_start(KeeperServer *server, const char *const *words, size_t word_count, const int *fds,
			size_t fd_count) _must_check_;

/* "signal 9" or "exit status 1", of a wait status. */
#define KEEPER_END_MAX 64u
void keeper_server_describe(int status, char ret_text[static KEEPER_END_MAX]);

/* Notes and logs how it ended; returns the milliseconds to wait before the next. It is then gone. */
unsigned keeper_server_ended(KeeperServer *server, int status, const char *directory);
