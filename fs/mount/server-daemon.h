/*
 * imgfs-server as the node daemon's: both connections and any number of images, which the keeper hands over one by one before it says
 * that all are there, and afterwards as they come and go. An image that was handed over to a predecessor is opened by its first request, one that
 * is new at once, since somebody waits to hear whether it can be.
 */
#pragma once

#include <stdbool.h>

#include "fs/base/error.h"

/* The command line of the daemon form; false: another. */
bool server_daemon_is_meant(int argc, char **argv);

/* Returns when the keeper is gone, or with what has failed. Threads may still run then. */
int server_daemon_serve(int argc, char **argv, Error *error) _must_check_;
