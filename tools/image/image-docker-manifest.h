/* manifest.json of a docker archive: which images it holds (docker image spec v1.2, "Combined Image JSON + Filesystem Changeset Format"). */
#pragma once

#include <stddef.h>

#include "fs/base/error.h"

/* One image of it. Zeroed is empty. */
typedef struct ImageDockerManifest {
	char *config;  /* member that is the config */
	char **layers; /* members that are the layers, lowest first */
	size_t layer_count;
	char **names; /* what the image is called, or the one name that was asked for */
	size_t name_count;
} ImageDockerManifest;

void image_docker_manifest_done(ImageDockerManifest *manifest);

/*
 * Chooses the image called `wanted` (NAME[:TAG], or an image ID of at least 12 digits), or the only one when that is NULL. Errors:
 * -EBADMSG, -ENOENT, -EEXIST (several, and the sentence lists them), -ENOMEM.
 */
int image_docker_manifest_choose(const char *json, size_t size, const char *wanted, ImageDockerManifest *ret_manifest,
				 Error *error) _must_check_;
