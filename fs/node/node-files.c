/* From a request to the open files of an image, and the settings that a request leaves open. */
#include <errno.h>
#include <string.h>

#include "fs/node/node-private.h"

void node_settings_done(NodeSettingsCopy *copy)
{
	free(copy->certs);
	free(copy->login);
	free(copy->source);
	net_hosts_done(&copy->hosts);
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
	int r = net_hosts_copy(settings->hosts, &copy.hosts);
	if (r < 0 || !copy.certs != !settings->certs || !copy.login != !settings->login ||
	    !copy.source != !settings->source) {
		node_settings_done(&copy);
		return -ENOMEM;
	}
	copy.settings.certs = copy.certs;
	copy.settings.login = copy.login;
	copy.settings.source = copy.source;
	copy.settings.hosts = NULL; /* node_settings_copy() says where they are: the copy moves */
	*ret_copy = copy;
	return 0;
}

int node_settings_copy(Node *node, NodeSettingsCopy *ret_copy)
{
	node_lock(node);
	NodeSettings settings = node->defaults.settings;
	settings.hosts = &node->defaults.hosts;
	int r = copy_settings(&settings, ret_copy);
	node_unlock(node);
	if (r == 0)
		ret_copy->settings.hosts = &ret_copy->hosts;
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
	node_changed(node);
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

static bool is_gone(void *call)
{
	return control_call_gone(call);
}

int node_files_open(Node *node, ControlCall *call, const ControlRequest *request, const NodeRecord *known, bool offline,
		    FetchImage *ret_image, char ret_origin[static NODE_ORIGIN_SIZE], Error *error)
{
	ret_origin[0] = '\0';
	if (request->store)
		return open_store(node, request, known, ret_image, error);
	_cleanup_(node_settings_done) NodeSettingsCopy copy = { 0 };
	if (node_settings_copy(node, &copy) < 0)
		return error_set(error, -ENOMEM, "out of memory");
	Reference reference = { 0 };
	int r = request->reference ? reference_parse_remote(request->reference, &reference, error) : 0;
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
		.hosts = copy.settings.hosts,
		.decoded = request->decoded || copy.settings.decoded,
		.offline = offline,
		.given_up = call ? is_gone : NULL,
		.given_up_arg = call,
	};
	return request->layers ? node_origin_open(&remote, request, &copy.settings, known, ret_image, ret_origin, error)
			       : fetch_image_remote(&remote, ret_image, error);
}
