/*
 * Who may read: users with passwords (HTTP's Basic scheme, RFC 7617) from a file of htpasswd. Any thread may ask. A wrong user costs what a
 * wrong password costs. Passwords that were right lately are remembered as keyed hashes, so that the slow hash is computed once in
 * ten minutes a user and not once a request; at most two are computed at a time, whoever asks.
 */
#pragma once

#include <stdbool.h>

#include "fs/base/error.h"

typedef struct ServeAuth ServeAuth;

/* `path` is copied. Errors: as htpasswd_parse() and reading, with a sentence that names the file. */
int serve_auth_new(const char *path, ServeAuth **ret_auth, Error *error) _must_check_;
ServeAuth *serve_auth_free(ServeAuth *auth); /* no call may be under way */
DEFINE_CLEANUP(ServeAuth, serve_auth_free);

/* Reads the file again; nothing that was remembered counts any more. Errors: as above; the users of before stay then. */
int serve_auth_reload(ServeAuth *auth, Error *error) _must_check_;

/* Does the value of an Authorization header (NULL: none) name a user and the right password? Takes a processor for a while. */
bool serve_auth_check(ServeAuth *auth, const char *header);

/* How often a slow hash was computed; for tests and metrics. */
unsigned long serve_auth_hashes(const ServeAuth *auth);
