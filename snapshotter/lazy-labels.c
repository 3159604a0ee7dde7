/* Labels of a Prepare: docs/operations.md, "containerd", says who sends which. */
#include <inttypes.h>
#include <string.h>

#include "fs/base/digest.h"
#include "fs/format/blob.h"
#include "snapshotter/lazy.h"

#define LABEL_VERSION     BLOB_ANNOTATION_VERSION
#define LABEL_CRI_LAYER   "containerd.io/snapshot/cri.layer-digest"
#define LABEL_DIFF_ID     "containerd.io/snapshot/diff-id" /* containerd 2.4 */
#define LABEL_OWN_DIFF_ID BLOB_ANNOTATION_DIFF_ID

const char *lazy_reason_name(LazyReason reason)
{
	static const char *const names[LAZY_REASONS] = {
		[LAZY_IS_LAZY] = "lazy",
		[LAZY_NO_ANNOTATIONS] = "no-annotations",
		[LAZY_BAD_ANNOTATIONS] = "bad-annotations",
		[LAZY_NO_DIFF_ID] = "no-diff-id",
		[LAZY_OTHER_CHAIN] = "other-chain",
		[LAZY_PARENT] = "parent-not-lazy",
		[LAZY_UNAVAILABLE] = "unavailable",
	};
	return names[reason];
}

static int refuse(LazyReason reason, LazyReason *ret_reason, Error *error, const char *what, const char *text)
{
	*ret_reason = reason;
	return error_set(error, -EINVAL, "%s%s%s", what, text ? ": " : "", text ?: "");
}

/* A decimal number as the annotations have it. */
static int read_size(const char *text, json_int_t *ret_size)
{
	char *end;
	if (!text || text[0] < '0' || text[0] > '9')
		return -EINVAL;
	errno = 0;
	long long size = strtoll(text, &end, 10);
	if (*end || errno != 0)
		return -EINVAL;
	*ret_size = size;
	return 0;
}

/* OCI image-spec, config.md, "Layer ChainID". */
static bool makes_chain(const char *parent_chain, const char *diff_id, const char *chain)
{
	char both[2 * DIGEST_TEXT_SIZE], text[DIGEST_TEXT_SIZE];
	Digest digest;
	if (!parent_chain)
		return strcmp(diff_id, chain) == 0;
	if (strlen(parent_chain) >= DIGEST_TEXT_SIZE)
		return false;
	int size = snprintf(both, sizeof(both), "%s %s", parent_chain, diff_id);
	return digest_of(both, (size_t)size, &digest) == 0 && strcmp(digest_text(&digest, text), chain) == 0;
}

/*
 * Which layer it is. The digest of the descriptor is one way to know it, since imgfs publishes layers as uncompressed tars; at the bottom of an
 * image the chain ID says it. What is found is right exactly when it makes the chain.
 */
static const char *choose_diff_id(const MetaLabels *labels, const char *ref, const char *parent_chain)
{
	static const char *const names[] = { LABEL_OWN_DIFF_ID, LABEL_DIFF_ID, LABEL_CRI_LAYER };
	const char *found = parent_chain ? NULL : ref;
	for (size_t i = 0; i < ELEMENTS(names) && !found; i++)
		found = meta_labels_get(labels, names[i]);
	return found;
}

int lazy_layer_encode(const MetaLabels *labels, const char *ref, const char *parent_chain, char **ret_layer,
		      LazyReason *ret_reason, Error *error)
{
	const char *version = meta_labels_get(labels, LABEL_VERSION);
	const char *blob = meta_labels_get(labels, BLOB_ANNOTATION_DIGEST);
	const char *index = meta_labels_get(labels, BLOB_ANNOTATION_INDEX_DIGEST);
	const char *diff_id = choose_diff_id(labels, ref, parent_chain);
	json_int_t blob_size, index_offset, index_size;
	Digest digest;
	if (!version)
		return refuse(LAZY_NO_ANNOTATIONS, ret_reason, error, "the layer has no annotations of imgfs", NULL);
	if (strcmp(version, "1") != 0)
		return refuse(LAZY_BAD_ANNOTATIONS, ret_reason, error, "annotations of another version", version);
	if (!blob || digest_from_text(blob, &digest) < 0 || !index || digest_from_text(index, &digest) < 0 ||
	    read_size(meta_labels_get(labels, BLOB_ANNOTATION_SIZE), &blob_size) < 0 ||
	    read_size(meta_labels_get(labels, BLOB_ANNOTATION_INDEX_OFFSET), &index_offset) < 0 ||
	    read_size(meta_labels_get(labels, BLOB_ANNOTATION_INDEX_SIZE), &index_size) < 0)
		return refuse(LAZY_BAD_ANNOTATIONS, ret_reason, error, "annotations of imgfs are missing or wrong",
			      NULL);
	if (!diff_id)
		return refuse(LAZY_NO_DIFF_ID, ret_reason, error,
			      "no label has the layer's digest, and it is not the lowest", NULL);
	if (digest_from_text(diff_id, &digest) < 0 || !makes_chain(parent_chain, diff_id, ref))
		return refuse(LAZY_OTHER_CHAIN, ret_reason, error, "the layer does not make the chain asked for",
			      diff_id);
	json_auto_t *layer = json_pack("{s:s, s:s, s:I, s:s, s:I, s:I}", "diffId", diff_id, "blob", blob, "blobSize",
				       blob_size, "index", index, "indexOffset", index_offset, "indexSize", index_size);
	char *text = layer ? json_dumps(layer, JSON_COMPACT) : NULL;
	if (!text)
		return error_set(error, -ENOMEM, "out of memory");
	*ret_layer = text;
	*ret_reason = LAZY_IS_LAZY;
	return 0;
}
