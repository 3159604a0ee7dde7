/* The client's side of the control socket: what `imgfs` and the snapshotter ask imgfsd with. */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "fs/base/error.h"

#define CONTROL_SOCKET "/run/imgfs/imgfsd.sock"

typedef struct ControlClient ControlClient;

/* Does whoever waits for the answer want it no more? Asked a few times a second, by the thread that calls. */
typedef bool ControlGivenUp(void *arg);

/*
 * Connects and greets. One thread at a time may use a client. Errors, with a sentence: -ENOENT, -ECONNREFUSED (no daemon), -EACCES, -EPERM (not
 * for this user), -EPROTONOSUPPORT (another version), -ETIMEDOUT (it does not take the connection within ten seconds, or does not greet within ten).
 */
int control_connect(const char *socket, ControlClient **ret_client, Error *error) _must_check_;

/* Likewise, but for so many milliseconds each, more than 0, and it may be given up: -ECANCELED. `given_up` may be NULL. */
int control_connect_within(const char *socket, unsigned milliseconds, ControlGivenUp *given_up, void *arg,
			   ControlClient **ret_client, Error *error) _must_check_;
ControlClient *control_client_free(ControlClient *client);
DEFINE_CLEANUP(ControlClient, control_client_free);

/*
 * Waits until the daemon has ended this connection, for `timeout` milliseconds at most; for who has asked it to end or to go on as another
 * program. Afterwards the client is of no use but to be freed. Errors: -ETIMEDOUT.
 */
int control_wait_end(ControlClient *client, int timeout) _must_check_;

/*
 * How long each call may take from now on, in milliseconds (0: as long as it takes, and nobody is asked), and who may give it up before (NULL:
 * nobody). The daemon sees the connection's end, and gives up what waits for the network.
 */
void control_client_limit(ControlClient *client, unsigned milliseconds, ControlGivenUp *given_up, void *arg);

/* `progress` is the call's, valid only until the function returns. */
typedef void ControlProgress(void *arg, const json_t *progress);

/*
 * Sends a request (borrowed) and blocks until the answer is there, the caller's. Errors: the daemon's own, with its sentence; -ECONNRESET
 * (it ended meanwhile: connect anew), -ETIMEDOUT, -ECANCELED (by control_client_limit()), -EMSGSIZE, -EBADMSG, -ENOMEM. After these a client is of no use any more.
 */
int control_call(ControlClient *client, const json_t *request, ControlProgress *progress, void *arg,
		 json_t **ret_answer, Error *error) _must_check_;
