#include "fs/mount/damaged.h"

#include <errno.h>
#include <linux/fuse.h>

#define SLOT 0u /* the receive slot that is used: a request must not be lost when this server is killed, either */

static bool wants_reply(uint32_t opcode)
{
	return opcode != FUSE_FORGET && opcode != FUSE_BATCH_FORGET && opcode != FUSE_INTERRUPT;
}

static void refuse(int fuse_fd, Journal *journal, unsigned slot)
{
	const struct fuse_in_header *header = journal_slot(journal, slot);
	struct fuse_out_header reply = { .len = sizeof(reply), .error = -EIO, .unique = header->unique };
	/* ENOENT: it was answered before, or withdrawn. There is nobody else to tell. */
	ssize_t written = wants_reply(header->opcode) ? write(fuse_fd, &reply, sizeof(reply)) : 0;
	(void)written;
	journal_end(journal, slot);
}

int damaged_serve(int fuse_fd, Journal *journal)
{
	static unsigned slots[JOURNAL_SLOTS];
	size_t count = journal_recover(journal, slots);
	for (size_t i = 0; i < count; i++)
		refuse(fuse_fd, journal, slots[i]);
	for (;;) {
		journal_begin(journal, SLOT);
		ssize_t size = read(fuse_fd, journal_slot(journal, SLOT), JOURNAL_RECEIVE_SIZE);
		if (size >= (ssize_t)sizeof(struct fuse_in_header)) {
			refuse(fuse_fd, journal, SLOT);
			continue;
		}
		int r = size < 0 ? -errno : size == 0 ? -ENODEV : -EPROTO;
		journal_end(journal, SLOT);
		if (r == -ENODEV)
			return 0;
		if (r != -EINTR && r != -EAGAIN && r != -ENOENT)
			return r;
	}
}
