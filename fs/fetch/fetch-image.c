#include "fs/fetch/fetch-image.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/base/bytes.h"
#include "fs/cache/cache-decoded.h"
#include "fs/cache/cache-seal.h"
#include "fs/fetch/fetch-config.h"
#include "fs/fetch/fetch-layer.h"
#include "fs/fetch/fetch-manifest.h"
#include "fs/fetch/fetch-profile.h"
#include "fs/fetch/fetch-twins.h"
#include "fs/net/net-registry.h"

#define PROBE_SIZE 4096u /* of an index: enough to see that somebody has it */
#define EXTRAS     2u    /* requests beside those for indexes: add_extras() */

/* An image being put together. */
typedef struct Assembly {
	CacheStore *cache;
	const Manifest *manifest;
	FetchIndex *indexes;            /* a layer each; fd -1 and no map until it is open */
	uint8_t **raw;                  /* of each that was fetched just now: as it stands in the blob; NULL: of none */
	char *profile_url, *config_url; /* of a whole image from a host */
	bool decoded;                   /* as FetchRemote's */
	FetchImage image;
} Assembly;

/* How the host of a reference is asked. */
typedef struct Source {
	NetAccess access;
	NetHttp *http;
	char *base;
} Source;

void fetch_image_done(FetchImage *image)
{
	if (image->layers)
		close_p(&image->view_fd);
	if (image->layers)
		close_p(&image->profile_fd);
	for (size_t i = 0; image->layers && i < image->layer_count; i++) {
		FetchLayerFiles *files = &image->layers[i];
		close_p(&files->index_fd);
		close_p(&files->data_fd);
		close_p(&files->present_fd);
		close_p(&files->seal_fd);
		close_p(&files->twins_fd);
		close_p(&files->decoded_fd);
		free(files->url);
	}
	for (size_t i = 0; i < image->donor_count; i++)
		close_p(&image->donor_fds[i]);
	free(image->donor_fds);
	free(image->layers);
	free(image->access);
	*image = (FetchImage){ .view_fd = -1, .profile_fd = -1 };
}

static void assembly_done(Assembly *assembly)
{
	for (size_t i = 0; assembly->indexes && i < assembly->manifest->layer_count; i++)
		fetch_index_close(&assembly->indexes[i]);
	for (size_t i = 0; assembly->raw && i < assembly->manifest->layer_count; i++)
		free(assembly->raw[i]);
	free((void *)assembly->raw);
	free(assembly->profile_url);
	free(assembly->config_url);
	free(assembly->indexes);
	fetch_image_done(&assembly->image);
}

static int assembly_init(Assembly *assembly, const Digest *digest, Error *error)
{
	const Manifest *manifest = assembly->manifest;
	FetchImage *image = &assembly->image;
	if (manifest->layer_count == 0)
		return error_set(error, -EBADMSG, "the image has no layers: there is nothing to mount");
	assembly->indexes = calloc(manifest->layer_count, sizeof(*assembly->indexes));
	image->layers = calloc(manifest->layer_count, sizeof(*image->layers));
	assembly->raw = calloc(manifest->layer_count, sizeof(uint8_t *));
	if (!assembly->indexes || !image->layers || !assembly->raw)
		return error_set(error, -ENOMEM, "out of memory");
	image->manifest = *digest;
	image->config = manifest->config;
	image->view_fd = -1;
	image->profile_fd = -1;
	image->layer_count = manifest->layer_count;
	if (fetch_view_chain(manifest, &image->chain_id) < 0)
		return error_set(error, -ENOMEM, "out of memory");
	for (size_t i = 0; i < manifest->layer_count; i++) {
		image->layers[i] = (FetchLayerFiles){
			.layer = manifest->layers[i],
			.index_fd = -1,
			.data_fd = -1,
			.present_fd = -1,
			.seal_fd = -1,
			.twins_fd = -1,
			.decoded_fd = -1,
		};
		if (__builtin_add_overflow(image->image_size, manifest->layers[i].tar_size, &image->image_size))
			return error_set(error, -EBADMSG, "the layers' lengths in the manifest are impossible");
	}
	return 0;
}

/* A decoded copy, or where it is wanted a place for it; -1: neither. What cannot be made keeps nobody from mounting. */
static int open_decoded(const Assembly *assembly, const Digest *diff_id)
{
	int fd;
	if (assembly->decoded && cache_decoded_reserve(assembly->cache, diff_id, &fd) == 0)
		return fd;
	return cache_store_get(assembly->cache, CACHE_DECODED, diff_id, &fd) == 0 ? fd : -1;
}

