#include "fs/mount/mount-profile.h"

#include <sys/stat.h>

#include "fs/base/fd.h"
#include "fs/base/log.h"

#define PATIENCE 120000 /* milliseconds: a source that gives nothing for so long is left to those who really read */

int mount_profile_read(int fd, const char *manifest, Profile *ret_profile)
{
	struct stat status;
	Digest digest;
	Error error = { 0 };
	*ret_profile = (Profile){ 0 };
	if (fd <= 0 || !manifest || digest_from_text(manifest, &digest) < 0)
		return 0;
	if (fstat(fd, &status) < 0 || status.st_size > (off_t)PROFILE_SIZE_MAX) {
		log_warning("start-up profile is not used reason=\"it is too long\"");
		return 0;
	}
	_cleanup_free_ uint8_t *data = malloc((size_t)status.st_size + 1);
	if (!data)
		return -ENOMEM;
	int r = fd_pread_all(fd, data, (size_t)status.st_size, 0);
	if (r == 0)
		r = profile_decode(data, (size_t)status.st_size, ret_profile, &error);
	if (r == 0 && !digest_equal(&ret_profile->manifest, &digest)) {
		profile_done(ret_profile);
		r = error_set(&error, -EBADMSG, "it is of another image");
	}
	if (r < 0 && r != -ENOMEM)
		log_warning("start-up profile is not used reason=\"%s\"", error_text(&error, r));
	return r == -ENOMEM ? r : 0;
}

/* What has been asked for: a bit a chunk, by layer. */
typedef struct Replay {
	MountImage *image;
	uint8_t **asked;
	uint32_t *chunks; /* of one range, to be asked for together */
	uint64_t left;    /* bytes */
	uint64_t bytes;
} Replay;

static void replay_done(Replay *replay)
{
	for (size_t i = 0; replay->asked && i < replay->image->layer_count; i++)
		free(replay->asked[i]);
	free(replay->asked);
	free(replay->chunks);
}

static int replay_init(Replay *replay, MountImage *image)
{
	uint32_t most = 0;
	*replay = (Replay){ .image = image, .left = PROFILE_BYTES_MAX };
	replay->asked = calloc(image->layer_count + 1, sizeof(*replay->asked));
	if (!replay->asked)
		return -ENOMEM;
	for (size_t i = 0; i < image->layer_count; i++) {
		uint32_t count = image->layers[i]->chunks.count;
		replay->asked[i] = calloc((size_t)count / 8 + 1, 1);
		if (!replay->asked[i])
			return -ENOMEM;
		most = count > most ? count : most;
	}
	replay->chunks = calloc((size_t)most + 1, sizeof(*replay->chunks));
	return replay->chunks ? 0 : -ENOMEM;
}

/* Says whether the limit leaves room for more. */
static bool collect(Replay *replay, const ProfileRange *range, size_t *count)
{
	const ChunkTable *table = &replay->image->layers[range->layer]->chunks;
	uint8_t *asked = replay->asked[range->layer];
	for (uint32_t i = 0; i < range->count && range->first < table->count && i < table->count - range->first; i++) {
		uint32_t number = range->first + i;
		Chunk chunk;
		if (asked[number / 8] & 1u << number % 8)
			continue;
		chunk_table_get(table, number, &chunk);
		if (chunk.blob_size > replay->left)
			return false;
		asked[number / 8] |= (uint8_t)(1u << number % 8);
		replay->left -= chunk.blob_size;
		replay->bytes += chunk.blob_size;
		replay->chunks[(*count)++] = number;
	}
	return true;
}

static int replay_profile(MountImage *image, const Profile *profile)
{
	Replay replay;
	int r = replay_init(&replay, image);
	bool room = true;
	for (size_t i = 0; r == 0 && room && i < profile->count; i++) {
		const ProfileRange *range = &profile->ranges[i];
		size_t count = 0;
		if (range->layer >= image->layer_count)
			continue;
		room = collect(&replay, range, &count);
		if (count > 0)
			r = fetch_prefetch(image->layers[range->layer]->blob, FETCH_PROFILE, replay.chunks, count,
					   PATIENCE);
	}
	if (r == 0)
		start_recorder_profile(image->recorder, replay.bytes);
	replay_done(&replay);
	return r == -ENOMEM ? r : 0;
}

int mount_profile_replay(MountImage *image)
{
	_cleanup_(profile_done) Profile profile = { 0 };
	if (!start_recorder_is_on(image->recorder))
		return 0;
	int r = mount_profile_read(image->plan.profile_fd, image->plan.manifest, &profile);
	return r < 0 || profile.count == 0 ? r : replay_profile(image, &profile);
}
