#include <stdio.h>
#include <string.h>

#include "tools/cmd/output.h"
#include "tools/cmd/why-report.h"

#define FILES_SHOWN   25u
#define READERS_SHOWN 10u

static const char *const ENDS[START_ENDS] = {
	[START_RECORDING] = "the recording goes on",
	[START_END_QUIET] = "recorded until nothing new was read for half a minute",
	[START_END_TIME] = "recorded for ten minutes",
	[START_END_FULL] = "recorded until the record was full",
};

/* "java[1234]", and for how many others it stands. */
static void reader_text(const WhyReport *report, const WhyFile *file, char *ret_text, size_t size)
{
	const StartRecord *record = report->mount->record;
	if (file->reader == UINT32_MAX) {
		(void)snprintf(ret_text, size, "shared");
		return;
	}
	const StartReader *reader = &record->readers[file->reader];
	(void)snprintf(ret_text, size, "%s[%u]%s", reader->command, reader->process, file->readers > 1 ? "+" : "");
}

static void print_head(const WhyReport *report)
{
	const MountObserved *mount = report->mount;
	StartEnd state = start_record_state(mount->record, shared_memory_clock());
	printf("%s on %s\n", mount->reference, mount->directory);
	printf("%u reads reached the server within %.2f s; in %.2f s of it somebody waited\n", report->read_count,
	       (double)(report->end - report->begin) / 1e6, (double)report->held_up / 1e6);
	printf("(%s; what the kernel answered from its page cache is not seen here)\n\n", ENDS[state]);
}

static void print_padded(const char *text, int width)
{
	int used = output_text(stdout, text);
	printf("%*s", used < width ? width - used + 1 : 1, "");
}

static void print_files(const WhyReport *report)
{
	printf("%9s %9s %9s  %-8s %-24s %s\n", "WAITED", "READ", "FETCHED", "SOURCE", "BY", "FILE");
	for (size_t i = 0; i < report->file_count && i < FILES_SHOWN; i++) {
		const WhyFile *file = &report->files[i];
		char read[OUTPUT_SIZE_TEXT], fetched[OUTPUT_SIZE_TEXT], by[64];
		reader_text(report, file, by, sizeof(by));
		printf("%6.0f ms %9s %9s  %-8s ", (double)file->sum.waited / 1000, output_size(file->sum.bytes, read),
		       output_size(file->sum.fetched, fetched), why_sources[file->source]);
		print_padded(by, 24);
		(void)output_text(stdout, file->path);
		printf("%s\n", file->sum.failed ? " (failed)" : "");
	}
	if (report->file_count > FILES_SHOWN)
		printf("%35s and %zu files more; --json lists all\n", "", report->file_count - FILES_SHOWN);
}

static void print_sum(const char *name, const WhySum *sum)
{
	char read[OUTPUT_SIZE_TEXT], fetched[OUTPUT_SIZE_TEXT];
	if (sum->reads > 0)
		printf("  %-10s %6u reads %9s read %9s fetched %8.0f ms waited%s\n", name, sum->reads,
		       output_size(sum->bytes, read), output_size(sum->fetched, fetched), (double)sum->waited / 1000,
		       sum->failed ? ", some failed" : "");
}

static void print_readers(const WhyReport *report)
{
	const StartRecord *record = report->mount->record;
	printf("\nreaders\n");
	for (size_t i = 0; i < report->reader_count && i < READERS_SHOWN; i++) {
		const StartReader *reader = &record->readers[report->readers[i].reader];
		char name[64];
		(void)snprintf(name, sizeof(name), "%s[%u]", reader->command, reader->process);
		printf("  ");
		print_padded(name, 24);
		printf("%6u reads %8.0f ms waited  ", report->readers[i].sum.reads,
		       (double)report->readers[i].sum.waited / 1000);
		(void)output_text(stdout, reader->group ? record->groups[reader->group - 1] : "-");
		printf("\n");
	}
	if (report->reader_count > READERS_SHOWN)
		printf("  and %zu more\n", report->reader_count - READERS_SHOWN);
}

