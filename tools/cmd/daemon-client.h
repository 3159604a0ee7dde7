/* What verbs ask of imgfsd, where it runs. */
#pragma once

#include <stdbool.h>

#include "fs/control/control-client.h"
#include "tools/cmd/remote-options.h"

/* A line of a verb's list of options, and its id. */
#define DAEMON_OPTION_SOCKET (VERB_OPTION_LONG + 0x200)
#define DAEMON_OPTIONS                                                                       \
	{                                                                                    \
		"socket", DAEMON_OPTION_SOCKET, "PATH", "of imgfsd; default " CONTROL_SOCKET \
	}

/*
 * Connects to imgfsd if one runs for this user in this mount namespace. Returns 1; 0 if there is none (`ret_client` is NULL then). `socket`
 * NULL: the usual one. `ret_cache`: its cache, malloc'ed; may be NULL. Errors, with a sentence: one runs, but cannot be spoken to.
 */
int daemon_client_try(const char *socket, ControlClient **ret_client, char **ret_cache, Error *error) _must_check_;

/* May a text go to imgfsd as the name of a directory or an owner? It takes UTF-8 without control characters. */
bool daemon_client_takes(const char *text);

/* The same for verbs that cannot do without. Errors: -ENOENT and the like, with a sentence. */
int daemon_client_connect(const char *socket, ControlClient **ret_client, Error *error) _must_check_;

/* One call without progress. Takes `request` over (NULL: out of memory); `ret_answer` is the caller's, and may be NULL. */
int daemon_client_call(ControlClient *client, json_t *request, json_t **ret_answer, Error *error) _must_check_;

/*
 * The parts of an attach or pull that RemoteOptions has, put into `request`; files by their absolute paths. May ask for a password. Errors:
 * -EINVAL, -ENOENT, -ENOMEM, with a sentence.
 */
int daemon_client_add_remote(json_t *request, const RemoteOptions *options, Error *error) _must_check_;

/* Calls each(arg, entry) for all that imgfsd holds. Errors: each's, the call's. */
int daemon_client_list(ControlClient *client, int (*each)(void *arg, const json_t *entry), void *arg, Error *error)
	_must_check_;

/* A mount as `imgfs mount` asks for it; paths need not be absolute. */
typedef struct MountRequest {
	const char *reference, *directory, *store;
	int64_t deadline; /* milliseconds; 0: imgfsd's own */
	bool noexec, no_fill, decoded;
	uint64_t fill_rate; /* bytes a second; 0: not said */
	const RemoteOptions *remote;
} MountRequest;

/* Has imgfsd mount it; the directory is the owner. `ret_answer` is attach's, the caller's. Errors carry a sentence. */
int daemon_client_mount(ControlClient *client, const MountRequest *request, json_t **ret_answer, Error *error)
	_must_check_;
