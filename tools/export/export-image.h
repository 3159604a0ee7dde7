/* An image into the store: layers that are not there yet, the config byte for byte, the manifest, the tags. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/base/digest.h"
#include "fs/base/error.h"
#include "fs/format/manifest-platform.h"
#include "tools/export/store.h"
#include "tools/image/image-source.h"

typedef struct ExportOptions {
	int level;         /* as LayerOptions */
	unsigned jobs;     /* as LayerOptions */
	bool reproducible; /* take no frames from the store, so that every build host makes the same blobs */
	bool verify;       /* read the layers that the store has already, and write those anew that have rotten */
	const char *tag;   /* NAME[:TAG] to give the image; NULL: what its source calls it */
	void (*progress)(void *arg, uint64_t done, uint64_t total); /* bytes of the source; may be NULL */
	void (*notice)(void *arg, const char *sentence);            /* ImageSink's; may be NULL */
	const Platform *platform; /* what the image must be for; NULL: whatever its source chooses */
	void *arg;                /* of both */
} ExportOptions;

typedef struct ExportTag {
	char *name;
	char *tag;
	char *given; /* the source's own name, where its registry host was left out; else NULL */
} ExportTag;

typedef struct ExportResult {
	ExportTag *tags;
	size_t tag_count;
	Digest manifest;
	Digest config; /* the image ID */
	size_t layer_count;
	size_t layers_new;      /* of these, written by this export */
	uint64_t tar_size;      /* of the image's layers together */
	uint64_t stored_size;   /* of the blobs written */
	uint64_t chunk_count;   /* of the layers written */
	uint64_t chunks_reused; /* of these, frames the store had */
	bool profile_carried;   /* it got the start-up profile of an earlier version */
} ExportResult;

void export_result_done(ExportResult *result); /* safe on a zeroed one */

/*
 * Exports the image of `source`, which is of no further use then. What a failed export published before it failed are whole layers that
 * nothing names; the next export finds them. Errors carry a sentence: the source's, the store's, layer_write()'s,
 * export_check_links()'s, and -EINVAL (no name to tag it with, or not a good one).
 */
int export_image(ImageSource *source, Store *store, const ExportOptions *options, ExportResult *ret_result,
		 Error *error) _must_check_;
