/* The lists: repositories of the store, tags of a repository (OCI distribution-spec 1.1, "Listing Tags"; n and last as there). */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "tools/serve/serve-request.h"

typedef struct NameList {
	char **names;
	size_t count;
	size_t room;
	const char *repository; /* collect its tags; NULL: collect repositories */
} NameList;

static void name_list_done(NameList *list)
{
	for (size_t i = 0; i < list->count; i++)
		free(list->names[i]);
	free(list->names);
}

static int name_list_add(NameList *list, const char *name)
{
	if (list->count == list->room) {
		size_t room = list->room ? 2 * list->room : 64;
		char **names = reallocarray(list->names, room, sizeof(*names));
		if (!names)
			return -ENOMEM;
		list->names = names;
		list->room = room;
	}
	char *copy = strdup(name);
	if (!copy)
		return -ENOMEM;
	list->names[list->count++] = copy;
	return 0;
}

static int visit_tag(void *arg, const char *name, const char *tag, time_t changed _unused_)
{
	NameList *list = arg;
	if (list->repository)
		return strcmp(name, list->repository) == 0 ? name_list_add(list, tag) : 0;
	/* The tags of a repository come one after the other. */
	if (list->count > 0 && strcmp(list->names[list->count - 1], name) == 0)
		return 0;
	return name_list_add(list, name);
}

static int compare_names(const void *left, const void *right)
{
	return strcmp(*(char *const *)left, *(char *const *)right);
}

/* The part of a list a client asked for. */
typedef struct Page {
	char last[REFERENCE_NAME_MAX + 1]; /* names after this one; "" from the start */
	size_t limit;                      /* SIZE_MAX: all */
} Page;

static int page_of(const ServeRequest *request, Page *ret_page)
{
	char number[16];
	*ret_page = (Page){ .limit = SIZE_MAX };
	int r = serve_request_argument(request, "last", ret_page->last, sizeof(ret_page->last));
	if (r < 0)
		return r;
	r = serve_request_argument(request, "n", number, sizeof(number));
	if (r <= 0)
		return r;
	if (number[0] == '\0' || strspn(number, "0123456789") != strlen(number))
		return -EINVAL;
	ret_page->limit = strtoull(number, NULL, 10);
	return 0;
}

/* Takes the page's names into a JSON array; `ret_more` is the last of them when others follow, else NULL. */
static json_t *cut_page(const NameList *list, const Page *page, const char **ret_more)
{
	json_t *array = json_array();
	size_t taken = 0;
	const char *last = NULL;
	*ret_more = NULL;
	for (size_t i = 0; i < list->count; i++) {
		if (page->last[0] && strcmp(list->names[i], page->last) <= 0)
			continue;
		if (taken == page->limit) {
			*ret_more = last;
			break;
		}
		last = list->names[i];
		taken++;
		if (json_array_append_new(array, json_string(last)) < 0) {
			json_decref(array);
			return NULL;
		}
	}
	return array;
}

/* Takes `body` over. `path` is where the list is, for the link to the next page. */
static enum MHD_Result send_list(ServeRequest *request, json_t *body, const char *path, const Page *page,
				 const char *more)
{
	char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
	json_decref(body);
	size_t size = text ? strlen(text) : 0;
	ServeReply reply = serve_reply_make(MHD_HTTP_OK, serve_response_of(text, size), size);
	serve_reply_header(&reply, MHD_HTTP_HEADER_CONTENT_TYPE, "application/json");
	if (more) {
		char link[2 * REFERENCE_NAME_MAX + 128];
		(void)snprintf(link, sizeof(link), "<%s?n=%zu&last=%s>; rel=\"next\"", path, page->limit, more);
		serve_reply_header(&reply, "Link", link);
	}
	return serve_reply_send(request, &reply);
}

static int collect(Store *store, NameList *list)
{
	int r = store_tag_each(store, visit_tag, list);
	if (r < 0)
		return r;
	/* The walk goes component by component, which is not the order of the names' bytes. */
	if (list->count > 0)
		qsort(list->names, list->count, sizeof(*list->names), compare_names);
	return 0;
}

static enum MHD_Result send_bad_page(ServeRequest *request)
{
	return serve_send_error(request, MHD_HTTP_BAD_REQUEST, "PAGINATION_NUMBER_INVALID",
				"n is a number, last a name of the list");
}

enum MHD_Result serve_catalog(ServeRequest *request, const ServeRoute *route _unused_)
{
	Page page;
	if (page_of(request, &page) < 0)
		return send_bad_page(request);
	_cleanup_(name_list_done) NameList list = { 0 };
	int r = collect(request->server->store, &list);
	if (r < 0)
		return serve_send_fault(request, r, NULL);
	const char *more;
	json_t *names = cut_page(&list, &page, &more);
	return send_list(request, names ? json_pack("{s: o}", "repositories", names) : NULL, "/v2/_catalog", &page,
			 more);
}

enum MHD_Result serve_tags(ServeRequest *request, const ServeRoute *route)
{
	Page page;
	if (page_of(request, &page) < 0)
		return send_bad_page(request);
	_cleanup_(name_list_done) NameList list = { .repository = route->name };
	int r = collect(request->server->store, &list);
	if (r < 0)
		return serve_send_fault(request, r, NULL);
	if (list.count == 0)
		return serve_send_error(request, MHD_HTTP_NOT_FOUND, "NAME_UNKNOWN",
					"the store has no repository of this name; /v2/_catalog lists what it has");
	const char *more;
	char path[REFERENCE_NAME_MAX + 32];
	(void)snprintf(path, sizeof(path), "/v2/%s/tags/list", route->name);
	json_t *tags = cut_page(&list, &page, &more);
	return send_list(request, tags ? json_pack("{s: s, s: o}", "name", route->name, "tags", tags) : NULL, path,
			 &page, more);
}
