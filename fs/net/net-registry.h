/*
 * The parts of OCI distribution-spec 1.1 that a pull needs: URLs ("Pull") and what a tag means ("Pulling manifests"). A
 * host is "name[:port]" or "[address]:port", as a reference has it; names and tags come validated.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "fs/net/net-http.h"

/* localhost, 127.0.0.0/8, [::1], with or without a port. */
bool net_registry_is_loopback(const char *host);

/* "http://HOST" if `plain_http` or the host is loopback, else "https://HOST"; malloc'ed, NULL when memory is out. */
char *net_registry_base(const char *host, bool plain_http);

/* BASE/v2/NAME/manifests/REFERENCE (a tag or a digest), BASE/v2/NAME/blobs/DIGEST; malloc'ed, NULL when memory is out. */
char *net_registry_manifest_url(const char *base, const char *name, const char *reference);
char *net_registry_blob_url(const char *base, const char *name, const Digest *blob);

/*
 * What the tag at `url` means, by HEAD. Errors: -ENODATA (the registry does not say; get the manifest), or net_http_perform()'s.
 */
int net_registry_head(NetHttp *http, const char *url, const char *media_type, Digest *ret_digest, Error *error)
	_must_check_;

/*
 * The manifest at `url`, of at most `limit` bytes, and its digest, computed from the bytes; malloc'ed, the caller's. It must be the digest that the
 * registry sends, and `wanted` unless that is NULL. Errors: -EBADMSG (another digest), or net_http_perform()'s.
 */
int net_registry_manifest(NetHttp *http, const char *url, const char *media_type, size_t limit, const Digest *wanted,
			  char **ret_manifest, size_t *ret_size, Digest *ret_digest, Error *error) _must_check_;