/* All files of the layers are open: builds the view and hands everything over. */
static int assembly_finish(Assembly *assembly, FetchImage *ret_image, Error *error)
{
	FetchImage *image = &assembly->image;
	if (image->view_fd < 0) {
		int r = fetch_view_build(assembly->cache, assembly->manifest, assembly->indexes, &image->chain_id,
					 &image->view_fd, error);
		if (r < 0)
			return r;
	}
	for (size_t i = 0; i < image->layer_count; i++) {
		FetchLayerFiles *files = &image->layers[i];
		files->index_fd = TAKE_FD(assembly->indexes[i].fd);
		files->decoded_fd = open_decoded(assembly, &files->layer.diff_id);
	}
	*ret_image = *image;
	*image = (FetchImage){ .view_fd = -1, .profile_fd = -1 };
	return 0;
}

/* Opens what the cache has, the view and the indexes. A rotten one counts as one it does not have; of indexes all is looked at where it is needed. */
static void open_cached(Assembly *assembly)
{
	FetchImage *image = &assembly->image;
	if (fetch_view_find(assembly->cache, &image->chain_id, &image->view_fd) < 0)
		image->view_fd = -1;
	for (size_t i = 0; i < assembly->manifest->layer_count; i++) {
		FetchIndex *index = &assembly->indexes[i];
		int r = fetch_index_open(assembly->cache, &assembly->manifest->layers[i], index, NULL);
		if (r == 0 && image->view_fd < 0) {
			r = fetch_index_open_tree(index, NULL);
			if (r < 0)
				fetch_index_close(index);
		}
		if (r < 0)
			*index = (FetchIndex){ .fd = -1 };
	}
}

/* The layers whose indexes have to be fetched; one each where two layers are the same. */
static size_t list_missing(const Assembly *assembly, NetRequest *requests, size_t *layers)
{
	size_t count = 0;
	for (size_t i = 0; i < assembly->manifest->layer_count; i++) {
		const ManifestLayer *layer = &assembly->manifest->layers[i];
		if (assembly->indexes[i].map.data)
			continue;
		requests[count] = (NetRequest){
			.url = assembly->image.layers[i].url,
			.ranged = true,
			.offset = layer->index_offset,
			.size = layer->index_size,
		};
		layers[count++] = i;
	}
	return count;
}

static int add_index(Assembly *assembly, size_t layer, NetResponse *response, Error *error)
{
	int r = fetch_index_add(assembly->cache, &assembly->manifest->layers[layer], response->body, response->size,
				&assembly->indexes[layer], error);
	if (r < 0)
		return error_prefix(error, r, "%s", assembly->image.layers[layer].url);
	free(assembly->raw[layer]);
	assembly->raw[layer] = TAKE_PTR(response->body);
	return 0;
}

/* Of a whole image; a chain of layers has no manifest, and so no profile. */
static bool has_manifest(const Assembly *assembly)
{
	return !digest_equal(&assembly->image.manifest, &(Digest){ 0 });
}

/*
 * Of an image that is new here its start-up profile and its config, which a mirror has to have, are asked for as well: they may fail, and cost no
 * round trip of their own. Puts the requests behind `count` others, and returns how many there are then.
 */
static size_t add_extras(const Assembly *assembly, NetRequest *requests, size_t count)
{
	if (!has_manifest(assembly))
		return count;
	requests[count++] = fetch_profile_request(assembly->profile_url);
	requests[count++] = fetch_config_request(assembly->config_url, assembly->manifest->config_size);
	return count;
}

static void keep_extras(Assembly *assembly, NetResponse *responses)
{
	if (!has_manifest(assembly))
		return;
	fetch_profile_keep(assembly->cache, &assembly->image.manifest, &responses[0]);
	fetch_config_keep(assembly->cache, &assembly->manifest->config, &responses[1]);
	for (size_t i = 0; i < EXTRAS; i++)
		net_response_done(&responses[i]);
}

static int perform(Assembly *assembly, NetHttp *http, NetRequest *requests, size_t count, NetResponse *responses,
		   Error *error)
{
	int r = net_http_perform(http, requests, add_extras(assembly, requests, count), responses, error);
	if (r == 0)
		keep_extras(assembly, responses + count);
	return r;
}

