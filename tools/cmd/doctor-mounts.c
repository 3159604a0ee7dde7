/* Checks of mounts and of the node daemon. */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "fs/base/fd.h"
#include "fs/mount/mount-table.h"
#include "fs/mount/mount.h"
#include "tools/cmd/doctor.h"

static void check_mount(Doctor *doctor, const char *directory)
{
	Error error = { 0 };
	int r = mount_ask(directory);
	if (r == 0)
		doctor_say(doctor, DOCTOR_GOOD, NULL, "%s answers", directory);
	else if (r != -ENOTCONN)
		doctor_say(doctor, DOCTOR_WARN,
			   "look at its log; a server that is stopped can be killed: the next one goes on", "%s: %s",
			   directory, strerror(-r));
	else if (doctor->fix && mount_clear_dead(directory, &error) > 0)
		doctor_say(doctor, DOCTOR_FIXED, NULL, "%s was dead, and was detached", directory);
	else
		doctor_say(doctor, DOCTOR_BAD, "imgfs umount --lazy, or --fix; then mount it again",
			   "%s is dead: its keeper has ended", directory);
}

void doctor_mounts(Doctor *doctor)
{
	_cleanup_fclose_ FILE *file = fopen("/proc/self/mountinfo", "re");
	char *line = NULL;
	size_t room = 0;
	while (file && getline(&line, &room, file) > 0) {
		char directory[PATH_MAX];
		if (!strstr(line, " " MOUNT_TABLE_TYPE " ") || sscanf(line, "%*s %*s %*s %*s %4095s", directory) != 1)
			continue;
		if (!strchr(directory, '\\')) /* one with odd bytes is left alone */
			check_mount(doctor, directory);
	}
	free(line);
}

/* 0: somebody answers; a negative errno otherwise. */
static int connect_to(const char *path, int type)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	memcpy(address.sun_path, path, strlen(path) + 1);
	_cleanup_close_ int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	return fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : 0;
}

static void check_socket(Doctor *doctor, const char *name, int type, const char *program)
{
	char path[256];
	(void)snprintf(path, sizeof(path), "%s/%s", doctor->runtime, name);
	int r = connect_to(path, type);
	if (r == 0)
		doctor_say(doctor, DOCTOR_GOOD, NULL, "%s answers at %s", program, path);
	else if (r == -ENOENT)
		doctor_say(doctor, DOCTOR_NOTE, NULL, "%s does not run; each mount has a process of its own", program);
	else if (r == -ECONNREFUSED && doctor->fix && unlink(path) == 0)
		doctor_say(doctor, DOCTOR_FIXED, NULL, "%s was left by %s, which has ended", path, program);
	else if (r == -ECONNREFUSED)
		doctor_say(doctor, DOCTOR_BAD,
			   "start it again: systemctl restart imgfsd; or --fix takes the socket away",
			   "%s was left by %s, which has ended", path, program);
	else
		doctor_say(doctor, r == -EACCES ? DOCTOR_NOTE : DOCTOR_BAD, r == -EACCES ? "ask as root" : NULL,
			   "%s: %s", path, strerror(-r));
}

void doctor_daemon(Doctor *doctor)
{
	check_socket(doctor, "imgfsd.sock", SOCK_STREAM, "imgfsd");
	check_socket(doctor, "keeper.sock", SOCK_SEQPACKET, "imgfs-keeper");
}
