#include "snapshotter/plan.h"

#include <inttypes.h>
#include <string.h>

void plan_mount_done(PlanMount *mount)
{
	free(mount->source);
	for (size_t i = 0; i < mount->option_count; i++)
		free(mount->options[i]);
	*mount = (PlanMount){ 0 };
}

bool plan_mount_is_long(const PlanMount *mount)
{
	size_t size = 0;
	for (size_t i = 0; i < mount->option_count; i++)
		size += strlen(mount->options[i]);
	return size >= PLAN_OPTIONS_LONG;
}

char *plan_directory(const PlanHost *host, uint64_t id, const char *part)
{
	char *path;
	return asprintf(&path, "%s/%" PRIu64 "/%s", host->snapshots, id, part) < 0 ? NULL : path;
}

/* Takes `option`, which may be NULL for want of memory. */
static int add_option(PlanMount *mount, char *option)
{
	if (!option)
		return -ENOMEM;
	mount->options[mount->option_count++] = option;
	return 0;
}

static int bind_mount(PlanMount *mount, char *source, bool writable)
{
	mount->type = "bind";
	mount->source = source;
	if (!source)
		return -ENOMEM;
	int r = add_option(mount, strdup(writable ? "rw" : "ro"));
	return r < 0 ? r : add_option(mount, strdup("rbind"));
}

static char *directory_option(const PlanHost *host, const char *name, uint64_t id, const char *part)
{
	char *option;
	return asprintf(&option, "%s=%s/%" PRIu64 "/%s", name, host->snapshots, id, part) < 0 ? NULL : option;
}

static char *lower_option(char *const *lowers, size_t count)
{
	static const char name[] = "lowerdir=";
	size_t size = sizeof(name) + count;
	for (size_t i = 0; i < count; i++)
		size += strlen(lowers[i]);
	char *option = malloc(size);
	if (!option)
		return NULL;
	char *end = stpcpy(option, name);
	for (size_t i = 0; i < count; i++) {
		if (i > 0)
			*end++ = ':';
		end = stpcpy(end, lowers[i]);
	}
	return option;
}

static int overlay_mount(const PlanHost *host, uint64_t id, MetaKind kind, char *const *lowers, size_t count,
			 PlanMount *mount)
{
	int r = 0;
	mount->type = "overlay";
	mount->source = strdup("overlay");
	if (!mount->source)
		return -ENOMEM;
	if (host->index_off)
		r = add_option(mount, strdup("index=off"));
	if (r == 0 && host->user_xattr)
		r = add_option(mount, strdup("userxattr"));
	if (r == 0 && kind == META_ACTIVE)
		r = add_option(mount, directory_option(host, "workdir", id, "work"));
	if (r == 0 && kind == META_ACTIVE)
		r = add_option(mount, directory_option(host, "upperdir", id, "fs"));
	return r < 0 ? r : add_option(mount, lower_option(lowers, count));
}

int plan_mount(const PlanHost *host, uint64_t id, MetaKind kind, char *const *lowers, size_t count,
	       PlanMount *ret_mount)
{
	_cleanup_(plan_mount_done) PlanMount mount = { 0 };
	int r;
	if (count == 0)
		r = bind_mount(&mount, plan_directory(host, id, "fs"), kind == META_ACTIVE);
	else if (count == 1 && kind == META_VIEW)
		r = bind_mount(&mount, strdup(lowers[0]), false);
	else
		r = overlay_mount(host, id, kind, lowers, count, &mount);
	if (r < 0)
		return r;
	*ret_mount = mount;
	mount = (PlanMount){ 0 };
	return 0;
}

/* A decimal number; `*text` goes past it and the `end` that must follow. */
static bool read_number(const char **text, const char *ends, uint32_t *ret_number)
{
	uint64_t number = 0;
	const char *digits = *text;
	if (*digits < '0' || *digits > '9')
		return false;
	for (; *digits >= '0' && *digits <= '9'; digits++) {
		number = number * 10 + (uint64_t)(*digits - '0');
		if (number > UINT32_MAX)
			return false;
	}
	if (!strchr(ends, *digits))
		return false;
	*ret_number = (uint32_t)number;
	*text = *digits ? digits + 1 : digits;
	return true;
}

int plan_map_id(const char *mapping, uint32_t id, uint32_t *ret_id, Error *error)
{
	const char *text = mapping;
	bool found = false;
	uint32_t container, host, size, mapped = 0;
	do {
		if (!read_number(&text, ":", &container) || !read_number(&text, ":", &host) ||
		    !read_number(&text, ",", &size) || size > UINT32_MAX - container || size > UINT32_MAX - host)
			return error_set(error, -EINVAL, "\"%s\" is no mapping of ids: write CONTAINER:HOST:SIZE,...",
					 mapping);
		if (!found && id >= container && id - container < size) {
			mapped = host + (id - container);
			found = true;
		}
	} while (*text || text[-1] == ',');
	if (!found)
		return error_set(error, -EINVAL, "the mapping %s of ids has none for %" PRIu32, mapping, id);
	*ret_id = mapped;
	return 0;
}