/* What one mirror has of the missing indexes. It may have none, or wrong ones: then somebody else is asked for these. */
static void fetch_from_mirror(Assembly *assembly, const NetMirror *mirror, NetHttp *http, NetRequest *requests,
			      NetResponse *responses, size_t *layers)
{
	char **urls = calloc(assembly->manifest->layer_count + EXTRAS, sizeof(char *));
	size_t count = urls ? list_missing(assembly, requests, layers) : 0;
	size_t total = count > 0 ? add_extras(assembly, requests, count) : 0;
	bool named = count > 0;
	for (size_t i = 0; i < total; i++) {
		urls[i] = net_mirror_url(mirror, requests[i].url);
		requests[i].url = urls[i];
		requests[i].optional = true;
		named &= urls[i] != NULL;
	}
	if (named && net_http_perform(http, requests, total, responses, NULL) == 0) {
		for (size_t i = 0; i < count; i++) {
			if (responses[i].body && add_index(assembly, layers[i], &responses[i], NULL) < 0)
				assembly->indexes[layers[i]] = (FetchIndex){ .fd = -1 };
			net_response_done(&responses[i]);
		}
		keep_extras(assembly, responses + count);
	}
	for (size_t i = 0; i < total; i++)
		free(urls[i]);
	free((void *)urls);
}

static void fetch_from_mirrors(Assembly *assembly, const FetchRemote *remote, const NetAccess *access,
			       NetRequest *requests, NetResponse *responses, size_t *layers)
{
	for (size_t i = 0; i < access->mirror_count && list_missing(assembly, requests, layers) > 0; i++) {
		if (access->mirrors[i].is_source)
			continue;
		_cleanup_(net_http_free_p) NetHttp *http = NULL;
		if (fetch_http_new(remote, access->mirrors[i].access, remote->timeout, &http) < 0)
			return;
		fetch_from_mirror(assembly, &access->mirrors[i], http, requests, responses, layers);
	}
	memset(requests, 0, (assembly->manifest->layer_count + EXTRAS) * sizeof(*requests));
}

static int fetch_missing_indexes(Assembly *assembly, const FetchRemote *remote, const Source *source, Error *error)
{
	NetHttp *http = remote->offline ? NULL : source->http;
	size_t total = assembly->manifest->layer_count;
	_cleanup_free_ NetRequest *requests = calloc(total + EXTRAS, sizeof(*requests));
	_cleanup_free_ NetResponse *responses = calloc(total + EXTRAS, sizeof(*responses));
	_cleanup_free_ size_t *layers = calloc(total, sizeof(*layers));
	if (!requests || !responses || !layers)
		return error_set(error, -ENOMEM, "out of memory");
	if (http)
		fetch_from_mirrors(assembly, remote, &source->access, requests, responses, layers);
	size_t count = list_missing(assembly, requests, layers);
	if (count == 0)
		return 0;
	char text[DIGEST_TEXT_SIZE];
	if (!http)
		return error_set(error, -ENODATA, "the cache does not have the index of layer %s",
				 digest_text(&assembly->manifest->layers[layers[0]].diff_id, text));
	int r = perform(assembly, http, requests, count, responses, error);
	if (r < 0)
		return error_prefix(error, r, "cannot get the index of a layer");
	for (size_t i = 0; i < count; i++) {
		if (r == 0)
			r = add_index(assembly, layers[i], &responses[i], error);
		net_response_done(&responses[i]);
	}
	return r;
}

/* `imgfs serve` gives a blob without a repository's name, too. NULL: out of memory. */
static char *blob_url(const char *base, const char *name, const Digest *blob)
{
	char text[DIGEST_TEXT_SIZE], *url;
	if (name[0])
		return net_registry_blob_url(base, name, blob);
	return asprintf(&url, "%s/imgfs/blobs/%s", base, digest_text(blob, text)) < 0 ? NULL : url;
}

static int name_sources(Assembly *assembly, const char *base, const char *name, Error *error)
{
	for (size_t i = 0; i < assembly->image.layer_count; i++) {
		FetchLayerFiles *files = &assembly->image.layers[i];
		files->url = blob_url(base, name, &files->layer.blob);
		if (!files->url)
			return error_set(error, -ENOMEM, "out of memory");
	}
	if (!has_manifest(assembly))
		return 0;
	assembly->profile_url = fetch_profile_url(base, &assembly->image.manifest);
	assembly->config_url = net_registry_blob_url(base, name, &assembly->manifest->config);
	return assembly->profile_url && assembly->config_url ? 0 : error_set(error, -ENOMEM, "out of memory");
}

