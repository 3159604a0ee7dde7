/* Images of an OCI image layout, a directory (OCI image-spec 1.1, image-layout.md). */
#pragma once

#include "tools/image/image-source.h"

/*
 * Opens the image that `wanted` names by its annotation org.opencontainers.image.ref.name, by its full name as engines write it
 * (io.containerd.image.name), or by digest; NULL: the only one. Of an image for several platforms this machine's is taken.
 * Errors: -ENOENT (no layout; the transfer: no such image), -EBADMSG.
 */
int image_oci_layout_open(const char *path, const char *wanted, ImageSource **ret_source, Error *error) _must_check_;
