/* Docker's image archives, from a file, a pipe, or the engine itself. */
#pragma once

#include "tools/image/image-archive.h"
#include "tools/image/image-source.h"

/*
 * An archive in a file. Layers nobody wants are not read. `wanted` as in image_docker_manifest_choose(). A compressed
 * archive, or a path that is no regular file, is read as a stream. Errors: -ENOENT, open's.
 */
int image_docker_archive_open(const char *path, const char *wanted, ImageSource **ret_source, Error *error)
	_must_check_;

/* An archive from a descriptor (taken over, also on failure) that cannot be read twice; `name` is for sentences. */
int image_docker_archive_stream(int fd, const char *name, const char *wanted, ImageSource **ret_source, Error *error)
	_must_check_;

/*
 * An image of the docker engine that listens on the Unix socket `socket` (NULL: $DOCKER_HOST, or
 * /var/run/docker.sock); the engine is asked when the transfer starts. Errors: -EINVAL (no name of an image, or $DOCKER_HOST is no Unix socket).
 * Of the transfer: -ENOENT (the engine has no such image), -ECONNREFUSED (no engine), -EIO.
 */
int image_docker_daemon_open(const char *socket, const char *reference, ImageSource **ret_source, Error *error)
	_must_check_;
