/* Whole images in a store, made of tars in memory. Whatever fails here fails the test. */
#pragma once

#include "tests/unit/export/store-fixture.h"
#include "tools/export/store-image.h"

/* Publishes an image of these layers as NAME:TAG, with a config that names their diffIDs; returns its manifest, the caller's. */
void image_fixture_put(StoreFixture *fixture, const Buffer *tars, size_t count, const char *name, const char *tag,
		       StoreImage *ret_image);

/* The path of an object below the store; static until the next call. */
const char *image_fixture_object(const char *directory, const Digest *digest);

bool image_fixture_exists(const StoreFixture *fixture, const char *name);

/* Flips one bit of a file of the store; a negative offset counts from its end. Done twice, it is undone. */
void image_fixture_flip(const StoreFixture *fixture, const char *name, long offset);
