#include "fs/fetch/fetch-profile.h"

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

void fetch_profile_keep(CacheStore *cache, const Digest *manifest, const NetResponse *response)
{
	_cleanup_(profile_done) Profile profile = { 0 };
	if (!response->body || profile_decode(response->body, response->size, &profile, NULL) < 0 ||
	    !digest_equal(&profile.manifest, manifest))
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
