#include <fcntl.h>
#include <stdio.h>

#include "fs/base/fd.h"
#include "tools/export/store-private.h"

#define DIRECTORY "profiles"

static void path_of(const Digest *manifest, char ret_path[static STORE_PATH_SIZE])
{
	char hex[DIGEST_HEX_SIZE];
	(void)snprintf(ret_path, STORE_PATH_SIZE, DIRECTORY "/%s", digest_hex(manifest, hex));
}

int store_profile_get(Store *store, const Digest *manifest, uint8_t **ret_data, size_t *ret_size)
{
	char path[STORE_PATH_SIZE], *data;
	path_of(manifest, path);
	int r = fd_read_file(store->fd, path, PROFILE_SIZE_MAX, &data, ret_size);
	if (r == 0)
		*ret_data = (uint8_t *)data;
	return r;
}

/* Is there one that was recorded with this very image? */
static bool has_recorded(Store *store, const Digest *manifest)
{
	_cleanup_free_ uint8_t *data = NULL;
	_cleanup_(profile_done) Profile profile = { 0 };
	size_t size;
	return store_profile_get(store, manifest, &data, &size) == 0 &&
	       profile_decode(data, size, &profile, NULL) == 0 && !(profile.flags & PROFILE_CARRIED);
}

int store_profile_put(Store *store, const Profile *profile, bool replace, Error *error)
{
	_cleanup_free_ uint8_t *data = NULL;
	char path[STORE_PATH_SIZE], text[DIGEST_TEXT_SIZE];
	size_t size;
	if (!replace && has_recorded(store, &profile->manifest))
		return error_set(error, -EEXIST, "store %s has a start-up profile of %s already", store->path,
				 digest_text(&profile->manifest, text));
	int r = profile_encode(profile, &data, &size);
	if (r < 0)
		return error_set(error, r, "the start-up profile cannot be written: %s", error_text(NULL, r));
	r = store_make_directories(store, DIRECTORY, error);
	if (r < 0)
		return r;
	path_of(&profile->manifest, path);
	return store_put(store, path, data, size, error);
}
