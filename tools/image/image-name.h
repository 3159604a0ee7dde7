/* Names of images as sources write them. */
#pragma once

#include <stdbool.h>

/*
 * Does `wanted` mean the image called `name`? "latest" is what a name without a tag means, and docker.io/library/ or docker.io/ what a name
 * of the Docker Hub may do without (distribution/reference, "familiar" names).
 */
bool image_name_matches(const char *name, const char *wanted);
