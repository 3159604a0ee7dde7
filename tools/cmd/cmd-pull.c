/* imgfs pull: all of an image into the cache, so that mounts of it need nobody else. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>

#include "fs/base/conf.h"
#include "fs/fetch/fetch-pull.h"
#include "fs/fetch/fetch-seal.h"
#include "snapshotter/client.h"
#include "tools/cmd/output.h"
#include "tools/cmd/pull-containerd.h"
#include "tools/cmd/pull-room.h"
#include "tools/cmd/remote-options.h"

#define VERB "pull"

#define DEFAULT_TIMEOUT 30
#define TIMEOUT_MAX     86400

enum {
	OPTION_PLAN = VERB_OPTION_LONG,
	OPTION_SEAL,
	OPTION_DECODED,
	OPTION_TIMEOUT,
	OPTION_JSON,
	OPTION_CONTAINERD,
	OPTION_SOCKET,
	OPTION_NAMESPACE,
	OPTION_SNAPSHOTTER,
	OPTION_QUOTA = VERB_OPTION_SHARED,
};

const VerbOption cmd_pull_options[] = {
	REMOTE_CACHE_OPTION,
	REMOTE_OPTIONS,
	{ "plan", OPTION_PLAN, NULL, "only say how many bytes would be fetched; fetches no more than the indexes" },
	{ "seal", OPTION_SEAL, NULL, "check every layer's diffID afterwards, and wait until all is on the disk" },
	{ "decoded", OPTION_DECODED, NULL,
	  "seal, and keep the layers decoded as well: faster first reads, for the image's full size on the disk" },
	{ "quota", OPTION_QUOTA, "SIZE",
	  "of the cache (20G): what was used longest ago makes room; an image that cannot fit is refused; default "
	  "none" },
	{ "containerd", OPTION_CONTAINERD, NULL,
	  "make it an image of containerd that is fetched as it is read; fetches no more than the indexes, but with "
	  "--seal" },
	{ "containerd-socket", OPTION_SOCKET, "SOCKET", "containerd's; default " CLIENT_SOCKET },
	{ "namespace", OPTION_NAMESPACE, "NS", "containerd's; default " PULL_CONTAINERD_NAMESPACE },
	{ "snapshotter", OPTION_SNAPSHOTTER, "NAME",
	  "what containerd's configuration calls imgfs-snapshotter; default " PULL_CONTAINERD_SNAPSHOTTER },
	{ "timeout", OPTION_TIMEOUT, "SECONDS", "give up when no byte came for so long; default 30" },
	{ "json", OPTION_JSON, NULL, "print a JSON object" },
	{ "quiet", 'q', NULL, "no progress bar" },
	{ 0 },
};

typedef struct Arguments {
	const char *reference;
	RemoteOptions remote;
	unsigned long timeout;
	uint64_t quota; /* 0: none */
	PullContainerd engine;
	bool containerd;
	bool plan;
	bool seal;
	bool decoded;   /* then seal too */
	bool seal_said; /* on the command line: what a file says of sealing is for when something is fetched */
	bool json;
	bool quiet;
} Arguments;

typedef struct Transfer {
	OutputProgress bar;
	uint64_t total;
} Transfer;

