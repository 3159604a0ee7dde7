#include "tools/cmd/why-whole.h"

#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <time.h>

#include "fs/base/cleanup.h"
#include "fs/base/fd.h"

#define FILE_SIZE_MAX (4u << 20)

static const char *text_of(const json_t *entry, const char *key)
{
	return json_string_value(json_object_get(entry, key)) ?: "?";
}

static int say(const json_t *entry, Error *error)
{
	char date[32] = "?";
	struct tm utc;
	time_t when = (time_t)json_integer_value(json_object_get(entry, "time"));
	if (gmtime_r(&when, &utc))
		(void)strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S UTC", &utc);
	return error_set(error, -ENODATA, "%s did not start lazily: containerd pulled layer %s whole at %s (%s: %s)",
			 text_of(entry, "image"), text_of(entry, "chain"), date, text_of(entry, "reason"),
			 text_of(entry, "why"));
}

int why_whole(const char *root, const char *what, bool (*fits)(const char *image, const char *what), Error *error)
{
	_cleanup_free_ char *data = NULL;
	char path[PATH_MAX];
	size_t size, i;
	const json_t *entry;
	int length = snprintf(path, sizeof(path), "%s/whole.json", root ?: WHY_SNAPSHOTTER_ROOT);
	if (length >= (int)sizeof(path) || fd_read_file(AT_FDCWD, path, FILE_SIZE_MAX, &data, &size) < 0)
		return 0;
	json_auto_t *list = json_loadb(data, size, 0, NULL);
	/* The first is the cause; others follow from it. */
	json_array_foreach(list, i, entry)
	{
		if (fits(text_of(entry, "image"), what))
			return say(entry, error);
	}
	return 0;
}
