/* Private to `imgfs doctor`: what a check is given, and how it says what it found. A check is one function in the table of cmd-doctor.c. */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "fs/base/error.h"
#include "tools/cmd/remote-options.h"

typedef enum DoctorLevel {
	DOCTOR_GOOD,
	DOCTOR_NOTE,  /* something that one may want to know */
	DOCTOR_WARN,  /* it works, but not as it should */
	DOCTOR_BAD,   /* it does not work */
	DOCTOR_FIXED, /* it did not, until this command mended it */
} DoctorLevel;

typedef struct Doctor {
	RemoteOptions remote;
	const char *runtime; /* where sockets of imgfsd are */
	char **hosts;        /* to be asked beside those that are known */
	int host_count;
	bool fix, json;
	const char *check; /* the one that runs */
	unsigned counts[DOCTOR_FIXED + 1];
	json_t *findings;
} Doctor;

/* One finding; `way_out`: what to do about it, or NULL. */
void doctor_say(Doctor *doctor, DoctorLevel level, const char *way_out, const char *format, ...) _printf_(4, 5);

typedef void DoctorCheck(Doctor *doctor);

DoctorCheck doctor_kernel, doctor_device, doctor_fusermount, doctor_namespace, doctor_limits; /* doctor-system.c */
DoctorCheck doctor_containerd, doctor_docker;                                                 /* doctor-engines.c */
DoctorCheck doctor_cache, doctor_pins;                                                        /* doctor-cache.c */
DoctorCheck doctor_mounts, doctor_daemon;                                                     /* doctor-mounts.c */
DoctorCheck doctor_certificates, doctor_hosts;                                                /* doctor-hosts.c */
