#include "fs/mount/mount-server.h"

#include <fcntl.h>
#include <string.h>

#include "fs/base/log.h"

static void report(_unused_ void *arg, const char *sentence)
{
	log_warning("%s", sentence);
}

static int open_view(MountServer *server, const MountPlan *plan, Error *error)
{
	int r = fd_load(plan->view_fd, &server->view_map);
	if (r < 0)
		return error_set(error, r, "cannot read the view of %s: %s", plan->source, strerror(-r));
	r = image_open(server->view_map.data, server->view_map.size, &server->view, error);
	if (r == 0 && server->view.header.kind != FORMAT_KIND_VIEW)
		r = error_set(error, -EBADMSG, "it is not a view");
	if (r == 0)
		r = tree_open(&server->view, &server->tree, error);
	if (r == 0 && server->tree.layer_count != plan->layer_count)
		r = error_set(error, -EBADMSG, "it has %u layers, the image %zu", server->tree.layer_count,
			      plan->layer_count);
	return r < 0 ? error_prefix(error, r, "view of %s", plan->source) : 0;
}

/* Of the index only the chunk table is used, whose sections are the first; the rest would be a second copy of the view. */
static int open_layer(MountServer *server, size_t number, const MountPlanLayer *plan, Error *error)
{
	MountLayer *layer = &server->layers[number];
	int r = fd_load(plan->index_fd, &layer->map);
	if (r < 0)
		return error_set(error, r, "cannot read the index: %s", strerror(-r));
	Image index;
	r = image_open(layer->map.data, layer->map.size, &index, error);
	if (r < 0)
		return r;
	Digest diff_id;
	tree_layer(&server->tree, (uint32_t)number, &diff_id);
	if (index.header.kind != FORMAT_KIND_INDEX || !digest_equal(&index.header.id, &diff_id))
		return error_set(error, -EBADMSG, "the index is of another layer than the view's");
	r = chunk_table_open(&index, &layer->chunks, error);
	if (r < 0)
		return r;
	const ImageSection *last = &index.sections[FORMAT_SECTION_CHUNK_DIGESTS];
	fd_shrink(&layer->map, (size_t)(last->data + last->size - layer->map.data));
	return 0;
}

/* Whatever is wrong with a view or an index that were sound when the image was mounted, but for memory that lacks. */
static int damage(int code)
{
	return code == -ENOMEM ? code : -EUCLEAN;
}

/* A copy that is not whole and sound is done without: the blob has all that it has. */
static void open_decoded(MountServer *server, size_t number, int fd, const char *source)
{
	MountLayer *layer = &server->layers[number];
	Digest diff_id;
	CacheDecoded *copy;
	tree_layer(&server->tree, (uint32_t)number, &diff_id);
	int r = cache_decoded_open(fd, &diff_id, layer->chunks.tar_size, &copy);
	if (r == 0)
		fetch_blob_set_decoded(layer->blob, copy);
	else
		log_warning("layer %zu of %s: its decoded copy is not used: %s; imgfs pull --decoded makes it anew",
			    number, source, r == -EBADMSG ? "it is damaged" : strerror(-r));
}

static int open_blob(MountServer *server, size_t number, const MountPlanLayer *plan)
{
	MountLayer *layer = &server->layers[number];
	CacheBlob *cache;
	int r = cache_blob_new(&layer->chunks, plan->data_fd, plan->present_fd, &cache);
	if (r < 0)
		return r;
	r = fetcher_add_blob(server->fetcher, cache, plan->url, &layer->blob);
	if (r == 0 && plan->twins_fd >= 0)
		r = fetch_blob_set_twins(layer->blob, server->donors, plan->twins_fd);
	return r;
}

static int open_layers(MountServer *server, const MountPlan *plan, Error *error)
{
	for (size_t i = 0; i < plan->layer_count; i++) {
		int r = open_layer(server, i, &plan->layers[i], error);
		if (r < 0)
			r = damage(r);
		else {
			r = open_blob(server, i, &plan->layers[i]);
			if (r == 0 && plan->layers[i].decoded_fd >= 0)
				open_decoded(server, i, plan->layers[i].decoded_fd, plan->source);
			if (r < 0)
				(void)error_set(error, r, "cannot use the blob: %s", strerror(-r));
		}
		if (r < 0)
			return error_prefix(error, r, "layer %zu of %s", i, plan->source);
	}
	return 0;
}

static int open_recorder(MountServer *server, const MountPlan *plan, Error *error)
{
	_cleanup_free_ uint32_t *counts = calloc(server->layer_count + 1, sizeof(*counts));
	for (size_t i = 0; counts && i < server->layer_count; i++)
		counts[i] = server->layers[i].chunks.count;
	int r = counts ? start_recorder_new(plan->record_fd, counts, server->layer_count, &server->recorder) : -ENOMEM;
	return r < 0 ? error_set(error, r, "out of memory") : 0;
}

int mount_server_open(const MountPlan *plan, MountServer **ret_server, Error *error)
{
	_cleanup_(mount_server_free_p) MountServer *server = calloc(1, sizeof(*server));
	if (!server)
		return error_set(error, -ENOMEM, "out of memory");
	server->layers = calloc(plan->layer_count + 1, sizeof(*server->layers));
	if (!server->layers)
		return error_set(error, -ENOMEM, "out of memory");
	server->layer_count = plan->layer_count;
	server->deadline = plan->deadline;
	server->image_size = plan->image_size;

	int r = server_metrics_open(plan->metrics_fd, &server->metrics);
	if (r < 0)
		return error_set(error, r, "out of memory");
	(void)atomic_fetch_add(&server->metrics->servers, 1);
	FetcherOptions options = { .report = report, .access = plan->access, .metrics = &server->metrics->fetch };
	r = fetcher_new(&options, &server->fetcher);
	if (r < 0)
		return error_set(error, r, "cannot prepare fetching: %s", strerror(-r));
	r = fetch_donors_new(plan->donor_fds, plan->donor_count, &server->donors);
	if (r < 0)
		return error_set(error, r, "out of memory");
	r = open_view(server, plan, error);
	if (r < 0)
		return damage(r);
	server->has_xattrs = server->tree.xattr_set_count > 0;
	r = open_layers(server, plan, error);
	if (r == 0)
		r = open_recorder(server, plan, error);
	if (r < 0)
		return r;
	*ret_server = TAKE_PTR(server);
	return 0;
}

MountServer *mount_server_free(MountServer *server)
{
	if (!server)
		return NULL;
	fetcher_free(server->fetcher); /* its blobs use the indexes */
	(void)fetch_donors_unref(server->donors);
	for (size_t i = 0; i < server->layer_count; i++)
		fd_unmap(&server->layers[i].map);
	free(server->layers);
	fd_unmap(&server->view_map);
	start_recorder_free(server->recorder);
	server_metrics_close(server->metrics);
	free(server);
	return NULL;
}
