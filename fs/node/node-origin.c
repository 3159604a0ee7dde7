/* Where the bytes of layers come from, if whoever asks for them does not say it, or is wrong. */
#include <errno.h>
#include <string.h>

#include "fs/fetch/fetch-contents.h"
#include "fs/node/node-private.h"

#define PLAIN  "http://"
#define SECURE "https://"

typedef struct Origin {
	Reference reference; /* host and repository; without one: an `imgfs serve`, which gives blobs by digest alone */
	bool plain_http;
	bool is_setting; /* the settings' `source`, which the access of a request is for */
} Origin;

typedef struct Origins {
	Origin *items;
	size_t count;
} Origins;

static void origins_done(Origins *origins)
{
	free(origins->items);
}

static int add(Origins *origins, const Origin *origin)
{
	Origin *larger = reallocarray(origins->items, origins->count + 1, sizeof(*larger));
	if (!larger)
		return -ENOMEM;
	origins->items = larger;
	larger[origins->count++] = *origin;
	return 0;
}

/* "[http://]HOST[/NAME]", as a record has it, or "https://HOST" of a [source ...] section. False: it is too long. */
static bool parse(const char *text, Origin *ret_origin)
{
	Origin origin = { .plain_http = strncmp(text, PLAIN, strlen(PLAIN)) == 0 };
	if (origin.plain_http)
		text += strlen(PLAIN);
	else if (strncmp(text, SECURE, strlen(SECURE)) == 0)
		text += strlen(SECURE);
	size_t host = strcspn(text, "/");
	const char *name = text[host] ? text + host + 1 : "";
	if (host == 0 || host >= sizeof(origin.reference.host) || strlen(name) >= sizeof(origin.reference.name) ||
	    (name[0] && !reference_name_valid(name)))
		return false;
	memcpy(origin.reference.host, text, host);
	(void)snprintf(origin.reference.name, sizeof(origin.reference.name), "%s", name);
	*ret_origin = origin;
	return true;
}

static void print(const Origin *origin, char ret_text[static NODE_ORIGIN_SIZE])
{
	(void)snprintf(ret_text, NODE_ORIGIN_SIZE, "%s%s%s%s", origin->plain_http ? PLAIN : "", origin->reference.host,
		       origin->reference.name[0] ? "/" : "", origin->reference.name);
}

/* Hosts that this node has seen an image of, by a tag, that has these layers. */
static int add_seen(CacheStore *cache, const ManifestLayer *layers, size_t count, Origins *origins)
{
	CacheTag *tags = NULL;
	size_t tag_count = 0;
	int r = cache_contents_tags(cache, &tags, &tag_count);
	for (size_t i = 0; r == 0 && i < tag_count; i++) {
		Origin origin = { 0 };
		if (fetch_contents_has_layers(cache, &tags[i].manifest, layers, count) &&
		    reference_parse_remote(tags[i].reference, &origin.reference, NULL) == 0)
			r = add(origins, &origin);
	}
	cache_contents_tags_free(tags, tag_count);
	return r;
}

static int add_configured(const FetchRemote *remote, const NodeSettings *settings, Origins *origins)
{
	Origin origin = { 0 };
	int r = 0;
	if (settings->source) {
		origin = (Origin){ .plain_http = remote->plain_http, .is_setting = true };
		(void)snprintf(origin.reference.host, sizeof(origin.reference.host), "%s", settings->source);
		r = add(origins, &origin);
	}
	for (size_t i = 0; r == 0 && remote->hosts && i < remote->hosts->source_count; i++)
		if (parse(remote->hosts->sources[i].url, &origin))
			r = add(origins, &origin);
	return r;
}

/* What the record says comes first; without a network it is all that counts. */
static int find(const FetchRemote *remote, const NodeSettings *settings, const NodeRecord *known,
		const ManifestLayer *layers, size_t count, Origins *origins)
{
	Origin origin = { 0 };
	bool recorded = known && known->origin[0] && parse(known->origin, &origin);
	origin.is_setting =
		!origin.reference.name[0] && settings->source && strcmp(origin.reference.host, settings->source) == 0;
	int r = recorded ? add(origins, &origin) : 0;
	if (r == 0 && (!remote->offline || origins->count == 0))
		r = add_seen(remote->cache, layers, count, origins);
	return r < 0 ? r : add_configured(remote, settings, origins);
}

