#include "tools/image/image-oci-files.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/base/fd.h"
#include "tools/image/image-archive.h"
#include "tools/image/image-decompress.h"
#include "tools/image/image-input.h"
#include "tools/image/image-members.h"

#define COPY_SIZE (256u << 10)

struct ImageOciFiles {
	int fd; /* of the directory, or of the tar */
	bool is_archive;
	ImageMembers members; /* of the tar */
};

ImageOciFiles *image_oci_files_free(ImageOciFiles *files)
{
	if (files) {
		if (files->fd >= 0)
			(void)close(files->fd);
		image_members_done(&files->members);
		free(files);
	}
	return NULL;
}

/* Takes `fd` over. */
static int files_new(int fd, bool is_archive, ImageOciFiles **ret_files)
{
	ImageOciFiles *files = calloc(1, sizeof(*files));
	if (!files) {
		(void)close(fd);
		return -ENOMEM;
	}
	files->fd = fd;
	files->is_archive = is_archive;
	*ret_files = files;
	return 0;
}

int image_oci_files_directory(const char *path, ImageOciFiles **ret_files, Error *error)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 && errno == ENOTDIR)
		return error_set(error, -ENOTDIR,
				 "%s is no directory; a layout in a tar is exported as oci-archive:FILE", path);
	if (fd < 0)
		return error_set(error, -errno, "cannot open OCI layout %s: %s", path, strerrordesc_np(errno));
	int r = files_new(fd, false, ret_files);
	return r < 0 ? error_set(error, r, "out of memory to open %s", path) : 0;
}

static ssize_t fd_source_read(void *arg, void *buffer, size_t size, Error *error)
{
	ssize_t count;
	do
		count = read(*(const int *)arg, buffer, size);
	while (count < 0 && errno == EINTR);
	return count < 0 ? error_set(error, -errno, "cannot read it: %s", strerrordesc_np(errno)) : count;
}

static int open_temporary(const char *directory, int *ret_fd, Error *error)
{
	int fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0)
		return error_set(error, -errno,
				 "cannot make a temporary file in %s: %s; set TMPDIR to another directory", directory,
				 strerrordesc_np(errno));
	*ret_fd = fd;
	return 0;
}

