/* From what a person writes to an image source. */
#pragma once

#include "fs/format/manifest-platform.h"
#include "tools/image/image-source.h"

/*
 * Opens a source by its name:
 *
 *   docker-archive:FILE[:REF]   what `docker save` and `podman save` write; FILE "-", or SOURCE "-" alone, is standard input
 *   oci:DIR[:REF]               an OCI image layout
 *   oci-archive:FILE[:REF]      a tar of one; FILE "-" is standard input
 *   docker-daemon:REF           the docker engine of $DOCKER_HOST (unix://...) or /var/run/docker.sock; also REF alone
 *
 * FILE and DIR may hold colons: the longest part before a colon that exists is taken. `platform` chooses among the images of an index
 * (NULL: this machine's). Errors: -EINVAL (the sentence shows the forms), -ENOENT, open's.
 */
int image_open_source(const char *text, const Platform *platform, ImageSource **ret_source, Error *error) _must_check_;

/*
 * Completes the sentence of an error of opening or transferring `text`: where it is a name alone, and a file of that name exists, the
 * file may have been meant. Returns `code`.
 */
int image_open_hint(const char *text, int code, Error *error);