static int parse_option(int id, Arguments *arguments)
{
	switch (id) {
	case OPTION_PLAN:
		arguments->plan = true;
		return VERB_SUCCESS;
	case OPTION_SEAL:
	case OPTION_DECODED:
		arguments->seal = true;
		arguments->decoded = arguments->decoded || id == OPTION_DECODED;
		arguments->seal_said = arguments->seal_said || !verb_option_is_configured();
		return VERB_SUCCESS;
	case OPTION_QUOTA:
		if (conf_size(optarg, &arguments->quota) < 0)
			return verb_usage_error(VERB, "--quota %s: give bytes, as 20G, 500M or 64Mi", optarg);
		return VERB_SUCCESS;
	case OPTION_TIMEOUT:
		if (verb_number(optarg, 1, TIMEOUT_MAX, &arguments->timeout) < 0)
			return verb_usage_error(VERB, "--timeout %s: give seconds, 1 to %d", optarg, TIMEOUT_MAX);
		return VERB_SUCCESS;
	case OPTION_CONTAINERD:
		arguments->containerd = true;
		return VERB_SUCCESS;
	case OPTION_SOCKET:
		arguments->engine.socket = optarg;
		return VERB_SUCCESS;
	case OPTION_NAMESPACE:
		arguments->engine.name_space = optarg;
		return VERB_SUCCESS;
	case OPTION_SNAPSHOTTER:
		arguments->engine.snapshotter = optarg;
		return VERB_SUCCESS;
	case OPTION_JSON:
		arguments->json = true;
		return VERB_SUCCESS;
	case 'q':
		arguments->quiet = true;
		return VERB_SUCCESS;
	default:
		return remote_options_take(&arguments->remote, id);
	}
}

/*
 * What a lazy image reads later imgfsd fetches, who has not seen this command line; and a label of containerd's is no place for a password. To
 * go on would give an image whose indexes are here and whose files cannot be read.
 */
static int check_lazy(const Arguments *arguments)
{
	const char *special = remote_options_special(&arguments->remote);
	if (!arguments->containerd || arguments->seal || !special)
		return VERB_SUCCESS;
	return verb_usage_error(
		VERB,
		"with --containerd, imgfsd fetches what is read, and is not told of %s: say it in section "
		"[host HOST:PORT] of imgfs.conf, which both read, and leave it out here; or --seal the image",
		special);
}

static int parse(int argc, char **argv, Arguments *arguments)
{
	for (int id; (id = verb_getopt(argc, argv, cmd_pull_options)) != -1;) {
		int status = parse_option(id, arguments);
		if (status != VERB_SUCCESS)
			return status;
	}
	if (argc - optind != 1)
		return verb_usage_error(VERB, "give one reference");
	if (arguments->plan && arguments->containerd)
		return verb_usage_error(VERB, "--plan changes nothing, so that containerd would not get the image");
	if (arguments->plan && arguments->seal_said)
		return verb_usage_error(VERB, "--plan fetches nothing, so that nothing can be sealed or decoded");
	if (arguments->plan)
		arguments->seal = arguments->decoded = false;
	arguments->reference = argv[optind];
	int status = remote_options_check(&arguments->remote, VERB);
	if (status == VERB_SUCCESS)
		status = remote_options_check_reference(VERB, arguments->reference, false);
	return status == VERB_SUCCESS ? check_lazy(arguments) : status;
}

static void on_progress(void *arg, uint64_t done)
{
	Transfer *transfer = arg;
	output_progress_update(&transfer->bar, done);
}

static void on_report(void *arg, const char *sentence)
{
	Transfer *transfer = arg;
	output_progress_clear(&transfer->bar);
	fprintf(stderr, "imgfs pull: %s\n", sentence);
}

static int pull(const Arguments *arguments, CacheStore *cache, const FetchImage *image, const FetchPlan *plan,
		Error *error)
{
	Transfer transfer = { 0 };
	FetchPullOptions options = {
		.decoded = arguments->decoded ? cache : NULL,
		.timeout = (int64_t)arguments->timeout * 1000,
		.progress = on_progress,
		.report = on_report,
		.arg = &transfer,
	};
	int r = pull_make_room(cache, arguments->quota, image, plan, arguments->decoded ? image->image_size : 0,
			       arguments->reference, error);
	if (r < 0)
		return r;
	output_progress_start(&transfer.bar, "pulling", plan->total, arguments->quiet);
	r = fetch_pull(image, &options, error);
	output_progress_end(&transfer.bar);
	if (r < 0 || !arguments->seal)
		return r;
	output_progress_start(&transfer.bar, "verifying", image->image_size, arguments->quiet);
	r = fetch_pull_verify(image, &options, error);
	output_progress_end(&transfer.bar);
	return r < 0 ? r : fetch_seal_image(cache, image, arguments->reference, error);
}

