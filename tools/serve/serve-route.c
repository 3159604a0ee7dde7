#include "tools/serve/serve-route.h"

#include <string.h>
#include <strings.h>

/* "/v2/" + name + "/manifests/" + "sha256:<hex>" is the longest path that means anything. */
#define PATH_SIZE (REFERENCE_NAME_MAX + REFERENCE_TAG_MAX + 64)

static int hex_value(char digit)
{
	if (digit >= '0' && digit <= '9')
		return digit - '0';
	if (digit >= 'a' && digit <= 'f')
		return digit - 'a' + 10;
	if (digit >= 'A' && digit <= 'F')
		return digit - 'A' + 10;
	return -1;
}

bool serve_route_unescape(const char *text, char *ret_text, size_t size)
{
	size_t used = 0;
	while (*text) {
		if (used + 1 >= size)
			return false;
		if (*text != '%') {
			ret_text[used++] = *text++;
			continue;
		}
		int high = hex_value(text[1]);
		int low = high < 0 ? -1 : hex_value(text[2]);
		if (low < 0 || (high == 0 && low == 0))
			return false;
		ret_text[used++] = (char)(high << 4 | low);
		text += 3;
	}
	if (used >= size)
		return false;
	ret_text[used] = '\0';
	return true;
}

/* Cuts the last "/segment" off `path`; NULL when there is none. */
static char *cut_last(char *path)
{
	char *slash = strrchr(path, '/');
	if (!slash)
		return NULL;
	*slash = '\0';
	return slash + 1;
}

static ServeRouteKind route_blob(const char *digest, ServeRoute *route)
{
	return digest_from_text(digest, &route->digest) < 0 ? SERVE_ROUTE_BAD_DIGEST : SERVE_ROUTE_BLOB;
}

static ServeRouteKind route_manifest(const char *reference, ServeRoute *route)
{
	if (strchr(reference, ':'))
		return digest_from_text(reference, &route->digest) < 0 ? SERVE_ROUTE_BAD_DIGEST
								       : SERVE_ROUTE_MANIFEST_DIGEST;
	if (!reference_tag_valid(reference))
		return SERVE_ROUTE_BAD_TAG;
	memcpy(route->tag, reference, strlen(reference) + 1);
	return SERVE_ROUTE_MANIFEST_TAG;
}

/* What follows "/v2/". A name may itself hold "blobs" or "manifests", so the path is taken apart from its end. */
static ServeRouteKind route_registry(char *rest, ServeRoute *route)
{
	if (*rest == '\0')
		return SERVE_ROUTE_BASE;
	if (strcmp(rest, "_catalog") == 0)
		return SERVE_ROUTE_CATALOG;

	const char *reference = cut_last(rest);
	const char *action = reference ? cut_last(rest) : NULL;
	if (!action)
		return SERVE_ROUTE_NOT_FOUND;
	bool tags = strcmp(action, "tags") == 0 && strcmp(reference, "list") == 0;
	bool blob = strcmp(action, "blobs") == 0;
	bool manifest = strcmp(action, "manifests") == 0;
	if (!tags && !blob && !manifest)
		return SERVE_ROUTE_NOT_FOUND;
	if (!reference_name_valid(rest))
		return SERVE_ROUTE_BAD_NAME;
	memcpy(route->name, rest, strlen(rest) + 1);
	if (tags)
		return SERVE_ROUTE_TAGS;
	return blob ? route_blob(reference, route) : route_manifest(reference, route);
}

/* RFC 9112 section 3.2.2: clients may send a whole URL; whose it is says nothing here. */
static const char *without_authority(const char *path)
{
	size_t scheme = strncasecmp(path, "http://", 7) == 0 ? 7 : (strncasecmp(path, "https://", 8) == 0 ? 8 : 0);
	return scheme > 0 ? path + scheme + strcspn(path + scheme, "/") : path;
}

void serve_route_parse(const char *path, ServeRoute *ret_route)
{
	static const char registry[] = "/v2/", blobs[] = "/imgfs/blobs/", profiles[] = "/imgfs/profiles/";
	char plain[PATH_SIZE];
	*ret_route = (ServeRoute){ .kind = SERVE_ROUTE_NOT_FOUND };
	if (!serve_route_unescape(without_authority(path), plain, sizeof(plain)))
		return;
	if (strncmp(plain, registry, sizeof(registry) - 1) == 0)
		ret_route->kind = route_registry(plain + sizeof(registry) - 1, ret_route);
	else if (strncmp(plain, blobs, sizeof(blobs) - 1) == 0)
		ret_route->kind = route_blob(plain + sizeof(blobs) - 1, ret_route);
	else if (strncmp(plain, profiles, sizeof(profiles) - 1) == 0)
		ret_route->kind = digest_from_text(plain + sizeof(profiles) - 1, &ret_route->digest) < 0
					  ? SERVE_ROUTE_BAD_DIGEST
					  : SERVE_ROUTE_PROFILE;
	else if (strcmp(plain, "/v2") == 0)
		ret_route->kind = SERVE_ROUTE_BASE;
	else if (strcmp(plain, "/healthz") == 0)
		ret_route->kind = SERVE_ROUTE_HEALTH;
	else if (strcmp(plain, "/metrics") == 0)
		ret_route->kind = SERVE_ROUTE_METRICS;
	else if (strcmp(plain, "/imgfs/ca.pem") == 0)
		ret_route->kind = SERVE_ROUTE_CA;
}
