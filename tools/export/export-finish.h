/*
 * The end of one layer while the next is read: a thread compresses the index, waits for the disk and publishes. One layer at a time; all
 * functions are called by the export's own thread.
 */
#pragma once

#include <stdbool.h>

#include "tools/export/layer-writer.h"
#include "tools/export/store.h"

typedef struct ExportFinish ExportFinish;

/* What became of the layer. */
typedef struct ExportFinished {
	ManifestLayer layer;
	uint64_t chunk_count;
	uint64_t chunks_reused;
	bool published; /* no: the store had it by then */
} ExportFinished;

/*
 * Is the layer in the store, its blob as long as its record says? One that is not is written anew. `whole`: reads all of the blob, too, and holds
 * it against its digests. May be called by any thread.
 */
bool export_has_layer(Store *store, const Digest *diff_id, bool whole);

/* Starts on a layer; takes over both. It is not published if the store has it by then, `whole` perhaps. Without a thread to be had, it is done at once. Errors: -ENOMEM. */
int export_finish_start(Store *store, StoreUpload *upload, LayerDraft *draft, const Digest *diff_id, bool whole,
			ExportFinish **ret_finish, Error *error) _must_check_;

/* The layer it is about. */
const Digest *export_finish_layer(const ExportFinish *finish);

/* Waits for the end and frees it. Errors: layer_finish()'s and the store's. */
int export_finish_wait(ExportFinish *finish, ExportFinished *ret_finished, Error *error) _must_check_;

/* Waits for the end and frees it, whatever that is; NULL is nothing. */
ExportFinish *export_finish_free(ExportFinish *finish);
