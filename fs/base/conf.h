/*
 * Configuration files in INI form: "[section]" or "[section name]", "key = value", comments from '#' or ';' at a line's start to its end. A
 * value goes to the end of the line, without the blanks around it. What sections and keys mean is the caller's business. Parsing is pure
 * computation on bytes from outside.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "fs/base/error.h"

#define CONF_FILE_MAX (1u << 20)

typedef struct ConfEntry {
	const char *section; /* never NULL */
	const char *name;    /* after the section's word, or NULL */
	const char *key;     /* NULL for the line of the section itself */
	const char *value;   /* may be empty */
	unsigned line;
} ConfEntry;

/* Owns all texts that the entries point to. */
typedef struct Conf {
	char *path;
	char *text;
	size_t count;
	ConfEntry *entries; /* in the order of the file */
} Conf;

void conf_done(Conf *conf); /* safe on a zeroed one */

/*
 * Parses `size` bytes (copied); `path` is for sentences. Errors: -EINVAL with "PATH:LINE: ..." (no section yet, no "=", a key or section
 * that is no word, a control character), -ENOMEM.
 */
int conf_parse(const char *path, const char *text, size_t size, Conf *ret_conf, Error *error) _must_check_;

/* The same from a file. Errors: -ENOENT, -EFBIG, and what else reading gives, with a sentence. */
int conf_read(const char *path, Conf *ret_conf, Error *error) _must_check_;

/*
 * A number of bytes as people write it: "20G", "500M", "64Ki", "1000000"; k, M, G and T are powers of 1000, with an i of 1024. Errors: -EINVAL, -ERANGE.
 */
int conf_size(const char *text, uint64_t *ret_bytes) _must_check_;
