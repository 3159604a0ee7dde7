/* imgfs profile: what a start reads first, from a mount into a file, into the store, and to the server that nodes mount from. */
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "fs/base/fd.h"
#include "fs/mount/mount-observe.h"
#include "fs/net/net-http.h"
#include "fs/net/net-registry.h"
#include "tools/cmd/cmd-store.h"
#include "tools/cmd/mount-login.h"
#include "tools/cmd/profile-show.h"
#include "tools/cmd/remote-options.h"
#include "tools/export/profile-carry.h"
#include "tools/export/store-image.h"

#define VERB "profile"

#define TIMEOUT   30000 /* milliseconds */
#define FILE_MODE 0644

enum { OPTION_JSON = VERB_OPTION_LONG };

const VerbOption cmd_profile_options[] = {
	CMD_STORE_OPTION,
	{ "json", OPTION_JSON, NULL, "show: print JSON" },
	REMOTE_OPTIONS,
	{ 0 },
};

typedef struct Arguments {
	const char *store;
	bool json;
	RemoteOptions remote;
	int count;
	char **operands; /* behind the action */
} Arguments;

static int read_file(const char *path, Profile *ret_profile, Error *error)
{
	_cleanup_free_ char *data = NULL;
	size_t size;
	int r = fd_read_file(AT_FDCWD, path, PROFILE_SIZE_MAX, &data, &size);
	if (r < 0)
		return error_set(error, r, "%s cannot be read: %s", path, error_text(NULL, r));
	r = profile_decode(data, size, ret_profile, error);
	return r < 0 ? error_prefix(error, r, "%s", path) : 0;
}

/* The profile that the reads of a mount make, as far as it has come. */
static int profile_of(const MountObserved *mount, Profile *ret_profile, Error *error)
{
	Digest manifest;
	_cleanup_(mount_files_free_p) MountFiles *files = NULL;
	if (!mount->record || !mount->plan.manifest || digest_from_text(mount->plan.manifest, &manifest) < 0)
		return error_set(error, -ENODATA,
				 "%s has no record of its reads: its keeper is of another version; mount it again",
				 mount->directory);
	int r = mount_files_open(mount, &files, error);
	if (r == 0)
		r = start_record_profile(mount->record, &manifest, mount_files_chunk_size, files, ret_profile);
	if (r == -ENODATA)
		return error_set(error, r, "nothing of %s was read yet", mount->directory);
	return r;
}

/* Of the mount at a directory, which `ret_mount` gets (it may be NULL); what is observed besides is the caller's. */
static int observe(const char *directory, MountsObserved *observed, Profile *ret_profile,
		   const MountObserved **ret_mount, Error *error)
{
	int r = mounts_observe(false, observed);
	if (r < 0)
		return error_set(error, r, "the mounts of this machine cannot be looked at: %s", error_text(NULL, r));
	const MountObserved *mount = mounts_observed_at(observed, directory);
	if (!mount)
		return error_set(error, -ENOENT, "no image of imgfs is mounted on %s%s", directory,
				 observed->hidden ? ", unless another user has done so: root may look at it" : "");
	if (ret_mount)
		*ret_mount = mount;
	return profile_of(mount, ret_profile, error);
}

static int run_record(const Arguments *arguments, Error *error)
{
	MountsObserved observed = { 0 };
	_cleanup_(profile_done) Profile profile = { 0 };
	_cleanup_free_ uint8_t *data = NULL;
	size_t size;
	const char *path = arguments->operands[1];
	int r = observe(arguments->operands[0], &observed, &profile, NULL, error);
	mounts_observed_done(&observed);
	if (r == 0)
		r = profile_encode(&profile, &data, &size);
	if (r < 0)
		return r;
	r = fd_replace_file(AT_FDCWD, path, data, size, FILE_MODE);
	return r < 0 ? error_set(error, r, "%s cannot be written: %s", path, error_text(NULL, r)) : 0;
}

static int read_stored(Store *store, const char *name, Profile *ret_profile, Error *error)
{
	StoreImage image = { 0 };
	_cleanup_free_ uint8_t *data = NULL;
	size_t size;
	int r = store_image_open(store, name, &image, error);
	if (r < 0)
		return r;
	r = store_profile_get(store, &image.digest, &data, &size);
	store_image_done(&image);
	if (r == -ENOENT)
		return error_set(error, r,
				 "store %s has no start-up profile of %s; `imgfs profile import` gives it one",
				 store_path(store), name);
	return r < 0 ? error_set(error, r, "store %s: %s", store_path(store), error_text(NULL, r))
		     : profile_decode(data, size, ret_profile, error);
}

static int run_show(const Arguments *arguments, Error *error)
{
	const char *what = arguments->operands[0];
	_cleanup_(store_free_p) Store *store = NULL;
	_cleanup_(profile_done) Profile profile = { 0 };
	bool is_file = faccessat(AT_FDCWD, what, F_OK, 0) == 0;
	Error no_store = { 0 };
	Reference reference;
	if (!is_file && store_image_parse(what, &reference, NULL) < 0)
		return error_set(error, -ENOENT,
				 "%s is neither a file here nor a name that an image of the store can have", what);
	int r = cmd_store_open(arguments->store, false, &store, is_file ? &no_store : error);
	if (r < 0 && !is_file)
		return r;
	r = is_file ? read_file(what, &profile, error) : read_stored(store, what, &profile, error);
	return r < 0 ? r : profile_show(&profile, store, arguments->json, error);
}

