#include "tools/image/image-docker-manifest.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "fs/format/manifest.h"
#include "tools/image/image-members.h"
#include "tools/image/image-name.h"

#define ID_DIGITS_MIN 12

static void free_strings(char **strings, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(strings[i]);
	free(strings);
}

void image_docker_manifest_done(ImageDockerManifest *manifest)
{
	free(manifest->config);
	free_strings(manifest->layers, manifest->layer_count);
	free_strings(manifest->names, manifest->name_count);
	*manifest = (ImageDockerManifest){ 0 };
}

/* Is `wanted` the beginning of the image's ID, which its config's name tells? */
static bool is_id(const json_t *image, const char *wanted)
{
	const char *config = json_string_value(json_object_get(image, "Config"));
	Digest digest;
	char hex[DIGEST_HEX_SIZE];
	if (strncmp(wanted, "sha256:", 7) == 0)
		wanted += 7;
	return config && image_member_digest(config, &digest) == 0 && strlen(wanted) >= ID_DIGITS_MIN &&
	       strncmp(digest_hex(&digest, hex), wanted, strlen(wanted)) == 0;
}

static const char *find_name(const json_t *image, const char *wanted)
{
	size_t i;
	json_t *tag;
	json_array_foreach(json_object_get(image, "RepoTags"), i, tag)
	{
		if (json_is_string(tag) && image_name_matches(json_string_value(tag), wanted))
			return json_string_value(tag);
	}
	return NULL;
}

/* The images as a person may name them, as far as there is room. */
static void list_images(const json_t *images, char *text, size_t size)
{
	size_t i, j, used = 0;
	json_t *image, *tag;
	text[0] = '\0';
	json_array_foreach(images, i, image)
	{
		const json_t *tags = json_object_get(image, "RepoTags");
		json_array_foreach(tags, j, tag)
		{
			if (json_is_string(tag) && used < size)
				used += (size_t)snprintf(text + used, size - used, " %s", json_string_value(tag));
		}
		const char *config = json_string_value(json_object_get(image, "Config"));
		if (json_array_size(tags) == 0 && config && used < size)
			used += (size_t)snprintf(text + used, size - used, " %.64s", config);
	}
}

static int choose(const json_t *images, const char *wanted, const json_t **ret_image, const char **ret_name,
		  Error *error)
{
	char list[512];
	size_t i;
	json_t *image;
	if (!wanted && json_array_size(images) == 1) {
		*ret_image = json_array_get(images, 0);
		return 0;
	}
	list_images(images, list, sizeof(list));
	if (!wanted)
		return error_set(error, -EEXIST, "it holds %zu images; append one as :REF:%s", json_array_size(images),
				 list);
	json_array_foreach(images, i, image)
	{
		const char *name = find_name(image, wanted);
		if (!name && !is_id(image, wanted))
			continue;
		*ret_image = image;
		*ret_name = name;
		return 0;
	}
	return error_set(error, -ENOENT, "it does not hold %s; it holds:%s", wanted, list[0] ? list : " nothing");
}

/* Copies a list of strings; `ret_count` tells how many there are also when it fails. */
static int copy_strings(const json_t *array, char ***ret_strings, size_t *ret_count)
{
	char **strings = calloc(json_array_size(array) + 1, sizeof(*strings));
	size_t i;
	json_t *value;
	if (!strings)
		return -ENOMEM;
	*ret_strings = strings;
	*ret_count = 0;
	json_array_foreach(array, i, value)
	{
		if (!json_is_string(value))
			return -EBADMSG;
		strings[i] = strdup(json_string_value(value));
		if (!strings[i])
			return -ENOMEM;
		++*ret_count;
	}
	return 0;
}

static int fill_manifest(const json_t *image, const char *name, ImageDockerManifest *manifest, Error *error)
{
	const char *config = json_string_value(json_object_get(image, "Config"));
	const json_t *layers = json_object_get(image, "Layers"), *tags = json_object_get(image, "RepoTags");
	if (!config || !json_is_array(layers))
		return error_set(error, -EBADMSG, "its manifest.json lacks Config or Layers");
	if (json_array_size(layers) > MANIFEST_LAYERS_MAX)
		return error_set(error, -EBADMSG, "its manifest.json names %zu layers; up to %u are possible",
				 json_array_size(layers), MANIFEST_LAYERS_MAX);
	manifest->config = strdup(config);
	int r = manifest->config ? copy_strings(layers, &manifest->layers, &manifest->layer_count) : -ENOMEM;
	if (r < 0)
		return error_set(error, r, "its manifest.json has bad Layers");
	if (!name) {
		r = copy_strings(tags, &manifest->names, &manifest->name_count);
		return r < 0 ? error_set(error, r, "its manifest.json has bad RepoTags") : 0;
	}
	manifest->names = calloc(1, sizeof(*manifest->names));
	if (!manifest->names || !(manifest->names[0] = strdup(name)))
		return error_set(error, -ENOMEM, "out of memory for manifest.json");
	manifest->name_count = 1;
	return 0;
}

int image_docker_manifest_choose(const char *json, size_t size, const char *wanted, ImageDockerManifest *ret_manifest,
				 Error *error)
{
	ImageDockerManifest manifest = { 0 };
	const json_t *image = NULL;
	const char *name = NULL;
	json_error_t where;
	json_t *images = json_loadb(json, size, 0, &where);
	int r = 0;
	if (!json_is_array(images))
		r = error_set(error, -EBADMSG, "its manifest.json is damaged%s%s", images ? "" : ": ",
			      images ? "" : where.text);
	if (r == 0)
		r = choose(images, wanted, &image, &name, error);
	if (r == 0)
		r = fill_manifest(image, name, &manifest, error);
	json_decref(images);
	if (r < 0) {
		image_docker_manifest_done(&manifest);
		return r;
	}
	*ret_manifest = manifest;
	return 0;
}
