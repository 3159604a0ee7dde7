/*
 * The command lines of imgfs-keeper and imgfs-server, which nobody types: mount_image() and the keeper write them. Every
 * descriptor is inherited under the number given.
 */
#pragma once

#include <stdbool.h>

#include "fs/base/cleanup.h"

#define KEEPER_PROGRAM "imgfs-keeper"
#define SERVER_PROGRAM "imgfs-server"

/* Through the ready pipe comes either this byte or a sentence that says why not. */
#define READY_BYTE '\n'

/* Parses a number of at most `max` without sign; false when `text` is something else. */
bool argument_number(const char *text, long max, long *ret_number) _must_check_;

/* Sends a sentence, or the ready byte for NULL, through the ready pipe and closes it. Errors: write's. */
int ready_send(int fd, const char *sentence) _must_check_;

/*
 * Waits for the other end of a ready pipe. Errors: -EPIPE (it was closed without a word), -ECANCELED (there was a sentence; it
 * is in `ret_sentence`), read's.
 */
int ready_wait(int fd, char *ret_sentence, unsigned long size) _must_check_;
