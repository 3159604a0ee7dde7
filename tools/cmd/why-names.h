/* Containers by the names that Kubernetes and nerdctl have for them, as containerd knows them. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "fs/base/error.h"

typedef struct WhyNames {
	size_t count;
	char **ids;   /* of containers */
	char **names; /* of each: "NAMESPACE/POD/CONTAINER", or nerdctl's */
} WhyNames;

void why_names_done(WhyNames *names); /* safe on a zeroed one */

/*
 * What is called `what`: NAMESPACE/POD/CONTAINER, POD/CONTAINER, NAMESPACE/POD, a pod or a container of one alone, or nerdctl's name. All are of one pod, or
 * have one name; also those that have ended, as long as containerd knows them. Asks containerd, some seconds at most. Errors: -ENOENT (no containerd for this user, or it
 * knows no such name), -EINVAL (several are called so; the sentence lists them), client_containers()'s, with a sentence.
 */
int why_names_find(const char *socket, const char *what, WhyNames *ret_names, Error *error) _must_check_;

/* Are containers of several names among them? */
bool why_names_differ(const WhyNames *names);
