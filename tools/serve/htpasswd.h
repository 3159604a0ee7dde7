/* A file of users as Apache's htpasswd writes it, read: `user:hash`, a line each; empty lines and those with # are skipped. Pure computation. */
#pragma once

#include <stddef.h>

#include "fs/base/error.h"

#define HTPASSWD_USER_MAX  255u
#define HTPASSWD_USERS_MAX 100000u

typedef struct HtpasswdUser {
	char *name;
	char *hash; /* as crypt(3) makes it: bcrypt, SHA-256, SHA-512 or yescrypt */
} HtpasswdUser;

typedef struct Htpasswd {
	HtpasswdUser *users; /* in order of their names, each once */
	size_t count;
} Htpasswd;

/*
 * `text` has `size` bytes. Errors: -EBADMSG (a line is wrong, a hash of a kind too weak or unknown, a user stands there twice, nobody
 * is in it) with a sentence that names the line, -ENOMEM.
 */
int htpasswd_parse(const char *text, size_t size, Htpasswd *ret_htpasswd, Error *error) _must_check_;
void htpasswd_done(Htpasswd *htpasswd); /* safe on a zeroed one */

/* NULL when there is no such user. */
const HtpasswdUser *htpasswd_find(const Htpasswd *htpasswd, const char *name);
