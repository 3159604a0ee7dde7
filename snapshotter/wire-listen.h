/* The socket that clients connect to: made here, or handed over by systemd. */
#pragma once

#include <stdbool.h>

#include "fs/base/error.h"

/*
 * Listens on a Unix socket at `path` with mode 0600, its directory made where it is missing. A socket that a dead process left is
 * replaced; -EADDRINUSE when somebody answers there, or something that is no socket has the name. Not blocking, closed by exec.
 */
int wire_listen(const char *path, int *ret_fd, Error *error) _must_check_;

/*
 * sd_listen_fds(3): the descriptor that systemd listens on already. 1 when there is one, 0 when this process was not started that way;
 * -EINVAL when what it was handed is no listening Unix socket, or several. Clears the variables. Call before there are threads.
 */
int wire_listen_inherited(int *ret_fd, Error *error) _must_check_;

/*
 * Takes the socket's name away, so that a client that finds the connection closed does not meet a socket that refuses it; only if the
 * name still is that of `fd`.
 */
void wire_listen_unlink(const char *path, int fd);
