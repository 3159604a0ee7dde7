#include "tools/export/export-finish.h"

#include <pthread.h>
#include <string.h>

#include "tools/export/layer-stream.h"

struct ExportFinish {
	Store *store;
	StoreUpload *upload;
	LayerDraft *draft;
	Digest diff_id;
	bool whole;
	pthread_t thread;
	bool running; /* until joined, the thread owns what is above and below */
	ExportFinished finished;
	int result;
	Error error;
};

static bool is_whole(Store *store, const ManifestLayer *layer)
{
	static const LayerStreamHooks none = { 0 };
	_cleanup_(layer_reader_free_p) LayerReader *reader = NULL;
	LayerStreamResult result;
	return layer_reader_open(store, layer, &reader, NULL) == 0 &&
	       layer_stream(reader, &none, true, &result, NULL) == 0 && digest_equal(&result.tar, &layer->diff_id) &&
	       digest_equal(&result.blob, &layer->blob);
}

bool export_has_layer(Store *store, const Digest *diff_id, bool whole)
{
	ManifestLayer layer;
	uint64_t size;
	_cleanup_close_ int fd = -1;
	return store_layer_get(store, diff_id, &layer, NULL) == 0 &&
	       store_blob_open(store, &layer.blob, &fd, &size) == 0 && size == layer.blob_size &&
	       (!whole || is_whole(store, &layer));
}

static int publish(ExportFinish *finish, const LayerResult *layer)
{
	finish->finished = (ExportFinished){
		.layer = layer->layer,
		.chunk_count = layer->chunk_count,
		.chunks_reused = layer->reused_chunks,
	};
	/* A stream's layer is known only now, and another export may have been faster: the layer that is there stays. */
	if (export_has_layer(finish->store, &finish->diff_id, finish->whole))
		return 0;
	finish->finished.published = true;
	return store_upload_commit(finish->upload, &layer->layer, layer->contents, layer->chunk_count, &finish->error);
}

static void *finish_main(void *arg)
{
	ExportFinish *finish = arg;
	LayerResult layer = { 0 };
	int r = layer_finish(finish->draft, &layer, &finish->error);
	if (r == -ENOSPC || r == -EDQUOT)
		r = store_error(finish->store, r, "a layer", &finish->error);
	if (r == 0)
		r = publish(finish, &layer);
	layer_result_done(&layer);
	finish->result = r;
	return NULL;
}

int export_finish_start(Store *store, StoreUpload *upload, LayerDraft *draft, const Digest *diff_id, bool whole,
			ExportFinish **ret_finish, Error *error)
{
	ExportFinish *finish = calloc(1, sizeof(*finish));
	if (!finish) {
		layer_draft_free(draft);
		store_upload_free(upload);
		return error_set(error, -ENOMEM, "out of memory to finish a layer");
	}
	finish->store = store;
	finish->upload = upload;
	finish->draft = draft;
	finish->diff_id = *diff_id;
	finish->whole = whole;
	finish->running = pthread_create(&finish->thread, NULL, finish_main, finish) == 0;
	if (!finish->running)
		(void)finish_main(finish);
	*ret_finish = finish;
	return 0;
}

const Digest *export_finish_layer(const ExportFinish *finish)
{
	return &finish->diff_id;
}

static void join(ExportFinish *finish)
{
	if (finish->running)
		(void)pthread_join(finish->thread, NULL);
	finish->running = false;
}

int export_finish_wait(ExportFinish *finish, ExportFinished *ret_finished, Error *error)
{
	join(finish);
	int r = finish->result;
	if (r < 0 && error)
		*error = finish->error;
	if (r == 0)
		*ret_finished = finish->finished;
	export_finish_free(finish);
	return r;
}

ExportFinish *export_finish_free(ExportFinish *finish)
{
	if (finish) {
		join(finish);
		layer_draft_free(finish->draft);
		store_upload_free(finish->upload);
		free(finish);
	}
	return NULL;
}
