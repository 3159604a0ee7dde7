/* From what a person writes to an image source. */
#pragma once

#include "tools/image/image-source.h"

/*
 * Opens a source by its name:
 *
 *   docker-archive:FILE[:REF]   what `docker save` and `podman save` write; FILE "-", or SOURCE "-" alone, is standard input
 *   oci:DIR[:REF]               an OCI image layout
 *   docker-daemon:REF           the docker engine of $DOCKER_HOST (unix://...) or /var/run/docker.sock; also REF alone
 *
 * FILE and DIR may hold colons: the longest part before a colon that exists is taken.
 * Errors: -EINVAL (the sentence shows the forms), -ENOENT, open's.
 */
int image_open_source(const char *text, ImageSource **ret_source, Error *error) _must_check_;
