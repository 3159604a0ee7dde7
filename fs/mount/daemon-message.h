/*
 * Messages between the manager, the keeper and the server of the node daemon: one a packet of a SOCK_SEQPACKET socket, descriptors beside
 * it. A header of 20 bytes, little-endian (type, slot, flags, result, count), then 64 bytes that are a chain ID or all zero, then text or
 * entries up to the end. Links base only.
 *
 * An image is more than one packet holds: DAEMON_ATTACH says how many descriptors it has, the plan first, and carries the first of them;
 * DAEMON_MORE carries the next; all but the last packet have DAEMON_MESSAGE_FDS of them. Who has got a request whole answers it with DAEMON_ANSWER (or DAEMON_SLOTS) before the next one.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "fs/base/error.h"

#define DAEMON_PROTOCOL        1
#define DAEMON_MESSAGE_MAX     16384u
#define DAEMON_MESSAGE_FDS     200u /* of one packet; the kernel's limit is 253 */
#define DAEMON_ATTACH_FDS      8192u
#define DAEMON_NAME_SIZE       65u
#define DAEMON_MESSAGE_ENTRIES 200u /* of one DAEMON_SLOTS */

typedef enum DaemonMessageType {
	DAEMON_HELLO =
		1, /* manager, and the keeper's answer: `count` is the version of its protocol; in the answer `slot` is the highest that there ever was */
	DAEMON_ATTACH, /* manager to keeper to server: slot, flags, name; `count` descriptors */
	DAEMON_MORE,   /* the next descriptors of the same slot */
	DAEMON_DETACH, /* manager to keeper to server: slot */
	DAEMON_LIST,   /* manager: what is attached above `slot`? */
	DAEMON_SLOTS,  /* its answer: entries; `count` of them; none: that was all */
	DAEMON_GET,    /* manager: descriptor `count` of a slot; of slot 0: the metrics. The answer carries it */
	DAEMON_END,    /* manager: unmount, and end */
	DAEMON_START,  /* keeper to server: all slots are there, take the connections over */
	DAEMON_READY,  /* the server's answer to that */
	DAEMON_ANSWER, /* result 0 or a negative errno, with a sentence */
	DAEMON_MESSAGE_TYPES,
} DaemonMessageType;

enum {
	DAEMON_FLAG_XATTR = 1,
	DAEMON_FLAG_REFUSED = 2, /* to be answered with EIO */
	DAEMON_FLAG_FRESH = 4,   /* somebody waits to hear whether it can be opened */
	DAEMON_FLAGS = 7,
};

typedef struct DaemonMessage {
	uint32_t type;
	uint32_t slot;
	uint32_t flags;
	int32_t result;
	uint32_t count;
	char name[DAEMON_NAME_SIZE]; /* "": none */
	const uint8_t *rest;         /* text, or entries; points into the bytes it was read from */
	size_t rest_size;
} DaemonMessage;

/* An entry of DAEMON_SLOTS: slot, flags, chain ID. */
#define DAEMON_ENTRY_SIZE 72u
typedef struct DaemonEntry {
	uint32_t slot;
	uint32_t flags;
	char name[DAEMON_NAME_SIZE];
} DaemonEntry;

/* Writes it to `bytes`; returns the length. Errors: -EMSGSIZE. */
ssize_t daemon_message_write(const DaemonMessage *message, uint8_t bytes[static DAEMON_MESSAGE_MAX]) _must_check_;

/* Reads one; all fields are in their bounds then, and text has no NUL. Errors: -EBADMSG. */
int daemon_message_read(const uint8_t *bytes, size_t size, DaemonMessage *ret_message) _must_check_;

void daemon_entry_write(const DaemonEntry *entry, uint8_t bytes[static DAEMON_ENTRY_SIZE]);
/* Entry `number` of a DAEMON_SLOTS, below its count. */
void daemon_entry_read(const DaemonMessage *message, uint32_t number, DaemonEntry *ret_entry);

/* Its text as a string, cut to fit. */
void daemon_message_text(const DaemonMessage *message, char *ret_text, size_t size);

/* Sends one with its descriptors, which stay the caller's; `flags` as send()'s. Errors: send's (-EAGAIN with MSG_DONTWAIT), -EPIPE. */
int daemon_message_send(int socket, const DaemonMessage *message, const int *fds, size_t fd_count, int flags)
	_must_check_;

/* One as it came. */
typedef struct DaemonPacket {
	DaemonMessage message;
	int fds[DAEMON_MESSAGE_FDS]; /* close-on-exec; the caller's */
	size_t fd_count;
	uint8_t bytes[DAEMON_MESSAGE_MAX];
} DaemonPacket;

/*
 * Receives one. Errors: -EPIPE (the other end is gone), -EAGAIN, -EBADMSG, -EMFILE (out of descriptors: the message is there without them),
 * recv's. After any of them there is nothing to close.
 */
int daemon_message_receive(int socket, DaemonPacket *ret_packet, int flags) _must_check_;
void daemon_packet_close(DaemonPacket *packet);
