#include "tools/cmd/remote-options.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "fs/fetch/fetch-config.h"
#include "tools/cmd/mount-login.h"
#include "tools/cmd/verb-conf.h"

void remote_options_done(RemoteOptions *options)
{
	mount_login_free(options->user);
	*options = (RemoteOptions){ 0 };
}

int remote_options_take(RemoteOptions *options, int id)
{
	switch (id) {
	case REMOTE_OPTION_CACHE:
		options->cache = optarg;
		return VERB_SUCCESS;
	case REMOTE_OPTION_PLAIN_HTTP:
		options->plain_http = true;
		return VERB_SUCCESS;
	case REMOTE_OPTION_CERTS:
		options->access.certs = optarg;
		return VERB_SUCCESS;
	case REMOTE_OPTION_CA:
		options->access.ca = optarg;
		return VERB_SUCCESS;
	case REMOTE_OPTION_CERT:
		options->access.certificate = optarg;
		return VERB_SUCCESS;
	case REMOTE_OPTION_KEY:
		options->access.key = optarg;
		return VERB_SUCCESS;
	case REMOTE_OPTION_LOGIN:
		options->access.login = optarg;
		return VERB_SUCCESS;
	case REMOTE_OPTION_USER:
		mount_login_free(options->user);
		options->user = mount_login_take(optarg);
		return options->user ? VERB_SUCCESS : VERB_FAILURE;
	case REMOTE_OPTION_PASSWORD_FILE:
		options->password_file = optarg;
		return VERB_SUCCESS;
	default:
		return VERB_USAGE;
	}
}

int remote_options_check(const RemoteOptions *options, const char *verb)
{
	if (options->password_file && !options->user)
		return verb_usage_error(verb, "--password-file is for the user that --user names");
	if (!options->access.certificate != !options->access.key)
		return verb_usage_error(verb, "--cert and --key go together");
	return VERB_SUCCESS;
}

int remote_options_check_reference(const char *verb, const char *text, bool local)
{
	Error error = { 0 };
	Reference reference;
	int r = local ? reference_parse_local(text, &reference, &error)
		      : reference_parse_remote(text, &reference, &error);
	return r < 0 ? verb_usage_error(verb, "%s", error_text(&error, r)) : VERB_SUCCESS;
}

bool remote_options_is_host(const char *host)
{
	Reference reference;
	_cleanup_free_ char *text = NULL;
	return !strchr(host, '/') && asprintf(&text, "%s/image", host) >= 0 &&
	       reference_parse_remote(text, &reference, NULL) == 0;
}

const char *remote_options_special(const RemoteOptions *options)
{
	const NetAccessOptions *access = &options->access;
	return options->plain_http   ? "--plain-http"
	       : options->user       ? "--user"
	       : access->login       ? "--login"
	       : access->certs       ? "--certs-dir"
	       : access->ca          ? "--ca"
	       : access->certificate ? "--cert"
				     : NULL;
}

/* Where a cache is kept that nobody named; malloc'ed. NULL: a user without a home, or out of memory. */
static char *default_cache(void)
{
	char *path = NULL;
	const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
	if (geteuid() == 0)
		return strdup(REMOTE_CACHE);
	/* XDG Base Directory Specification: a path that is not absolute is to be ignored. */
	if (cache && cache[0] == '/')
		return asprintf(&path, "%s/imgfs", cache) < 0 ? NULL : path;
	return !home || home[0] != '/' || asprintf(&path, "%s/.cache/imgfs", home) < 0 ? NULL : path;
}

int remote_options_cache(const RemoteOptions *options, bool create, CacheStore **ret_cache, Error *error)
{
	_cleanup_free_ char *usual = options->cache ? NULL : default_cache();
	if (!options->cache && !usual)
		return error_set(error, -ENOENT, "neither XDG_CACHE_HOME nor HOME is set; say where with --cache");
	return cache_store_open(options->cache ?: usual, create, ret_cache, error);
}

int remote_options_fetch(const RemoteOptions *options, const char *text, int64_t timeout, CacheStore *cache,
			 Reference *ret_reference, FetchImage *ret_image, Error *error)
{
	char *login = NULL;
	int r = reference_parse_remote(text, ret_reference, error);
	if (r == 0 && options->user)
		r = mount_login_read(options->user, options->password_file, &login, error);
	if (r < 0)
		return r;
	FetchRemote remote = {
		.reference = ret_reference,
		.plain_http = options->plain_http,
		.timeout = timeout,
		.cache = cache,
		.access = options->access,
		.hosts = verb_conf_hosts(),
		.decoded = options->decoded,
	};
	remote.access.user = login;
	r = fetch_image_remote(&remote, ret_image, error);
	mount_login_free(login);
	return r;
}

int remote_options_config(const RemoteOptions *options, const Reference *reference, int64_t timeout,
			  const Digest *config, uint8_t **ret_config, size_t *ret_size, Error *error)
{
	char *login = NULL;
	int r = options->user ? mount_login_read(options->user, options->password_file, &login, error) : 0;
	if (r < 0)
		return r;
	FetchRemote remote = {
		.reference = reference,
		.plain_http = options->plain_http,
		.timeout = timeout,
		.access = options->access,
		.hosts = verb_conf_hosts(),
	};
	remote.access.user = login;
	r = fetch_config(&remote, config, ret_config, ret_size, error);
	mount_login_free(login);
	return r;
}

void remote_options_raise_file_limit(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &limit);
	}
}
