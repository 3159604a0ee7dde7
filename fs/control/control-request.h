/*
 * Requests of the control protocol: JSON from outside becomes a struct of checked fields. A key that is not known, or not of this call, is
 * refused: what a client asks for is never silently left out. Pure computation.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "fs/base/digest.h"
#include "fs/base/error.h"

#define CONTROL_LAYERS_MAX 1024u
#define CONTROL_TIME_MAX   86400000 /* milliseconds */
#define CONTROL_RATE_MIN   1024     /* bytes a second */

typedef enum ControlVerb {
	CONTROL_ATTACH,
	CONTROL_DETACH,
	CONTROL_PULL,
	CONTROL_PIN,
	CONTROL_UNPIN,
	CONTROL_STATUS,
	CONTROL_LIST,
	CONTROL_RELOAD,
	CONTROL_PING,
	CONTROL_UPGRADE, /* keeper, server and manager go on as the programs that are installed now */
	CONTROL_END,     /* everything ends, mounts too */
	CONTROL_VERBS,
} ControlVerb;

/* One layer of "layers". */
typedef struct ControlLayer {
	Digest diff_id;
	uint64_t size; /* of the tar; 0: not known */
	Digest blob;
	uint64_t blob_size;
	Digest index;
	uint64_t index_offset;
	uint64_t index_size;
} ControlLayer;

/* As NetAccessOptions; NULL where nothing was said. */
typedef struct ControlAccess {
	const char *certs, *login, *user, *ca, *certificate, *key;
} ControlAccess;

/* Strings are NULL and numbers 0 where nothing was said. */
typedef struct ControlRequest {
	ControlVerb verb;
	json_t *json; /* owned; strings point into it */
	const char *owner;
	const char *reference;
	const char *directory;     /* absolute */
	const char *store;         /* absolute */
	const char *after;         /* list: the owner that the list goes on behind */
	int64_t deadline, timeout; /* milliseconds */
	int64_t fill_rate;         /* bytes a second */
	bool plain_http, noexec, no_fill, decoded, seal, lazy;
	ControlAccess access;
	size_t layer_count;
	ControlLayer *layers; /* lowest first */
} ControlRequest;

void control_request_done(ControlRequest *request); /* safe on a zeroed one */

/*
 * Takes `json` over, also when it fails. Errors: -ENOSYS (no such call), -EINVAL (a key is missing, unknown or not what it should be; the
 * sentence names it), -ENOMEM.
 */
int control_request_parse(json_t *json, ControlRequest *ret_request, Error *error) _must_check_;

/* The name of a call, as in "call". */
const char *control_verb_name(ControlVerb verb);
