#include "fs/format/manifest-platform.h"

#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#include "fs/format/manifest-json.h"

static bool take_part(const char **text, char part[static PLATFORM_PART_SIZE])
{
	size_t length = strcspn(*text, "/");
	if (length == 0 || length >= PLATFORM_PART_SIZE ||
	    strspn(*text, "abcdefghijklmnopqrstuvwxyz0123456789_.-") < length)
		return false;
	memcpy(part, *text, length);
	part[length] = '\0';
	*text += length;
	return true;
}

int platform_parse(const char *text, Platform *ret_platform, Error *error)
{
	Platform platform = { 0 };
	const char *at = text;
	bool good = take_part(&at, platform.os) && *at++ == '/' && take_part(&at, platform.architecture) &&
		    (*at == '\0' || (*at++ == '/' && take_part(&at, platform.variant) && *at == '\0'));
	if (!good)
		return error_set(error, -EINVAL,
				 "\"%s\" is no platform; write OS/ARCHITECTURE[/VARIANT], as in linux/arm64", text);
	*ret_platform = platform;
	return 0;
}

void platform_of_machine(Platform *ret_platform)
{
	static const char *const names[][3] = {
		{ "x86_64", "amd64", "" },
		{ "aarch64", "arm64", "" },
		{ "i686", "386", "" },
		{ "i386", "386", "" },
		{ "armv7l", "arm", "v7" },
		{ "armv6l", "arm", "v6" },
		{ "loongarch64", "loong64", "" },
	};
	struct utsname name;
	Platform platform = { .os = "linux" };
	if (uname(&name) == 0) {
		(void)snprintf(platform.architecture, sizeof(platform.architecture), "%.31s", name.machine);
		for (size_t i = 0; i < ELEMENTS(names); i++) {
			if (strcmp(name.machine, names[i][0]) != 0)
				continue;
			(void)snprintf(platform.architecture, sizeof(platform.architecture), "%s", names[i][1]);
			(void)snprintf(platform.variant, sizeof(platform.variant), "%s", names[i][2]);
		}
	}
	*ret_platform = platform;
}

char *platform_text(const Platform *platform, char ret_text[static PLATFORM_TEXT_SIZE])
{
	(void)snprintf(ret_text, PLATFORM_TEXT_SIZE, "%s/%s%s%s", platform->os, platform->architecture,
		       platform->variant[0] ? "/" : "", platform->variant);
	return ret_text;
}

/* What a variant that is left out means, or one that says nothing (containerd's platforms/database.go has the same). */
static const char *plain_variant(const char *architecture, const char *variant)
{
	if (strcmp(architecture, "arm64") == 0 && strcmp(variant, "v8") == 0)
		return "";
	if (strcmp(architecture, "amd64") == 0 && strcmp(variant, "v1") == 0)
		return "";
	return strcmp(architecture, "arm") == 0 && !variant[0] ? "v7" : variant;
}

bool platform_fits(const Platform *platform, const json_t *json)
{
	const char *os = json_string_value(json_object_get(json, "os"));
	const char *architecture = json_string_value(json_object_get(json, "architecture"));
	const char *variant = json_string_value(json_object_get(json, "variant"));
	if (!os || !architecture || strcmp(os, platform->os) != 0 || strcmp(architecture, platform->architecture) != 0)
		return false;
	return !platform->variant[0] || strcmp(plain_variant(architecture, platform->variant),
					       plain_variant(architecture, variant ? variant : "")) == 0;
}

int platform_check_config(const Platform *platform, const char *config, size_t size, Error *error)
{
	json_auto_t *root = NULL;
	char wanted[PLATFORM_TEXT_SIZE];
	int r = manifest_json_load(config, size, "image config", &root, error);
	if (r < 0 || platform_fits(platform, root))
		return r;
	return error_set(error, -ENOENT,
			 "the image is for %.31s/%.31s, not for %s; leave --platform out, or get the other image",
			 json_string_value(json_object_get(root, "os")) ?: "?",
			 json_string_value(json_object_get(root, "architecture")) ?: "?",
			 platform_text(platform, wanted));
}
