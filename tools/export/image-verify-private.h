/* What the files of verify share. Belongs to no one else. */
#pragma once

#include "fs/format/manifest.h"
#include "tools/export/image-verify.h"

struct Verify {
	Store *store;
	const VerifyHooks *hooks;
	VerifyCounts counts;
	ManifestLayer *seen; /* the layers verified so far, each description once */
	size_t seen_count, seen_capacity;
	const char *image; /* being verified */
	uint32_t layer;
};

/* Counts a fault and hands it on; image and number of the layer are filled in. */
void verify_report(Verify *verify, VerifyFault fault);
void verify_report_layer(Verify *verify, const ManifestLayer *layer, const char *what);

/* A layer's blob, unless the run met it before; faults are reported. Errors: as verify_image(). */
int verify_layer(Verify *verify, const ManifestLayer *layer, Error *error) _must_check_;
