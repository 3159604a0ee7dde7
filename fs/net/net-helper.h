/*
 * Docker's credential helpers (docker/docker-credential-helpers, "Development"): a program docker-credential-NAME that is told a host and
 * prints the login.
 */
#pragma once

#include <stddef.h>

#include "fs/base/error.h"

typedef struct NetHelperLogin {
	char *user;
	char *secret;
} NetHelperLogin;

void net_helper_login_done(NetHelperLogin *login); /* wipes and frees; safe on a zeroed one */

/*
 * What a helper printed. A user "<token>" says that the secret is an identity token. Errors: -EBADMSG (not JSON, no user or no secret, control
 * characters, a colon in the user), -ENOMEM.
 */
int net_helper_parse(const char *json, size_t size, NetHelperLogin *ret_login) _must_check_;

/*
 * Runs docker-credential-NAME from PATH and waits for it, up to 60 s for what it prints and 5 s more for its end. Errors: -ENOENT (it knows no such host), -ENOEXEC (there is no such
 * program, or NAME is no name), -EIO (it fails, or says nothing of use; -ETIMEDOUT: in time), -ENOMEM, with a sentence.
 */
int net_helper_get(const char *name, const char *host, NetHelperLogin *ret_login, Error *error) _must_check_;
