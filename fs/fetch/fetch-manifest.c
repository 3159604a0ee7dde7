#include "fs/fetch/fetch-manifest.h"

#include <errno.h>

#include "fs/fetch/fetch-seal.h"
#include "fs/net/net-registry.h"

int fetch_http_new(const FetchRemote *remote, const NetAccess *access, int64_t timeout, NetHttp **ret_http)
{
	NetHttp *http;
	int r = net_http_new(timeout, &http);
	if (r < 0)
		return r;
	net_http_set_access(http, access);
	net_http_set_given_up(http, remote->given_up, remote->given_up_arg);
	*ret_http = http;
	return 0;
}

void fetch_manifest_done(FetchManifest *manifest)
{
	free(manifest->json);
	manifest_done(&manifest->manifest);
	*manifest = (FetchManifest){ 0 };
}

/* The bytes of a manifest from the cache, if they are there and right. Errors: -ENOENT. */
static int get_cached(CacheStore *cache, const Digest *digest, FetchManifest *manifest)
{
	if (cache_store_read_checked(cache, CACHE_MANIFEST, digest, MANIFEST_SIZE_MAX, &manifest->json,
				     &manifest->size) < 0)
		return -ENOENT;
	manifest->digest = *digest;
	return 0;
}

int fetch_manifest_cached(CacheStore *cache, const Digest *digest, FetchManifest *ret_manifest)
{
	_cleanup_(fetch_manifest_done) FetchManifest manifest = { 0 };
	int r = get_cached(cache, digest, &manifest);
	if (r == 0)
		r = manifest_parse(manifest.json, manifest.size, &manifest.manifest, NULL);
	if (r < 0)
		return r;
	*ret_manifest = manifest;
	manifest = (FetchManifest){ 0 };
	return 0;
}

/*
 * An image that is none of imgfs's is asked for as well, so that the sentence can say that it is one: registries answer 400 or 404 to who does not take
 * the type they have, docker-registry 2.8 after an attempt at schema version 1.
 */
#define ACCEPT                                                                             \
	MANIFEST_MEDIA_TYPE ", application/vnd.docker.distribution.manifest.v2+json;q=0.5" \
			    ", application/vnd.oci.image.index.v1+json;q=0.2"              \
			    ", application/vnd.docker.distribution.manifest.list.v2+json;q=0.2"

/* Gets the manifest from the registry, makes sure it is of use here, and keeps it. */
static int get_remote(const FetchRemote *remote, NetHttp *http, const char *url, const Digest *wanted,
		      FetchManifest *manifest, Error *error)
{
	int r = net_registry_manifest(http, url, ACCEPT, MANIFEST_SIZE_MAX, wanted, &manifest->json, &manifest->size,
				      &manifest->digest, error);
	if (r < 0)
		return r;
	r = manifest_parse(manifest->json, manifest->size, &manifest->manifest, error);
	if (r < 0)
		return error_prefix(error, r, "%s", url);
	return cache_store_put(remote->cache, CACHE_MANIFEST, &manifest->digest, manifest->json, manifest->size, error);
}

/* How long a mirror may do nothing, in milliseconds: there are others. */
#define MIRROR_TIMEOUT 2000

/* The manifest at `url` of the registry, from the first mirror that has it. Errors: -ENOENT. */
static int get_mirrored(const FetchRemote *remote, const NetAccess *access, const char *url, const Digest *wanted,
			FetchManifest *manifest)
{
	for (size_t i = 0; i < access->mirror_count; i++) {
		if (access->mirrors[i].is_source) /* it gives blobs alone */
			continue;
		_cleanup_(net_http_free_p) NetHttp *http = NULL;
		_cleanup_free_ char *mirrored = net_mirror_url(&access->mirrors[i], url);
		int64_t timeout = remote->timeout < MIRROR_TIMEOUT ? remote->timeout : MIRROR_TIMEOUT;
		if (!mirrored || fetch_http_new(remote, access->mirrors[i].access, timeout, &http) < 0)
			continue;
		if (get_remote(remote, http, mirrored, wanted, manifest, NULL) == 0)
			return 0;
		fetch_manifest_done(manifest);
	}
	return -ENOENT;
}

static int resolve_digest(const FetchRemote *remote, const NetAccess *access, NetHttp *http, const char *base,
			  FetchManifest *manifest, Error *error)
{
	const Reference *reference = remote->reference;
	char text[DIGEST_TEXT_SIZE];
	if (get_cached(remote->cache, &reference->digest, manifest) == 0)
		return 0;
	if (remote->offline)
		return error_set(error, -ENODATA, "the cache does not have the manifest %s",
				 digest_text(&reference->digest, text));
	_cleanup_free_ char *url =
		net_registry_manifest_url(base, reference->name, digest_text(&reference->digest, text));
	if (!url)
		return error_set(error, -ENOMEM, "out of memory");
	if (get_mirrored(remote, access, url, &reference->digest, manifest) == 0)
		return 0;
	return get_remote(remote, http, url, &reference->digest, manifest, error);
}

/* How long a registry is asked whether a tag has moved, when all of what it meant is here, in milliseconds. */
#define BRIEF_TIMEOUT 2000

