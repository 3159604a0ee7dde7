/* A fake server over a new directory with one file, "/file", for the tests of this room. */
#pragma once

#include "tests/fake/fake-server.h"

#define FILE_SIZE 300000u

typedef struct NetFixture {
	char directory[256];
	char url[64]; /* of the file */
	uint8_t *content;
	FakeServer *server;
} NetFixture;

int net_fixture_start(void **state); /* cmocka's set-up: *state becomes a NetFixture */
int net_fixture_stop(void **state);