static bool is_sealed(const Assembly *assembly)
{
	for (size_t i = 0; i < assembly->image.layer_count; i++) {
		const FetchLayerFiles *files = &assembly->image.layers[i];
		if (!fetch_layer_is_sealed(files->present_fd, files->seal_fd, &files->layer.diff_id,
					   assembly->indexes[i].table.count))
			return false;
	}
	return true;
}

static int open_cached_blobs(Assembly *assembly, Error *error)
{
	for (size_t i = 0; i < assembly->image.layer_count; i++) {
		FetchLayerFiles *files = &assembly->image.layers[i];
		int r = cache_store_blob(assembly->cache, &files->layer.blob, files->layer.blob_size,
					 assembly->indexes[i].table.count, &files->data_fd, &files->present_fd, error);
		if (r < 0)
			return r;
		/* So that this cache can be a mirror; what cannot be written is not missed here. */
		if (assembly->raw[i] && fd_pwrite_all(files->data_fd, assembly->raw[i], files->layer.index_size,
						      files->layer.index_offset) < 0)
			free(TAKE_PTR(assembly->raw[i]));
		/* A cache that takes no seal does not keep anybody from mounting. */
		if (cache_seal_open(assembly->cache, &files->layer.blob, &files->seal_fd) < 0)
			files->seal_fd = -1;
	}
	assembly->image.sealed = is_sealed(assembly);
	return 0;
}

static void source_done(Source *source)
{
	(void)net_http_free(source->http);
	net_access_done(&source->access);
	free(source->base);
}

static int source_open(const FetchRemote *remote, Source *source, Error *error)
{
	const char *host = remote->reference->host;
	int r = net_hosts_load(remote->hosts, &remote->access, host, remote->plain_http, &source->access, &source->base,
			       remote->offline ? NULL : error);
	if (r < 0 && !remote->offline)
		return r;
	if (r < 0)
		source->base = net_registry_base(host, remote->plain_http);
	if (!source->base || fetch_http_new(remote, &source->access, remote->timeout, &source->http) < 0)
		return error_set(error, -ENOMEM, "out of memory");
	return 0;
}

/* What is known of the layers now: also of those whose length nobody had named. */
static int set_sizes(Assembly *assembly, Error *error)
{
	FetchImage *image = &assembly->image;
	image->image_size = 0;
	for (size_t i = 0; i < image->layer_count; i++) {
		image->layers[i].layer.tar_size = assembly->indexes[i].table.tar_size;
		if (__builtin_add_overflow(image->image_size, image->layers[i].layer.tar_size, &image->image_size))
			return error_set(error, -EBADMSG, "the lengths of the layers are impossible");
	}
	return 0;
}

static int assemble(const FetchRemote *remote, Source *source, const Manifest *manifest, const Digest *digest,
		    bool stale, FetchImage *ret_image, Error *error)
{
	_cleanup_(assembly_done) Assembly assembly = {
		.cache = remote->cache,
		.manifest = manifest,
		.decoded = remote->decoded,
	};
	int r = assembly_init(&assembly, digest, error);
	if (r == 0)
		r = name_sources(&assembly, source->base, remote->reference->name, error);
	if (r == 0 && net_access_encode(&source->access, &assembly.image.access) < 0)
		r = error_set(error, -ENOMEM, "out of memory");
	if (r < 0)
		return r;
	open_cached(&assembly);
	assembly.image.stale = stale;
	r = fetch_missing_indexes(&assembly, remote, source, error);
	if (r == 0 && has_manifest(&assembly))
		assembly.image.profile_fd = fetch_profile_open(assembly.cache, digest);
	if (r == 0)
		r = set_sizes(&assembly, error);
	if (r == 0)
		r = open_cached_blobs(&assembly, error);
	if (r == 0)
		fetch_twins_find(remote->cache, assembly.indexes, &assembly.image);
	return r < 0 ? r : assembly_finish(&assembly, ret_image, error);
}

int fetch_image_remote(const FetchRemote *remote, FetchImage *ret_image, Error *error)
{
	_cleanup_(source_done) Source source = { 0 };
	int r = source_open(remote, &source, error);
	if (r < 0)
		return r;
	_cleanup_(fetch_manifest_done) FetchManifest manifest = { 0 };
	r = fetch_manifest_resolve(remote, &source.access, source.http, source.base, &manifest, error);
	return r < 0 ? r
		     : assemble(remote, &source, &manifest.manifest, &manifest.digest, manifest.stale, ret_image,
				error);
}

