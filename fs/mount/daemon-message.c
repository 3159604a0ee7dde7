#include "fs/mount/daemon-message.h"

#include <string.h>
#include <sys/socket.h>

#include "fs/base/bytes.h"

enum { AT_TYPE = 0, AT_SLOT = 4, AT_FLAGS = 8, AT_RESULT = 12, AT_COUNT = 16, AT_NAME = 20, AT_REST = 84 };

#define NAME_SIZE  (DAEMON_NAME_SIZE - 1)
#define RESULT_MAX 4095 /* the largest errno */
#define SLOT_MAX   0x7fffffffu

static bool read_name(const uint8_t *bytes, char ret_name[static DAEMON_NAME_SIZE])
{
	bool none = bytes[0] == 0;
	for (size_t i = 0; i < NAME_SIZE; i++) {
		bool hex = (bytes[i] >= '0' && bytes[i] <= '9') || (bytes[i] >= 'a' && bytes[i] <= 'f');
		if (none ? bytes[i] != 0 : !hex)
			return false;
		ret_name[i] = (char)bytes[i];
	}
	ret_name[NAME_SIZE] = '\0';
	return true;
}

static void write_name(const char *name, uint8_t *bytes)
{
	size_t length = strnlen(name, NAME_SIZE);
	memcpy(bytes, name, length);
	memset(bytes + length, 0, NAME_SIZE - length);
}

ssize_t daemon_message_write(const DaemonMessage *message, uint8_t bytes[static DAEMON_MESSAGE_MAX])
{
	if (message->rest_size > DAEMON_MESSAGE_MAX - AT_REST)
		return -EMSGSIZE;
	store_le32(bytes + AT_TYPE, message->type);
	store_le32(bytes + AT_SLOT, message->slot);
	store_le32(bytes + AT_FLAGS, message->flags);
	store_le32(bytes + AT_RESULT, (uint32_t)message->result);
	store_le32(bytes + AT_COUNT, message->count);
	write_name(message->name, bytes + AT_NAME);
	if (message->rest_size > 0)
		memcpy(bytes + AT_REST, message->rest, message->rest_size);
	return (ssize_t)(AT_REST + message->rest_size);
}

static bool check_entries(const DaemonMessage *message)
{
	if (message->count > DAEMON_MESSAGE_ENTRIES || message->rest_size != (size_t)message->count * DAEMON_ENTRY_SIZE)
		return false;
	for (uint32_t i = 0; i < message->count; i++) {
		const uint8_t *entry = message->rest + (size_t)i * DAEMON_ENTRY_SIZE;
		char name[DAEMON_NAME_SIZE];
		uint32_t slot = load_le32(entry);
		if (slot == 0 || slot > SLOT_MAX || load_le32(entry + 4) & ~(uint32_t)DAEMON_FLAGS ||
		    !read_name(entry + 8, name) || name[0] == '\0')
			return false;
	}
	return true;
}

static bool check_message(const DaemonMessage *message)
{
	bool attach = message->type == DAEMON_ATTACH;
	bool of_slot = attach || message->type == DAEMON_MORE || message->type == DAEMON_DETACH;
	if (message->type == 0 || message->type >= DAEMON_MESSAGE_TYPES || message->slot > SLOT_MAX ||
	    message->flags & ~(uint32_t)DAEMON_FLAGS || message->result > 0 || message->result < -RESULT_MAX ||
	    (of_slot && message->slot == 0))
		return false;
	if (attach && (message->count == 0 || message->count > DAEMON_ATTACH_FDS || message->name[0] == '\0'))
		return false;
	if (message->type == DAEMON_SLOTS)
		return check_entries(message);
	return message->rest_size == 0 || !memchr(message->rest, '\0', message->rest_size);
}

int daemon_message_read(const uint8_t *bytes, size_t size, DaemonMessage *ret_message)
{
	if (size < AT_REST || size > DAEMON_MESSAGE_MAX)
		return -EBADMSG;
	DaemonMessage message = {
		.type = load_le32(bytes + AT_TYPE),
		.slot = load_le32(bytes + AT_SLOT),
		.flags = load_le32(bytes + AT_FLAGS),
		.result = (int32_t)load_le32(bytes + AT_RESULT),
		.count = load_le32(bytes + AT_COUNT),
		.rest = bytes + AT_REST,
		.rest_size = size - AT_REST,
	};
	if (!read_name(bytes + AT_NAME, message.name) || !check_message(&message))
		return -EBADMSG;
	*ret_message = message;
	return 0;
}

