/* imgfs tag: one more name for an image of the store. */
#include <getopt.h>
#include <stdio.h>

#include "tools/cmd/cmd-store.h"
#include "tools/cmd/verbs.h"
#include "tools/export/store-image.h"
#include "tools/export/store-lock.h"

#define VERB "tag"

const VerbOption cmd_tag_options[] = {
	CMD_STORE_OPTION,
	{ 0 },
};

/* The manifest goes into blobs/ again in case it was lost there: a tag must always name an object of the store. */
static int put_tag(Store *store, const StoreImage *image, const Reference *wanted, Error *error)
{
	Digest digest;
	int r = store_blob_put(store, image->json, image->json_size, &digest, error);
	return r == 0 ? store_tag_put(store, wanted->name, wanted->tag, image->json, image->json_size, error) : r;
}

static int run(const char *path, const char *text, const Reference *wanted)
{
	_cleanup_(store_free_p) Store *store = NULL;
	_cleanup_close_ int hold = -1;
	_cleanup_(store_image_done) StoreImage image = { 0 };
	Error error = { 0 };
	char digest[DIGEST_TEXT_SIZE];
	int r = cmd_store_open(path, false, &store, &error);
	if (r == 0)
		r = store_hold(store, &hold, &error);
	if (r == 0)
		r = store_image_open(store, text, &image, &error);
	if (r == 0)
		r = put_tag(store, &image, wanted, &error);
	if (r < 0)
		return verb_fail(VERB, r, &error);
	printf("%s:%s is %s\n", wanted->name, wanted->tag, digest_text(&image.digest, digest));
	return VERB_SUCCESS;
}

int cmd_tag(int argc, char **argv)
{
	const char *path = NULL;
	Reference given, wanted;
	Error error = { 0 };
	for (int id; (id = verb_getopt(argc, argv, cmd_tag_options)) != -1;) {
		if (id != 's')
			return VERB_USAGE;
		path = optarg;
	}
	if (argc - optind != 2)
		return verb_usage_error(VERB, "wanted are two names: the image's, and the new one");
	if (store_image_parse(argv[optind], &given, &error) < 0 ||
	    store_image_parse(argv[optind + 1], &wanted, &error) < 0)
		return verb_usage_error(VERB, "%s", error_text(&error, -EINVAL));
	if (wanted.has_digest)
		return verb_usage_error(VERB, "%s: a new name has no digest", argv[optind + 1]);
	return run(path, argv[optind], &wanted);
}
