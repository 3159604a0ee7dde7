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

/* The engine's socket: `given`, or that of $DOCKER_HOST, or the usual one. Errors: -EINVAL ($DOCKER_HOST is no Unix socket). */
int image_docker_socket(const char *given, const char **ret_socket, Error *error) _must_check_;

/*
 * The id (64 hex digits) of the container that the engine knows by that name, or by the beginning of its id. Waits a few seconds at most. Errors:
 * -ENOENT (no engine, or no such container), -EINVAL, -EBADMSG, -ENOMEM.
 */
#define IMAGE_DOCKER_ID 65u
int image_docker_container(const char *socket, const char *name, char ret_id[static IMAGE_DOCKER_ID]) _must_check_;
