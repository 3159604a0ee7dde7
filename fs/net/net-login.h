/*
 * Private to the room: a user's login at a registry, from docker's config.json and the credential helpers it names
 * (docker/cli, "docker login", sections "Credential stores" and "Credential helpers").
 */
#pragma once

#include <stddef.h>

#include "fs/base/error.h"
#include "fs/net/net-access.h"

/*
 * Fills user, identity or bearer of `access`, if there is a login for `host` in the file `path`; NULL means the usual one
 * ($DOCKER_CONFIG or ~/.docker), which need not exist. May run a helper, and block for as long as that asks somebody, up to 65 s (net_helper_get()). Errors: -EINVAL (no
 * JSON, a damaged login), -ENOENT (`path` was named and is not there), -EIO (a helper fails), and what else reading gives, with a sentence.
 */
int net_login_load(const char *path, const char *host, NetAccess *access, Error *error) _must_check_;