static int print(const Arguments *arguments, const FetchImage *image, const FetchPlan *plan)
{
	bool lazy = arguments->containerd && !arguments->seal, still = arguments->plan || lazy;
	char manifest[DIGEST_TEXT_SIZE], config[DIGEST_TEXT_SIZE], total[OUTPUT_SIZE_TEXT], present[OUTPUT_SIZE_TEXT],
		copied[OUTPUT_SIZE_TEXT], missing[OUTPUT_SIZE_TEXT];
	(void)digest_text(&image->manifest, manifest);
	(void)digest_text(&image->config, config);
	if (arguments->json)
		return output_json(json_pack(
			"{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:b, s:b, s:b, s:b}", "reference", arguments->reference,
			"manifest", manifest, "image", config, "totalBytes", (json_int_t)plan->total, "presentBytes",
			(json_int_t)plan->present, "copiedBytes", (json_int_t)plan->copied, "fetchedBytes",
			(json_int_t)plan->missing, "complete", !still || plan->present == plan->total, "sealed",
			arguments->seal || image->sealed, "decoded", arguments->decoded, "stale", image->stale));
	printf("%s %s\nmanifest %s\nimage    %s\n%s in all: %s here, %s %s from other images here, %s %s\n",
	       arguments->plan   ? "plan for"
	       : lazy            ? "lazy    "
	       : arguments->seal ? "sealed  "
				 : "pulled  ",
	       arguments->reference, manifest, config, output_size(plan->total, total),
	       output_size(plan->present, present), output_size(plan->copied, copied), still ? "to copy" : "copied",
	       output_size(plan->missing, missing), still ? "to fetch" : "fetched");
	return fflush(stdout) == 0 ? 0 : -EIO;
}

static int hand_on(const Arguments *arguments, CacheStore *cache, const Reference *reference, const FetchImage *image,
		   Error *error)
{
	PullContainerd what = arguments->engine;
	what.reference = arguments->reference;
	what.timeout = (int64_t)arguments->timeout * 1000;
	return pull_containerd(&what, &arguments->remote, reference, cache, image, error);
}

static int run(const Arguments *arguments, Error *error)
{
	_cleanup_(cache_store_free_p) CacheStore *cache = NULL;
	int r = remote_options_cache(&arguments->remote, true, &cache, error);
	if (r < 0)
		return r;
	Reference reference;
	FetchImage image = { 0 };
	r = remote_options_fetch(&arguments->remote, arguments->reference, (int64_t)arguments->timeout * 1000, cache,
				 &reference, &image, error);
	if (r < 0)
		return r;
	if (image.stale)
		fprintf(stderr,
			"imgfs pull: warning: the registry could not be asked what %s is now; this is what it was when "
			"last seen\n",
			arguments->reference);
	FetchPlan plan = { 0 };
	r = fetch_pull_plan(&image, &plan, error);
	bool lazy = arguments->containerd && !arguments->seal;
	if (r == 0 && !arguments->plan && !lazy)
		r = pull(arguments, cache, &image, &plan, error);
	if (r == 0 && arguments->containerd)
		r = hand_on(arguments, cache, &reference, &image, error);
	if (r == 0 && print(arguments, &image, &plan) < 0)
		r = error_set(error, -EIO, "standard output cannot be written");
	fetch_image_done(&image);
	return r;
}

int cmd_pull(int argc, char **argv)
{
	Error error = { 0 };
	Arguments arguments = {
		.timeout = DEFAULT_TIMEOUT,
		.engine = { .socket = CLIENT_SOCKET,
			    .name_space = PULL_CONTAINERD_NAMESPACE,
			    .snapshotter = PULL_CONTAINERD_SNAPSHOTTER },
	};
	int status = parse(argc, argv, &arguments);
	if (status == VERB_SUCCESS) {
		remote_options_raise_file_limit();
		(void)signal(SIGPIPE, SIG_IGN);
		int r = run(&arguments, &error);
		status = r < 0 ? verb_fail(VERB, r, &error) : VERB_SUCCESS;
	}
	remote_options_done(&arguments.remote);
	return status;
}