/* The whole of `from`, decompressed, in a file without a name. */
static int copy_to_temporary(int from, const ImageSink *sink, int *ret_fd, Error *error)
{
	const char *directory = getenv("TMPDIR");
	if (!directory || !directory[0])
		directory = "/var/tmp";
	_cleanup_close_ int fd = -1;
	_cleanup_free_ uint8_t *buffer = malloc(COPY_SIZE);
	_cleanup_(image_decompressor_free_p) ImageDecompressor *decompressor = NULL;
	LayerSource raw = { .read = fd_source_read, .arg = &from };
	int r = buffer ? image_decompressor_new(&raw, &decompressor) : -ENOMEM;
	if (r < 0)
		return error_set(error, r, "out of memory to copy it");
	r = open_temporary(directory, &fd, error);
	if (r < 0)
		return r;
	if (sink->notice)
		sink->notice(
			sink->arg,
			"the archive cannot be read from the middle, and its index may come last: it is copied into a "
			"temporary file first; TMPDIR says where");
	LayerSource plain = image_decompressor_source(decompressor);
	for (;;) {
		ssize_t count = plain.read(plain.arg, buffer, COPY_SIZE, error);
		if (count < 0)
			return (int)count;
		if (count == 0)
			break;
		r = fd_write_all(fd, buffer, (size_t)count);
		if (r < 0)
			return error_set(error, r,
					 "cannot copy it to a temporary file in %s: %s; set TMPDIR to a directory with "
					 "more room",
					 directory, error_text(NULL, r));
	}
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static int skip_input(void *arg, uint64_t size, Error *error)
{
	ImageInput *input = arg;
	if (size > input->left)
		return error_set(error, -EBADMSG, "it is cut short; get the archive again");
	input->offset += size;
	input->left -= size;
	return 0;
}

static int read_members(ImageOciFiles *files, uint64_t size, Error *error)
{
	_cleanup_(image_archive_free_p) ImageArchive *archive = NULL;
	ImageInput file = { .fd = files->fd, .left = size, .path = "it" };
	ImageArchiveInput input = { .source = image_input_source(&file), .skip = skip_input };
	const TarEntry *entry;
	int r = image_archive_new(&input, &archive);
	if (r < 0)
		return error_set(error, r, "out of memory to read an archive");
	while ((r = image_archive_next(archive, &entry, error)) > 0) {
		ImageMember *member;
		if (entry->typeflag > '2')
			continue;
		r = image_members_add(&files->members, entry, &member, error);
		if (r < 0)
			return r;
	}
	return r;
}

static bool is_plain(int fd)
{
	uint8_t magic[4];
	return fd_pread_all(fd, magic, sizeof(magic), 0) < 0 ||
	       (memcmp(magic, "\x1f\x8b\x08", 3) != 0 && memcmp(magic, "\x28\xb5\x2f\xfd", 4) != 0);
}

int image_oci_files_archive(int fd, const ImageSink *sink, ImageOciFiles **ret_files, Error *error)
{
	_cleanup_(image_oci_files_free_p) ImageOciFiles *files = NULL;
	struct stat status;
	int own = -1, r = 0;
	if (fstat(fd, &status) < 0)
		return error_set(error, -errno, "cannot read it: %s", strerrordesc_np(errno));
	if (S_ISREG(status.st_mode) && is_plain(fd))
		own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	else
		r = copy_to_temporary(fd, sink, &own, error);
	if (r < 0)
		return r;
	if (own < 0)
		return error_set(error, -errno, "cannot read it: %s", strerrordesc_np(errno));
	r = files_new(own, true, &files);
	if (r < 0)
		return error_set(error, r, "out of memory to read an archive");
	if (fstat(own, &status) < 0)
		return error_set(error, -errno, "cannot read it: %s", strerrordesc_np(errno));
	r = read_members(files, (uint64_t)status.st_size, error);
	if (r == 0)
		*ret_files = TAKE_PTR(files);
	return r;
}

static int open_below(int directory, const char *name, int *ret_fd, uint64_t *ret_size)
{
	struct stat status;
	_cleanup_close_ int fd = openat(directory, name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &status) < 0)
		return -errno;
	if (!S_ISREG(status.st_mode))
		return -ENOENT;
	*ret_fd = TAKE_FD(fd);
	*ret_size = (uint64_t)status.st_size;
	return 0;
}

int image_oci_files_open(const ImageOciFiles *files, const char *name, int *ret_fd, uint64_t *ret_offset,
			 uint64_t *ret_size)
{
	ImageMember *member;
	if (!files->is_archive) {
		*ret_offset = 0;
		return open_below(files->fd, name, ret_fd, ret_size);
	}
	int r = image_members_find(&files->members, name, &member, NULL);
	if (r < 0)
		return r;
	int fd = fcntl(files->fd, F_DUPFD_CLOEXEC, 3);
	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	*ret_offset = member->offset;
	*ret_size = member->size;
	return 0;
}

int image_oci_files_read(const ImageOciFiles *files, const char *name, size_t limit, char **ret_data, size_t *ret_size)
{
	_cleanup_close_ int fd = -1;
	uint64_t offset, size;
	int r = image_oci_files_open(files, name, &fd, &offset, &size);
	if (r < 0)
		return r;
	if (size > limit)
		return -EFBIG;
	_cleanup_free_ char *data = malloc(size + 1);
	if (!data)
		return -ENOMEM;
	r = fd_pread_all(fd, data, size, offset);
	if (r < 0)
		return r;
	data[size] = '\0';
	*ret_data = TAKE_PTR(data);
	*ret_size = size;
	return 0;
}
