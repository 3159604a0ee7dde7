/* imgfs cache pin and unpin: what stays, whatever the quota. */
#include <stdio.h>
#include <string.h>

#include "fs/cache/cache-pins.h"
#include "fs/fetch/fetch-seal.h"
#include "tools/cmd/cmd-cache.h"

/* The manifest that a person means: by digest, or by a tag that this node has seen. Errors: -ENOENT, -EINVAL. */
static int find_manifest(CacheStore *cache, const char *text, Digest *ret_manifest, Error *error)
{
	Reference reference;
	if (digest_from_text(text, ret_manifest) == 0)
		return 0;
	int r = reference_parse_remote(text, &reference, error);
	if (r < 0)
		return r;
	if (reference.has_digest) {
		*ret_manifest = reference.digest;
		return 0;
	}
	r = cache_store_tag_get(cache, &reference, ret_manifest);
	return r < 0 ? error_set(error, r, "this node has not seen %s; imgfs cache ls lists what it has seen", text)
		     : 0;
}

static int print(const CacheArguments *arguments, const char *done, const Digest *manifest)
{
	char digest[DIGEST_TEXT_SIZE];
	(void)digest_text(manifest, digest);
	if (arguments->json)
		return output_json(json_pack("{s:s, s:s}", "reference", arguments->reference, "manifest", digest));
	if (!arguments->quiet)
		printf("%s %s (%s)\n", done, arguments->reference, digest);
	return 0;
}

int cache_action_pin(const CacheArguments *arguments, CacheStore *cache, Error *error)
{
	Digest manifest;
	int r = find_manifest(cache, arguments->reference, &manifest, error);
	if (r == 0)
		r = cache_pin_add(cache, CACHE_PIN, &manifest, arguments->reference, error);
	return r == 0 ? print(arguments, "pinned", &manifest) : r;
}

/* A tag may have moved since: also what was pinned by the same words goes. */
static int unpin_matching(const CacheArguments *arguments, CacheStore *cache, const Digest *manifest, bool known,
			  size_t *ret_count, Error *error)
{
	CachePin *pins = NULL;
	size_t count = 0, gone = 0;
	int r = cache_pins_list(cache, &pins, &count, error);
	for (size_t i = 0; r == 0 && i < count; i++) {
		if (!(known && digest_equal(&pins[i].manifest, manifest)) &&
		    strcmp(pins[i].reference, arguments->reference) != 0)
			continue;
		r = pins[i].kind == CACHE_SEAL ? fetch_seal_remove(cache, &pins[i].manifest, error)
					       : cache_pin_remove(cache, CACHE_PIN, &pins[i].manifest, error);
		if (r == 0)
			r = print(arguments, pins[i].kind == CACHE_PIN ? "unpinned" : "unsealed", &pins[i].manifest);
		gone++;
	}
	cache_pins_free(pins, count);
	*ret_count = gone;
	return r;
}

int cache_action_unpin(const CacheArguments *arguments, CacheStore *cache, Error *error)
{
	Digest manifest;
	size_t gone = 0;
	int known = find_manifest(cache, arguments->reference, &manifest, error);
	if (known < 0 && known != -ENOENT)
		return known;
	int r = unpin_matching(arguments, cache, &manifest, known == 0, &gone, error);
	return r == 0 && gone == 0 ? error_set(error, -ENOENT, "%s is neither pinned nor sealed", arguments->reference)
				   : r;
}
