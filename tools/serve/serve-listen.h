/* Where the server listens: "ADDR:PORT" in numbers, and the socket on it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "fs/base/error.h"

#define SERVE_ADDRESS_TEXT 64

typedef struct ServeAddress {
	struct sockaddr_storage storage;
	socklen_t size;
} ServeAddress;

/*
 * "127.0.0.1:8500", "0.0.0.0:8500", "[::1]:8500"; "localhost:PORT" means 127.0.0.1. Port 0 lets the kernel choose.
 * Errors: -EINVAL with a sentence that shows the forms.
 */
int serve_address_parse(const char *text, ServeAddress *ret_address, Error *error) _must_check_;

/* Can only this machine reach it? */
bool serve_address_is_loopback(const ServeAddress *address);

/* Writes "ADDR:PORT" or "[ADDR]:PORT" and returns it; "?" for an address of another family. */
char *serve_address_text(const struct sockaddr *address, char ret_text[static SERVE_ADDRESS_TEXT]);

/*
 * A listening socket on `address`; "[::]" takes IPv4 as well. `ret_actual` is where it really listens (port 0).
 * Errors: -EADDRINUSE, -EADDRNOTAVAIL, -EACCES and what else bind() gives, with a sentence.
 */
int serve_listen(const ServeAddress *address, int *ret_fd, ServeAddress *ret_actual, Error *error) _must_check_;
