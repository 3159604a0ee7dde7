/* Fetching whole images for who asks, and keeping them in the cache. */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "fs/cache/cache-pins.h"
#include "fs/fetch/fetch-pull.h"
#include "fs/fetch/fetch-seal.h"
#include "fs/node/node-private.h"

#define PROGRESS_MS 200 /* between two frames that say how far it is */

typedef struct Transfer {
	ControlCall *call;
	const char *step;
	uint64_t total;
	int64_t told; /* when, milliseconds */
} Transfer;

static int64_t now_ms(void)
{
	struct timespec time;
	(void)clock_gettime(CLOCK_MONOTONIC, &time);
	return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

static void on_progress(void *arg, uint64_t done)
{
	Transfer *transfer = arg;
	int64_t now = now_ms();
	if (!transfer->call || now - transfer->told < PROGRESS_MS)
		return;
	transfer->told = now;
	control_call_progress(transfer->call, json_pack("{s:s, s:I, s:I}", "step", transfer->step, "doneBytes",
							(json_int_t)done, "totalBytes", (json_int_t)transfer->total));
}

static void on_report(void *arg, const char *sentence)
{
	Transfer *transfer = arg;
	if (transfer->call)
		control_call_progress(transfer->call, json_pack("{s:s}", "report", sentence));
}

static bool is_given_up(void *arg)
{
	const Transfer *transfer = arg;
	return transfer->call && control_call_gone(transfer->call);
}

static int64_t timeout_of(Node *node, const ControlRequest *request)
{
	node_lock(node);
	int64_t timeout = request->timeout ?: node->defaults.settings.timeout;
	node_unlock(node);
	return timeout;
}

static int transfer(Node *node, ControlCall *call, const ControlRequest *request, const FetchImage *image,
		    const FetchPlan *plan, Error *error)
{
	Transfer state = { .call = call, .step = "pulling", .total = plan->total };
	FetchPullOptions options = {
		.timeout = timeout_of(node, request),
		.progress = on_progress,
		.report = on_report,
		.given_up = is_given_up,
		.arg = &state,
	};
	int r = fetch_pull(image, &options, error);
	if (r < 0 || !request->seal)
		return r;
	state.step = "verifying";
	state.total = image->image_size;
	r = fetch_pull_verify(image, &options, error);
	return r < 0 ? r : fetch_seal_image(node->cache, image, request->reference, error);
}

int node_pull(Node *node, ControlCall *call, const ControlRequest *request, json_t **ret_answer, Error *error)
{
	FetchImage image = { 0 };
	FetchPlan plan = { 0 };
	char manifest[DIGEST_TEXT_SIZE], config[DIGEST_TEXT_SIZE];
	char origin[NODE_ORIGIN_SIZE];
	int r = node_files_open(node, call, request, NULL, false, &image, origin, error);
	if (r < 0)
		return r;
	r = fetch_pull_plan(&image, &plan, error);
	if (r == 0)
		r = transfer(node, call, request, &image, &plan, error);
	if (r == 0) {
		*ret_answer = json_pack(
			"{s:s, s:s, s:I, s:I, s:I, s:I, s:b, s:b}", "manifest", digest_text(&image.manifest, manifest),
			"image", digest_text(&image.config, config), "totalBytes", (json_int_t)plan.total,
			"presentBytes", (json_int_t)plan.present, "copiedBytes", (json_int_t)plan.copied,
			"fetchedBytes", (json_int_t)plan.missing, "sealed", request->seal, "stale", image.stale);
		r = *ret_answer ? 0 : error_set(error, -ENOMEM, "out of memory");
	}
	fetch_image_done(&image);
	return r;
}

static int answer_digest(const Digest *manifest, json_t **ret_answer, Error *error)
{
	char text[DIGEST_TEXT_SIZE];
	*ret_answer = json_pack("{s:s}", "manifest", digest_text(manifest, text));
	return *ret_answer ? 0 : error_set(error, -ENOMEM, "out of memory");
}

/* The manifest has to be in the cache, and is fetched if it is not. */
int node_pin(Node *node, ControlCall *call, const ControlRequest *request, json_t **ret_answer, Error *error)
{
	FetchImage image = { 0 };
	char origin[NODE_ORIGIN_SIZE];
	int r = node_files_open(node, call, request, NULL, false, &image, origin, error);
	if (r == 0)
		r = cache_pin_add(node->cache, CACHE_PIN, &image.manifest, request->reference, error);
	if (r == 0)
		r = answer_digest(&image.manifest, ret_answer, error);
	fetch_image_done(&image);
	return r;
}

/* What the tag meant when it was last seen; nobody is asked for it. */
int node_unpin(Node *node, const ControlRequest *request, json_t **ret_answer, Error *error)
{
	Reference reference;
	int r = reference_parse_remote(request->reference, &reference, error);
	if (r < 0)
		return r;
	Digest manifest = reference.digest;
	if (!reference.has_digest && cache_store_tag_get(node->cache, &reference, &manifest) < 0)
		return error_set(error, -ENOENT, "this node has not seen %s; give the digest that was pinned",
				 request->reference);
	r = cache_pin_remove(node->cache, CACHE_PIN, &manifest, error);
	return r < 0 ? r : answer_digest(&manifest, ret_answer, error);
}
