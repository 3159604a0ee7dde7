/* imgfs status: what this machine has mounted, by digest, how complete it is, and whether anybody waits for it. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "fs/mount/metrics-text.h"
#include "fs/mount/mount-observe.h"
#include "tools/cmd/output.h"
#include "tools/cmd/verbs.h"

#define VERB "status"

enum { OPTION_JSON = VERB_OPTION_LONG };

const VerbOption cmd_status_options[] = {
	{ "json", OPTION_JSON, NULL, "print a JSON array" },
	{ 0 },
};

static const char *const ENDS[START_ENDS] = {
	[START_RECORDING] = "recording",
	[START_END_QUIET] = "quiet",
	[START_END_TIME] = "time",
	[START_END_FULL] = "full",
};

/* Never 100 before all of it is there. */
static double percent(const MountObserved *mount)
{
	if (mount->needed == 0 || mount->present == mount->needed)
		return 100;
	double value = (double)mount->present * 100 / (double)mount->needed;
	return value < 99.9 ? value : 99.9;
}

static json_t *describe_record(const MountObserved *mount, int64_t now)
{
	const StartRecord *record = mount->record;
	unsigned stalled;
	uint64_t longest;
	if (!record)
		return json_null();
	metrics_stalled(record, now, &stalled, &longest);
	StartEnd state = start_record_state(record, now);
	return json_pack("{s:f, s:s, s:I, s:I, s:I, s:i, s:I, s:I, s:s?, s:f}", "mountedAt",
			 (double)record->head.began_real / 1000, "startUp",
			 record->first_read == 0 ? "nothing read yet" : ENDS[state], "reads", (json_int_t)record->reads,
			 "readBytes", (json_int_t)record->read_bytes, "servers", (json_int_t)record->servers,
			 "waitingReaders", (int)stalled, "waitingLongestMs", (json_int_t)(longest / 1000),
			 "failedReads", (json_int_t)record->failures, "lastError",
			 record->failures > 0 ? error_text(NULL, -(int)record->last_error) : NULL, "lastErrorAt",
			 (double)record->last_error_real / 1000);
}

static json_t *describe(const MountObserved *mount, int64_t now)
{
	json_t *object = json_pack("{s:s, s:s, s:s?, s:s?, s:i, s:b, s:b, s:o}", "directory", mount->directory,
				   "reference", mount->reference, "manifest", mount->plan.manifest, "image",
				   mount->plan.config, "keeper", (int)mount->keeper, "daemon", mount->daemon, "sealed",
				   mount->sealed, "record", describe_record(mount, now));
	if (object && mount->measured) {
		json_t *ready = json_pack("{s:I, s:I, s:f}", "neededBytes", (json_int_t)mount->needed, "presentBytes",
					  (json_int_t)mount->present, "readyPercent", percent(mount));
		if (!ready || json_object_update_new(object, ready) < 0) {
			json_decref(object);
			return NULL;
		}
	}
	return object;
}

static int print_json(const MountsObserved *observed)
{
	json_t *array = json_array();
	int64_t now = shared_memory_clock();
	for (size_t i = 0; array && i < observed->count; i++) {
		if (json_array_append_new(array, describe(&observed->items[i], now)) < 0) {
			json_decref(array);
			return -ENOMEM;
		}
	}
	return output_json(array);
}

/* Returns whether anybody waits. */
static bool print_waiting(const StartRecord *record, int64_t now)
{
	unsigned count = 0;
	uint64_t longest = 0;
	if (record)
		metrics_stalled(record, now, &count, &longest);
	if (count > 0)
		printf("          %u %s for the network, the first for %.1f s\n", count,
		       count == 1 ? "reader waits" : "readers wait", (double)longest / 1e6);
	return count > 0;
}

/* Returns whether any has failed. */
static bool print_failures(const StartRecord *record)
{
	char age[OUTPUT_AGE_TEXT];
	if (!record || record->failures == 0)
		return false;
	printf("          %llu %s failed, the last %s ago: %s\n", (unsigned long long)record->failures,
	       record->failures == 1 ? "read" : "reads",
	       output_age((time_t)(record->last_error_real / 1000), time(NULL), age),
	       error_text(NULL, -(int)record->last_error));
	return true;
}

static void print_mount(const MountObserved *mount, int64_t now)
{
	char size[OUTPUT_SIZE_TEXT];
	(void)output_text(stdout, mount->directory);
	printf("\n  shows   ");
	(void)output_text(stdout, mount->reference);
	printf("\n");
	if (mount->owner != geteuid())
		printf("  owner   user %u\n", mount->owner);
	if (mount->plan.manifest)
		printf("          %s\n  image   %s\n", mount->plan.manifest, mount->plan.config ?: "-");
	if (mount->measured)
		printf("  ready   %.4g %% of %s%s\n", percent(mount), output_size(mount->needed, size),
		       mount->sealed ? ", sealed" : "");
	bool waiting = print_waiting(mount->record, now), failed = print_failures(mount->record);
	if (waiting || failed)
		printf("          -> `imgfs doctor` asks the hosts that images come from; the server's log has what "
		       "went "
		       "wrong\n");
}

static void print_refused(const MountRefused *refused)
{
	fprintf(stderr, "imgfs status: process %d of user %u, which is named as a keeper, is left out: %s\n",
		refused->keeper, refused->owner,
		refused->error == -ETIMEDOUT ? "its files could not be read in time"
					     : "it has not what a keeper of this version has");
}

static int run(bool json, Error *error)
{
	MountsObserved observed = { 0 };
	int r = mounts_observe(true, &observed);
	if (r < 0)
		return error_set(error, r, "the mounts of this machine cannot be looked at: %s", error_text(NULL, r));
	if (json)
		r = print_json(&observed);
	else if (observed.count == 0 && observed.hidden == 0)
		printf("nothing is mounted\n");
	int64_t now = shared_memory_clock();
	for (size_t i = 0; !json && i < observed.count; i++)
		print_mount(&observed.items[i], now);
	if (observed.hidden > 0)
		fprintf(stderr, "imgfs status: %zu mounts of other users are left out; root sees them\n",
			observed.hidden);
	for (size_t i = 0; i < observed.refused_count; i++)
		print_refused(&observed.refused[i]);
	mounts_observed_done(&observed);
	return r < 0 ? error_set(error, r, "out of memory") : 0;
}

int cmd_status(int argc, char **argv)
{
	Error error = { 0 };
	bool json = false;
	for (int id; (id = verb_getopt(argc, argv, cmd_status_options)) != -1;) {
		if (id != OPTION_JSON)
			return VERB_USAGE;
		json = true;
	}
	if (optind < argc)
		return verb_usage_error(VERB, "it takes no argument such as %s", argv[optind]);
	int r = run(json, &error);
	return r < 0 ? verb_fail(VERB, r, &error) : VERB_SUCCESS;
}
