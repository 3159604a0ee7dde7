/*
 * From a reference to all a mount needs: resolves the manifest, gets and verifies the indexes, builds the view, and opens the
 * files. Everything it gets it keeps in the cache; what is there already is not asked for again, but a tag is always asked for.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "fs/base/error.h"
#include "fs/cache/cache-store.h"
#include "fs/format/manifest.h"
#include "fs/net/net-access.h"
#include "fs/net/net-hosts.h"
#include "fs/net/net-http.h"

/* The open files of one layer. A blob of a local store has present_fd -1 and url NULL. */
typedef struct FetchLayerFiles {
	ManifestLayer layer;
	int index_fd;   /* index image */
	int data_fd;    /* blob or its sparse copy */
	int present_fd; /* bitmap */
	int seal_fd;    /* cache-seal.h, for fetch_fill_add(); -1: there is none */
	char *url;      /* of the blob */
	int decoded_fd; /* decoded copy, for cache_decoded_open(), or a place for one (cache_decoded_reserve()); -1: neither */
	int twins_fd; /* for fetch_blob_set_twins(); -1: no donor has any of its chunks */
} FetchLayerFiles;

typedef struct FetchImage {
	Digest manifest; /* the digest this mount shows */
	Digest config;   /* image ID */
	Digest chain_id;
	uint64_t image_size; /* the tars together */
	bool sealed;         /* every layer is whole in the cache, proven and durable */
	bool stale;          /* the registry could not be asked, and the tag's last known digest was taken */
	char *access;        /* for FetcherOptions.access; NULL: nothing is known of the host */
	int view_fd;
	int profile_fd; /* start-up profile (docs/format.md section 7), not checked; -1: there is none */
	size_t donor_count;
	int *donor_fds; /* for fetch_donors_new() */
	size_t layer_count;
	FetchLayerFiles *layers; /* lowest first */
} FetchImage;

void fetch_image_done(FetchImage *image); /* closes and frees; safe on a zeroed one */

typedef struct FetchRemote {
	const Reference *reference;
	bool plain_http; /* speak http; loopback hosts always may */
	int64_t timeout; /* for each request, milliseconds */
	CacheStore *cache;
	NetAccessOptions access; /* whom to trust, and as whom to appear */
	const NetHosts *hosts;   /* what the configuration says of hosts, mirrors among it; NULL: nothing */
	bool decoded;            /* make places for the decoded copies that lack, for who fills the image */
	bool offline;         /* ask nobody: what the cache lacks is -ENODATA, and what access needs may be missing */
	NetGivenUp *given_up; /* then it fails with -ECANCELED (net_http_set_given_up()); NULL: never */
	void *given_up_arg;
} FetchRemote;

/* Blocks on the network. Errors carry a sentence naming what could not be had and from where. */
int fetch_image_remote(const FetchRemote *remote, FetchImage *ret_image, Error *error) _must_check_;

/*
 * The same for a chain of layers, lowest first, that need be no whole image: of the reference only host and repository count (a host alone: an
 * `imgfs serve`, which needs no repository). A tar_size of 0
 * is one that is not known, and is taken from the index. `ret_image` has digests of zeros for manifest and config.
 */
int fetch_image_layers(const FetchRemote *remote, const ManifestLayer *layers, size_t count, FetchImage *ret_image,
		       Error *error) _must_check_;

/*
 * Does the host of a reference, as fetch_image_layers() asks it, have the blobs of all these layers? Asks for a piece of each index, also where the cache has it;
 * a host gets two seconds to answer, and one that cannot be asked has nothing.
 */
bool fetch_image_layers_are_at(const FetchRemote *remote, const ManifestLayer *layers, size_t count);

/*
 * The same from blobs at hand: `open_blob(arg, digest)` gives a descriptor of a whole blob or a negative errno. Views are kept in
 * `cache`, index images too. `manifest_json` is what the store has for the tag.
 */
typedef int FetchOpenBlob(void *arg, const Digest *blob);
int fetch_image_local(const char *manifest_json, size_t manifest_size, FetchOpenBlob *open_blob, void *arg,
		      CacheStore *cache, FetchImage *ret_image, Error *error) _must_check_;
