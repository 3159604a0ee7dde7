#include "fs/net/net-registry.h"

#include <arpa/inet.h>
#include <stdarg.h>
#include <string.h>
#include <strings.h>

static char *format(const char *pattern, ...) _printf_(1, 2);

static char *format(const char *pattern, ...)
{
	char *text;
	va_list args;
	va_start(args, pattern);
	int length = vasprintf(&text, pattern, args);
	va_end(args);
	return length < 0 ? NULL : text;
}

bool net_registry_is_loopback(const char *host)
{
	char name[64];
	size_t length = host[0] == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":");
	if (length >= sizeof(name) || length > strlen(host))
		return false;
	memcpy(name, host, length);
	name[length] = '\0';
	if (strcasecmp(name, "localhost") == 0 || strcmp(name, "[::1]") == 0)
		return true;
	struct in_addr address;
	return inet_pton(AF_INET, name, &address) == 1 && ntohl(address.s_addr) >> 24 == 127;
}

char *net_registry_base(const char *host, bool plain_http)
{
	return format("%s://%s", plain_http || net_registry_is_loopback(host) ? "http" : "https", host);
}

char *net_registry_manifest_url(const char *base, const char *name, const char *reference)
{
	return format("%s/v2/%s/manifests/%s", base, name, reference);
}

char *net_registry_blob_url(const char *base, const char *name, const Digest *blob)
{
	char text[DIGEST_TEXT_SIZE];
	return format("%s/v2/%s/blobs/%s", base, name, digest_text(blob, text));
}

int net_registry_head(NetHttp *http, const char *url, const char *media_type, Digest *ret_digest, Error *error)
{
	NetRequest request = { .url = url, .accept = media_type, .head = true };
	NetResponse response;
	int r = net_http_perform(http, &request, 1, &response, error);
	if (r < 0)
		return r;
	bool has_digest = response.has_digest;
	Digest digest = response.digest;
	net_response_done(&response);
	if (!has_digest)
		return error_set(error, -ENODATA, "%s: the registry does not say the digest", url);
	*ret_digest = digest;
	return 0;
}

static int check_digest(const char *url, const char *whose, const Digest *wanted, const Digest *got, Error *error)
{
	if (digest_equal(wanted, got))
		return 0;
	char wanted_text[DIGEST_TEXT_SIZE], got_text[DIGEST_TEXT_SIZE];
	return error_set(error, -EBADMSG, "%s: the manifest that came has digest %s, not %s as %s; try again", url,
			 digest_text(got, got_text), digest_text(wanted, wanted_text), whose);
}

int net_registry_manifest(NetHttp *http, const char *url, const char *media_type, size_t limit, const Digest *wanted,
			  char **ret_manifest, size_t *ret_size, Digest *ret_digest, Error *error)
{
	NetRequest request = { .url = url, .accept = media_type, .size = limit };
	_cleanup_(net_response_done) NetResponse response = { 0 };
	Digest digest;
	int r = net_http_perform(http, &request, 1, &response, error);
	if (r < 0)
		return r;
	r = digest_of(response.body, response.size, &digest);
	if (r < 0)
		return error_set(error, r, "out of memory");
	if (response.has_digest)
		r = check_digest(url, "the registry says", &response.digest, &digest, error);
	if (r == 0 && wanted)
		r = check_digest(url, "asked for", wanted, &digest, error);
	if (r < 0)
		return r;
	if (!response.body)
		return error_set(error, -EBADMSG, "%s: the manifest that came is empty", url);
	*ret_manifest = (char *)TAKE_PTR(response.body);
	*ret_size = response.size;
	*ret_digest = digest;
	return 0;
}
