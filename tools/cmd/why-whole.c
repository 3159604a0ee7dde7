#include "tools/cmd/why-whole.h"

#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "fs/base/cleanup.h"
#include "fs/base/fd.h"
#include "tools/cmd/why-chain.h"

#define FILE_SIZE_MAX (4u << 20)

static const char *text_of(const json_t *entry, const char *key)
{
	return json_string_value(json_object_get(entry, key)) ?: "?";
}

static const char *date_of(const json_t *entry, char date[static 32])
{
	struct tm utc;
	time_t when = (time_t)json_integer_value(json_object_get(entry, "time"));
	if (!gmtime_r(&when, &utc) || strftime(date, 32, "%Y-%m-%d %H:%M:%S UTC", &utc) == 0)
		(void)snprintf(date, 32, "?");
	return date;
}

/* An array, the caller's; NULL: nothing is known. */
static json_t *read_list(const char *root)
{
	_cleanup_free_ char *data = NULL;
	char path[PATH_MAX];
	size_t size;
	int length = snprintf(path, sizeof(path), "%s/whole.json", root);
	if (length >= (int)sizeof(path) || fd_read_file(AT_FDCWD, path, FILE_SIZE_MAX, &data, &size) < 0)
		return NULL;
	return json_loadb(data, size, 0, NULL);
}

int why_whole(const char *root, const char *what, bool (*fits)(const char *image, const char *what), Error *error)
{
	char date[32];
	size_t i;
	const json_t *entry;
	json_auto_t *list = read_list(root ?: WHY_SNAPSHOTTER_ROOT);
	/* The first is the cause; others follow from it. */
	json_array_foreach(list, i, entry)
	{
		if (fits(text_of(entry, "image"), what))
			return error_set(error, -ENODATA,
					 "%s did not start lazily: containerd pulled layer %s whole at %s (%s: %s)",
					 text_of(entry, "image"), text_of(entry, "chain"), date_of(entry, date),
					 text_of(entry, "reason"), text_of(entry, "why"));
	}
	return 0;
}

static bool has_layer(const WhyChain *chain, const char *id)
{
	for (size_t i = 0; i < chain->count; i++)
		if (strcmp(chain->chains[i], id) == 0)
			return true;
	return false;
}

/* -ENODATA with the reason that was kept for a layer, which may have been pulled for another image that shares it; 0: none was. */
static int say_container(const json_t *list, const char *container, const WhyChain *chain, Error *error)
{
	char date[32];
	size_t i;
	const json_t *entry;
	json_array_foreach(list, i, entry)
	{
		const char *id = text_of(entry, "chain");
		if (has_layer(chain, id))
			return error_set(error, -ENODATA,
					 "container %s did not start lazily: containerd pulled its layer %s whole at "
					 "%s, for %s (%s: %s)",
					 container, id, date_of(entry, date), text_of(entry, "image"),
					 text_of(entry, "reason"), text_of(entry, "why"));
	}
	return 0;
}

int why_whole_containers(const char *root, const char *const *containers, size_t count, Error *error)
{
	root = root ?: WHY_SNAPSHOTTER_ROOT;
	json_auto_t *list = read_list(root);
	const char *unpacked = NULL;
	bool lazy = false;
	for (size_t i = 0; i < count; i++) {
		WhyChain chain = { 0 };
		int found = why_chain(root, containers[i], &chain);
		int r = found == 1 ? say_container(list, containers[i], &chain, error) : found;
		if (found == 1 && !chain.lazy)
			unpacked = containers[i];
		lazy = lazy || chain.lazy;
		why_chain_done(&chain);
		if (r < 0)
			return r == -ENOMEM ? error_set(error, r, "out of memory") : r;
	}
	if (!unpacked || lazy)
		return 0;
	return error_set(error, -ENODATA,
			 "container %s did not start lazily: its layers were unpacked, and imgfs-snapshotter was not "
			 "asked to make them lazy (`ctr images pull` and `import` do not), or has forgotten why it did "
			 "not",
			 unpacked);
}
