/*
 * An error a person will read. Functions return 0 or a negative errno; those whose failure ends up before a
 * person also take an `Error *`, owned by the caller, and leave a sentence in it that names the object, what
 * was tried and, where there is one, the way out. Reporting never allocates. `Error *` may be NULL.
 */
#pragma once

#include <errno.h>
#include <stdbool.h>

#include "fs/base/cleanup.h"

typedef struct Error {
	int code; /* negative errno, 0 when unset */
	char message[1024];
} Error;

/*
 * Sets the sentence and yields `code` (a negative errno), so that `return error_set(...)` reads well; a macro, so that compilers see
 * that a constant code is negative.
 */
#define error_set(error, code, ...)                       \
	({                                                \
		const int code_ = (code);                 \
		error_write((error), code_, __VA_ARGS__); \
		code_;                                    \
	})
void error_write(Error *error, int code, const char *format, ...) _printf_(3, 4);

/* Puts "context: " before the sentence already there (or the errno's text); returns `code`. */
int error_prefix(Error *error, int code, const char *format, ...) _printf_(3, 4);

/* Does it say that descriptors or memory lack at the moment? Asking again later may do. Not EAGAIN, which says so of threads alone. */
bool error_is_shortage(int code);

/* The sentence, or the errno's text when none was set. Points into `error` or to static text. */
const char *error_text(const Error *error, int code);