int fetch_image_layers(const FetchRemote *remote, const ManifestLayer *layers, size_t count, FetchImage *ret_image,
		       Error *error)
{
	_cleanup_(source_done) Source source = { 0 };
	int r = source_open(remote, &source, error);
	if (r < 0)
		return r;
	/* Only read, as that of any other image. */
	Manifest manifest = { .layer_count = count, .layers = (ManifestLayer *)(uintptr_t)layers };
	return assemble(remote, &source, &manifest, &(Digest){ 0 }, false, ret_image, error);
}

bool fetch_image_layers_are_at(const FetchRemote *remote, const ManifestLayer *layers, size_t count)
{
	_cleanup_(source_done) Source source = { 0 };
	_cleanup_free_ NetRequest *requests = calloc(count + 1, sizeof(*requests));
	_cleanup_free_ NetResponse *responses = calloc(count + 1, sizeof(*responses));
	char **urls = calloc(count + 1, sizeof(char *));
	bool there = urls && requests && responses && source_open(remote, &source, NULL) == 0;
	for (size_t i = 0; there && i < count; i++) {
		uint64_t size = layers[i].index_size;
		urls[i] = blob_url(source.base, remote->reference->name, &layers[i].blob);
		requests[i] = (NetRequest){ .url = urls[i],
					    .ranged = true,
					    .offset = layers[i].index_offset,
					    .size = size < PROBE_SIZE ? size : PROBE_SIZE,
					    .optional = true };
		there = urls[i] && size > 0;
	}
	there = there && net_http_perform(source.http, requests, count, responses, NULL) == 0;
	for (size_t i = 0; responses && i < count; i++) {
		there &= responses[i].body != NULL;
		net_response_done(&responses[i]);
	}
	for (size_t i = 0; urls && i < count; i++)
		free(urls[i]);
	free((void *)urls);
	return there;
}

/* Reads the index of a layer from a whole blob. */
static int read_local_index(Assembly *assembly, size_t number, Error *error)
{
	const ManifestLayer *layer = &assembly->manifest->layers[number];
	int fd = assembly->image.layers[number].data_fd;
	char text[DIGEST_TEXT_SIZE];
	struct stat status;
	if (fstat(fd, &status) < 0)
		return error_set(error, -errno, "blob %s: %s", digest_text(&layer->blob, text), strerror(errno));
	if (!range_within(layer->index_offset, layer->index_size, (uint64_t)status.st_size))
		return error_set(error, -EBADMSG, "blob %s is truncated; export the image again",
				 digest_text(&layer->blob, text));
	_cleanup_free_ uint8_t *data = malloc(layer->index_size);
	if (!data)
		return error_set(error, -ENOMEM, "out of memory");
	int r = fd_pread_all(fd, data, layer->index_size, layer->index_offset);
	if (r < 0)
		return error_set(error, r, "blob %s: %s", digest_text(&layer->blob, text), error_text(NULL, r));
	return fetch_index_add(assembly->cache, layer, data, layer->index_size, &assembly->indexes[number], error);
}

static int open_local_blobs(Assembly *assembly, FetchOpenBlob *open_blob, void *arg, Error *error)
{
	for (size_t i = 0; i < assembly->image.layer_count; i++) {
		FetchLayerFiles *files = &assembly->image.layers[i];
		char text[DIGEST_TEXT_SIZE];
		int fd = open_blob(arg, &files->layer.blob);
		if (fd < 0)
			return error_set(error, fd, "blob %s cannot be opened in the store: %s; export the image again",
					 digest_text(&files->layer.blob, text), error_text(NULL, fd));
		files->data_fd = fd;
		if (assembly->indexes[i].map.data)
			continue;
		int r = read_local_index(assembly, i, error);
		if (r < 0)
			return r;
	}
	return 0;
}

int fetch_image_local(const char *manifest_json, size_t manifest_size, FetchOpenBlob *open_blob, void *arg,
		      CacheStore *cache, FetchImage *ret_image, Error *error)
{
	_cleanup_(manifest_done) Manifest manifest = { 0 };
	Digest digest;
	int r = manifest_parse(manifest_json, manifest_size, &manifest, error);
	if (r < 0)
		return r;
	if (digest_of(manifest_json, manifest_size, &digest) < 0)
		return error_set(error, -ENOMEM, "out of memory");
	_cleanup_(assembly_done) Assembly assembly = { .cache = cache, .manifest = &manifest };
	r = assembly_init(&assembly, &digest, error);
	if (r < 0)
		return r;
	open_cached(&assembly);
	r = open_local_blobs(&assembly, open_blob, arg, error);
	return r < 0 ? r : assembly_finish(&assembly, ret_image, error);
}
