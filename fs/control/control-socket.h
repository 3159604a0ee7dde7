/* Private to the room: the address of the control socket. */
#pragma once

#include "fs/base/error.h"
#include "fs/control/control-client.h"

#define CONTROL_LOOK_MILLIS 200 /* how often somebody who waits is asked whether he has given up */

/*
 * A listening socket at `path`, of mode 0600, non-blocking, in place of what was there. Sets the umask meanwhile. Errors: -ENAMETOOLONG, bind's,
 * with a sentence.
 */
int control_socket_listen(const char *path, int *ret_fd, Error *error) _must_check_;

/*
 * Errors: -ENAMETOOLONG, connect's, with a sentence: -ENOENT and -ECONNREFUSED mean that nobody listens, -ETIMEDOUT that it was not taken within so many
 * milliseconds, -ECANCELED that it was given up (NULL: by nobody).
 */
int control_socket_connect(const char *path, unsigned milliseconds, ControlGivenUp *given_up, void *arg, int *ret_fd,
			   Error *error) _must_check_;
