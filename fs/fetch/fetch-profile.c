#include "fs/fetch/fetch-profile.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>

char *fetch_profile_url(const char *base, const Digest *manifest)
{
	char *url, text[DIGEST_TEXT_SIZE];
	return asprintf(&url, "%s/imgfs/profiles/%s", base, digest_text(manifest, text)) < 0 ? NULL : url;
}

NetRequest fetch_profile_request(const char *url)
{
	return (NetRequest){ .url = url, .accept = PROFILE_MEDIA_TYPE, .size = PROFILE_SIZE_MAX, .optional = true };
}

static bool is_profile_of(const uint8_t *data, size_t size, const Digest *manifest)
{
	_cleanup_(profile_done) Profile profile = { 0 };
	return profile_decode(data, size, &profile, NULL) == 0 && digest_equal(&profile.manifest, manifest);
}

void fetch_profile_keep(CacheStore *cache, const Digest *manifest, const NetResponse *response)
{
	if (!response->body || !is_profile_of(response->body, response->size, manifest))
		return;
	/* Without it a start is as it is without a profile. */
	int r = cache_store_put(cache, CACHE_PROFILE, manifest, response->body, response->size, NULL);
	(void)r;
}

int fetch_profile_open(CacheStore *cache, const Digest *manifest)
{
	int fd;
	return cache_store_get(cache, CACHE_PROFILE, manifest, &fd) < 0 ? -1 : fd;
}

int fetch_profile_read(CacheStore *cache, const Digest *manifest, uint8_t **ret_data, size_t *ret_size)
{
	_cleanup_free_ char *data = NULL;
	int r = cache_store_read(cache, CACHE_PROFILE, manifest, PROFILE_SIZE_MAX, &data, ret_size);
	if (r < 0)
		return r;
	if (!is_profile_of((const uint8_t *)data, *ret_size, manifest))
		return -ENOENT;
	*ret_data = (uint8_t *)TAKE_PTR(data);
	return 0;
}
