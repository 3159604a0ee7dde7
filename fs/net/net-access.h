/*
 * How a host is to be spoken to: whom to trust beside the system's authorities, and as whom to appear. What is trusted for a host stands in
 * CERTS/HOST:PORT/: ca.crt, and client.cert with client.key if the host wants a certificate; `imgfs trust` puts ca.crt there.
 * User and password come
 * from docker's config.json and credential helpers. Or they are given by hand.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "fs/base/error.h"

#define NET_CERTS_DIRECTORY "/etc/imgfs/certs.d"
#define NET_MIRRORS_MAX     8u /* of a host, sources among them */

typedef struct NetMirror NetMirror;

typedef struct NetAccess {
	char *ca;          /* PEM; NULL: the system's authorities alone */
	char *certificate; /* PEM, with its key, or both NULL */
	char *key;
	char *user;      /* "user:password", or NULL; sent by TLS, or to a loopback host, alone; as are the next two */
	char *identity;  /* what tokens are asked for with, instead of a user (docker's "identitytoken"), or NULL */
	char *bearer;    /* a token to use as it is (docker's "registrytoken"), or NULL */
	bool unverified; /* any certificate will do: for what is checked by other means, and never sent `user` */
	size_t mirror_count;
	NetMirror *mirrors; /* hosts with the same blobs (net-hosts.h), sources last; owned */
} NetAccess;

/* It has no mirrors of its own. */
struct NetMirror {
	char *base; /* "https://HOST" */
	bool is_source; /* an `imgfs serve` that gives blobs by digest alone and is asked only if the host itself and its mirrors fail */
	NetAccess *access;
};

void net_access_done(NetAccess *access); /* wipes and frees; safe on a zeroed one */

/* Where to look; NULL where it is usual. */
typedef struct NetAccessOptions {
	const char *certs; /* directory; NET_CERTS_DIRECTORY */
	const char *
		login; /* a file like docker's config.json; the usual one ($DOCKER_CONFIG or ~/.docker) need not exist */
	const char *user; /* "user:password", instead of what `login` has */
	const char *ca;   /* files, instead of what `certs` has */
	const char *certificate;
	const char *key;
} NetAccessOptions;

/*
 * What this machine has for `host`. Blocks while a credential helper runs. Errors: -EINVAL (the host cannot be a directory's name; not PEM,
 * a key is missing or encrypted, no JSON, no user), -ENOENT (a file that was named is not there), net_login_load()'s and what else reading gives, with a sentence.
 */
int net_access_load(const NetAccessOptions *options, const char *host, NetAccess *ret_access, Error *error)
	_must_check_;

/*
 * As whom to appear from now on: takes user, identity and bearer over from `newer`, and those of mirrors of the same base; the rest stays as it is. Says whether `newer`
 * has any login at all, without which nothing is taken.
 */
bool net_access_renew(NetAccess *access, NetAccess *newer);

/* "http://HOST" or "https://HOST"; as net_registry_base(), but with https where there is something for TLS. NULL: out of memory. */
char *net_access_base(const NetAccess *access, const char *host, bool plain_http);

/* `url`, of something of the host itself, at one of its mirrors; of a source only blobs. Malloc'ed, NULL: out of memory. */
char *net_mirror_url(const NetMirror *mirror, const char *url);

/* As one text and back, for a process that cannot read the files itself. Errors: -ENOMEM; -EBADMSG (also more than NET_MIRRORS_MAX mirrors). */
int net_access_encode(const NetAccess *access, char **ret_text) _must_check_;
int net_access_decode(const char *text, NetAccess *ret_access) _must_check_;
