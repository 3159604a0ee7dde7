#include "fs/fetch/fetch-profile.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>

#include "fs/base/fd.h"

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
	_cleanup_close_ int fd = fetch_profile_open(cache, manifest);
	struct stat status;
	if (fd < 0 || fstat(fd, &status) < 0 || status.st_size <= 0 || status.st_size > (off_t)PROFILE_SIZE_MAX)
		return -ENOENT;
	size_t size = (size_t)status.st_size;
	_cleanup_free_ uint8_t *data = malloc(size);
	if (!data)
		return -ENOMEM;
	if (fd_pread_all(fd, data, size, 0) < 0 || !is_profile_of(data, size, manifest))
		return -ENOENT;
	*ret_data = TAKE_PTR(data);
	*ret_size = size;
	return 0;
}
