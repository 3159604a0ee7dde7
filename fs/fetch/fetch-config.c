#include "fs/fetch/fetch-config.h"

#include "fs/fetch/fetch-manifest.h"
#include "fs/net/net-registry.h"

static int get(const FetchRemote *remote, const NetAccess *access, const char *base, const Digest *config,
	       NetResponse *ret_response, Error *error)
{
	_cleanup_(net_http_free_p) NetHttp *http = NULL;
	_cleanup_free_ char *url = net_registry_blob_url(base, remote->reference->name, config);
	if (!url || fetch_http_new(remote, access, remote->timeout, &http) < 0)
		return error_set(error, -ENOMEM, "out of memory");
	const NetRequest request = { .url = url, .size = MANIFEST_SIZE_MAX };
	Digest digest;
	int r = net_http_perform(http, &request, 1, ret_response, error);
	if (r < 0)
		return r;
	if (digest_of(ret_response->body, ret_response->size, &digest) < 0 || !digest_equal(&digest, config))
		return error_set(error, -EBADMSG, "%s is not what its digest says", url);
	return 0;
}

int fetch_config(const FetchRemote *remote, const Digest *config, uint8_t **ret_config, size_t *ret_size, Error *error)
{
	_cleanup_free_ char *base = NULL;
	NetAccess access = { 0 };
	NetResponse response = { 0 };
	int r = net_hosts_load(remote->hosts, &remote->access, remote->reference->host, remote->plain_http, &access,
			       &base, error);
	if (r == 0)
		r = get(remote, &access, base, config, &response, error);
	net_access_done(&access);
	if (r < 0) {
		net_response_done(&response);
		return r;
	}
	*ret_config = response.body;
	*ret_size = response.size;
	return 0;
}

int fetch_config_cached(CacheStore *cache, const Digest *config, char **ret_config, size_t *ret_size)
{
	return cache_store_read_checked(cache, CACHE_CONFIG, config, MANIFEST_SIZE_MAX, ret_config, ret_size);
}

NetRequest fetch_config_request(const char *url, uint64_t size)
{
	return (NetRequest){ .url = url, .size = size, .optional = true };
}

void fetch_config_keep(CacheStore *cache, const Digest *config, const NetResponse *response)
{
	Digest found;
	if (!response->body || digest_of(response->body, response->size, &found) < 0 || !digest_equal(&found, config))
		return;
	/* Mounts do without it. */
	int r = cache_store_put(cache, CACHE_CONFIG, config, response->body, response->size, NULL);
	(void)r;
}
