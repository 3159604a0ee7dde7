#include "tools/image/image-oci-index.h"

#include <stdio.h>
#include <string.h>

#include "tools/image/image-name.h"

#define REF_NAME  "org.opencontainers.image.ref.name"
#define FULL_NAME "io.containerd.image.name"

int image_descriptor_parse(const json_t *json, const char *what, ImageDescriptor *ret_descriptor, Error *error)
{
	const char *digest = json_string_value(json_object_get(json, "digest"));
	const json_t *size = json_object_get(json, "size");
	ImageDescriptor descriptor = { .media_type = json_string_value(json_object_get(json, "mediaType")) ?: "" };
	if (!digest || digest_from_text(digest, &descriptor.digest) < 0)
		return error_set(error, -EBADMSG, "the descriptor of %s has no sha256 digest", what);
	if (!json_is_integer(size) || json_integer_value(size) < 0)
		return error_set(error, -EBADMSG, "the descriptor of %s has no size", what);
	descriptor.size = (uint64_t)json_integer_value(size);
	*ret_descriptor = descriptor;
	return 0;
}

bool image_descriptor_is_index(const ImageDescriptor *descriptor, const json_t *json)
{
	if (!descriptor->media_type[0])
		return json_is_array(json_object_get(json, "manifests"));
	return strcmp(descriptor->media_type, "application/vnd.oci.image.index.v1+json") == 0 ||
	       strcmp(descriptor->media_type, "application/vnd.docker.distribution.manifest.list.v2+json") == 0;
}

int image_descriptor_check_layer(const ImageDescriptor *descriptor, Error *error)
{
	static const char *const kinds[] = { "application/vnd.oci.image.layer.",
					     "application/vnd.docker.image.rootfs." };
	const char *type = descriptor->media_type;
	if (!type[0])
		return 0;
	if (strstr(type, "+encrypted"))
		return error_set(error, -EOPNOTSUPP, "it is encrypted (%.100s); export the image decrypted", type);
	for (size_t i = 0; i < ELEMENTS(kinds); i++) {
		if (strncmp(type, kinds[i], strlen(kinds[i])) == 0)
			return 0;
	}
	return error_set(error, -EOPNOTSUPP, "it is of type %.100s, which is no layer of a container image", type);
}

bool image_descriptor_is_foreign(const ImageDescriptor *descriptor)
{
	return strstr(descriptor->media_type, ".nondistributable.") || strstr(descriptor->media_type, ".foreign.");
}

static const char *annotation(const json_t *descriptor, const char *key)
{
	return json_string_value(json_object_get(json_object_get(descriptor, "annotations"), key));
}

static bool is_wanted(const json_t *descriptor, const char *wanted)
{
	const char *names[] = { annotation(descriptor, REF_NAME), annotation(descriptor, FULL_NAME),
				json_string_value(json_object_get(descriptor, "digest")) };
	for (size_t i = 0; i < ELEMENTS(names); i++) {
		if (!wanted || (names[i] && image_name_matches(names[i], wanted)))
			return true;
	}
	return false;
}

/* A descriptor without a platform fits every machine. */
static bool fits(const json_t *descriptor, const Platform *platform)
{
	const json_t *own = json_object_get(descriptor, "platform");
	return !json_is_object(own) || platform_fits(platform, own);
}

/* What there is to choose from, as far as there is room: names, else platforms, else digests. */
static void list_manifests(const json_t *manifests, char *text, size_t size)
{
	size_t i, used = 0;
	json_t *descriptor;
	text[0] = '\0';
	json_array_foreach(manifests, i, descriptor)
	{
		const json_t *platform = json_object_get(descriptor, "platform");
		const char *name = annotation(descriptor, REF_NAME) ?: annotation(descriptor, FULL_NAME);
		if (used >= size)
			break;
		if (name || !platform)
			used += (size_t)snprintf(
				text + used, size - used, " %s",
				name ?: (json_string_value(json_object_get(descriptor, "digest")) ?: "?"));
		else
			used += (size_t)snprintf(text + used, size - used, " %s/%s",
						 json_string_value(json_object_get(platform, "os")) ?: "?",
						 json_string_value(json_object_get(platform, "architecture")) ?: "?");
	}
}

/* Two names of one image are no choice. */
static bool same_digest(const json_t *left, const json_t *right)
{
	const char *one = json_string_value(json_object_get(left, "digest"));
	const char *other = json_string_value(json_object_get(right, "digest"));
	return one && other && strcmp(one, other) == 0;
}

int image_index_choose(const json_t *index, const char *wanted, const Platform *platform, const json_t **ret_descriptor,
		       const char **ret_name, Error *error)
{
	const json_t *manifests = json_object_get(index, "manifests"), *found = NULL;
	char list[512], text[PLATFORM_TEXT_SIZE];
	size_t i, named = 0, fitting = 0;
	json_t *descriptor;
	if (!json_is_array(manifests))
		return error_set(error, -EBADMSG, "its index has no list of manifests");
	json_array_foreach(manifests, i, descriptor)
	{
		if (!is_wanted(descriptor, wanted))
			continue;
		named++;
		if (!fits(descriptor, platform) || (found && same_digest(found, descriptor)))
			continue;
		fitting++;
		found = descriptor;
	}
	list_manifests(manifests, list, sizeof(list));
	if (named == 0)
		return error_set(error, -ENOENT, "it does not hold %s; it holds:%s", wanted ?: "any image",
				 list[0] ? list : " nothing");
	if (fitting == 0)
		return error_set(error, -ENOENT, "it holds no image for %s; it holds:%s; --platform names another",
				 platform_text(platform, text), list);
	if (fitting > 1)
		return error_set(error, -EEXIST, "it holds %zu images; append one as :REF:%s", fitting, list);
	*ret_descriptor = found;
	*ret_name = annotation(found, FULL_NAME) ?: annotation(found, REF_NAME);
	return 0;
}
