/*
 * What a machine trusts a host by: the authority's certificate where imgfs, docker and containerd look for it.
 *
 *   ROOT/etc/imgfs/certs.d/HOST/ca.crt
 *   ROOT/etc/docker/certs.d/HOST/ca.crt
 *   ROOT/etc/containerd/certs.d/HOST/ca.crt, hosts.toml
 */
#pragma once

#include <stddef.h>

#include "fs/base/error.h"

/*
 * Writes the files; those of an earlier time are replaced. Errors: -EEXIST (a hosts.toml of somebody else stands there; then nothing
 * is written), and what writing gives, with a sentence.
 */
int trust_files_install(const char *root, const char *host, const char *pem, size_t size, Error *error) _must_check_;

/* Takes them away again. Errors: -ENOENT (there are none), and what removing gives. */
int trust_files_remove(const char *root, const char *host, Error *error) _must_check_;
