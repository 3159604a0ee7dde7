/*
 * The image manifest imgfs publishes: an ordinary OCI image manifest whose layers are uncompressed tars with the
 * annotations of blob.h (OCI image-spec 1.1, manifest.md). Parsing accepts what registries may answer; bytes from
 * outside are refused with a sentence.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "fs/base/digest.h"
#include "fs/base/error.h"

#define MANIFEST_MEDIA_TYPE        "application/vnd.oci.image.manifest.v1+json"
#define MANIFEST_CONFIG_MEDIA_TYPE "application/vnd.oci.image.config.v1+json"
#define MANIFEST_LAYER_MEDIA_TYPE  "application/vnd.oci.image.layer.v1.tar"
#define MANIFEST_SIZE_MAX          (4u << 20) /* distribution-spec: registries should accept 4 MiB at least */
#define MANIFEST_LAYERS_MAX        1024u

/* Where a layer's bytes are, as the annotations say. */
typedef struct ManifestLayer {
	Digest diff_id; /* digest of the descriptor, the uncompressed tar */
	uint64_t tar_size;
	Digest blob; /* the imgfs blob */
	uint64_t blob_size;
	uint64_t index_offset;
	uint64_t index_size;
	Digest index;
} ManifestLayer;

typedef struct Manifest {
	Digest config;
	uint64_t config_size;
	size_t layer_count;
	ManifestLayer *layers; /* lowest first; owned */
} Manifest;

void manifest_done(Manifest *manifest); /* frees what it owns; safe on a zeroed one and twice */

/*
 * Parses a manifest whose layers all carry imgfs annotations. Checks ranges: the index between chunks and footer of
 * the blob, the config up to MANIFEST_SIZE_MAX bytes. Errors: -EBADMSG (not JSON, not a manifest, a field missing or
 * wrong; the sentence names it), -ENODATA (a good manifest, but a layer has no imgfs annotations: not an imgfs
 * image), -EPROTONOSUPPORT (another version), -ENOMEM.
 */
int manifest_parse(const char *json, size_t size, Manifest *ret_manifest, Error *error) _must_check_;

/* The JSON of a manifest: deterministic, compact, keys in a fixed order; malloc'ed, the caller's. Errors: -ENOMEM. */
int manifest_encode(const Manifest *manifest, char **ret_json, size_t *ret_size) _must_check_;

/*
 * The same in place of the manifest the image had where it comes from, OCI or docker schema 2: fields and annotations that imgfs does
 * not set stay, but for a layer's urls, data and annotations about its compressed form, which hold no more. The layers of `source` are
 * those of `manifest`, in the same order. Errors: -EBADMSG (`source` is not JSON), -ENOMEM.
 */
int manifest_encode_from(const Manifest *manifest, const char *source, size_t source_size, char **ret_json,
			 size_t *ret_size, Error *error) _must_check_;

/* The diffIDs of an image config's rootfs, malloc'ed. Errors: -EBADMSG, -ENOMEM. */
int manifest_config_diff_ids(const char *json, size_t size, Digest **ret_diff_ids, size_t *ret_count, Error *error)
	_must_check_;
