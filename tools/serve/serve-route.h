/* What the path of a request asks for: the end points of the OCI distribution-spec and imgfs's own. Pure computation. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "fs/base/digest.h"
#include "fs/format/reference.h"

typedef enum ServeRouteKind {
	SERVE_ROUTE_BASE,            /* /v2/ */
	SERVE_ROUTE_CATALOG,         /* /v2/_catalog */
	SERVE_ROUTE_TAGS,            /* /v2/<name>/tags/list */
	SERVE_ROUTE_MANIFEST_TAG,    /* /v2/<name>/manifests/<tag> */
	SERVE_ROUTE_MANIFEST_DIGEST, /* /v2/<name>/manifests/<digest> */
	SERVE_ROUTE_BLOB,            /* /v2/<name>/blobs/<digest>, /imgfs/blobs/<digest> */
	SERVE_ROUTE_HEALTH,          /* /healthz */
	SERVE_ROUTE_METRICS,         /* /metrics */
	SERVE_ROUTE_CA,              /* /imgfs/ca.pem */
	SERVE_ROUTE_PROFILE,         /* /imgfs/profiles/<digest of a manifest> */
	SERVE_ROUTE_NOT_FOUND,       /* nothing is there */
	SERVE_ROUTE_BAD_NAME,        /* the name is none that distribution-spec allows */
	SERVE_ROUTE_BAD_TAG,         /* neither a tag nor a digest, so no manifest can have it */
	SERVE_ROUTE_BAD_DIGEST,      /* the digest is no sha256 */
	SERVE_ROUTE_COUNT,           /* how many kinds there are */
} ServeRouteKind;

typedef struct ServeRoute {
	ServeRouteKind kind;
	char name[REFERENCE_NAME_MAX + 1]; /* valid; "" where the route has none */
	char tag[REFERENCE_TAG_MAX + 1];   /* valid; of SERVE_ROUTE_MANIFEST_TAG */
	Digest digest; /* of SERVE_ROUTE_MANIFEST_DIGEST, SERVE_ROUTE_BLOB and SERVE_ROUTE_PROFILE */
} ServeRoute;

/*
 * Takes the path as it came, percent-encoded. Whatever is in name and tag afterwards is valid by reference.h, so neither can
 * leave a directory.
 */
void serve_route_parse(const char *path, ServeRoute *ret_route);

/*
 * Decodes %HH of `text` into `ret_text`, which holds `size` bytes with the final NUL. False when it does not fit, an escape
 * is broken or stands for NUL.
 */
bool serve_route_unescape(const char *text, char *ret_text, size_t size);