void daemon_entry_write(const DaemonEntry *entry, uint8_t bytes[static DAEMON_ENTRY_SIZE])
{
	store_le32(bytes, entry->slot);
	store_le32(bytes + 4, entry->flags);
	write_name(entry->name, bytes + 8);
}

void daemon_entry_read(const DaemonMessage *message, uint32_t number, DaemonEntry *ret_entry)
{
	const uint8_t *bytes = message->rest + (size_t)number * DAEMON_ENTRY_SIZE;
	*ret_entry = (DaemonEntry){ .slot = load_le32(bytes), .flags = load_le32(bytes + 4) };
	memcpy(ret_entry->name, bytes + 8, NAME_SIZE);
}

void daemon_message_text(const DaemonMessage *message, char *ret_text, size_t size)
{
	size_t length = message->rest_size < size - 1 ? message->rest_size : size - 1;
	if (length > 0)
		memcpy(ret_text, message->rest, length);
	ret_text[length] = '\0';
}

typedef union Control {
	struct cmsghdr header;
	char bytes[CMSG_SPACE(DAEMON_MESSAGE_FDS * sizeof(int))];
} Control;

int daemon_message_send(int socket, const DaemonMessage *message, const int *fds, size_t fd_count, int flags)
{
	uint8_t bytes[DAEMON_MESSAGE_MAX];
	Control control;
	ssize_t size = daemon_message_write(message, bytes);
	if (size < 0 || fd_count > DAEMON_MESSAGE_FDS)
		return -EMSGSIZE;
	struct iovec iov = { .iov_base = bytes, .iov_len = (size_t)size };
	struct msghdr header = { .msg_iov = &iov, .msg_iovlen = 1 };
	if (fd_count > 0) {
		memset(&control, 0, sizeof(control));
		header.msg_control = &control;
		header.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(fd_count * sizeof(int));
		memcpy(CMSG_DATA(&control.header), fds, fd_count * sizeof(int));
	}
	ssize_t sent;
	do
		sent = sendmsg(socket, &header, flags | MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	if (sent < 0)
		return errno == ECONNRESET ? -EPIPE : -errno;
	return 0;
}

static void take_descriptors(struct msghdr *header, DaemonPacket *packet)
{
	for (struct cmsghdr *part = CMSG_FIRSTHDR(header); part; part = CMSG_NXTHDR(header, part)) {
		if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
			continue;
		size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < count; i++) {
			int fd;
			memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof(fd));
			if (packet->fd_count < DAEMON_MESSAGE_FDS)
				packet->fds[packet->fd_count++] = fd;
			else
				(void)close(fd);
		}
	}
}

void daemon_packet_close(DaemonPacket *packet)
{
	while (packet->fd_count > 0)
		(void)close(packet->fds[--packet->fd_count]);
}

int daemon_message_receive(int socket, DaemonPacket *ret_packet, int flags)
{
	Control control;
	struct iovec iov = { .iov_base = ret_packet->bytes, .iov_len = sizeof(ret_packet->bytes) };
	struct msghdr header = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	ssize_t size;
	do
		size = recvmsg(socket, &header, flags | MSG_CMSG_CLOEXEC);
	while (size < 0 && errno == EINTR);
	if (size < 0)
		return errno == ECONNRESET ? -EPIPE : -errno;
	ret_packet->fd_count = 0;
	take_descriptors(&header, ret_packet);
	int r = size == 0 ? -EPIPE : header.msg_flags & MSG_TRUNC ? -EBADMSG : 0;
	if (r == 0)
		r = daemon_message_read(ret_packet->bytes, (size_t)size, &ret_packet->message);
	if (r == 0 && header.msg_flags & MSG_CTRUNC)
		r = -EMFILE;
	if (r < 0)
		daemon_packet_close(ret_packet);
	return r;
}
