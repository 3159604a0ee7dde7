#include "tools/image/image-name.h"

#include <stddef.h>
#include <string.h>

#include "fs/base/cleanup.h"

static const char *familiar(const char *name)
{
	static const char *const prefixes[] = { "docker.io/library/", "docker.io/" };
	for (size_t i = 0; i < ELEMENTS(prefixes); i++) {
		if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0)
			return name + strlen(prefixes[i]);
	}
	return name;
}

/* The length of the name without ":latest", if that is its tag. */
static size_t length_without_latest(const char *name)
{
	size_t length = strlen(name), end = strlen(":latest");
	return length > end && strcmp(name + length - end, ":latest") == 0 ? length - end : length;
}

bool image_name_matches(const char *name, const char *wanted)
{
	name = familiar(name);
	wanted = familiar(wanted);
	size_t length = length_without_latest(name);
	return length == length_without_latest(wanted) && memcmp(name, wanted, length) == 0;
}
