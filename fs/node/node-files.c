/* From a request to the open files of an image, and the settings that a request leaves open. */
#include <errno.h>
#include <string.h>

#include "fs/node/node-private.h"

void node_settings_done(NodeSettingsCopy *copy)
{
	free(copy->certs);
	free(copy->login);
	free(copy->source);
	*copy = (NodeSettingsCopy){ 0 };
}

static int copy_settings(const NodeSettings *settings, NodeSettingsCopy *ret_copy)
{
	NodeSettingsCopy copy = {
		.settings = *settings,
		.certs = settings->certs ? strdup(settings->certs) : NULL,
		.login = settings->login ? strdup(settings->login) : NULL,
		.source = settings->source ? strdup(settings->source) : NULL,
	};
	if (!copy.certs != !settings->certs || !copy.login != !settings->login || !copy.source != !settings->source) {
		node_settings_done(&copy);
		return -ENOMEM;
	}
	copy.settings.certs = copy.certs;
	copy.settings.login = copy.login;
	copy.settings.source = copy.source;
	*ret_copy = copy;
	return 0;
}

int node_settings_copy(Node *node, NodeSettingsCopy *ret_copy)
{
	node_lock(node);
	int r = copy_settings(&node->defaults.settings, ret_copy);
	node_unlock(node);
	return r;
}

int node_settings_set(Node *node, const NodeSettings *settings)
{
	NodeSettingsCopy copy, before;
	int r = copy_settings(settings, &copy);
	if (r < 0)
		return r;
	node_lock(node);
	before = node->defaults;
	node->defaults = copy;
	node_unlock(node);
	node_settings_done(&before);
	return 0;
}

static NetAccessOptions access_of(const ControlAccess *access, const NodeSettings *settings)
{
	return (NetAccessOptions){
		.certs = access->certs ?: settings->certs,
		.login = access->login ?: settings->login,
		.user = access->user,
		.ca = access->ca,
		.certificate = access->certificate,
		.key = access->key,
	};
}

static int open_layers(const FetchRemote *remote, const ControlRequest *request, FetchImage *ret_image, Error *error)
{
	_cleanup_free_ ManifestLayer *layers = calloc(request->layer_count, sizeof(*layers));
	if (!layers)
		return error_set(error, -ENOMEM, "out of memory");
	for (size_t i = 0; i < request->layer_count; i++) {
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
	return fetch_image_layers(remote, layers, request->layer_count, ret_image, error);
}

/* Where the bytes come from: the reference, or for layers without one the source that is set. */
static int find_reference(const ControlRequest *request, const NodeSettings *settings, Reference *ret_reference,
			  Error *error)
{
	if (request->reference)
		return reference_parse_remote(request->reference, ret_reference, error);
	if (!settings->source)
		return error_set(error, -EINVAL,
				 "nothing says where the layers come from: neither a reference nor `source` in section "
				 "[daemon] of imgfs.conf");
	*ret_reference = (Reference){ 0 };
	(void)snprintf(ret_reference->host, sizeof(ret_reference->host), "%s", settings->source);
	return 0;
}

static int open_store(Node *node, const ControlRequest *request, const NodeRecord *known, FetchImage *ret_image,
		      Error *error)
{
	Reference reference;
	if (!node->options.open_local)
		return error_set(error, -EOPNOTSUPP, "this imgfsd knows no local stores");
	int r = reference_parse_local(request->reference, &reference, error);
	if (r < 0)
		return r;
	if (known) {
		reference.has_digest = true;
		reference.digest = known->manifest;
	}
	_cleanup_free_ char *text = reference_text(&reference);
	if (!text)
		return error_set(error, -ENOMEM, "out of memory");
	return node->options.open_local(node->options.arg, request->store, text, node->cache, ret_image, error);
}

int node_files_open(Node *node, const ControlRequest *request, const NodeRecord *known, bool offline,
		    FetchImage *ret_image, Error *error)
{
	if (request->store)
		return open_store(node, request, known, ret_image, error);
	_cleanup_(node_settings_done) NodeSettingsCopy copy = { 0 };
	if (node_settings_copy(node, &copy) < 0)
		return error_set(error, -ENOMEM, "out of memory");
	Reference reference;
	int r = find_reference(request, &copy.settings, &reference, error);
	if (r < 0)
		return r;
	if (known && !request->layers) {
		reference.has_digest = true;
		reference.digest = known->manifest;
	}
	FetchRemote remote = {
		.reference = &reference,
		.plain_http = request->plain_http,
		.timeout = request->timeout ?: copy.settings.timeout,
		.cache = node->cache,
		.access = access_of(&request->access, &copy.settings),
		.hosts = node->options.hosts,
		.offline = offline,
	};
	return request->layers ? open_layers(&remote, request, ret_image, error)
			       : fetch_image_remote(&remote, ret_image, error);
}
