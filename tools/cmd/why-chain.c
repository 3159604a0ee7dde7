#include "tools/cmd/why-chain.h"

#include <limits.h>
#include <string.h>

#include "fs/base/cleanup.h"
#include "snapshotter/meta.h"
#include "tools/cmd/why-report.h"

#define LABEL_REF "containerd.io/snapshot.ref"
#define PAGE      100

void why_chain_done(WhyChain *chain)
{
	for (size_t i = 0; i < chain->count; i++)
		free(chain->chains[i]);
	free(chain->chains);
	*chain = (WhyChain){ 0 };
}

/* containerd calls a snapshot NAMESPACE/NUMBER/KEY; the key may have anything in it. */
static const char *client_key(const char *key)
{
	const char *slash = strchr(key, '/');
	slash = slash ? strchr(slash + 1, '/') : NULL;
	return slash ? slash + 1 : "";
}

/* The parent of the container's snapshot that was made last. */
static int find_parent(Meta *meta, const char *container, char **parent)
{
	const WhyFilter filter = { .containers = &container, .count = 1 };
	MetaInfo infos[PAGE];
	size_t count;
	int r, found = 0;
	uint64_t after = 0;
	do {
		r = meta_list(meta, after, NULL, PAGE, infos, &count, NULL);
		for (size_t i = 0; r == 0 && i < count; i++) {
			MetaInfo *info = &infos[i];
			after = info->id;
			if (info->kind != META_COMMITTED && info->parent &&
			    why_container_length(client_key(info->key), &filter) > 0) {
				free(*parent);
				*parent = TAKE_PTR(info->parent);
				found = 1;
			}
			meta_info_done(info);
		}
	} while (r == 0 && count == PAGE);
	return r == -ENOMEM ? r : found;
}

/* A layer that was unpacked has its chain ID in its name, a lazy one in a label. */
static int add_chain(WhyChain *chain, const MetaInfo *info)
{
	const char *ref = meta_labels_get(&info->labels, LABEL_REF);
	char **larger = reallocarray(chain->chains, chain->count + 1, sizeof(*larger));
	if (!larger)
		return -ENOMEM;
	chain->chains = larger;
	larger[chain->count] = strdup(ref ?: client_key(info->key));
	return larger[chain->count] ? (chain->count++, 0) : -ENOMEM;
}

static int follow(Meta *meta, char *parent, WhyChain *chain)
{
	_cleanup_free_ char *key = parent;
	while (key) {
		_cleanup_(meta_info_done) MetaInfo info = { 0 };
		if (meta_stat(meta, key, &info, NULL) < 0)
			return 0; /* removed meanwhile */
		if (add_chain(chain, &info) < 0)
			return -ENOMEM;
		chain->lazy = info.lazy_path != NULL;
		free(key);
		key = TAKE_PTR(info.parent);
	}
	return 1;
}

int why_chain(const char *root, const char *container, WhyChain *ret_chain)
{
	_cleanup_(meta_close_p) Meta *meta = NULL;
	WhyChain chain = { 0 };
	char path[PATH_MAX], *parent = NULL;
	int length = snprintf(path, sizeof(path), "%s/metadata.db", root);
	if (length >= (int)sizeof(path) || meta_look(path, &meta, NULL) < 0)
		return 0;
	int r = find_parent(meta, container, &parent);
	if (r == 1)
		r = follow(meta, parent, &chain);
	else
		free(parent);
	if (r == 1)
		*ret_chain = chain;
	else
		why_chain_done(&chain);
	return r;
}
