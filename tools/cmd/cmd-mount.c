/* imgfs mount: makes an image usable at a directory, bytes being fetched when they are first read. */
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/base/conf.h"
#include "fs/fetch/fetch-seal.h"
#include "fs/mount/fuse-mount.h"
#include "fs/mount/mount-table.h"
#include "fs/mount/mount.h"
#include "fs/net/net-access.h"
#include "tools/cmd/daemon-client.h"
#include "tools/cmd/local-image.h"
#include "tools/cmd/remote-options.h"

#define VERB "mount"

#define DEFAULT_DEADLINE 30
#define DEADLINE_MAX     86400
#define READ_AHEAD_MAX   (64 * 1024)
#define FILL_RATE_MIN    1024

enum {
	OPTION_DEADLINE = VERB_OPTION_LONG,
	OPTION_READ_AHEAD,
	OPTION_FOREGROUND,
	OPTION_LOG,
	OPTION_ALLOW_OTHER,
	OPTION_NOEXEC,
	OPTION_SUID,
	OPTION_DEV,
	OPTION_NO_FILL,
	OPTION_DECODED,
	OPTION_FILL_RATE,
	OPTION_PRIVATE,
	OPTION_QUOTA = VERB_OPTION_SHARED,
};

const VerbOption cmd_mount_options[] = {
	{ "store", 's', "DIR", "mount NAME[:TAG] from this store; no network is used" },
	{ "deadline", OPTION_DEADLINE, "SECONDS",
	  "a read fails that got no bytes for so long; default 30, or imgfsd's" },
	REMOTE_CACHE_OPTION,
	REMOTE_OPTIONS,
	{ "quota", OPTION_QUOTA, "SIZE", "of the cache (20G): beyond it what was used longest ago goes; default none" },
	{ "read-ahead", OPTION_READ_AHEAD, "KB", "how far the kernel reads ahead; default 512" },
	{ "no-fill", OPTION_NO_FILL, NULL,
	  "fetch nothing but what is read; otherwise the rest follows in the background" },
	{ "fill-rate", OPTION_FILL_RATE, "SIZE", "of that, a second (10M); default what readers leave" },
	{ "decoded", OPTION_DECODED, NULL,
	  "what is filled is kept decoded as well: faster first reads, for the image's full size on the disk" },
	{ "foreground", OPTION_FOREGROUND, NULL, "stay until the image is unmounted; a signal unmounts it" },
	{ "log", OPTION_LOG, "FILE", "append the log of the mount to FILE; default none, in the foreground stderr" },
	{ "allow-other", OPTION_ALLOW_OTHER, NULL,
	  "a user's mount: for all users, if /etc/fuse.conf has user_allow_other" },
	{ "noexec", OPTION_NOEXEC, NULL, "no program can be run from the mount" },
	{ "suid", OPTION_SUID, NULL, "set-uid files and file capabilities count in the mount itself" },
	{ "dev", OPTION_DEV, NULL, "device files can be opened in the mount itself" },
	{ "private", OPTION_PRIVATE, NULL, "a keeper and a server of its own, also where imgfsd runs" },
	DAEMON_OPTIONS,
	{ "quiet", 'q', NULL, "print nothing when it is mounted" },
	{ 0 },
};

typedef struct Arguments {
	const char *store;
	const char *reference;
	RemoteOptions remote;
	unsigned long deadline; /* 0: not said */
	unsigned long read_ahead;
	bool quiet;
	const char *socket; /* of imgfsd */
	const char *alone;  /* the option that wants a mount of its own, or NULL */
	bool quota_said; /* on the command line: what a file says is for mounts of their own, and imgfsd reads it too */
	MountOptions mount;
} Arguments;

typedef struct Mounted {
	const char *reference;
	const char *directory;
	const FetchImage *image;
} Mounted;

/* The FUSE_MOUNT_* of an option, or 0. */
static unsigned mount_flag(int id)
{
	switch (id) {
	case OPTION_ALLOW_OTHER:
		return FUSE_MOUNT_ALLOW_OTHER;
	case OPTION_NOEXEC:
		return FUSE_MOUNT_NOEXEC;
	case OPTION_SUID:
		return FUSE_MOUNT_SUID;
	case OPTION_DEV:
		return FUSE_MOUNT_DEV;
	default:
		return 0;
	}
}

/* An option that only a mount of its own can honour, by its name; or NULL. */
static const char *wants_alone(int id)
{
	static const int ids[] = { OPTION_READ_AHEAD, OPTION_FOREGROUND, OPTION_LOG,
				   OPTION_SUID,       OPTION_DEV,        OPTION_PRIVATE };
	for (size_t i = 0; i < ELEMENTS(ids); i++)
		for (const VerbOption *option = cmd_mount_options; ids[i] == id && option->name; option++)
			if (option->id == id)
				return option->name;
	return NULL;
}

