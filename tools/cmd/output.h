/* What a person or a program sees: sizes and ages for people, JSON for programs, a progress bar where there is a terminal. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#include "fs/base/cleanup.h"

#define OUTPUT_SIZE_TEXT 16
#define OUTPUT_AGE_TEXT  32

/* "0 B", "999 B", "1.0 kB", "566 MB": decimal units, as registries and docker count. Returns `ret_text`. */
char *output_size(uint64_t bytes, char ret_text[static OUTPUT_SIZE_TEXT]);

/* "12 s", "3 min", "5 h", "2 days" between `then` and `now`; "0 s" when `then` lies ahead. Returns `ret_text`. */
char *output_age(time_t then, time_t now, char ret_text[static OUTPUT_AGE_TEXT]);

/* One JSON value and a newline on standard output. Takes `json` over (NULL: memory was out). Errors: -ENOMEM, -EIO. */
int output_json(json_t *json) _must_check_;

/* A path as JSON, which is UTF-8 while a path need not be: bytes that are no part of it become "\\xHH". NULL: memory is out. */
json_t *output_path_json(const char *path);

/*
 * Writes what others have written, names of files or of programs, so that none of it steers a terminal: control characters as "\\xHH". Returns how
 * many bytes that made.
 */
int output_text(FILE *file, const char *text);

/* A bar on standard error, redrawn at most ten times a second; silent where standard error is no terminal. */
typedef struct OutputProgress {
	const char *label;
	uint64_t total; /* bytes; 0: not known */
	struct timespec drawn;
	struct timespec started;
	bool shown;
	bool active;
} OutputProgress;

void output_progress_start(OutputProgress *progress, const char *label, uint64_t total, bool quiet);
void output_progress_update(OutputProgress *progress, uint64_t done);
void output_progress_clear(OutputProgress *progress); /* makes room for a line of output; the next update draws again */
void output_progress_end(OutputProgress *progress);   /* clears the line; safe when nothing was shown, and twice */
