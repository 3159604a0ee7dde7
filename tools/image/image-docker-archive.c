/* Docker archives from files and pipes. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/base/fd.h"
#include "tools/image/image-decompress.h"
#include "tools/image/image-docker-transfer.h"
#include "tools/image/image-docker.h"

typedef struct DockerArchive {
	ImageSource source;
	int fd;
	uint64_t size; /* 0: not known */
	char *name;    /* for sentences */
	char *wanted;
	ImageProgress progress;
} DockerArchive;

static ImageSource *archive_destroy(ImageSource *source)
{
	DockerArchive *archive = (DockerArchive *)source;
	if (archive->fd >= 0)
		(void)close(archive->fd);
	free(archive->name);
	free(archive->wanted);
	free(archive);
	return NULL;
}

/* Takes `fd` over, unless memory is out: then NULL. */
static DockerArchive *archive_new(int fd, const char *name, const char *wanted)
{
	DockerArchive *archive = calloc(1, sizeof(*archive));
	if (!archive)
		return NULL;
	archive->fd = -1;
	archive->source.destroy = archive_destroy;
	if (asprintf(&archive->name, "docker archive %s", name) < 0)
		archive->name = NULL;
	archive->wanted = wanted ? strdup(wanted) : NULL;
	if (!archive->name || (wanted && !archive->wanted)) {
		archive_destroy(&archive->source);
		return NULL;
	}
	archive->fd = fd;
	return archive;
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

static int file_transfer(ImageSource *source, const ImageSink *sink, ImageContent *ret_content, Error *error)
{
	DockerArchive *archive = (DockerArchive *)source;
	ImageInput file = { .fd = archive->fd, .left = archive->size, .path = archive->name };
	ImageArchiveInput input = { .source = image_input_source(&file), .skip = skip_input };
	archive->progress = (ImageProgress){ .sink = sink };
	ImageDockerTransfer transfer = {
		.archive = archive->name, .wanted = archive->wanted, .fd = archive->fd, .progress = &archive->progress
	};
	return image_docker_transfer(&transfer, &input, sink, ret_content, error);
}

static ssize_t stream_read(void *arg, void *buffer, size_t size, Error *error)
{
	DockerArchive *archive = arg;
	ssize_t count;
	do
		count = read(archive->fd, buffer, size);
	while (count < 0 && errno == EINTR);
	if (count < 0)
		return error_set(error, -errno, "cannot read it: %s", strerrordesc_np(errno));
	image_progress_add(&archive->progress, (uint64_t)count);
	return count;
}

static int stream_transfer(ImageSource *source, const ImageSink *sink, ImageContent *ret_content, Error *error)
{
	DockerArchive *archive = (DockerArchive *)source;
	LayerSource raw = { .read = stream_read, .arg = archive };
	_cleanup_(image_decompressor_free_p) ImageDecompressor *decompressor = NULL;
	int r = image_decompressor_new(&raw, &decompressor);
	if (r < 0)
		return error_set(error, r, "out of memory to read %s", archive->name);
	ImageArchiveInput input = { .source = image_decompressor_source(decompressor) };
	archive->progress = (ImageProgress){ .sink = sink, .total = archive->size };
	ImageDockerTransfer transfer = {
		.archive = archive->name, .wanted = archive->wanted, .fd = -1, .progress = &archive->progress
	};
	return image_docker_transfer(&transfer, &input, sink, ret_content, error);
}

/* A compressed archive cannot be read from the middle. */
static bool is_compressed(int fd)
{
	uint8_t magic[4];
	return fd_pread_all(fd, magic, sizeof(magic), 0) == 0 &&
	       (memcmp(magic, "\x1f\x8b\x08", 3) == 0 || memcmp(magic, "\x28\xb5\x2f\xfd", 4) == 0);
}

int image_docker_archive_open(const char *path, const char *wanted, ImageSource **ret_source, Error *error)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	struct stat status;
	if (fd < 0 || fstat(fd, &status) < 0)
		return error_set(error, -errno, "cannot open docker archive %s: %s", path, strerrordesc_np(errno));
	if (S_ISDIR(status.st_mode))
		return error_set(error, -EISDIR, "%s is a directory; an OCI image layout is exported as oci:DIR", path);
	DockerArchive *archive = archive_new(fd, path, wanted);
	if (!archive)
		return error_set(error, -ENOMEM, "out of memory to open %s", path);
	(void)TAKE_FD(fd);
	bool regular = S_ISREG(status.st_mode);
	archive->size = regular ? (uint64_t)status.st_size : 0;
	archive->source.transfer = regular && !is_compressed(archive->fd) ? file_transfer : stream_transfer;
	*ret_source = &archive->source;
	return 0;
}

int image_docker_archive_stream(int fd, const char *name, const char *wanted, ImageSource **ret_source, Error *error)
{
	DockerArchive *archive = archive_new(fd, name, wanted);
	if (!archive) {
		(void)close(fd);
		return error_set(error, -ENOMEM, "out of memory to open %s", name);
	}
	archive->source.transfer = stream_transfer;
	*ret_source = &archive->source;
	return 0;
}
