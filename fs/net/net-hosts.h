/*
 * What a configuration says of hosts: "[host NAME:PORT]" sections, and "[source NAME]" entries.
 *
 *   [host build:8500]
 *   mirrors = node1:8500 node2:8500     asked first, the fastest first; they have the same blobs by digest, and sections of their own
 *   plain-http = yes
 *   ca, cert, key = FILE                instead of those in certs.d
 *   user = NAME[:PASSWORD]              sent to this host alone
 *   password-file = FILE                its first line
 *   login = FILE                        like docker's config.json
 *
 *   [source backup]
 *   url = https://backup:8500           gives URL/imgfs/blobs/DIGEST, for who knows of a blob but its digest, and where all others fail
 */
#pragma once

#include "fs/base/conf.h"
#include "fs/net/net-access.h"

typedef struct NetHost {
	char *name;
	char *mirrors[NET_MIRRORS_MAX];
	size_t mirror_count;
	bool plain_http;
	char *ca, *certificate, *key, *user, *password_file, *login; /* NULL: not said */
} NetHost;

typedef struct NetSource {
	char *name;
	char *url;
} NetSource;

typedef struct NetHosts {
	NetHost *hosts;
	size_t host_count;
	NetSource *sources; /* in the order of the file */
	size_t source_count;
} NetHosts;

/* Does a section belong here? */
bool net_hosts_has_section(const char *section);

/* Reads these sections and passes over all others. Errors: -EINVAL with "PATH:LINE: ...", -ENOMEM. */
int net_hosts_parse(const Conf *conf, NetHosts *ret_hosts, Error *error) _must_check_;

/* A copy that shares nothing with it; NULL is one that says nothing. Errors: -ENOMEM. */
int net_hosts_copy(const NetHosts *hosts, NetHosts *ret_hosts) _must_check_;
void net_hosts_done(NetHosts *hosts); /* wipes and frees; safe on a zeroed one */

/* What is said of a host, or NULL; `hosts` may be NULL. */
const NetHost *net_hosts_find(const NetHosts *hosts, const char *name);

/*
 * net_access_load() with what is said of the host where `options` say nothing; with its mirrors, each by its own section and `options->certs` alone,
 * and with the sources, likewise, as far as there is room for them and what is said of them can be read.
 * `plain_http`: whatever the section says. `ret_base` is malloc'ed, as net_access_base() gives it. Errors: as of net_access_load(), and of
 * reading the password file.
 */
int net_hosts_load(const NetHosts *hosts, const NetAccessOptions *options, const char *host, bool plain_http,
		   NetAccess *ret_access, char **ret_base, Error *error) _must_check_;
