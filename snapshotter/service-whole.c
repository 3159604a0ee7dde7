/* Which images were pulled whole although their layers were asked for by their chain, and why: a small file for `imgfs why`. */
#include <fcntl.h>
#include <string.h>

#include "fs/base/fd.h"
#include "fs/base/log.h"
#include "snapshotter/service-private.h"

#define ENTRIES_MAX 128u /* the oldest goes first */

void service_whole_load(Service *service)
{
	service->whole = service->whole_file ? json_load_file(service->whole_file, 0, NULL) : NULL;
	/* It is not there yet, or is of no use: only what was said of the past is lost. */
	if (!json_is_array(service->whole)) {
		json_decref(service->whole);
		service->whole = json_array();
	}
}

static bool has_text(const json_t *entry, const char *key, const char *text)
{
	const char *value = json_string_value(json_object_get(entry, key));
	return value && strcmp(value, text) == 0;
}

/* The lowest layer is the first of a pull: what was said of an earlier one holds no more. */
static bool forget(json_t *list, const char *image)
{
	bool changed = false;
	for (size_t i = json_array_size(list); i > 0; i--)
		if (has_text(json_array_get(list, i - 1), "image", image))
			changed |= json_array_remove(list, i - 1) == 0;
	return changed;
}

/* Once for an image and a reason: the layers above one that was pulled whole are, too. */
static bool remember(json_t *list, const char *image, const char *chain, const char *reason, const char *why)
{
	size_t i;
	const json_t *entry;
	json_array_foreach(list, i, entry)
	{
		if (has_text(entry, "image", image) && has_text(entry, "reason", reason))
			return false;
	}
	if (json_array_size(list) >= ENTRIES_MAX)
		(void)json_array_remove(list, 0);
	return json_array_append_new(list, json_pack("{s:I, s:s, s:s, s:s, s:s}", "time",
						     (json_int_t)(service_now() / 1000000000), "image", image, "chain",
						     chain, "reason", reason, "why", why)) == 0;
}

static void write_file(const Service *service)
{
	_cleanup_free_ char *text = json_dumps(service->whole, JSON_INDENT(1));
	int r = text ? fd_replace_file(AT_FDCWD, service->whole_file, text, strlen(text), 0600) : -ENOMEM;
	if (r < 0)
		log_warning("what `imgfs why` says of images that were pulled whole cannot be written file=%s "
			    "reason=\"%s\"",
			    service->whole_file, strerror(-r));
}

void service_whole_note(Service *service, const char *image, const char *chain, bool lowest, LazyReason reason,
			const char *why)
{
	if (!service->whole_file || (!image && reason == LAZY_NO_ANNOTATIONS))
		return;
	(void)pthread_mutex_lock(&service->whole_lock);
	bool changed = lowest && forget(service->whole, image ?: chain);
	if (reason != LAZY_IS_LAZY)
		changed |= remember(service->whole, image ?: chain, chain, lazy_reason_name(reason), why);
	if (changed)
		write_file(service);
	(void)pthread_mutex_unlock(&service->whole_lock);
}
