/*
 * What is remembered of an image that somebody holds: the request, as it was made, and what came of it. One file for each owner, durable:
 * attached/<SHA-256 of the owner>.json. It may hold a password, as docker's config.json does, and is readable by root alone.
 */
#pragma once

#include "fs/control/control-request.h"

#define NODE_ORIGIN_SIZE 528u /* a host, a repository, and "http://" */

typedef struct NodeRecord {
	ControlRequest request;  /* an attach; its json is NULL in a record that is none yet */
	Digest manifest, config; /* zeros for layers */
	Digest chain_id;
	uint32_t slot;
	char origin
		[NODE_ORIGIN_SIZE]; /* of layers whose bytes come from where the request does not say (node-origin.c); else "" */
	bool lingering;             /* unmounted lazily: it goes with the mounts of the keeper that has it */
	int64_t time;               /* when it was attached, seconds since 1970 */
} NodeRecord;

void node_record_done(NodeRecord *record); /* safe on a zeroed one */

/* Durable when it returns. Errors: -ENOMEM, write's. */
int node_record_write(int dirfd, const NodeRecord *record) _must_check_;

/* Durable when it returns; what is not there is no error. Errors: unlink's. */
int node_record_remove(int dirfd, const char *owner) _must_check_;

/* From a file's bytes. Errors: -EBADMSG with a sentence, -ENOMEM. */
int node_record_parse(const char *text, size_t size, NodeRecord *ret_record, Error *error) _must_check_;

/*
 * Calls each(arg, record, name, error) for every record of the directory: `record` is the callee's to take, or NULL where a file cannot be
 * read, which `error` then explains. `sweep`, for the manager that has the state alone: removes temporaries of a crash. Errors: each's, opendir's.
 */
typedef int NodeRecordEach(void *arg, NodeRecord *record, const char *name, const Error *error);
int node_records_read(int dirfd, bool sweep, NodeRecordEach *each, void *arg) _must_check_;
