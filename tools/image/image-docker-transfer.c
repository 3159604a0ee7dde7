#include "tools/image/image-docker-transfer.h"

#include <stdio.h>
#include <string.h>

#include "fs/base/fd.h"
#include "fs/format/manifest.h"
#include "tools/image/image-decompress.h"
#include "tools/image/image-docker-manifest.h"
#include "tools/image/image-members.h"

#define KEEP_TOTAL_MAX (64u << 20) /* of a stream's members, in memory; each up to IMAGE_CONFIG_MAX */
#define KEEP_OTHER_MAX (1u << 20)  /* a member of no telling name or form that is larger is a layer */

typedef struct Pass {
	const ImageDockerTransfer *transfer;
	const ImageSink *sink;
	ImageArchive *archive;
	ImageMembers members;
	uint64_t kept;
} Pass;

/* Hands a tar on, whatever its compression. `expected` may be NULL. */
static int hand_on(const ImageSink *sink, const LayerSource *input, const Digest *expected, Digest *ret_diff_id,
		   Error *error)
{
	_cleanup_(image_decompressor_free_p) ImageDecompressor *decompressor = NULL;
	int r = image_decompressor_new(input, &decompressor);
	if (r < 0)
		return error_set(error, r, "out of memory to read a layer");
	LayerSource tar = image_decompressor_source(decompressor);
	return sink->layer(sink->arg, expected, &tar, ret_diff_id, error);
}

static ssize_t archive_read(void *arg, void *buffer, size_t size, Error *error)
{
	return image_archive_read(arg, buffer, size, error);
}

/* A layer that passes by. One whose name claims the diffID of a layer that is there already is taken at its word: its bytes are not used. */
static int take_layer(Pass *pass, ImageMember *member, Error *error)
{
	Digest claimed;
	if (image_member_digest(member->name, &claimed) == 0 && pass->sink->has_layer(pass->sink->arg, &claimed)) {
		member->diff_id = claimed;
	} else {
		LayerSource input = { .read = archive_read, .arg = pass->archive };
		int r = hand_on(pass->sink, &input, NULL, &member->diff_id, error);
		if (r < 0)
			return error_prefix(error, r, "layer %s", member->name);
	}
	member->is_layer = true;
	return 0;
}

static int keep_member(Pass *pass, ImageMember *member, Error *error)
{
	/* Too large for the memory it is worth: whoever needs it learns that it is not there. */
	if (member->size > IMAGE_CONFIG_MAX || member->size > KEEP_TOTAL_MAX - pass->kept)
		return 0;
	char *data = malloc(member->size + 1);
	if (!data)
		return error_set(error, -ENOMEM, "out of memory for member %s", member->name);
	for (uint64_t used = 0; used < member->size;) {
		ssize_t count = image_archive_read(pass->archive, data + used, member->size - used, error);
		if (count <= 0) {
			free(data);
			return (int)count;
		}
		used += (uint64_t)count;
	}
	data[member->size] = '\0';
	member->data = data;
	pass->kept += member->size;
	return 0;
}

