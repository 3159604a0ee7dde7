#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "fs/base/fd.h"
#include "fs/mount/keeper-daemon.h"

#define STATE_MAX ((size_t)64 << 20)

/* Lines of words, each with its name first. Another version of it is another KEEPER_STATE_VERSION (keeper-state.h). */
static int write_slot(FILE *file, const KeeperSlot *slot)
{
	int r = fprintf(file, "slot %u %u %u %lld %s %zu", slot->number, slot->flags, slot->deaths,
			(long long)slot->died, slot->name, slot->fd_count);
	for (size_t i = 0; r >= 0 && i < slot->fd_count; i++)
		r = fprintf(file, " %d", slot->fds[i]);
	return r < 0 ? r : fputc('\n', file);
}

/* What is to go is not passed on: with the server that has it, it ends. */
static bool is_kept(const KeeperSlot *slot)
{
	return slot->state != KEEPER_SLOT_LEAVING && !slot->unwanted;
}

static int write_all(const KeeperDaemon *daemon, FILE *file)
{
	for (size_t i = 0; i < 2; i++) {
		const KeeperMount *mount = &daemon->mounts[i];
		if (fprintf(file, "mount %zu %d %d %d %u %u\n", i, mount->fuse_fd, mount->init_fd, mount->journal_fd,
			    mount->entry.major, mount->entry.minor) < 0)
			return -EIO;
	}
	if (fprintf(file, "server %d %d\nfds %d %d %d\nending %d\nspares %d %d\nhighest %u\n", daemon->server.pid,
		    daemon->server.program_fd, daemon->metrics_fd, daemon->listen_fd, daemon->ready_fd, daemon->ending,
		    daemon->spare_fds[0], daemon->spare_fds[1], daemon->highest) < 0)
		return -EIO;
	for (size_t i = 0; i < KEEPER_CLIENTS; i++) {
		if (daemon->clients[i].fd >= 0 &&
		    fprintf(file, "client %d %d\n", daemon->clients[i].fd, daemon->clients[i].greeted) < 0)
			return -EIO;
	}
	for (size_t i = 0; i < daemon->slot_count; i++) {
		if (is_kept(daemon->slots[i]) && write_slot(file, daemon->slots[i]) < 0)
			return -EIO;
	}
	return 0;
}

