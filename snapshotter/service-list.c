/*
 * List: a hundred snapshots a message, a message whenever the client has taken the one before. No lock and no transaction is held in
 * between; the cursor is the last id seen, so what stays is seen exactly once, even if it is committed under another name meanwhile.
 */
#include <string.h>

#include "snapshotter/filter.h"
#include "snapshotter/service-private.h"

#define PAGE 100

/* "labels.a.b" and labels."a.b" are the same label. */
static const char *label_field(const MetaLabels *labels, char *const *path, size_t count)
{
	for (size_t i = 0; i < labels->count; i++) {
		const char *name = labels->labels[i].name;
		size_t part;
		for (part = 0; part < count; part++) {
			size_t length = strlen(path[part]);
			if (strncmp(name, path[part], length) != 0)
				break;
			name += length;
			if (part + 1 < count && *name++ != '.')
				break;
		}
		if (part == count && *name == '\0')
			return labels->labels[i].value;
	}
	return NULL;
}

static const char *info_field(const void *object, char *const *path, size_t count)
{
	static const char *const kinds[] = {
		[META_VIEW] = "view", [META_ACTIVE] = "active", [META_COMMITTED] = "committed"
	};
	const MetaInfo *info = object;
	if (strcmp(path[0], "name") == 0)
		return info->key;
	if (strcmp(path[0], "parent") == 0)
		return info->parent ?: "";
	if (strcmp(path[0], "kind") == 0)
		return kinds[info->kind];
	return strcmp(path[0], "labels") == 0 ? label_field(&info->labels, path + 1, count - 1) : NULL;
}

typedef struct Page {
	size_t count; /* of what was read */
	MetaInfo infos[PAGE];
	size_t matched;
	Snapshots__Info *messages[PAGE];
} Page;

static Page *page_free(Page *page)
{
	if (!page)
		return NULL;
	for (size_t i = 0; i < page->matched; i++)
		(void)service_info_message_free(page->messages[i]);
	for (size_t i = 0; i < page->count; i++)
		meta_info_done(&page->infos[i]);
	free(page);
	return NULL;
}
DEFINE_CLEANUP(Page, page_free);

static int send_matching(WireCall *call, Page *page, const FilterSet *filters, Error *error)
{
	for (size_t i = 0; i < page->count; i++) {
		if (!filter_matches(filters, info_field, &page->infos[i]))
			continue;
		if (service_info_message(&page->infos[i], &page->messages[page->matched]) < 0)
			return error_set(error, -ENOMEM, "out of memory");
		page->matched++;
	}
	if (page->matched == 0)
		return 0;
	Snapshots__ListReply reply = SNAPSHOTS__LIST_REPLY__INIT;
	reply.info = page->messages;
	reply.n_info = page->matched;
	return service_reply(call, &reply.base, error);
}

static int read_page(Service *service, WireCall *call, const FilterSet *filters, Error *error)
{
	_cleanup_(page_free_p) Page *page = calloc(1, sizeof(*page));
	if (!page)
		return error_set(error, -ENOMEM, "out of memory");
	/* The question that a lazy pull asks for every layer need not look at every snapshot. */
	const char *ref = filter_required(filters, "labels.containerd.io/snapshot.ref");
	int r = meta_list(service->meta, call->cursor, ref, PAGE, page->infos, &page->count, error);
	if (r < 0)
		return r;
	call->again = page->count == PAGE;
	if (call->again)
		call->cursor = page->infos[PAGE - 1].id;
	return send_matching(call, page, filters, error);
}

int service_list(WireCall *call, void *arg, Error *error)
{
	_cleanup_(filter_free_p) FilterSet *filters = NULL;
	Snapshots__ListRequest *request = service_unpack(call, &snapshots__list_request__descriptor, error);
	if (!request)
		return -EINVAL;
	int r = filter_parse(request->filters, request->n_filters, &filters, error);
	snapshots__list_request__free_unpacked(request, NULL);
	/* A page of which nothing matches sends nothing, so nobody would ask for the next. */
	do
		r = r < 0 ? r : read_page(arg, call, filters, error);
	while (r == 0 && call->again && call->reply.size == 0 && !atomic_load(&call->cancelled));
	return r;
}
