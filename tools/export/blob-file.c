#include "tools/export/blob-file.h"

#include "fs/base/fd.h"

int blob_file_read_index(int fd, uint64_t size, BlobFooter *ret_footer, uint8_t **ret_image, size_t *ret_image_size,
			 Error *error)
{
	uint8_t bytes[FORMAT_FOOTER_SIZE];
	BlobFooter footer;
	Digest digest;
	if (size < sizeof(bytes))
		return error_set(error, -EBADMSG, "it is too short to be an imgfs blob");
	int r = fd_pread_all(fd, bytes, sizeof(bytes), size - sizeof(bytes));
	if (r < 0)
		return error_set(error, r, "its footer cannot be read: %s", error_text(NULL, r));
	r = blob_footer_decode(bytes, size, &footer, error);
	if (r < 0)
		return r;
	_cleanup_free_ uint8_t *index = malloc(footer.index_size);
	if (!index)
		return error_set(error, -ENOMEM, "out of memory for an index");
	r = fd_pread_all(fd, index, footer.index_size, footer.index_offset);
	if (r == 0)
		r = digest_of(index, footer.index_size, &digest);
	if (r < 0)
		return error_set(error, r, "its index cannot be read: %s", error_text(NULL, r));
	if (!digest_equal(&digest, &footer.index_digest))
		return error_set(error, -EBADMSG, "its index is not what its footer says; export the image again");
	r = blob_index_decode(index, footer.index_size, ret_image, ret_image_size, error);
	if (r < 0)
		return r;
	*ret_footer = footer;
	return 0;
}
