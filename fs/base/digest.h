/* SHA-256 digests and their text forms ("sha256:<64 hex>" in manifests, bare hex in file names). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/base/cleanup.h"

#define DIGEST_SIZE      32
#define DIGEST_HEX_SIZE  (2 * DIGEST_SIZE + 1) /* with the final NUL */
#define DIGEST_TEXT_SIZE (sizeof("sha256:") - 1 + DIGEST_HEX_SIZE)

typedef struct Digest {
	uint8_t bytes[DIGEST_SIZE];
} Digest;

bool digest_equal(const Digest *left, const Digest *right);
int digest_compare(const Digest *left, const Digest *right);

/* Writes 64 lower-case hex digits and a NUL to `ret_hex`, and returns it. */
char *digest_hex(const Digest *digest, char ret_hex[static DIGEST_HEX_SIZE]);

/* Writes "sha256:<hex>" and a NUL to `ret_text`, and returns it. */
char *digest_text(const Digest *digest, char ret_text[static DIGEST_TEXT_SIZE]);

/* Exactly 64 lower-case hex digits (OCI image-spec, descriptor.md "Digests"). Errors: -EINVAL. */
int digest_from_hex(const char *hex, Digest *ret_digest) _must_check_;

/* "sha256:" and 64 lower-case hex digits; other algorithms are refused. Errors: -EINVAL. */
int digest_from_text(const char *text, Digest *ret_digest) _must_check_;

/* What the functions below do at their first use: for a process that may lack memory later. Errors: -ENOMEM. */
int digest_prepare(void) _must_check_;

/* The digest of `size` bytes at `data`. Errors: -ENOMEM. */
int digest_of(const void *data, size_t size, Digest *ret_digest) _must_check_;

/* A digest computed piece by piece. One owner, no locking. */
typedef struct DigestState DigestState;

int digest_state_new(DigestState **ret_state) _must_check_;
DigestState *digest_state_free(DigestState *state);
DEFINE_CLEANUP(DigestState, digest_state_free);

int digest_state_add(DigestState *state, const void *data, size_t size) _must_check_;

/* Ends the computation; the state then starts anew. */
int digest_state_end(DigestState *state, Digest *ret_digest) _must_check_;
