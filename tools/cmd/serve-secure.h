/* TLS and users of `imgfs serve`: from its options to what the server takes, renewed and read again while it runs. */
#pragma once

#include <stdbool.h>

#include "fs/base/digest.h"
#include "tools/serve/serve-auth.h"
#include "tools/serve/serve-listen.h"
#include "tools/serve/serve-tls.h"

#define SERVE_TLS_NAMES_MAX 64u

typedef struct ServeSecureOptions {
	const char *certificate, *key, *client_ca, *htpasswd; /* files, or NULL */
	bool automatic;
	const char *directory; /* of the automatic authority; NULL: tls in the store */
	const char *names[SERVE_TLS_NAMES_MAX];
	size_t name_count;
} ServeSecureOptions;

typedef struct ServeSecure {
	const ServeSecureOptions *options;
	ServeAddress address;
	char *directory;
	Digest fingerprint; /* of the automatic authority */
	ServeTls *tls;      /* NULL: plain HTTP */
	ServeAuth *auth;    /* NULL: anyone */
} ServeSecure;

/* `options` must outlive it. Errors: as those of tools/serve, with a sentence. */
int serve_secure_open(const ServeSecureOptions *options, const char *store_path, const ServeAddress *address,
		      ServeSecure *ret_secure, Error *error) _must_check_;
void serve_secure_close(ServeSecure *secure); /* safe on a zeroed one */

/* Reads files again; logs what went wrong and goes on with what there was. */
void serve_secure_reload(ServeSecure *secure);

/* Renews the automatic certificate if it is due. To be called now and then; logs. */
void serve_secure_renew(ServeSecure *secure);
