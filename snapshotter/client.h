/*
 * containerd's API, as far as putting an image there needs it: content, image, lease and snapshots. Every call blocks, up to a minute. One
 * owner, no locking. Errors: those of wire_client_call(), with a sentence.
 */
#pragma once

#include <stdint.h>

#include "fs/base/error.h"

#define CLIENT_SOCKET "/run/containerd/containerd.sock" /* where containerd listens, unless it is told otherwise */

typedef struct Client Client;

/* One label: a pair of texts. A list of them ends with a NULL name. */
typedef struct ClientLabel {
	const char *name, *value;
} ClientLabel;

/*
 * Connects to containerd's socket and takes a lease, under which nothing that is made is collected until client_close(), or for an hour
 * where that never comes.
 */
int client_open(const char *socket, const char *name_space, Client **ret_client, Error *error) _must_check_;
Client *client_close(Client *client); /* gives the lease back: what nothing refers to is collected */
DEFINE_CLEANUP(Client, client_close);

/* Puts a blob (at most 15 MiB) with that digest there, or its labels where it is there already. */
int client_put_content(Client *client, const char *digest, const void *data, size_t size, const ClientLabel *labels,
		       Error *error) _must_check_;

/*
 * Has the snapshotter make the committed snapshot `chain` over `parent` (NULL: none) by the labels. -EOPNOTSUPP: it would rather have the
 * layer fetched and unpacked.
 */
int client_lazy_snapshot(Client *client, const char *snapshotter, const char *chain, const char *parent,
			 const ClientLabel *labels, Error *error) _must_check_;

/* The image of that name becomes this manifest. */
int client_put_image(Client *client, const char *name, const char *media_type, const char *digest, int64_t size,
		     Error *error) _must_check_;
