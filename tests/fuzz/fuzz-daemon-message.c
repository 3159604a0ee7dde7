/* A message of the node daemon: what is taken is in its bounds, and is written again as the same bytes. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fs/mount/daemon-message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const DaemonMessage *message)
{
	char text[100];
	if (message->type == 0 || message->type >= DAEMON_MESSAGE_TYPES || message->slot > INT32_MAX ||
	    message->flags & ~(uint32_t)DAEMON_FLAGS || message->result > 0)
		abort();
	daemon_message_text(message, text, sizeof(text));
	if (strlen(text) >= sizeof(text))
		abort();
	for (uint32_t i = 0; message->type == DAEMON_SLOTS && i < message->count; i++) {
		DaemonEntry entry;
		uint8_t bytes[DAEMON_ENTRY_SIZE];
		daemon_entry_read(message, i, &entry);
		daemon_entry_write(&entry, bytes);
		if (entry.slot == 0 || strlen(entry.name) != DAEMON_NAME_SIZE - 1 ||
		    memcmp(bytes, message->rest + (size_t)i * DAEMON_ENTRY_SIZE, sizeof(bytes)) != 0)
			abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t again[DAEMON_MESSAGE_MAX];
	DaemonMessage message;
	if (daemon_message_read(data, size, &message) < 0)
		return 0;
	check(&message);
	if (daemon_message_write(&message, again) != (ssize_t)size || memcmp(again, data, size) != 0)
		abort();
	return 0;
}
