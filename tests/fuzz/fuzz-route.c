/* The path of a request: whatever it is, names and tags that come out are valid, and so stay inside the store. */
#include <stdlib.h>
#include <string.h>

#include "fs/base/cleanup.h"
#include "tools/serve/serve-route.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_free_ char *path = strndup((const char *)data, size);
	ServeRoute route;
	if (!path)
		return 0;
	serve_route_parse(path, &route);
	bool has_tag = route.kind == SERVE_ROUTE_MANIFEST_TAG;
	if (route.name[0] && (!reference_name_valid(route.name) || strstr(route.name, "..")))
		abort();
	if ((has_tag || route.kind == SERVE_ROUTE_TAGS) && !route.name[0])
		abort();
	if (has_tag && !reference_tag_valid(route.tag))
		abort();
	char plain[64];
	if (serve_route_unescape(path, plain, sizeof(plain)) && strlen(plain) > strlen(path))
		abort();
	return 0;
}
