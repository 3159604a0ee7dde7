/* Images of an OCI image layout, a directory or a tar of one (OCI image-spec 1.1, image-layout.md). */
#pragma once

#include "fs/format/manifest-platform.h"
#include "tools/image/image-source.h"

/*
 * The image that `wanted` names by its annotation org.opencontainers.image.ref.name, by its full name as engines write it
 * (io.containerd.image.name), or by digest; NULL: the only one. Of an image for several platforms the one for `platform` is taken
 * (NULL: this machine's). Errors: -ENOMEM, open's. Of the transfer: -ENOENT (no layout, or no such image), -EBADMSG, -EKEYREJECTED,
 * -EOPNOTSUPP (a layer that is no tar).
 */
int image_oci_layout_open(const char *path, const char *wanted, const Platform *platform, ImageSource **ret_source,
			  Error *error) _must_check_;

/* The same of a tar; `path` "-" is standard input. */
int image_oci_archive_open(const char *path, const char *wanted, const Platform *platform, ImageSource **ret_source,
			   Error *error) _must_check_;
