/* A file that appears whole or not at all. Until it is published it has no name where the file system allows that, so that a crash leaves nothing. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "fs/base/error.h"

/* Zeroed is not good: IMPORT_FILE_NULL. */
typedef struct ImportFile {
	int directory; /* of the path's parent */
	int fd;        /* to write to */
	char name[256];
	char temporary[32]; /* "" while it has no name */
	bool in_place;      /* the path is a pipe or a device, and written as it is */
} ImportFile;

#define IMPORT_FILE_NULL ((ImportFile){ .directory = -1, .fd = -1 })

/* Errors: open's, with a sentence that names the path. */
int import_file_open(int dirfd, const char *path, ImportFile *ret_file, Error *error) _must_check_;

/* Durably in place, instead of what was there. Errors: as above. */
int import_file_publish(ImportFile *file, Error *error) _must_check_;

/* Closes, and removes what was not published; safe on IMPORT_FILE_NULL and twice. */
void import_file_done(ImportFile *file);

/* Says that writing `name` failed with `code`; returns it. */
int import_write_error(const char *name, int code, Error *error);
