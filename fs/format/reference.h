/* Image references: [HOST[:PORT]/]NAME[:TAG][@sha256:...] (OCI distribution-spec 1.1, "Pulling manifests"). */
#pragma once

#include <stdbool.h>

#include "fs/base/digest.h"
#include "fs/base/error.h"

#define REFERENCE_NAME_MAX 255
#define REFERENCE_TAG_MAX  128

typedef struct Reference {
	char host[REFERENCE_NAME_MAX + 1]; /* "build:8500", "[::1]:8500"; "" for a local reference */
	char name[REFERENCE_NAME_MAX + 1]; /* "whisk/invoker" */
	char tag[REFERENCE_TAG_MAX + 1];   /* "" when only a digest was given, "latest" when neither was */
	bool has_digest;
	Digest digest;
} Reference;

/*
 * Parses a reference with a host: everything before the first "/". Errors: -EINVAL with a sentence that
 * says which part is wrong and shows the form wanted.
 */
int reference_parse_remote(const char *text, Reference *ret_reference, Error *error) _must_check_;

/* Parses NAME[:TAG][@DIGEST] of a local store. Errors: -EINVAL. */
int reference_parse_local(const char *text, Reference *ret_reference, Error *error) _must_check_;

/* Is `name` a repository name, `tag` a tag, as distribution-spec allows them? Neither can leave a directory. */
bool reference_name_valid(const char *name);
bool reference_tag_valid(const char *tag);

/* The text form, malloc'ed, the caller's; NULL when memory is out. */
char *reference_text(const Reference *reference);
