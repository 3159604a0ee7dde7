/* "user:password" in base64, as HTTP's Basic scheme and docker's config.json have it (RFC 7617, RFC 4648 section 4). Pure computation. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "fs/base/cleanup.h"

#define NET_BASIC_MAX 512u /* bytes of user, colon and password */

/* Is this "user:password", one line of UTF-8, and not too long? */
bool net_basic_is_login(const char *text);

/*
 * Decodes canonical base64 to "user:password", which holds a colon and no control character; `size` counts the final NUL of
 * `ret_text`. Errors: -EINVAL (no base64, no colon, control characters, too long).
 */
int net_basic_decode(const char *base64, char *ret_text, size_t size) _must_check_;