int why_print(const WhyReport *report)
{
	print_head(report);
	print_files(report);
	printf("\nby source\n");
	for (size_t i = FETCH_TIERS; i-- > 0;)
		print_sum(why_sources[i], &report->sources[i]);
	print_sum("total", &report->total);
	print_sum("shared", &report->shared);
	if (report->reader_count > 0)
		print_readers(report);
	if (report->mount->record->lost > 0)
		printf("\n%llu reads more found no room in the record\n",
		       (unsigned long long)report->mount->record->lost);
	return fflush(stdout) == 0 && !ferror(stdout) ? 0 : -EIO;
}

static json_t *sum_json(const WhySum *sum)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:f}", "reads", (json_int_t)sum->reads, "failed",
			 (json_int_t)sum->failed, "bytes", (json_int_t)sum->bytes, "fetchedBytes",
			 (json_int_t)sum->fetched, "waitedMs", (double)sum->waited / 1000);
}

static json_t *reader_json(const StartRecord *record, uint32_t number)
{
	if (number == UINT32_MAX)
		return json_null();
	const StartReader *reader = &record->readers[number];
	return json_pack("{s:s, s:I, s:s}", "command", reader->command, "pid", (json_int_t)reader->process, "cgroup",
			 reader->group ? record->groups[reader->group - 1] : "");
}

/* Appends, or gives the array up: NULL then, also where it was so already. */
static json_t *append(json_t *array, json_t *value)
{
	if (array && json_array_append_new(array, value) == 0)
		return array;
	json_decref(array);
	return NULL;
}

static json_t *files_json(const WhyReport *report)
{
	json_t *array = json_array();
	for (size_t i = 0; i < report->file_count && array; i++) {
		const WhyFile *file = &report->files[i];
		array = append(array,
			       json_pack("{s:o, s:s, s:f, s:o, s:I, s:o}", "path", output_path_json(file->path),
					 "source", why_sources[file->source], "firstMs", (double)file->first / 1000,
					 "reader", reader_json(report->mount->record, file->reader), "readers",
					 (json_int_t)file->readers, "sum", sum_json(&file->sum)));
	}
	return array;
}

static json_t *reads_json(const WhyReport *report)
{
	json_t *array = json_array();
	for (uint32_t i = 0; i < report->read_count && array; i++) {
		const StartRead *read = &report->mount->record->entries[report->reads[i]];
		array = append(
			array,
			json_pack("{s:f, s:f, s:I, s:I, s:I, s:I, s:s, s:b, s:o}", "atMs", (double)read->time / 1000,
				  "waitedMs", (double)read->waited / 1000, "inode", (json_int_t)read->inode, "offset",
				  (json_int_t)read->offset, "size", (json_int_t)read->size, "fetchedBytes",
				  (json_int_t)read->fetched, "source", why_sources[read->source], "first",
				  (read->flags & START_READ_FIRST) != 0, "reader",
				  reader_json(report->mount->record, read->reader ? read->reader - 1u : UINT32_MAX)));
	}
	return array;
}

static json_t *readers_json(const WhyReport *report)
{
	json_t *array = json_array();
	for (size_t i = 0; i < report->reader_count && array; i++)
		array = append(array, json_pack("{s:o, s:o}", "reader",
						reader_json(report->mount->record, report->readers[i].reader), "sum",
						sum_json(&report->readers[i].sum)));
	return array;
}

static json_t *sources_json(const WhyReport *report)
{
	json_t *object = json_object();
	for (size_t i = 0; i < FETCH_TIERS && object; i++) {
		if (json_object_set_new(object, why_sources[i], sum_json(&report->sources[i])) < 0) {
			json_decref(object);
			return NULL;
		}
	}
	return object;
}

int why_print_json(const WhyReport *report)
{
	const MountObserved *mount = report->mount;
	StartEnd state = start_record_state(mount->record, shared_memory_clock());
	return output_json(json_pack(
		"{s:s, s:s, s:s?, s:b, s:f, s:f, s:f, s:o, s:o, s:o, s:o, s:o, s:o, s:I}", "directory",
		mount->directory, "reference", mount->reference, "manifest", mount->plan.manifest, "recording",
		state == START_RECORDING, "beginMs", (double)report->begin / 1000, "endMs", (double)report->end / 1000,
		"heldUpMs", (double)report->held_up / 1000, "total", sum_json(&report->total), "shared",
		sum_json(&report->shared), "sources", sources_json(report), "files", files_json(report), "readers",
		readers_json(report), "reads", reads_json(report), "lostReads", (json_int_t)mount->record->lost));
}
