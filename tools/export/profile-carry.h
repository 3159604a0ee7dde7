/* A start-up profile of one version of an image made into one of another. */
#pragma once

#include "fs/format/profile.h"
#include "tools/export/store.h"

/*
 * What the old image read first, where the new one has it: the same chunks, by their digests, in whatever layer; and of what changed, the same
 * parts of the files that have the same paths. Both images are in the store. Blocks on the disk. Errors, with a sentence: image_view_open()'s;
 * -ENODATA (nothing of it is in the new image), -ENOMEM.
 */
int profile_carry(Store *store, const Profile *old, const Digest *new_manifest, Profile *ret_profile, Error *error)
	_must_check_;

/*
 * Gives a new image the profile of the version that a repository had before: the image that `tag` meant, or else the one tagged last, if it has
 * one. Call it before the tag is moved. Returns 1 if that was done, 0 where there is nothing to carry, or the image has one already.
 * Errors: as above, and the store's.
 */
int profile_carry_tag(Store *store, const char *name, const char *tag, const Digest *new_manifest, Error *error)
	_must_check_;
