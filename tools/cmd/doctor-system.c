/* Checks of the kernel, of FUSE and of what a process may do. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "fs/base/fd.h"
#include "tools/cmd/doctor.h"

#define FUSE_DEVICE "/dev/fuse"
#define FUSE_CONF   "/etc/fuse.conf"
#define FILES_WANT  4096u
#define LOCK_WANT   (6u << 20)

static bool kernel_has(const char *filesystem)
{
	_cleanup_fclose_ FILE *file = fopen("/proc/filesystems", "re");
	char line[128];
	while (file && fgets(line, sizeof(line), file)) {
		char *name = strrchr(line, '\t');
		line[strcspn(line, "\n")] = '\0';
		if (name && strcmp(name + 1, filesystem) == 0)
			return true;
	}
	return false;
}

void doctor_kernel(Doctor *doctor)
{
	struct utsname name;
	unsigned major = 0, minor = 0;
	if (uname(&name) < 0 || sscanf(name.release, "%u.%u", &major, &minor) != 2) {
		doctor_say(doctor, DOCTOR_WARN, NULL, "the kernel does not say its version");
		return;
	}
	unsigned version = major * 1000 + minor;
	if (version < 5015)
		doctor_say(doctor, DOCTOR_BAD, "run 5.15 or later", "kernel %s is too old", name.release);
	else
		doctor_say(doctor, DOCTOR_GOOD, NULL, "kernel %s; idmapped FUSE mounts: %s; FUSE passthrough: %s",
			   name.release, version >= 6012 ? "yes" : "no, since 6.12",
			   version >= 6009 ? "yes" : "no, since 6.9");
	if (kernel_has("overlay"))
		doctor_say(doctor, DOCTOR_GOOD, NULL, "overlayfs is there");
	else
		doctor_say(doctor, DOCTOR_WARN, "modprobe overlay, and a line for it in /etc/modules-load.d",
			   "overlayfs is not loaded; containers need it");
}

static void open_device(Doctor *doctor)
{
	_cleanup_close_ int fd = open(FUSE_DEVICE, O_RDWR | O_CLOEXEC);
	if (fd >= 0)
		doctor_say(doctor, DOCTOR_GOOD, NULL, FUSE_DEVICE " can be opened");
	else
		doctor_say(doctor, DOCTOR_BAD,
			   errno == ENODEV || errno == ENXIO ? "modprobe fuse"
							     : "mode 0666, and a container needs the device given",
			   FUSE_DEVICE " cannot be opened: %s", strerror(errno));
}

void doctor_device(Doctor *doctor)
{
	struct stat status;
	if (!kernel_has("fuse"))
		doctor_say(doctor, DOCTOR_BAD, "modprobe fuse, and a line for it in /etc/modules-load.d",
			   "the kernel has no FUSE loaded");
	if (stat(FUSE_DEVICE, &status) == 0 && S_ISCHR(status.st_mode) && status.st_rdev == makedev(10, 229)) {
		open_device(doctor);
		return;
	}
	if (errno == ENOENT && doctor->fix && mknod(FUSE_DEVICE, S_IFCHR | 0666, makedev(10, 229)) == 0)
		doctor_say(doctor, DOCTOR_FIXED, NULL, FUSE_DEVICE " was missing, and was made");
	else
		doctor_say(doctor, DOCTOR_BAD, "mknod " FUSE_DEVICE " c 10 229, or --fix as root",
			   FUSE_DEVICE " is not there, or something else");
}

/* Where a program is that PATH leads to. */
static bool find_program(const char *name, char *ret_path, size_t size)
{
	_cleanup_free_ char *path = strdup(getenv("PATH") ?: "/usr/bin:/bin");
	char *rest = NULL;
	for (char *part = path ? strtok_r(path, ":", &rest) : NULL; part; part = strtok_r(NULL, ":", &rest)) {
		(void)snprintf(ret_path, size, "%s/%s", part, name);
		if (access(ret_path, X_OK) == 0)
			return true;
	}
	return false;
}

void doctor_fusermount(Doctor *doctor)
{
	char path[4096];
	struct stat status;
	_cleanup_free_ char *conf = NULL;
	size_t size;
	if (!find_program("fusermount3", path, sizeof(path)))
		doctor_say(doctor, geteuid() == 0 ? DOCTOR_NOTE : DOCTOR_BAD, "install the package fuse3",
			   "fusermount3 is not there; ordinary users cannot mount");
	else if (stat(path, &status) == 0 && (!(status.st_mode & S_ISUID) || status.st_uid != 0))
		doctor_say(doctor, geteuid() == 0 ? DOCTOR_NOTE : DOCTOR_BAD, "install the package fuse3 again",
			   "%s is not set-uid root; ordinary users cannot mount", path);
	else
		doctor_say(doctor, DOCTOR_GOOD, NULL, "%s is there for ordinary users", path);
	bool allowed = fd_read_file(AT_FDCWD, FUSE_CONF, 65536, &conf, &size) == 0 &&
		       (strncmp(conf, "user_allow_other", 16) == 0 || strstr(conf, "\nuser_allow_other"));
	if (!allowed && geteuid() != 0)
		doctor_say(doctor, DOCTOR_NOTE, "a line user_allow_other in " FUSE_CONF,
			   "what users mount nobody else sees, root neither");
}

void doctor_namespace(Doctor *doctor)
{
	char own[64] = "", first[64] = "", line[4096];
	_unused_ ssize_t a = readlink("/proc/self/ns/mnt", own, sizeof(own) - 1);
	ssize_t b = readlink("/proc/1/ns/mnt", first, sizeof(first) - 1);
	if (b > 0 && strcmp(own, first) != 0)
		doctor_say(doctor, DOCTOR_WARN,
			   "run imgfs in the host's mount namespace: no PrivateTmp, ProtectSystem and the like in its "
			   "unit",
			   "this is not the mount namespace of process 1; others may not see what is mounted here");
	_cleanup_fclose_ FILE *file = fopen("/proc/self/mountinfo", "re");
	bool shared = false;
	while (file && fgets(line, sizeof(line), file)) {
		char point[2];
		if (sscanf(line, "%*s %*s %*s %*s %1s", point) == 1 && strstr(line, " / / ") &&
		    strstr(line, " shared:"))
			shared = true;
	}
	if (shared)
		doctor_say(doctor, DOCTOR_GOOD, NULL, "mounts spread to other namespaces (/ is shared)");
	else
		doctor_say(doctor, DOCTOR_WARN, "mount --make-rshared /",
			   "/ is not shared: containerd and containers that run already do not see new mounts");
}

void doctor_limits(Doctor *doctor)
{
	struct rlimit files, locked;
	if (getrlimit(RLIMIT_NOFILE, &files) < 0 || getrlimit(RLIMIT_MEMLOCK, &locked) < 0)
		return;
	if (files.rlim_max < FILES_WANT)
		doctor_say(doctor, DOCTOR_WARN, "raise nofile in limits.conf, or LimitNOFILE= of the unit",
			   "%llu files can be open at once; each layer needs up to six",
			   (unsigned long long)files.rlim_max);
	else
		doctor_say(doctor, DOCTOR_GOOD, NULL, "%llu files can be open at once",
			   (unsigned long long)files.rlim_max);
	if (geteuid() != 0 && locked.rlim_max < LOCK_WANT)
		doctor_say(doctor, DOCTOR_WARN, "raise memlock in limits.conf to 6144 (KiB)",
			   "little memory can be locked: a server killed under memory pressure may fail a read");
}
