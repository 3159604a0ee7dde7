/*
 * An HTTP server that misbehaves on purpose: it serves the files of a directory by path, ranges included, and does one
 * wrong thing at a time. Runs in threads of the test, on an ephemeral port of 127.0.0.1. All calls from any thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "fs/base/cleanup.h"

typedef enum FakeFault {
	FAKE_NONE,
	FAKE_STALL_REQUEST, /* reads the request and never answers */
	FAKE_STALL_HEADERS, /* sends half of the headers, then nothing */
	FAKE_INTERIM,       /* an interim answer twenty times a second, and no other */
	FAKE_WANT_TOKEN,    /* 401: wants a token of "/token", which never answers */
	FAKE_STALL_BODY,    /* sends half of the body, then nothing */
	FAKE_RESET_BODY,    /* sends half of the body, then resets the connection */
	FAKE_TRUNCATE,      /* sends half of the body, then closes properly */
	FAKE_ERROR,         /* 503 */
	FAKE_DENIED,        /* 403 */
	FAKE_NOT_FOUND,     /* 404 */
	FAKE_WHOLE,         /* ignores the range: 200 and the whole file */
	FAKE_WRONG_RANGE,   /* 206, but of a range one byte further */
	FAKE_NO_RANGE,      /* 206 without Content-Range */
	FAKE_CORRUPT,       /* one byte of the body is wrong, right in its middle */
	FAKE_TOO_LONG,      /* more bytes than asked for, and no Content-Length */
	FAKE_TRICKLE,       /* the body, a few bytes a second */
	FAKE_REDIRECT,      /* 307 to the same path with "/moved" before it, which is served well */
	FAKE_REDIRECT_LOOP, /* 307 to itself */
	FAKE_REDIRECT_FILE, /* 307 to file:///etc/passwd */
	FAKE_WRONG_DIGEST,  /* another Docker-Content-Digest */
	FAKE_NO_DIGEST,     /* none */
	FAKE_CLOSE_PARTS,   /* closes amid the headers to who asks for several ranges */
} FakeFault;

typedef struct FakeServer FakeServer;

typedef struct FakeCounts {
	unsigned connections;
	unsigned requests;
	unsigned heads;                 /* of the requests */
	unsigned at_once;               /* most requests under way at one time */
	uint64_t bytes;                 /* of bodies, sent or tried */
	uint64_t last_first, last_last; /* the range asked for last, or the first of several */
	unsigned last_ranges;           /* how many it was */
	bool accept_encoding;           /* some request had the header */
} FakeCounts;

/* Errors: socket's, -ENOMEM. */
int fake_server_new(const char *directory, FakeServer **ret_server) _must_check_;
FakeServer *fake_server_free(FakeServer *server);
DEFINE_CLEANUP(FakeServer, fake_server_free);

/* "127.0.0.1:PORT"; the same after a revival. */
const char *fake_server_host(const FakeServer *server);

/* The next `count` requests meet this fault, then none; 0 means all until the next call. Clearing a stall ends those under way with a reset. */
void fake_server_fault(FakeServer *server, FakeFault fault, unsigned count);

/* Does it give several ranges at once? At first it gives the first of them alone. */
void fake_server_give_parts(FakeServer *server, bool parts);

/* Requests wait before the answer while `hold` is true. */
void fake_server_hold(FakeServer *server, bool hold);

/* As kill -9: no listener, all connections reset. And up again on the same port. */
void fake_server_kill(FakeServer *server);
int fake_server_revive(FakeServer *server) _must_check_;

void fake_server_counts(FakeServer *server, FakeCounts *ret_counts);
