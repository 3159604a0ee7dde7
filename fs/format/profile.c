#include "fs/format/profile.h"

#include <string.h>
#include <xxhash.h>

#include "fs/base/bytes.h"
#include "fs/format/manifest.h"

#define MAGIC "imgfsprf"
#define GROW  64u

void profile_done(Profile *profile)
{
	free(profile->ranges);
	*profile = (Profile){ 0 };
}

static bool is_sound(const ProfileRange *range)
{
	return range->layer < MANIFEST_LAYERS_MAX && range->count > 0 && range->first <= UINT32_MAX - range->count;
}

/* Reads of a file go upward; what the kernel reads ahead may come before what was asked for. */
static bool extend_last(Profile *profile, const ProfileRange *range)
{
	if (profile->count == 0)
		return false;
	ProfileRange *last = &profile->ranges[profile->count - 1];
	if (last->layer != range->layer || last->count > UINT32_MAX - range->count)
		return false;
	if (last->first + last->count == range->first) {
		last->count += range->count;
		return true;
	}
	if (range->first + range->count != last->first)
		return false;
	last->first = range->first;
	last->count += range->count;
	return true;
}

int profile_add(Profile *profile, uint32_t layer, uint32_t first, uint32_t count)
{
	ProfileRange range = { .layer = layer, .first = first, .count = count };
	if (!is_sound(&range))
		return -EINVAL;
	if (extend_last(profile, &range))
		return 0;
	if (profile->count >= PROFILE_RANGES_MAX)
		return -EFBIG;
	if (profile->count % GROW == 0) {
		ProfileRange *larger = reallocarray(profile->ranges, profile->count + GROW, sizeof(*larger));
		if (!larger)
			return -ENOMEM;
		profile->ranges = larger;
	}
	profile->ranges[profile->count++] = range;
	return 0;
}

int profile_encode(const Profile *profile, uint8_t **ret_data, size_t *ret_size)
{
	if (profile->count > PROFILE_RANGES_MAX)
		return -EFBIG;
	size_t sum_at = PROFILE_HEADER_SIZE + profile->count * PROFILE_RANGE_SIZE;
	uint8_t *data = calloc(1, sum_at + PROFILE_SUM_SIZE);
	if (!data)
		return -ENOMEM;
	memcpy(data, MAGIC, 8);
	store_le32(data + 8, PROFILE_VERSION);
	store_le32(data + 12, (uint32_t)profile->count);
	memcpy(data + 16, profile->manifest.bytes, DIGEST_SIZE);
	store_le32(data + 48, profile->milliseconds);
	store_le32(data + 52, profile->flags);
	for (size_t i = 0; i < profile->count; i++) {
		uint8_t *to = data + PROFILE_HEADER_SIZE + i * PROFILE_RANGE_SIZE;
		store_le32(to, profile->ranges[i].layer);
		store_le32(to + 4, profile->ranges[i].first);
		store_le32(to + 8, profile->ranges[i].count);
	}
	store_le64(data + sum_at, XXH64(data, sum_at, 0));
	*ret_data = data;
	*ret_size = sum_at + PROFILE_SUM_SIZE;
	return 0;
}

static int check_frame(const uint8_t *data, size_t size, Error *error)
{
	if (size < PROFILE_HEADER_SIZE + PROFILE_SUM_SIZE || memcmp(data, MAGIC, 8) != 0)
		return error_set(error, -EBADMSG, "it is not a start-up profile");
	if (load_le32(data + 8) != PROFILE_VERSION)
		return error_set(error, -EPROTONOSUPPORT,
				 "the start-up profile has version %u, this imgfs knows %u; use a newer one",
				 load_le32(data + 8), PROFILE_VERSION);
	uint32_t count = load_le32(data + 12);
	size_t sum_at = size - PROFILE_SUM_SIZE;
	if (count > PROFILE_RANGES_MAX || sum_at != PROFILE_HEADER_SIZE + (size_t)count * PROFILE_RANGE_SIZE)
		return error_set(error, -EBADMSG, "the start-up profile is not as long as it says");
	if (load_le64(data + sum_at) != XXH64(data, sum_at, 0))
		return error_set(error, -EBADMSG, "the start-up profile's checksum is wrong: it is damaged");
	if (load_le32(data + 52) & ~(uint32_t)PROFILE_CARRIED || load_le64(data + 56) != 0)
		return error_set(error, -EBADMSG, "the start-up profile has bits that mean nothing");
	return 0;
}

int profile_decode(const void *bytes, size_t size, Profile *ret_profile, Error *error)
{
	const uint8_t *data = bytes;
	int r = check_frame(data, size, error);
	if (r < 0)
		return r;
	Profile profile = {
		.milliseconds = load_le32(data + 48),
		.flags = load_le32(data + 52),
		.count = load_le32(data + 12),
	};
	memcpy(profile.manifest.bytes, data + 16, DIGEST_SIZE);
	/* As much as profile_add() would have. */
	profile.ranges = calloc(profile.count + GROW, sizeof(*profile.ranges));
	if (!profile.ranges)
		return error_set(error, -ENOMEM, "out of memory for a start-up profile");
	for (size_t i = 0; i < profile.count; i++) {
		const uint8_t *from = data + PROFILE_HEADER_SIZE + i * PROFILE_RANGE_SIZE;
		profile.ranges[i] = (ProfileRange){
			.layer = load_le32(from),
			.first = load_le32(from + 4),
			.count = load_le32(from + 8),
		};
		if (!is_sound(&profile.ranges[i])) {
			profile_done(&profile);
			return error_set(error, -EBADMSG, "range %zu of the start-up profile cannot be", i);
		}
	}
	*ret_profile = profile;
	return 0;
}
