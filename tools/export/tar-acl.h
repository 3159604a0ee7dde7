/*
 * POSIX ACLs from the text that pax headers have (star's SCHILY.acl.access and SCHILY.acl.default, as GNU tar --acls and libarchive write
 * them) to the value of the xattr that extraction would set (linux/posix_acl_xattr.h).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/base/error.h"
#include "fs/format/buffer.h"

/*
 * Appends the value to `ret_value`; nothing where there is no xattr to be set: a list that says no more than a mode does, or one with
 * a user or group by name only. Names are the build host's and mean nothing here; GNU tar, too, sets no list with a name it does not
 * know. `mode`: permission bits that follow the list, as setting it makes them (acl(5), "correspondence between ACL entries and file
 * permission bits"); NULL for a directory's default ACL, which no mode stands for. Errors: -EBADMSG (malformed), -EOPNOTSUPP (more entries
 * than an xattr holds), -ENOMEM.
 */
int tar_acl_encode(const char *text, size_t size, uint32_t *mode, Buffer *ret_value, Error *error) _must_check_;
