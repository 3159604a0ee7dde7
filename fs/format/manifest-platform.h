/* Platforms that images are for: os/architecture[/variant] (OCI image-spec 1.1, image-index.md "platform"; the values are Go's). */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "fs/base/error.h"

#define PLATFORM_PART_SIZE 32
#define PLATFORM_TEXT_SIZE (3 * PLATFORM_PART_SIZE)

typedef struct Platform {
	char os[PLATFORM_PART_SIZE];
	char architecture[PLATFORM_PART_SIZE];
	char variant[PLATFORM_PART_SIZE]; /* "": whichever */
} Platform;

/* From OS/ARCHITECTURE[/VARIANT]. Errors: -EINVAL. */
int platform_parse(const char *text, Platform *ret_platform, Error *error) _must_check_;

/* This machine's. */
void platform_of_machine(Platform *ret_platform);

/* Writes the form that is parsed, and returns it. */
char *platform_text(const Platform *platform, char ret_text[static PLATFORM_TEXT_SIZE]);

/* Does `json`, an object with os, architecture and perhaps variant, name this platform? Without them it does not. */
bool platform_fits(const Platform *platform, const json_t *json);

/* Is an image's config for this platform? Errors: -ENOENT (the sentence says which it is for), -EBADMSG. */
int platform_check_config(const Platform *platform, const char *config, size_t size, Error *error) _must_check_;
