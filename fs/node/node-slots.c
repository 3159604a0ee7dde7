#include "fs/node/node-slots.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#include "fs/base/fd.h"

#define NAME     "slots"
#define FILE_MAX ((size_t)256 << 20)
#define TIDY     (256u << 10) /* bytes above which only the last line is kept */
#define LINE_MAX 96

static int write_line(char *line, uint32_t slot, const Digest *chain_id)
{
	char hex[DIGEST_HEX_SIZE];
	return snprintf(line, LINE_MAX, "%" PRIu32 " %s\n", slot, digest_hex(chain_id, hex));
}

static int parse_line(const char *line, uint32_t *ret_slot, Digest *ret_chain_id)
{
	char *end;
	errno = 0;
	unsigned long number = strtoul(line, &end, 10);
	if (line[0] < '0' || line[0] > '9' || errno != 0 || *end != ' ' || number < 1 || number > NODE_SLOT_MAX)
		return -EBADMSG;
	*ret_slot = (uint32_t)number;
	return digest_from_hex(end + 1, ret_chain_id) < 0 ? -EBADMSG : 0;
}

/* Reads all lines; `ret_size` is where the whole ones end. Returns whether each of them is as it was written. */
static bool parse(char *text, size_t size, uint32_t *ret_last, Digest *ret_chain_id, size_t *ret_size)
{
	char *line = text, *end;
	bool sound = true;
	for (; (end = memchr(line, '\n', (size_t)(text + size - line))); line = end + 1) {
		uint32_t slot;
		Digest chain_id;
		*end = '\0';
		if (parse_line(line, &slot, &chain_id) < 0 || slot <= *ret_last) {
			sound = false;
			continue;
		}
		*ret_last = slot;
		*ret_chain_id = chain_id;
	}
	*ret_size = (size_t)(line - text);
	return sound && size - *ret_size < LINE_MAX; /* a torn line is no longer than a whole one */
}

/* A torn line was never used: it goes. A long file, and one that is damaged, is cut down to what matters of it. */
static int tidy(int dirfd, const NodeSlots *slots, const Digest *chain_id, size_t size, size_t whole)
{
	char line[LINE_MAX];
	if (size > TIDY || slots->damaged) {
		int length = slots->last > 0 ? write_line(line, slots->last, chain_id) : 0;
		return fd_replace_file(dirfd, NAME, line, (size_t)length, 0600);
	}
	if (size == whole)
		return 0;
	_cleanup_close_ int fd = openat(dirfd, NAME, O_WRONLY | O_CLOEXEC);
	return fd < 0 || ftruncate(fd, (off_t)whole) < 0 || fsync(fd) < 0 ? -errno : 0;
}

int node_slots_open(int dirfd, NodeSlots *ret_slots, Error *error)
{
	_cleanup_free_ char *text = NULL;
	size_t size = 0, whole = 0;
	Digest chain_id = { 0 };
	NodeSlots slots = { .fd = -1 };
	int r = fd_read_file(dirfd, NAME, FILE_MAX, &text, &size);
	if (r == 0) {
		slots.damaged = !parse(text, size, &slots.last, &chain_id, &whole);
		r = tidy(dirfd, &slots, &chain_id, size, whole);
	}
	if (r < 0 && r != -ENOENT)
		return error_set(error, r, "the file of slots cannot be read: %s", strerror(-r));
	_cleanup_close_ int fd = openat(dirfd, NAME, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || fsync(dirfd) < 0)
		return error_set(error, -errno, "the file of slots cannot be opened: %s", strerror(errno));
	slots.fd = TAKE_FD(fd);
	*ret_slots = slots;
	return 0;
}

void node_slots_close(NodeSlots *slots)
{
	close_p(&slots->fd);
	slots->fd = -1;
}

int node_slots_take(NodeSlots *slots, const Digest *chain_id, uint32_t *ret_slot)
{
	char line[LINE_MAX];
	if (slots->last == NODE_SLOT_MAX)
		return -ENOSPC;
	off_t before = lseek(slots->fd, 0, SEEK_END);
	int length = write_line(line, slots->last + 1, chain_id);
	int r = before < 0 ? -errno : fd_write_all(slots->fd, line, (size_t)length);
	if (r == 0 && fdatasync(slots->fd) < 0)
		r = -errno;
	if (r < 0) {
		/* Half a line would swallow the next one. */
		if (before >= 0 && ftruncate(slots->fd, before) < 0)
			r = -errno;
		return r;
	}
	*ret_slot = ++slots->last;
	return 0;
}