int keeper_daemon_save(KeeperDaemon *daemon, int *ret_fd)
{
	_cleanup_free_ char *text = NULL;
	size_t size = 0;
	FILE *file = open_memstream(&text, &size);
	if (!file)
		return -ENOMEM;
	int r = write_all(daemon, file);
	if (fclose(file) != 0 || r < 0)
		return -ENOMEM;
	_cleanup_close_ int fd = memfd_create("imgfs-keeper-state", MFD_CLOEXEC);
	r = fd < 0 ? -errno : fd_write_all(fd, text, size);
	if (r < 0)
		return r;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static void set_inherited(int fd, bool inherit)
{
	if (fd >= 0)
		(void)fcntl(fd, F_SETFD, inherit ? 0 : FD_CLOEXEC);
}

void keeper_daemon_inherit(const KeeperDaemon *daemon, bool inherit)
{
	const int fds[] = { daemon->server.program_fd, daemon->metrics_fd,   daemon->listen_fd,
			    daemon->ready_fd,          daemon->spare_fds[0], daemon->spare_fds[1] };
	for (size_t i = 0; i < ELEMENTS(fds); i++)
		set_inherited(fds[i], inherit);
	for (size_t i = 0; i < 2; i++) {
		set_inherited(daemon->mounts[i].fuse_fd, inherit);
		set_inherited(daemon->mounts[i].init_fd, inherit);
		set_inherited(daemon->mounts[i].journal_fd, inherit);
	}
	for (size_t i = 0; i < KEEPER_CLIENTS; i++)
		set_inherited(daemon->clients[i].fd, inherit);
	for (size_t i = 0; i < daemon->slot_count; i++) {
		for (size_t j = 0; j < daemon->slots[i]->fd_count; j++)
			set_inherited(daemon->slots[i]->fds[j], inherit && is_kept(daemon->slots[i]));
	}
}

/* What stands behind the numbers of a "slot". */
static int read_slot(KeeperDaemon *daemon, const char *line)
{
	DaemonMessage attach = { 0 };
	unsigned deaths;
	long long died;
	int used = 0;
	if (sscanf(line, "slot %u %u %u %lld %64s %u%n", &attach.slot, &attach.flags, &deaths, &died, attach.name,
		   &attach.count, &used) != 6 ||
	    attach.count == 0 || attach.count > DAEMON_ATTACH_FDS)
		return -EBADMSG;
	KeeperSlot *slot = keeper_slot_new(&attach, -1);
	if (!slot)
		return -ENOMEM;
	slot->deaths = deaths;
	slot->died = died;
	const char *at = line + used;
	while (slot->fd_count < slot->fd_total) {
		char *end;
		long fd = strtol(at, &end, 10);
		if (end == at || fd < 0 || fd > INT32_MAX)
			break;
		slot->fds[slot->fd_count++] = (int)fd;
		at = end;
	}
	int r = slot->fd_count < slot->fd_total ? -EBADMSG : keeper_slot_add(daemon, slot);
	if (r < 0)
		(void)keeper_slot_free(slot);
	return r;
}

static int read_mount(KeeperDaemon *daemon, const char *line)
{
	unsigned number;
	KeeperMount mount = { 0 };
	if (sscanf(line, "mount %u %d %d %d %u %u", &number, &mount.fuse_fd, &mount.init_fd, &mount.journal_fd,
		   &mount.entry.major, &mount.entry.minor) != 6 ||
	    number > 1)
		return -EBADMSG;
	KeeperMount *to = &daemon->mounts[number];
	to->fuse_fd = mount.fuse_fd;
	to->init_fd = mount.init_fd;
	to->journal_fd = mount.journal_fd;
	to->entry = mount.entry;
	return 0;
}

static int read_client(KeeperDaemon *daemon, const char *line)
{
	int fd, greeted;
	if (sscanf(line, "client %d %d", &fd, &greeted) != 2)
		return -EBADMSG;
	for (size_t i = 0; i < KEEPER_CLIENTS; i++) {
		if (daemon->clients[i].fd < 0) {
			daemon->clients[i] = (KeeperClient){ .fd = fd, .greeted = greeted, .heard = keeper_now() };
			return 0;
		}
	}
	return -EBADMSG;
}

static int read_line(KeeperDaemon *daemon, const char *line)
{
	int ending;
	if (strncmp(line, "slot ", 5) == 0)
		return read_slot(daemon, line);
	if (strncmp(line, "mount ", 6) == 0)
		return read_mount(daemon, line);
	if (strncmp(line, "client ", 7) == 0)
		return read_client(daemon, line);
	if (sscanf(line, "server %d %d", &daemon->server.pid, &daemon->server.program_fd) == 2 ||
	    sscanf(line, "fds %d %d %d", &daemon->metrics_fd, &daemon->listen_fd, &daemon->ready_fd) == 3 ||
	    sscanf(line, "spares %d %d", &daemon->spare_fds[0], &daemon->spare_fds[1]) == 2 ||
	    sscanf(line, "highest %u", &daemon->highest) == 1)
		return 0;
	if (sscanf(line, "ending %d", &ending) != 1)
		return -EBADMSG;
	daemon->ending = ending != 0;
	return 0;
}

int keeper_daemon_load(KeeperDaemon *daemon, int fd)
{
	_cleanup_free_ char *text = NULL;
	char path[64];
	size_t size;
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	int r = fd_read_file(AT_FDCWD, path, STATE_MAX, &text, &size);
	char *rest = text;
	for (char *line; r == 0 && (line = strsep(&rest, "\n"));)
		r = line[0] ? read_line(daemon, line) : 0;
	keeper_daemon_inherit(daemon, false);
	return r;
}