static bool ends_with(const char *text, const char *end)
{
	size_t length = strlen(text), end_length = strlen(end);
	return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

/*
 * What a stream's member is, is told before the manifest that names it has come: layers by their name or, where that says nothing (blobs
 * named by digest), by being large and no JSON. A small layer taken for something else is kept, and handed on from memory at the end.
 */
static int take_streamed(Pass *pass, ImageMember *member, Error *error)
{
	uint8_t first = 0;
	int r = image_archive_peek(pass->archive, &first, error);
	if (r <= 0)
		return r < 0 ? r : keep_member(pass, member, error);
	bool is_json = first == '{' || first == '[';
	bool is_layer = ends_with(member->name, ".tar") || ends_with(member->name, ".tar.gz") ||
			(!is_json && member->size > KEEP_OTHER_MAX);
	return is_layer ? take_layer(pass, member, error) : keep_member(pass, member, error);
}

static bool is_regular(const TarEntry *entry)
{
	return entry->typeflag == '0' || entry->typeflag == '\0' || entry->typeflag == '7';
}

static int pass_over(Pass *pass, Error *error)
{
	const TarEntry *entry;
	int r = image_archive_next(pass->archive, &entry, error);
	for (; r > 0; r = image_archive_next(pass->archive, &entry, error)) {
		ImageMember *member;
		bool regular = is_regular(entry);
		if (!regular && entry->typeflag != '1' && entry->typeflag != '2')
			continue;
		r = image_members_add(&pass->members, entry, &member, error);
		if (r == 0 && regular && pass->transfer->fd < 0)
			r = take_streamed(pass, member, error);
		if (r < 0)
			return r;
	}
	return r;
}

/* A member's bytes, from where they were kept or from the file. */
static int load_member(const Pass *pass, const char *name, ImageMember **ret_member, Error *error)
{
	ImageMember *member;
	int r = image_members_find(&pass->members, name, &member, error);
	if (r < 0)
		return r;
	if (!member->data) {
		if (pass->transfer->fd < 0 || member->size > IMAGE_CONFIG_MAX)
			return error_set(error, -EFBIG, "its %s has %llu bytes; up to %u are possible", name,
					 (unsigned long long)member->size, IMAGE_CONFIG_MAX);
		_cleanup_free_ char *data = malloc(member->size + 1);
		if (!data)
			return error_set(error, -ENOMEM, "out of memory for %s", name);
		r = fd_pread_all(pass->transfer->fd, data, member->size, member->offset);
		if (r < 0)
			return error_set(error, r, "cannot read its %s: %s", name, error_text(NULL, r));
		data[member->size] = '\0';
		member->data = TAKE_PTR(data);
	}
	*ret_member = member;
	return 0;
}

static int choose_image(const Pass *pass, ImageDockerManifest *ret_manifest, Error *error)
{
	ImageMember *member;
	int r = load_member(pass, "manifest.json", &member, error);
	if (r == -ENOENT)
		return error_set(
			error, -EBADMSG,
			"it has no manifest.json, so it is no docker archive of docker 1.10 or later; a tar of an OCI "
			"image layout is exported as oci-archive:FILE");
	if (r < 0)
		return r;
	return image_docker_manifest_choose(member->data, member->size, pass->transfer->wanted, ret_manifest, error);
}

static int fill_content(const Pass *pass, ImageDockerManifest *manifest, ImageContent *content, Error *error)
{
	ImageMember *member;
	Digest claimed, digest;
	int r = load_member(pass, manifest->config, &member, error);
	if (r < 0)
		return r;
	if (image_member_digest(member->name, &claimed) == 0) {
		r = digest_of(member->data, member->size, &digest);
		if (r == 0 && !digest_equal(&digest, &claimed))
			r = error_set(error, -EKEYREJECTED, "its config %s is not what its name says", member->name);
		if (r < 0)
			return r;
	}
	r = manifest_config_diff_ids(member->data, member->size, &content->diff_ids, &content->layer_count, error);
	if (r < 0)
		return error_prefix(error, r, "config %s", member->name);
	if (content->layer_count != manifest->layer_count)
		return error_set(error, -EBADMSG, "its manifest.json names %zu layers, but its config %zu",
				 manifest->layer_count, content->layer_count);
	content->config = TAKE_PTR(member->data);
	content->config_size = member->size;
	content->names = TAKE_PTR(manifest->names);
	content->name_count = manifest->name_count;
	manifest->name_count = 0;
	return 0;
}

static ssize_t memory_read(void *arg, void *buffer, size_t size, Error *error _unused_)
{
	TreeString *left = arg;
	if (size > left->size)
		size = left->size;
	if (size == 0)
		return 0;
	memcpy(buffer, left->data, size);
	left->data += size;
	left->size -= size;
	return (ssize_t)size;
}

/* Hands on a layer that did not do so when it passed by. */
static int hand_on_member(const Pass *pass, const ImageMember *member, const Digest *diff_id, Error *error)
{
	Digest found;
	if (pass->transfer->fd >= 0) {
		ImageInput file = { .fd = pass->transfer->fd,
				    .offset = member->offset,
				    .left = member->size,
				    .path = pass->transfer->archive,
				    .progress = pass->transfer->progress };
		LayerSource input = image_input_source(&file);
		return hand_on(pass->sink, &input, diff_id, &found, error);
	}
	if (!member->data && member->size > 0)
		return error_set(error, -EBADMSG, "it is too large to be kept, and nothing tells it from other files");
	TreeString left = { .data = member->data, .size = member->data ? member->size : 0 };
	LayerSource input = { .read = memory_read, .arg = &left };
	return hand_on(pass->sink, &input, diff_id, &found, error);
}

static int transfer_layer(const Pass *pass, const char *name, const Digest *diff_id, Error *error)
{
	ImageMember *member;
	int r = image_members_find(&pass->members, name, &member, error);
	if (r < 0)
		return r;
	if (member->is_layer && !digest_equal(&member->diff_id, diff_id)) {
		char is[DIGEST_TEXT_SIZE], should[DIGEST_TEXT_SIZE];
		return error_set(error, -EKEYREJECTED, "layer %s is %s, but the config wants %s; get the image again",
				 name, digest_text(&member->diff_id, is), digest_text(diff_id, should));
	}
	if (member->is_layer || pass->sink->has_layer(pass->sink->arg, diff_id))
		return 0;
	r = hand_on_member(pass, member, diff_id, error);
	return r < 0 ? error_prefix(error, r, "layer %s", name) : 0;
}

/* How many bytes of layers will be read from the file. */
static uint64_t wanted_bytes(const Pass *pass, const ImageDockerManifest *manifest, const ImageContent *content)
{
	uint64_t total = 0;
	for (size_t i = 0; i < manifest->layer_count; i++) {
		ImageMember *member;
		if (image_members_find(&pass->members, manifest->layers[i], &member, NULL) == 0 &&
		    !pass->sink->has_layer(pass->sink->arg, &content->diff_ids[i]))
			total += member->size;
	}
	return total;
}

static int transfer_image(Pass *pass, ImageDockerManifest *manifest, ImageContent *content, Error *error)
{
	int r = choose_image(pass, manifest, error);
	if (r == 0)
		r = fill_content(pass, manifest, content, error);
	if (r < 0)
		return error_prefix(error, r, "%s", pass->transfer->archive);
	r = pass->sink->begin(pass->sink->arg, content, error);
	if (r == 0 && pass->transfer->fd >= 0)
		pass->transfer->progress->total = wanted_bytes(pass, manifest, content);
	for (size_t i = 0; i < manifest->layer_count && r == 0; i++) {
		r = transfer_layer(pass, manifest->layers[i], &content->diff_ids[i], error);
		if (r < 0)
			(void)error_prefix(error, r, "%s", pass->transfer->archive);
	}
	return r;
}

int image_docker_transfer(const ImageDockerTransfer *transfer, const ImageArchiveInput *input, const ImageSink *sink,
			  ImageContent *ret_content, Error *error)
{
	_cleanup_(image_archive_free_p) ImageArchive *archive = NULL;
	Pass pass = { .transfer = transfer, .sink = sink };
	ImageDockerManifest manifest = { 0 };
	ImageContent content = { 0 };
	int r = image_archive_new(input, &archive);
	if (r < 0)
		return error_set(error, r, "out of memory to read an archive");
	pass.archive = archive;
	r = pass_over(&pass, error);
	if (r < 0)
		(void)error_prefix(error, r, "%s", transfer->archive);
	else
		r = transfer_image(&pass, &manifest, &content, error);
	image_docker_manifest_done(&manifest);
	image_members_done(&pass.members);
	if (r < 0) {
		image_content_done(&content);
		return r;
	}
	*ret_content = content;
	return 0;
}
