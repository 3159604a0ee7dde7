/*
 * What a server may still ask of the kernel: a seccomp filter that lets through what reading, networking and threads need, and answers
 * everything else with EPERM. Programs, mounts, tracing, new namespaces, keys, modules, other processes and files to be made are out of reach
 * of whoever takes a server over by what it reads from the network.
 */
#pragma once

#include "fs/base/error.h"

/*
 * For good, in the calling thread and those that it starts; needs PR_SET_NO_NEW_PRIVS or root. A build with -Dsandbox=false, or one with
 * sanitizers, which need other calls, has none, and this does nothing. Errors: -ENOSYS (a kernel without seccomp), -ENOMEM, with a sentence.
 */
int sandbox_enter(Error *error) _must_check_;

/* Does this build have it? */
extern const int sandbox_built;
