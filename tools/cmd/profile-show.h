/* What a start-up profile holds, for people and programs. */
#pragma once

#include "fs/format/profile.h"
#include "tools/export/store.h"

/*
 * Prints a profile, with the names of files if the image is in the store (NULL: there is none). Errors: -ENOMEM, -EIO, and where the image is
 * there, image_view_open()'s.
 */
int profile_show(const Profile *profile, Store *store, bool json, Error *error) _must_check_;
