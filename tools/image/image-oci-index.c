#include "tools/image/image-oci-index.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

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

bool image_descriptor_is_index(const ImageDescriptor *descriptor)
{
	return strcmp(descriptor->media_type, "application/vnd.oci.image.index.v1+json") == 0 ||
	       strcmp(descriptor->media_type, "application/vnd.docker.distribution.manifest.list.v2+json") == 0;
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

/* This machine in the words of GOARCH, which platforms use. */
static const char *machine_architecture(void)
{
	static const char *const names[][2] = {
		{ "x86_64", "amd64" },
		{ "aarch64", "arm64" },
		{ "i686", "386" },
		{ "i386", "386" },
		{ "armv7l", "arm" },
		{ "armv6l", "arm" },
		{ "loongarch64", "loong64" },
	};
	static struct utsname name;
	if (uname(&name) < 0)
		return "";
	for (size_t i = 0; i < ELEMENTS(names); i++) {
		if (strcmp(name.machine, names[i][0]) == 0)
			return names[i][1];
	}
	return name.machine;
}

/* A descriptor without a platform fits every machine. */
static bool fits_machine(const json_t *descriptor)
{
	const json_t *platform = json_object_get(descriptor, "platform");
	const char *system = json_string_value(json_object_get(platform, "os"));
	const char *architecture = json_string_value(json_object_get(platform, "architecture"));
	return !json_is_object(platform) || (system && architecture && strcmp(system, "linux") == 0 &&
					     strcmp(architecture, machine_architecture()) == 0);
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

int image_index_choose(const json_t *index, const char *wanted, const json_t **ret_descriptor, const char **ret_name,
		       Error *error)
{
	const json_t *manifests = json_object_get(index, "manifests"), *found = NULL;
	char list[512];
	size_t i, named = 0, fitting = 0;
	json_t *descriptor;
	if (!json_is_array(manifests))
		return error_set(error, -EBADMSG, "its index has no list of manifests");
	json_array_foreach(manifests, i, descriptor)
	{
		if (!is_wanted(descriptor, wanted))
			continue;
		named++;
		if (!fits_machine(descriptor))
			continue;
		fitting++;
		found = descriptor;
	}
	list_manifests(manifests, list, sizeof(list));
	if (named == 0)
		return error_set(error, -ENOENT, "it does not hold %s; it holds:%s", wanted ?: "any image",
				 list[0] ? list : " nothing");
	if (fitting == 0)
		return error_set(error, -ENOENT, "it holds no image for linux/%s; it holds:%s", machine_architecture(),
				 list);
	if (fitting > 1)
		return error_set(error, -EEXIST, "it holds %zu images; append one as :REF:%s", fitting, list);
	*ret_descriptor = found;
	*ret_name = annotation(found, FULL_NAME) ?: annotation(found, REF_NAME);
	return 0;
}
