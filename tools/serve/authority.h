/*
 * A private certificate authority and the certificate of a server, made and renewed without anybody's help, in a directory that only the
 * server's user may enter:
 *
 *   ca.crt ca.key          the authority; made once, for 30 years: nodes trust it by its fingerprint
 *   server.crt server.key  what the server shows: the key is made once, the certificate anew when a third of its 90 days is left, it
 *                          has not begun, a name is missing, or ca.crt is not what it is of
 *
 * Keys have mode 0600. Several processes may do this at once: they take turns by a lock on the directory.
 */
#pragma once

#include <stddef.h>

#include "fs/base/digest.h"
#include "fs/base/error.h"

#define AUTHORITY_CA_FILE          "ca.crt"
#define AUTHORITY_CERTIFICATE_FILE "server.crt"
#define AUTHORITY_KEY_FILE         "server.key"

/*
 * Makes what is missing or due. `names` are host names and addresses in numbers, one at least. Returns 1 when the server's
 * certificate is a new one, 0 when nothing changed. Errors: -EBADMSG (a file is damaged or of another authority), -EINVAL (a name), and
 * what reading and writing gives, with a sentence. Blocks on the disk.
 */
int authority_ensure(const char *directory, const char *const *names, size_t count, Digest *ret_fingerprint,
		     Error *error) _must_check_;
