/* imgfs doctor: looks at everything that imgfs needs of a machine, says what to do about it, and does what is safe. */
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/mount/daemon-mounts.h"
#include "tools/cmd/doctor.h"
#include "tools/cmd/output.h"

#define VERB "doctor"

enum { OPTION_FIX = VERB_OPTION_LONG, OPTION_JSON, OPTION_RUNTIME };

const VerbOption cmd_doctor_options[] = {
	{ "fix", OPTION_FIX, NULL, "mend what is safe: directories, permissions, dead mounts, stale sockets" },
	{ "json", OPTION_JSON, NULL, "print JSON" },
	REMOTE_CACHE_OPTION,
	{ "certs-dir", REMOTE_OPTION_CERTS, "DIR", "whom to trust by host; default " NET_CERTS_DIRECTORY },
	{ "runtime", OPTION_RUNTIME, "DIR", "where imgfsd's sockets are; default " DAEMON_RUNTIME },
	{ 0 },
};

static const struct {
	const char *name;
	DoctorCheck *run;
} checks[] = {
	{ "kernel", doctor_kernel },
	{ "fuse", doctor_device },
	{ "fusermount", doctor_fusermount },
	{ "mount namespace", doctor_namespace },
	{ "limits", doctor_limits },
	{ "cache", doctor_cache },
	{ "pins", doctor_pins },
	{ "mounts", doctor_mounts },
	{ "imgfsd", doctor_daemon },
	{ "containerd", doctor_containerd },
	{ "docker", doctor_docker },
	{ "certificates", doctor_certificates },
	{ "servers", doctor_hosts },
};

static const char *const levels[] = {
	[DOCTOR_GOOD] = "good", [DOCTOR_NOTE] = "note",   [DOCTOR_WARN] = "warning",
	[DOCTOR_BAD] = "bad",   [DOCTOR_FIXED] = "fixed",
};

void doctor_say(Doctor *doctor, DoctorLevel level, const char *way_out, const char *format, ...)
{
	char *text;
	va_list args;
	va_start(args, format);
	if (vasprintf(&text, format, args) < 0)
		text = NULL;
	va_end(args);
	doctor->counts[level]++;
	if (doctor->json) {
		json_t *finding = json_pack("{s:s, s:s, s:s, s:s?}", "check", doctor->check, "level", levels[level],
					    "text", text ?: "out of memory", "do", way_out);
		_unused_ int r = json_array_append_new(doctor->findings, finding);
	} else {
		printf("%-8s %s: %s\n", levels[level], doctor->check, text ?: "out of memory");
		if (way_out)
			printf("         -> %s\n", way_out);
	}
	free(text);
}

static int parse(int argc, char **argv, Doctor *doctor)
{
	for (int id; (id = verb_getopt(argc, argv, cmd_doctor_options)) != -1;) {
		int status = VERB_SUCCESS;
		switch (id) {
		case OPTION_FIX:
			doctor->fix = true;
			break;
		case OPTION_JSON:
			doctor->json = true;
			break;
		case OPTION_RUNTIME:
			doctor->runtime = optarg;
			break;
		default:
			status = remote_options_take(&doctor->remote, id);
		}
		if (status != VERB_SUCCESS)
			return status;
	}
	for (int i = optind; i < argc; i++)
		if (!remote_options_is_host(argv[i]))
			return verb_usage_error(VERB, "%s is no server: write HOST:PORT, as in build:8500", argv[i]);
	doctor->hosts = argv + optind;
	doctor->host_count = argc - optind;
	return VERB_SUCCESS;
}

static int print_end(Doctor *doctor)
{
	unsigned bad = doctor->counts[DOCTOR_BAD];
	if (!doctor->json) {
		printf("%u good, %u notes, %u warnings, %u bad, %u fixed\n", doctor->counts[DOCTOR_GOOD],
		       doctor->counts[DOCTOR_NOTE], doctor->counts[DOCTOR_WARN], bad, doctor->counts[DOCTOR_FIXED]);
		return bad ? VERB_FAILURE : VERB_SUCCESS;
	}
	int r = output_json(json_pack("{s:O, s:b}", "findings", doctor->findings, "healthy", bad == 0));
	return r < 0 || bad ? VERB_FAILURE : VERB_SUCCESS;
}

int cmd_doctor(int argc, char **argv)
{
	Doctor doctor = { .runtime = DAEMON_RUNTIME };
	int status = parse(argc, argv, &doctor);
	if (status != VERB_SUCCESS)
		return status;
	doctor.findings = json_array();
	if (!doctor.findings)
		return verb_fail(VERB, -ENOMEM, NULL);
	for (size_t i = 0; i < ELEMENTS(checks); i++) {
		doctor.check = checks[i].name;
		checks[i].run(&doctor);
		(void)fflush(stdout);
	}
	status = print_end(&doctor);
	json_decref(doctor.findings);
	return status;
}