static int parse_option(int id, Arguments *arguments)
{
	arguments->alone = wants_alone(id) ?: arguments->alone;
	switch (id) {
	case 's':
		arguments->store = optarg;
		return VERB_SUCCESS;
	case OPTION_DEADLINE:
		if (verb_number(optarg, 1, DEADLINE_MAX, &arguments->deadline) < 0)
			return verb_usage_error(VERB, "--deadline %s: give seconds, 1 to %d", optarg, DEADLINE_MAX);
		return VERB_SUCCESS;
	case OPTION_QUOTA:
		if (conf_size(optarg, &arguments->mount.quota) < 0)
			return verb_usage_error(VERB, "--quota %s: give bytes, as 20G, 500M or 64Mi", optarg);
		arguments->quota_said = !verb_option_is_configured();
		return VERB_SUCCESS;
	case OPTION_READ_AHEAD:
		if (verb_number(optarg, 4, READ_AHEAD_MAX, &arguments->read_ahead) < 0)
			return verb_usage_error(VERB, "--read-ahead %s: give KiB, 4 to %d", optarg, READ_AHEAD_MAX);
		return VERB_SUCCESS;
	case OPTION_NO_FILL:
		arguments->mount.no_fill = true;
		return VERB_SUCCESS;
	case OPTION_FILL_RATE:
		if (conf_size(optarg, &arguments->mount.fill_rate) < 0 || arguments->mount.fill_rate < FILL_RATE_MIN ||
		    arguments->mount.fill_rate > INT64_MAX)
			return verb_usage_error(VERB, "--fill-rate %s: give bytes a second, as 10M or 500k, %d or more",
						optarg, FILL_RATE_MIN);
		return VERB_SUCCESS;
	case OPTION_DECODED:
		arguments->remote.decoded = true;
		return VERB_SUCCESS;
	case OPTION_FOREGROUND:
		arguments->mount.foreground = true;
		return VERB_SUCCESS;
	case OPTION_LOG:
		arguments->mount.log_path = optarg;
		return VERB_SUCCESS;
	case OPTION_PRIVATE:
		return VERB_SUCCESS;
	case DAEMON_OPTION_SOCKET:
		arguments->socket = optarg;
		return VERB_SUCCESS;
	case 'q':
		arguments->quiet = true;
		return VERB_SUCCESS;
	default:
		arguments->mount.flags |= mount_flag(id);
		return mount_flag(id) ? VERB_SUCCESS : remote_options_take(&arguments->remote, id);
	}
}

static int parse(int argc, char **argv, Arguments *arguments)
{
	for (int id; (id = verb_getopt(argc, argv, cmd_mount_options)) != -1;) {
		int status = parse_option(id, arguments);
		if (status != VERB_SUCCESS)
			return status;
	}
	if (argc - optind != 2)
		return verb_usage_error(VERB, "give a reference and a directory");
	arguments->reference = argv[optind];
	arguments->mount.directory = argv[optind + 1];
	arguments->mount.deadline = (int64_t)(arguments->deadline ?: DEFAULT_DEADLINE) * 1000;
	arguments->mount.read_ahead_kb = (unsigned)arguments->read_ahead;
	int status = remote_options_check(&arguments->remote, VERB);
	return status == VERB_SUCCESS
		       ? remote_options_check_reference(VERB, arguments->reference, arguments->store != NULL)
		       : status;
}

static void print_lines(const char *reference, const char *manifest, const char *image, const char *directory)
{
	printf("mounted  %s\nmanifest %s\nimage    %s\non       %s\n", reference, manifest, image, directory);
	(void)fflush(stdout);
}

static void print_mounted(void *arg)
{
	const Mounted *mounted = arg;
	char manifest[DIGEST_TEXT_SIZE], config[DIGEST_TEXT_SIZE];
	print_lines(mounted->reference, digest_text(&mounted->image->manifest, manifest),
		    digest_text(&mounted->image->config, config), mounted->directory);
}

static void warn_stale(const Arguments *arguments)
{
	fprintf(stderr,
		"imgfs mount: warning: the registry could not be asked what %s is now; mounting what it was when last "
		"seen\n",
		arguments->reference);
}

static int mount_found(const Arguments *arguments, CacheStore *cache, Reference *reference, const FetchImage *image,
		       Error *error)
{
	if (image->stale)
		warn_stale(arguments);
	/* What a server has sealed gets the seal of the image now, by which it is kept. */
	if (image->sealed)
		(void)fetch_seal_check(cache, &image->manifest, arguments->reference);
	reference->has_digest = true;
	reference->digest = image->manifest;
	_cleanup_free_ char *text = reference_text(reference);
	_cleanup_free_ char *source = NULL;
	if (!text || asprintf(&source, "imgfs:%s", text) < 0)
		return error_set(error, -ENOMEM, "out of memory");
	Mounted mounted = {
		.reference = arguments->reference,
		.directory = arguments->mount.directory,
		.image = image,
	};
	MountOptions options = arguments->mount;
	options.source = source;
	options.cache = cache;
	options.mounted = arguments->quiet ? NULL : print_mounted;
	options.mounted_arg = &mounted;
	return mount_image(image, &options, error);
}

