/* Bodies of replies that are a blob, or ranges of one: from a file of the store, from a cache, or of a tar that is made while it is sent. */
#pragma once

#include <microhttpd.h>

#include "fs/fetch/fetch-share.h"
#include "tools/serve/serve-range.h"
#include "tools/serve/tar-stream.h"

struct Server;

/* What a blob's bytes come from. */
typedef struct ServeBlob {
	int fd;                 /* of a file; owned; -1: one of these */
	TarStream *tar;         /* owned */
	FetchShareBlob *shared; /* of a cache; owned */
	uint64_t size;
} ServeBlob;

void serve_blob_done(ServeBlob *blob);

#define SERVE_BOUNDARY_SIZE 33u

/* The separator of a multipart body, which no blob can be made to contain: chance. Errors: -EIO. */
int serve_body_boundary(char ret_boundary[static SERVE_BOUNDARY_SIZE]) _must_check_;

/*
 * The body and its length; `boundary` counts when there are several ranges. Takes what `blob` has on success. NULL: memory is
 * out. A tar or file that cannot be read cuts the connection, which tells the client that the length announced was not reached; wrong
 * bytes are never sent.
 */
struct MHD_Response *serve_body_new(struct Server *server, ServeBlob *blob, const ServeRanges *ranges,
				    const char *boundary, uint64_t *ret_length);
