#include "tools/export/store-image.h"

#include <string.h>

#include "fs/base/fd.h"

void store_image_done(StoreImage *image)
{
	manifest_done(&image->manifest);
	free(image->json);
	*image = (StoreImage){ 0 };
}

int store_blob_read(Store *store, const Digest *digest, size_t limit, char **ret_data, size_t *ret_size)
{
	_cleanup_close_ int fd = -1;
	uint64_t size;
	Digest found;
	int r = store_blob_open(store, digest, &fd, &size);
	if (r < 0)
		return r;
	if (size > limit)
		return -EFBIG;
	_cleanup_free_ char *data = malloc(size + 1);
	if (!data)
		return -ENOMEM;
	r = fd_pread_all(fd, data, size, 0);
	if (r == 0)
		r = digest_of(data, size, &found);
	if (r < 0)
		return r;
	if (!digest_equal(&found, digest))
		return -EBADMSG;
	data[size] = '\0';
	*ret_data = TAKE_PTR(data);
	*ret_size = size;
	return 0;
}

int store_image_parse(const char *text, Reference *ret_reference, Error *error)
{
	Reference reference = { 0 };
	if (digest_from_text(text, &reference.digest) < 0)
		return reference_parse_local(text, ret_reference, error);
	reference.has_digest = true;
	*ret_reference = reference;
	return 0;
}

static int read_manifest(Store *store, const char *text, StoreImage *image, Error *error)
{
	const Reference *reference = &image->reference;
	int r = reference->has_digest
			? store_blob_read(store, &reference->digest, MANIFEST_SIZE_MAX, &image->json, &image->json_size)
			: store_tag_get(store, reference->name, reference->tag, &image->json, &image->json_size);
	if (r == -ENOENT)
		return error_set(error, r, "store %s does not hold %s; `imgfs ls` lists what it holds",
				 store_path(store), text);
	if (r == -EBADMSG)
		return error_set(error, r, "store %s: the manifest %s is damaged; export the image again",
				 store_path(store), text);
	if (r < 0)
		return error_set(error, r, "store %s: the manifest of %s cannot be read: %s", store_path(store), text,
				 error_text(NULL, r));
	return digest_of(image->json, image->json_size, &image->digest);
}

int store_image_open(Store *store, const char *text, StoreImage *ret_image, Error *error)
{
	StoreImage image = { 0 };
	int r = store_image_parse(text, &image.reference, error);
	if (r == 0)
		r = read_manifest(store, text, &image, error);
	if (r == 0) {
		r = manifest_parse(image.json, image.json_size, &image.manifest, error);
		if (r < 0)
			(void)error_prefix(error, r, "store %s: %s", store_path(store), text);
	}
	if (r < 0) {
		store_image_done(&image);
		return r;
	}
	*ret_image = image;
	return 0;
}

int store_image_config(Store *store, const Manifest *manifest, char **ret_data, Error *error)
{
	char text[DIGEST_TEXT_SIZE];
	_cleanup_free_ char *data = NULL;
	size_t size;
	int r = store_blob_read(store, &manifest->config, MANIFEST_SIZE_MAX, &data, &size);
	if (r == 0 && size != manifest->config_size)
		r = -EBADMSG;
	if (r < 0)
		return error_set(error, r, "store %s: the config %s %s; export the image again", store_path(store),
				 digest_text(&manifest->config, text),
				 r == -ENOENT    ? "is missing"
				 : r == -EBADMSG ? "is damaged"
						 : error_text(NULL, r));
	*ret_data = TAKE_PTR(data);
	return 0;
}
