/* Checks of the engines whose images imgfs is to be. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "fs/base/fd.h"
#include "tools/cmd/doctor.h"

#define CONF_MAX (1u << 20)

/* The first line that a command prints, or NULL: it is not there. malloc'ed. `command` is constant text of this file. */
static char *ask(const char *command)
{
	char *line = NULL;
	size_t room = 0;
	FILE *pipe = popen(command, "re");
	ssize_t size = pipe ? getline(&line, &room, pipe) : -1;
	if (pipe)
		(void)pclose(pipe);
	if (size <= 0) {
		free(line);
		return NULL;
	}
	line[strcspn(line, "\n")] = '\0';
	return line;
}

static bool has_words(const char *path, const char *first, const char *second)
{
	_cleanup_free_ char *text = NULL;
	size_t size;
	return fd_read_file(AT_FDCWD, path, CONF_MAX, &text, &size) == 0 && strstr(text, first) &&
	       (!second || strstr(text, second));
}

void doctor_containerd(Doctor *doctor)
{
	static const char conf[] = "/etc/containerd/config.toml";
	_cleanup_free_ char *version = ask("containerd --version 2>/dev/null");
	if (!version) {
		doctor_say(doctor, DOCTOR_NOTE, NULL, "containerd is not installed");
		return;
	}
	doctor_say(doctor, DOCTOR_GOOD, NULL, "%s", version);
	if (has_words(conf, "proxy_plugins", "imgfs"))
		doctor_say(doctor, DOCTOR_GOOD, NULL, "%s has imgfs as a snapshotter", conf);
	else
		doctor_say(doctor, DOCTOR_NOTE,
			   "[proxy_plugins.imgfs] with type = \"snapshot\" and the address of its socket",
			   "%s has no snapshotter imgfs; images are unpacked as ever", conf);
	if (!has_words(conf, "config_path", "certs.d"))
		doctor_say(doctor, DOCTOR_NOTE, "config_path = \"/etc/containerd/certs.d\" for its registry",
			   "%s does not look at certs.d, where imgfs trust puts authorities", conf);
}

void doctor_docker(Doctor *doctor)
{
	_cleanup_free_ char *version = ask("docker --version 2>/dev/null");
	if (!version) {
		doctor_say(doctor, DOCTOR_NOTE, NULL, "docker is not installed");
		return;
	}
	doctor_say(doctor, DOCTOR_GOOD, NULL, "%s", version);
	if (!has_words("/etc/docker/daemon.json", "imgfs", NULL))
		doctor_say(doctor, DOCTOR_NOTE, NULL,
			   "docker is not configured for imgfs; images are pulled and unpacked as ever");
}