static int ask_head(const FetchRemote *remote, NetHttp *http, const char *url, const Digest *known, Digest *ret_digest,
		    Error *error)
{
	_cleanup_free_ char *reference = reference_text(remote->reference);
	bool brief = remote->timeout > BRIEF_TIMEOUT && fetch_seal_check(remote->cache, known, reference ?: "");
	int64_t timeout = net_http_set_timeout(http, brief ? BRIEF_TIMEOUT : remote->timeout);
	int r = net_registry_head(http, url, ACCEPT, ret_digest, error);
	(void)net_http_set_timeout(http, timeout);
	return r;
}

/*
 * Asks what the tag means. If the cache has that manifest, nothing more is transferred. `known` is what the tag meant
 * the last time, or NULL.
 */
static int ask_tag(const FetchRemote *remote, NetHttp *http, const char *url, const Digest *known,
		   FetchManifest *manifest, Error *error)
{
	if (known) {
		Digest digest;
		int r = ask_head(remote, http, url, known, &digest, error);
		if (net_is_unreachable(r))
			return r;
		if (r == 0 && get_cached(remote->cache, &digest, manifest) == 0)
			return 0;
		/* A registry that does not answer HEAD is asked with GET; one that has no such tag says so again. */
	}
	return get_remote(remote, http, url, NULL, manifest, error);
}

/* What the tag meant the last time, `known`. A mirror is asked for nothing but that manifest, since what it thinks the tag means may be older. */
static int recall_tag(const FetchRemote *remote, const NetAccess *access, const char *base, const Digest *known,
		      FetchManifest *manifest)
{
	char text[DIGEST_TEXT_SIZE];
	if (get_cached(remote->cache, known, manifest) == 0)
		return 0;
	if (remote->offline)
		return -ENOENT;
	_cleanup_free_ char *url = net_registry_manifest_url(base, remote->reference->name, digest_text(known, text));
	return url ? get_mirrored(remote, access, url, known, manifest) : -ENOMEM;
}

/* What a mirror says of a tag of which nobody better has said anything. It is kept as that; if it cannot be, it is asked again the next time. */
static int believe_mirrors(const FetchRemote *remote, const NetAccess *access, const char *url, const Digest *known,
			   FetchManifest *manifest)
{
	int r = get_mirrored(remote, access, url, NULL, manifest);
	if (r < 0 || (known && digest_equal(known, &manifest->digest)))
		return r;
	r = cache_store_tag_put_hearsay(remote->cache, remote->reference, &manifest->digest, NULL);
	return r < 0 ? 0 : r;
}

/* The registry cannot be asked, as `r` and `error` say. */
static int resolve_tag_without(const FetchRemote *remote, const NetAccess *access, const char *base, const char *url,
			       const Digest *known, int r, FetchManifest *manifest, Error *error)
{
	const Reference *reference = remote->reference;
	bool hearsay = !known || cache_store_tag_is_hearsay(remote->cache, reference);
	fetch_manifest_done(manifest);
	if (hearsay && !remote->offline && believe_mirrors(remote, access, url, known, manifest) == 0) {
		manifest->stale = true;
		return 0;
	}
	if (known && recall_tag(remote, access, base, known, manifest) == 0) {
		manifest->stale = true;
		return 0;
	}
	if (known)
		return error_prefix(error, r,
				    "cannot ask %s, and the manifest that the tag last meant is not here any more; is "
				    "`imgfs serve` running there?",
				    reference->host);
	return error_prefix(error, r,
			    "cannot ask %s, and this node has not seen the tag before; is `imgfs serve` running there?",
			    reference->host);
}

static int resolve_tag(const FetchRemote *remote, const NetAccess *access, NetHttp *http, const char *base,
		       FetchManifest *manifest, Error *error)
{
	const Reference *reference = remote->reference;
	_cleanup_free_ char *url = net_registry_manifest_url(base, reference->name, reference->tag);
	if (!url)
		return error_set(error, -ENOMEM, "out of memory");
	Digest digest;
	const Digest *known = cache_store_tag_get(remote->cache, reference, &digest) == 0 ? &digest : NULL;
	int r = remote->offline ? -EHOSTUNREACH : ask_tag(remote, http, url, known, manifest, error);
	if (net_is_unreachable(r))
		return resolve_tag_without(remote, access, base, url, known, r, manifest, error);
	if (r < 0 ||
	    (known && digest_equal(known, &manifest->digest) && !cache_store_tag_is_hearsay(remote->cache, reference)))
		return r;
	return cache_store_tag_put(remote->cache, reference, &manifest->digest, error);
}

int fetch_manifest_resolve(const FetchRemote *remote, const NetAccess *access, NetHttp *http, const char *base,
			   FetchManifest *ret_manifest, Error *error)
{
	_cleanup_(fetch_manifest_done) FetchManifest manifest = { 0 };
	int r = remote->reference->has_digest ? resolve_digest(remote, access, http, base, &manifest, error)
					      : resolve_tag(remote, access, http, base, &manifest, error);
	if (r < 0)
		return r;
	if (!manifest.manifest.layers) { /* it came from the cache */
		manifest_done(&manifest.manifest);
		r = manifest_parse(manifest.json, manifest.size, &manifest.manifest, error);
		if (r < 0)
			return error_prefix(error, r, "manifest of %s/%s", remote->reference->host,
					    remote->reference->name);
	}
	*ret_manifest = manifest;
	manifest = (FetchManifest){ 0 };
	return 0;
}