static int run(const Arguments *arguments, Error *error)
{
	_cleanup_(cache_store_free_p) CacheStore *cache = NULL;
	int r = remote_options_cache(&arguments->remote, true, &cache, error);
	if (r < 0)
		return r;
	Reference reference;
	FetchImage image = { 0 };
	r = arguments->store
		    ? local_image_open(arguments->store, arguments->reference, cache, &reference, &image, error)
		    : remote_options_fetch(&arguments->remote, arguments->reference, arguments->mount.deadline, cache,
					   &reference, &image, error);
	if (r < 0)
		return r;
	r = mount_found(arguments, cache, &reference, &image, error);
	fetch_image_done(&image);
	return r;
}

/* Why a mount of its own, where imgfsd runs; NULL: it is to do it. */
static const char *why_alone(const Arguments *arguments, const char *daemon_cache)
{
	_cleanup_free_ char *cache = arguments->remote.cache ? realpath(arguments->remote.cache, NULL) : NULL;
	if (arguments->alone)
		return arguments->alone;
	return arguments->remote.cache && (!cache || !daemon_cache || strcmp(cache, daemon_cache) != 0) ? "cache"
													: NULL;
}

/* Returns 1 when imgfsd has done it, 0 when there is none for it. */
static int mount_by_daemon(const Arguments *arguments, Error *error)
{
	_cleanup_(control_client_free_p) ControlClient *client = NULL;
	_cleanup_free_ char *cache = NULL;
	if (arguments->alone && strcmp(arguments->alone, "private") == 0)
		return 0;
	int r = daemon_client_try(arguments->socket, &client, &cache, error);
	if (r <= 0)
		return r;
	char directory[PATH_MAX];
	if (mount_table_path(arguments->mount.directory, directory) == 0 && !daemon_client_takes(directory)) {
		fprintf(stderr, "imgfs mount: a directory whose name has control characters or is not UTF-8 gets a "
				"mount of its "
				"own, not one of imgfsd\n");
		return 0;
	}
	const char *alone = why_alone(arguments, cache);
	if (alone) {
		fprintf(stderr, "imgfs mount: --%s makes it a mount of its own, not one of imgfsd\n", alone);
		return 0;
	}
	if (arguments->quota_said)
		return error_set(error, -EBUSY,
				 "imgfsd keeps its cache to one quota for all images, so --quota cannot be said of one "
				 "of them: leave it "
				 "out, and put quota into section [cache] of imgfs.conf; or give this mount a --cache "
				 "of its own");
	MountRequest request = {
		.reference = arguments->reference,
		.directory = arguments->mount.directory,
		.store = arguments->store,
		.deadline = (int64_t)arguments->deadline * 1000,
		.noexec = arguments->mount.flags & FUSE_MOUNT_NOEXEC,
		.no_fill = arguments->mount.no_fill,
		.decoded = arguments->remote.decoded,
		.fill_rate = arguments->mount.fill_rate,
		.remote = &arguments->remote,
	};
	json_t *answer = NULL;
	r = daemon_client_mount(client, &request, &answer, error);
	if (r < 0)
		return r;
	if (json_is_true(json_object_get(answer, "stale")))
		warn_stale(arguments);
	if (!arguments->quiet)
		print_lines(arguments->reference, json_string_value(json_object_get(answer, "manifest")),
			    json_string_value(json_object_get(answer, "image")), arguments->mount.directory);
	json_decref(answer);
	return 1;
}

int cmd_mount(int argc, char **argv)
{
	Error error = { 0 };
	Arguments arguments = { 0 };
	int status = parse(argc, argv, &arguments);
	if (status != VERB_SUCCESS) {
		remote_options_done(&arguments.remote);
		return status;
	}
	remote_options_raise_file_limit();
	int r = mount_clear_dead(arguments.mount.directory, &error);
	if (r > 0)
		fprintf(stderr, "imgfs mount: detached a dead mount from %s: its keeper had ended\n",
			arguments.mount.directory);
	if (r >= 0)
		r = mount_check(&arguments.mount, &error);
	if (r == 0)
		r = mount_by_daemon(&arguments, &error);
	if (r == 0)
		r = run(&arguments, &error);
	remote_options_done(&arguments.remote);
	return r < 0 ? verb_fail(VERB, r, &error) : VERB_SUCCESS;
}