static int run_import(const Arguments *arguments, Error *error)
{
	_cleanup_(store_free_p) Store *store = NULL;
	_cleanup_(profile_done) Profile profile = { 0 };
	StoreImage image = { 0 };
	int r = cmd_store_open(arguments->store, false, &store, error);
	if (r == 0)
		r = read_file(arguments->operands[1], &profile, error);
	if (r == 0)
		r = store_image_open(store, arguments->operands[0], &image, error);
	if (r < 0)
		return r;
	if (!digest_equal(&profile.manifest, &image.digest)) {
		/* Of another version: what is the same in both goes over, if that version is here. */
		Profile carried = { 0 };
		r = profile_carry(store, &profile, &image.digest, &carried, error);
		profile_done(&profile);
		profile = carried;
	}
	store_image_done(&image);
	return r < 0 ? r : store_profile_put(store, &profile, true, error);
}

static int put(const Arguments *arguments, const char *host, const Profile *profile, Error *error)
{
	_cleanup_(net_access_done) NetAccess access = { 0 };
	_cleanup_(net_http_free_p) NetHttp *http = NULL;
	_cleanup_free_ uint8_t *data = NULL;
	_cleanup_free_ char *base = NULL, *url = NULL;
	char text[DIGEST_TEXT_SIZE], *login = NULL;
	size_t size;
	NetAccessOptions options = arguments->remote.access;
	int r = arguments->remote.user
			? mount_login_read(arguments->remote.user, arguments->remote.password_file, &login, error)
			: 0;
	options.user = login;
	if (r == 0)
		r = net_access_load(&options, host, &access, error);
	mount_login_free(login);
	if (r == 0)
		r = profile_encode(profile, &data, &size);
	if (r < 0)
		return r;
	base = net_access_base(&access, host, arguments->remote.plain_http);
	if (!base || asprintf(&url, "%s/imgfs/profiles/%s", base, digest_text(&profile->manifest, text)) < 0 ||
	    net_http_new(TIMEOUT, &http) < 0)
		return error_set(error, -ENOMEM, "out of memory");
	net_http_set_access(http, &access);
	NetRequest request = { .url = url, .put = data, .put_size = size, .size = PROFILE_SIZE_MAX };
	NetResponse response = { 0 };
	r = net_http_perform(http, &request, 1, &response, error);
	net_response_done(&response);
	if (r == -EEXIST)
		return error_prefix(error, r, "`imgfs profile import` on the build host replaces the one there");
	return r == -EPROTO ? error_prefix(error, r, "`imgfs serve --accept-profiles` takes profiles") : r;
}

/* The host of a reference, without what is behind its first slash. */
static char *host_of(const char *reference)
{
	const char *slash = strchr(reference, '/');
	Reference parsed;
	return slash && reference_parse_remote(reference, &parsed, NULL) == 0 ? strdup(parsed.host) : NULL;
}

static int run_push(const Arguments *arguments, Error *error)
{
	const char *what = arguments->operands[0];
	MountsObserved observed = { 0 };
	const MountObserved *mount = NULL;
	_cleanup_(profile_done) Profile profile = { 0 };
	_cleanup_free_ char *host = arguments->count > 1 ? strdup(arguments->operands[1]) : NULL;
	DIR *directory = opendir(what);
	bool is_mount = directory != NULL;
	if (directory)
		(void)closedir(directory);
	int r = is_mount ? observe(what, &observed, &profile, &mount, error) : read_file(what, &profile, error);
	if (r == 0 && !host && is_mount)
		host = host_of(mount->reference);
	mounts_observed_done(&observed);
	if (r < 0)
		return r;
	if (!host)
		return error_set(error, -EINVAL, "say which server to hand it to: imgfs profile push %s HOST:PORT",
				 what);
	return put(arguments, host, &profile, error);
}

static const struct {
	const char *name;
	int least, most; /* operands */
	int (*run)(const Arguments *arguments, Error *error);
	const char *usage;
} ACTIONS[] = {
	{ "record", 2, 2, run_record, "record wants the directory of a mount and a file to write" },
	{ "show", 1, 1, run_show, "show wants a file, or an image of the store" },
	{ "import", 2, 2, run_import, "import wants an image of the store and a file" },
	{ "push", 1, 2, run_push, "push wants the directory of a mount or a file, and may name a server" },
};

static int parse(int argc, char **argv, Arguments *arguments)
{
	for (int id; (id = verb_getopt(argc, argv, cmd_profile_options)) != -1;) {
		int status = VERB_SUCCESS;
		if (id == 's')
			arguments->store = optarg;
		else if (id == OPTION_JSON)
			arguments->json = true;
		else
			status = remote_options_take(&arguments->remote, id);
		if (status != VERB_SUCCESS)
			return status;
	}
	if (optind == argc)
		return verb_usage_error(VERB, "give one of record, show, import, push");
	arguments->operands = argv + optind + 1;
	arguments->count = argc - optind - 1;
	return remote_options_check(&arguments->remote, VERB);
}

static int run(const char *action, const Arguments *arguments)
{
	Error error = { 0 };
	for (size_t i = 0; i < ELEMENTS(ACTIONS); i++) {
		if (strcmp(ACTIONS[i].name, action) != 0)
			continue;
		if (arguments->count < ACTIONS[i].least || arguments->count > ACTIONS[i].most)
			return verb_usage_error(VERB, "%s", ACTIONS[i].usage);
		int r = ACTIONS[i].run(arguments, &error);
		return r < 0 ? verb_fail(VERB, r, &error) : VERB_SUCCESS;
	}
	return verb_usage_error(VERB, "\"%s\" is none of record, show, import, push", action);
}

int cmd_profile(int argc, char **argv)
{
	Arguments arguments = { 0 };
	int status = parse(argc, argv, &arguments);
	if (status == VERB_SUCCESS)
		status = run(argv[optind], &arguments);
	remote_options_done(&arguments.remote);
	return status;
}
