/*
 * Images that stay in the cache whatever its quota: pinned by somebody who wants that, or sealed, that is complete, checked and on the disk.
 *
 *   pins/<manifest hex>    text: "imgfs pin 1", "reference ...", "time ...", for each layer "blob sha256:..." and "layer sha256:..." (its
 *                          diffID), "end"; durable
 *   seals/<manifest hex>   the same
 *
 * Blobs and layers stand in the file, so that an image stays protected when its manifest has rotted. All calls block on the disk, and adding waits for an
 * eviction that is under way, so that what is pinned when the call returns is not taken any more. Any process may call.
 */
#pragma once

#include "fs/base/digest-list.h"
#include "fs/cache/cache-store.h"

typedef enum CachePinKind {
	CACHE_PIN,  /* somebody's wish: `imgfs cache pin`, a daemon's image */
	CACHE_SEAL, /* the image is whole here, each diffID was checked, and all of it was synced; it goes when that is found to be untrue */
} CachePinKind;
#define CACHE_PIN_KINDS 2u

typedef struct CachePin {
	CachePinKind kind;
	Digest manifest;
	char *reference; /* for people; never NULL */
	int64_t time;    /* when it was made, seconds since 1970 */
	DigestList keep; /* blobs and diffIDs, in no order */
} CachePin;

/*
 * Pins an image whose manifest is in the cache, durably; again is no error. `reference` is what people call it. Errors: -ENOENT (no such
 * manifest, or it is rotten), -ENODATA (no image of imgfs), and what writing gives, with a sentence.
 */
int cache_pin_add(CacheStore *store, CachePinKind kind, const Digest *manifest, const char *reference, Error *error)
	_must_check_;

/* Takes it back, durably. Errors: -ENOENT (it is not there), unlink's, with a sentence. */
int cache_pin_remove(CacheStore *store, CachePinKind kind, const Digest *manifest, Error *error) _must_check_;

/* Is it there? Reads no file. */
bool cache_pin_has(CacheStore *store, CachePinKind kind, const Digest *manifest);

/*
 * All pins and seals, in no order; an image that has both is there twice. Errors: -EBADMSG (a file is damaged and the manifest is not there
 * either, so that nobody knows what it protects; the sentence names it), -ENOMEM, opendir's.
 */
int cache_pins_list(CacheStore *store, CachePin **ret_pins, size_t *ret_count, Error *error) _must_check_;
CachePin *cache_pins_free(CachePin *pins, size_t count);
