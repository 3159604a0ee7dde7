#include "tools/image/image-input.h"

#include <string.h>
#include <unistd.h>

void image_progress_add(ImageProgress *progress, uint64_t bytes)
{
	progress->done += bytes;
	if (progress->sink->progress)
		progress->sink->progress(progress->sink->arg, progress->done, progress->total);
}

static ssize_t input_read(void *arg, void *buffer, size_t size, Error *error)
{
	ImageInput *input = arg;
	if (size > input->left)
		size = (size_t)input->left;
	if (size == 0)
		return 0;
	ssize_t count;
	do
		count = pread(input->fd, buffer, size, (off_t)input->offset);
	while (count < 0 && errno == EINTR);
	if (count < 0)
		return error_set(error, -errno, "cannot read %s: %s", input->path, strerrordesc_np(errno));
	if (count == 0)
		return error_set(error, -EBADMSG, "%s is shorter than it says; get the image again", input->path);
	int r = input->digest ? digest_state_add(input->digest, buffer, (size_t)count) : 0;
	if (r < 0)
		return r;
	input->offset += (uint64_t)count;
	input->left -= (uint64_t)count;
	if (input->progress)
		image_progress_add(input->progress, (uint64_t)count);
	return count;
}

LayerSource image_input_source(ImageInput *input)
{
	return (LayerSource){ .read = input_read, .arg = input };
}

int image_input_verify(ImageInput *input, const Digest *expected, Error *error)
{
	uint8_t ignored[16384];
	Digest digest;
	ssize_t count;
	do
		count = input_read(input, ignored, sizeof(ignored), error);
	while (count > 0);
	int r = count < 0 ? (int)count : digest_state_end(input->digest, &digest);
	if (r < 0)
		return r;
	if (!digest_equal(&digest, expected)) {
		char text[DIGEST_TEXT_SIZE];
		return error_set(error, -EKEYREJECTED, "%s holds %s, not what its name says; get the image again",
				 input->path, digest_text(&digest, text));
	}
	return 0;
}
