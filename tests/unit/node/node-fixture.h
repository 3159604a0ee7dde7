/* A manager over the fake keeper, with images that consist of a name: "a:1" has the SHA-256 of that text as chain ID. */
#pragma once

#include "fs/node/node-private.h"
#include "tests/unit/node/fake-keeper.h"

typedef struct NodeFixture {
	char *directory;
	char runtime[128], state[128], cache[128];
	Node *node;
	bool keeps;        /* start the keeping thread, too */
	_Atomic int fault; /* opening images fails with it */
	Error error;
} NodeFixture;

int node_fixture_set_up(void **state);
int node_fixture_tear_down(void **state);

/* Starts the manager, or starts it again with what the disk has. */
void node_fixture_start(NodeFixture *fixture);
void node_fixture_stop(NodeFixture *fixture);

/* Returns the slot, or a negative errno. */
int node_fixture_attach(NodeFixture *fixture, const char *owner, const char *image);
int node_fixture_detach(NodeFixture *fixture, const char *owner);

/* What `list` says of an owner, the caller's; NULL: nothing. */
json_t *node_fixture_entry(NodeFixture *fixture, const char *owner);

/* Waits until the entry of the owner has that state. */
void node_fixture_await(NodeFixture *fixture, const char *owner, const char *wanted);