/* How one is asked. What a request has for the host that it names is not for others. */
static FetchRemote remote_of(const FetchRemote *remote, const NodeSettings *settings, const Origin *origin)
{
	FetchRemote at = *remote;
	at.reference = &origin->reference;
	at.plain_http = origin->plain_http;
	if (!origin->is_setting)
		at.access = (NetAccessOptions){ .certs = settings->certs, .login = settings->login };
	return at;
}

/* The first that has them all; NULL: none has. One alone need not be asked, and without a network nobody is. */
static const Origin *choose(const FetchRemote *remote, const NodeSettings *settings, const ManifestLayer *layers,
			    size_t count, const Origins *origins)
{
	if (remote->offline || origins->count == 1)
		return &origins->items[0];
	for (size_t i = 0; i < origins->count; i++) {
		FetchRemote at = remote_of(remote, settings, &origins->items[i]);
		if (fetch_image_layers_are_at(&at, layers, count))
			return &origins->items[i];
	}
	return NULL;
}

static int open_elsewhere(const FetchRemote *remote, const NodeSettings *settings, const NodeRecord *known,
			  const ManifestLayer *layers, size_t count, FetchImage *ret_image,
			  char ret_origin[static NODE_ORIGIN_SIZE], Error *error)
{
	_cleanup_(origins_done) Origins origins = { 0 };
	int r = find(remote, settings, known, layers, count, &origins);
	if (r < 0)
		return error_set(error, r, "cannot find out where the layers come from: %s", error_text(NULL, r));
	if (origins.count == 0)
		return error_set(
			error, -EINVAL,
			"nothing says where the layers come from: neither a reference, nor a tag that this node "
			"has seen, nor `source` in section [daemon] or a section [source NAME] of imgfs.conf");
	/* If nobody has them now, the cache may still have what it takes. */
	const Origin *chosen = choose(remote, settings, layers, count, &origins), *origin = chosen ?: &origins.items[0];
	FetchRemote at = remote_of(remote, settings, origin);
	r = fetch_image_layers(&at, layers, count, ret_image, error);
	if (r < 0)
		return chosen ? r
			      : error_prefix(error, r, "none of %zu hosts has all of the layers; the first one",
					     origins.count);
	print(origin, ret_origin);
	return 0;
}

static ManifestLayer *layers_of(const ControlRequest *request)
{
	ManifestLayer *layers = calloc(request->layer_count, sizeof(*layers));
	for (size_t i = 0; layers && i < request->layer_count; i++) {
		const ControlLayer *layer = &request->layers[i];
		layers[i] = (ManifestLayer){
			.diff_id = layer->diff_id,
			.tar_size = layer->size,
			.blob = layer->blob,
			.blob_size = layer->blob_size,
			.index = layer->index,
			.index_offset = layer->index_offset,
			.index_size = layer->index_size,
		};
	}
	return layers;
}

int node_origin_open(const FetchRemote *remote, const ControlRequest *request, const NodeSettings *settings,
		     const NodeRecord *known, FetchImage *ret_image, char ret_origin[static NODE_ORIGIN_SIZE],
		     Error *error)
{
	size_t count = request->layer_count;
	_cleanup_free_ ManifestLayer *layers = layers_of(request);
	Error elsewhere = { 0 };
	bool strayed = known && known->origin[0]; /* already when it was attached, the named one did not have them */
	int r = -ENOENT;
	if (!layers)
		return error_set(error, -ENOMEM, "out of memory");
	if (!request->reference || strayed)
		return open_elsewhere(remote, settings, known, layers, count, ret_image, ret_origin, error);
	r = fetch_image_layers(remote, layers, count, ret_image, error);
	if (r == 0 || remote->offline)
		return r;
	/* Whoever is named is the one to blame, if nobody else has them either. */
	return open_elsewhere(remote, settings, known, layers, count, ret_image, ret_origin, &elsewhere) == 0 ? 0 : r;
}
