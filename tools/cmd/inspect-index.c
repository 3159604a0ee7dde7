#include "tools/cmd/inspect-index.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/base/fd.h"
#include "fs/format/index-dump.h"
#include "tools/export/blob-file.h"

int inspect_load_blob(Store *store, const Digest *digest, uint8_t **ret_image, size_t *ret_size, Error *error)
{
	_cleanup_close_ int fd = -1;
	uint64_t size;
	BlobFooter footer;
	int r = store_blob_open(store, digest, &fd, &size);
	if (r < 0)
		return error_set(error, r, "store %s cannot open it: %s; export the image again", store_path(store),
				 error_text(NULL, r));
	return blob_file_read_index(fd, size, &footer, ret_image, ret_size, error);
}

/* The index image in a file: the file is one, or a blob that holds one. */
static int load_file(const char *path, uint8_t **ret_image, size_t *ret_size, Error *error)
{
	char magic[8];
	struct stat status;
	BlobFooter footer;
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0 || fstat(fd, &status) < 0)
		return error_set(error, -errno, "cannot open it: %s", strerrordesc_np(errno));
	uint64_t size = (uint64_t)status.st_size;
	if (size < sizeof(magic) || fd_pread_all(fd, magic, sizeof(magic), 0) < 0 ||
	    memcmp(magic, "imgfsidx", sizeof(magic)) != 0)
		return blob_file_read_index(fd, size, &footer, ret_image, ret_size, error);
	if (size > FORMAT_IMAGE_MAX)
		return error_set(error, -EFBIG, "it is larger than any index");
	_cleanup_free_ uint8_t *data = malloc(size);
	if (!data)
		return error_set(error, -ENOMEM, "out of memory for an index");
	int r = fd_pread_all(fd, data, size, 0);
	if (r < 0)
		return error_set(error, r, "cannot read it: %s", error_text(NULL, r));
	*ret_image = TAKE_PTR(data);
	*ret_size = size;
	return 0;
}

int inspect_dump(Store *store, const char *name, FILE *output, Error *error)
{
	_cleanup_free_ uint8_t *data = NULL;
	size_t size;
	Image image;
	Digest digest;
	int r = digest_from_text(name, &digest) == 0 ? inspect_load_blob(store, &digest, &data, &size, error)
						     : load_file(name, &data, &size, error);
	if (r == 0)
		r = image_open(data, size, &image, error);
	if (r == 0) {
		r = index_dump_write(&image, output);
		if (r < 0)
			(void)error_set(error, r, "its index cannot be written as text: %s", error_text(NULL, r));
	}
	return r < 0 ? error_prefix(error, r, "%s", name) : 0;
}

int inspect_load(const char *path, FILE *output, Error *error)
{
	_cleanup_fclose_ FILE *text = fopen(path, "re");
	_cleanup_free_ uint8_t *data = NULL;
	size_t size;
	if (!text)
		return error_set(error, -errno, "cannot open %s: %s", path, strerrordesc_np(errno));
	int r = index_dump_read(text, &data, &size, error);
	if (r < 0)
		return error_prefix(error, r, "%s", path);
	if (fwrite(data, 1, size, output) != size)
		return error_set(error, -EIO, "the index image of %s cannot be written: %s", path,
				 strerrordesc_np(errno));
	return 0;
}
