/* Options of the verbs that ask a registry and keep what it gives: `imgfs mount` and `imgfs pull`. */
#pragma once

#include "fs/cache/cache-store.h"
#include "fs/fetch/fetch-image.h"
#include "fs/format/reference.h"
#include "tools/cmd/verbs.h"

#define REMOTE_CACHE "/var/cache/imgfs" /* root's, if nothing else is said */

enum {
	REMOTE_OPTION_PLAIN_HTTP = VERB_OPTION_LONG + 0x100,
	REMOTE_OPTION_CERTS,
	REMOTE_OPTION_CA,
	REMOTE_OPTION_CERT,
	REMOTE_OPTION_KEY,
	REMOTE_OPTION_LOGIN,
	REMOTE_OPTION_USER,
	REMOTE_OPTION_PASSWORD_FILE,
	REMOTE_OPTION_CACHE = VERB_OPTION_SHARED + 0x100,
};

/* Lines of a verb's list of options: the cache's, and how the registry is spoken to. */
#define REMOTE_CACHE_OPTION                                                                           \
	{                                                                                             \
		"cache", REMOTE_OPTION_CACHE, "DIR",                                                  \
			"what was fetched; default " REMOTE_CACHE ", a user's: $XDG_CACHE_HOME/imgfs" \
	}
#define REMOTE_OPTIONS                                                                                              \
	{ "plain-http", REMOTE_OPTION_PLAIN_HTTP, NULL, "speak HTTP without TLS; loopback hosts always may" },      \
		{ "certs-dir", REMOTE_OPTION_CERTS, "DIR", "whom to trust by host; default " NET_CERTS_DIRECTORY }, \
		{ "ca", REMOTE_OPTION_CA, "FILE", "trust what this PEM file has, instead of ca.crt there" },        \
		{ "cert", REMOTE_OPTION_CERT, "FILE", "client certificate (PEM), instead of client.cert there" },   \
		{ "key", REMOTE_OPTION_KEY, "FILE", "its key (PEM)" },                                              \
		{ "login", REMOTE_OPTION_LOGIN, "FILE",                                                             \
		  "user and password; default docker's config.json, with its helpers" },                            \
		{ "user", REMOTE_OPTION_USER, "NAME[:PASSWORD]",                                                    \
		  "as this user; a password that is not given is asked for" },                                      \
	{                                                                                                           \
		"password-file", REMOTE_OPTION_PASSWORD_FILE, "FILE",                                               \
			"its first line is the password of --user; -: standard input"                               \
	}

typedef struct RemoteOptions {
	const char *cache;
	NetAccessOptions access;
	char *user;
	const char *password_file;
	bool plain_http;
	bool decoded; /* as FetchRemote's; by no option of these */
} RemoteOptions;

void remote_options_done(RemoteOptions *options); /* wipes and frees; safe on a zeroed one */

/* Takes one of these options, its argument from `optarg`. VERB_USAGE: it is not one of these. */
int remote_options_take(RemoteOptions *options, int id);

/* Do they go together? Returns VERB_SUCCESS, or VERB_USAGE after a sentence. */
int remote_options_check(const RemoteOptions *options, const char *verb);

/* Is it a reference, to a registry or (`local`) of a store? Returns VERB_SUCCESS, or VERB_USAGE after a sentence. */
int remote_options_check_reference(const char *verb, const char *text, bool local);

/* Is it HOST or HOST:PORT, as a reference may have it? */
bool remote_options_is_host(const char *host);

/* The first option that says how the registry is spoken to ("--user"), or NULL. Not what an environment or configuration says of it. */
const char *remote_options_special(const RemoteOptions *options);

/* Opens the cache, as cache_store_open() does. Errors, with a sentence. */
int remote_options_cache(const RemoteOptions *options, bool create, CacheStore **ret_cache, Error *error) _must_check_;

/* Asks for the image; may ask for a password first. `timeout`: milliseconds. Errors: fetch_image_remote()'s, with a sentence. */
int remote_options_fetch(const RemoteOptions *options, const char *text, int64_t timeout, CacheStore *cache,
			 Reference *ret_reference, FetchImage *ret_image, Error *error) _must_check_;

/* The config of an image that remote_options_fetch() has got. Errors: fetch_config()'s, with a sentence. */
int remote_options_config(const RemoteOptions *options, const Reference *reference, int64_t timeout,
			  const Digest *config, uint8_t **ret_config, size_t *ret_size, Error *error) _must_check_;

/* Each layer has several open files. */
void remote_options_raise_file_limit(void);
