/* imgfs mount: makes an image usable at a directory, bytes being fetched when they are first read. */
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "fs/fetch/fetch-seal.h"
#include "fs/mount/fuse-mount.h"
#include "fs/mount/mount.h"
#include "fs/net/net-access.h"
#include "tools/cmd/cmd-store.h"
#include "tools/cmd/remote-options.h"
#include "tools/export/store-image.h"

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
	OPTION_FILL_RATE,
};

const VerbOption cmd_mount_options[] = {
	{ "store", 's', "DIR", "mount NAME[:TAG] from this store; no network is used" },
	{ "deadline", OPTION_DEADLINE, "SECONDS", "a read fails that got no bytes for so long; default 30" },
	REMOTE_OPTIONS,
	{ "read-ahead", OPTION_READ_AHEAD, "KB", "how far the kernel reads ahead; default 512" },
	{ "no-fill", OPTION_NO_FILL, NULL,
	  "fetch nothing but what is read; otherwise the rest follows in the background" },
	{ "fill-rate", OPTION_FILL_RATE, "BYTES", "a second, of that; default what readers leave" },
	{ "foreground", OPTION_FOREGROUND, NULL, "stay until the image is unmounted; a signal unmounts it" },
	{ "log", OPTION_LOG, "FILE", "append the log of the mount to FILE; default none, in the foreground stderr" },
	{ "allow-other", OPTION_ALLOW_OTHER, NULL,
	  "a user's mount: for all users, if /etc/fuse.conf has user_allow_other" },
	{ "noexec", OPTION_NOEXEC, NULL, "no program can be run from the mount" },
	{ "suid", OPTION_SUID, NULL, "set-uid files and file capabilities count in the mount itself" },
	{ "dev", OPTION_DEV, NULL, "device files can be opened in the mount itself" },
	{ "quiet", 'q', NULL, "print nothing when it is mounted" },
	{ 0 },
};

typedef struct Arguments {
	const char *store;
	const char *reference;
	RemoteOptions remote;
	unsigned long deadline;
	unsigned long read_ahead;
	unsigned long fill_rate;
	bool quiet;
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

static int parse_option(int id, Arguments *arguments)
{
	switch (id) {
	case 's':
		arguments->store = optarg;
		return VERB_SUCCESS;
	case OPTION_DEADLINE:
		if (verb_number(optarg, 1, DEADLINE_MAX, &arguments->deadline) < 0)
			return verb_usage_error(VERB, "--deadline %s: give seconds, 1 to %d", optarg, DEADLINE_MAX);
		return VERB_SUCCESS;
	case OPTION_READ_AHEAD:
		if (verb_number(optarg, 4, READ_AHEAD_MAX, &arguments->read_ahead) < 0)
			return verb_usage_error(VERB, "--read-ahead %s: give KiB, 4 to %d", optarg, READ_AHEAD_MAX);
		return VERB_SUCCESS;
	case OPTION_NO_FILL:
		arguments->mount.no_fill = true;
		return VERB_SUCCESS;
	case OPTION_FILL_RATE:
		if (verb_number(optarg, FILL_RATE_MIN, LONG_MAX, &arguments->fill_rate) < 0)
			return verb_usage_error(VERB, "--fill-rate %s: give bytes a second, %d or more", optarg,
						FILL_RATE_MIN);
		return VERB_SUCCESS;
	case OPTION_FOREGROUND:
		arguments->mount.foreground = true;
		return VERB_SUCCESS;
	case OPTION_LOG:
		arguments->mount.log_path = optarg;
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
	arguments->mount.deadline = (int64_t)arguments->deadline * 1000;
	arguments->mount.fill_rate = arguments->fill_rate;
	arguments->mount.read_ahead_kb = (unsigned)arguments->read_ahead;
	return remote_options_check(&arguments->remote, VERB);
}

static int open_store_blob(void *arg, const Digest *blob)
{
	int fd;
	uint64_t size;
	int r = store_blob_open(arg, blob, &fd, &size);
	return r < 0 ? r : fd;
}

static int read_manifest(Store *store, const Reference *reference, char **ret_json, size_t *ret_size)
{
	if (reference->has_digest)
		return store_blob_read(store, &reference->digest, MANIFEST_SIZE_MAX, ret_json, ret_size);
	return store_tag_get(store, reference->name, reference->tag, ret_json, ret_size);
}

static int find_local(const Arguments *arguments, CacheStore *cache, Reference *ret_reference, FetchImage *ret_image,
		      Error *error)
{
	_cleanup_(store_free_p) Store *store = NULL;
	int r = reference_parse_local(arguments->reference, ret_reference, error);
	if (r == 0)
		r = cmd_store_open(arguments->store, false, &store, error);
	if (r < 0)
		return r;
	_cleanup_free_ char *json = NULL;
	size_t size;
	r = read_manifest(store, ret_reference, &json, &size);
	if (r == -ENOENT)
		return error_set(error, r, "store %s does not hold %s; `imgfs ls` lists what it holds",
				 store_path(store), arguments->reference);
	if (r < 0)
		return error_set(error, r, "store %s: the manifest of %s cannot be read: %s", store_path(store),
				 arguments->reference, error_text(NULL, r));
	return fetch_image_local(json, size, open_store_blob, store, cache, ret_image, error);
}

static void print_mounted(void *arg)
{
	const Mounted *mounted = arg;
	char manifest[DIGEST_TEXT_SIZE], config[DIGEST_TEXT_SIZE];
	printf("mounted  %s\nmanifest %s\nimage    %s\non       %s\n", mounted->reference,
	       digest_text(&mounted->image->manifest, manifest), digest_text(&mounted->image->config, config),
	       mounted->directory);
	(void)fflush(stdout);
}

static int mount_found(const Arguments *arguments, CacheStore *cache, Reference *reference, const FetchImage *image,
		       Error *error)
{
	if (image->stale)
		fprintf(stderr,
			"imgfs mount: warning: the registry could not be asked what %s is now; mounting what it was "
			"when last seen\n",
			arguments->reference);
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
	options.mounted = arguments->quiet ? NULL : print_mounted;
	options.mounted_arg = &mounted;
	return mount_image(image, &options, error);
}

static int run(const Arguments *arguments, Error *error)
{
	_cleanup_(cache_store_free_p) CacheStore *cache = NULL;
	int r = remote_options_cache(&arguments->remote, &cache, error);
	if (r < 0)
		return r;
	Reference reference;
	FetchImage image = { 0 };
	r = arguments->store ? find_local(arguments, cache, &reference, &image, error)
			     : remote_options_fetch(&arguments->remote, arguments->reference, arguments->mount.deadline,
						    cache, &reference, &image, error);
	if (r < 0)
		return r;
	r = mount_found(arguments, cache, &reference, &image, error);
	fetch_image_done(&image);
	return r;
}

int cmd_mount(int argc, char **argv)
{
	Error error = { 0 };
	Arguments arguments = { .deadline = DEFAULT_DEADLINE };
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
		r = run(&arguments, &error);
	remote_options_done(&arguments.remote);
	return r < 0 ? verb_fail(VERB, r, &error) : VERB_SUCCESS;
}
