/*
 * What the listener shows and asks for in TLS: certificate and key, and the authorities of clients. A reload replaces them for later
 * connections; those that stand keep what they began with. Any thread.
 */
#pragma once

#include <gnutls/gnutls.h>
#include <stdbool.h>
#include <stdint.h>

#include "fs/base/error.h"

#define SERVE_TLS_PRIORITIES "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"

/* Paths of PEM files; copied. */
typedef struct ServeTlsFiles {
	const char *certificate; /* the server's, first, and those of authorities between it and a trusted one */
	const char *key;
	const char *client_ca; /* clients must have a certificate of one of these; NULL: they need none */
	const char *ca;        /* for /imgfs/ca.pem; NULL: there is none to give */
} ServeTlsFiles;

typedef struct ServeTls ServeTls;
typedef struct ServeTlsKeys ServeTlsKeys; /* of one generation, counted */

/* Errors: -EBADMSG (not PEM, key and certificate do not belong together), and what reading gives, with a sentence. */
int serve_tls_new(const ServeTlsFiles *files, ServeTls **ret_tls, Error *error) _must_check_;
ServeTls *serve_tls_free(ServeTls *tls); /* connections keep their keys */
DEFINE_CLEANUP(ServeTls, serve_tls_free);

/* Reads the files again. Errors: as above; what was loaded stays in use then. */
int serve_tls_reload(ServeTls *tls, Error *error) _must_check_;

/* Makes a session that has not begun use the keys of now. The reference is to be given back after the session's end. */
ServeTlsKeys *serve_tls_attach(ServeTls *tls, gnutls_session_t session);
ServeTlsKeys *serve_tls_keys_unref(ServeTlsKeys *keys); /* returns NULL */

/* Has the client shown a certificate if these keys want one? `keys` NULL (attach failed): no. */
bool serve_tls_client_known(const ServeTlsKeys *keys, gnutls_session_t session);

/* PEM of the authority to trust; malloc'ed, NULL when there is none or memory is out. */
char *serve_tls_ca(ServeTls *tls);

/* When the certificate of now ends, seconds since 1970. */
int64_t serve_tls_not_after(ServeTls *tls);
