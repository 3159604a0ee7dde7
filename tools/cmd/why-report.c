#include "tools/cmd/why-report.h"

#include <ctype.h>
#include <string.h>

#include "fs/format/tree-paths.h"

#define ID_PREFIX_MIN 4u

const char *const why_sources[FETCH_TIERS] = {
	[FETCH_TIER_DECODED] = "memory",
	[FETCH_TIER_CACHE] = "cache",
	[FETCH_TIER_DONOR] = "donor",
	[FETCH_TIER_NETWORK] = "network",
};

void why_report_done(WhyReport *report)
{
	for (size_t i = 0; i < report->file_count; i++)
		free(report->files[i].path);
	free(report->files);
	free(report->readers);
	free((void *)(uintptr_t)report->reads);
	*report = (WhyReport){ 0 };
}

/* "docker-ID.scope", "cri-containerd-ID.scope", "libpod-ID.scope", or ID or a name alone. */
static bool is_part(const char *part, size_t length, const char *container)
{
	static const char *const prefixes[] = { "docker-", "cri-containerd-", "crio-", "libpod-", "" };
	static const char scope[] = ".scope";
	size_t wanted = strlen(container);
	if (length > strlen(scope) && strncmp(part + length - strlen(scope), scope, strlen(scope)) == 0)
		length -= strlen(scope);
	for (size_t i = 0; i < ELEMENTS(prefixes); i++) {
		size_t skip = strlen(prefixes[i]);
		if (length <= skip || strncmp(part, prefixes[i], skip) != 0)
			continue;
		if (length - skip == wanted && strncmp(part + skip, container, wanted) == 0)
			return true;
		bool id = length - skip == DIGEST_HEX_SIZE - 1 && wanted >= ID_PREFIX_MIN && wanted < length - skip;
		for (size_t j = skip; id && j < length; j++)
			id = isxdigit((unsigned char)part[j]);
		if (id && strncmp(part + skip, container, wanted) == 0)
			return true;
	}
	return false;
}

/* Is it the cgroup `path`, or below it? */
static bool is_below(const char *group, const char *path)
{
	size_t length = strlen(path);
	return path[0] == '/' && strncmp(group, path, length) == 0 && (group[length] == '\0' || group[length] == '/');
}

size_t why_container_length(const char *group, const WhyFilter *filter)
{
	for (size_t i = 0; i < filter->count; i++)
		if (is_below(group, filter->containers[i]))
			return strlen(filter->containers[i]);
	for (const char *part = group; *part;) {
		size_t length = strcspn(part, "/");
		for (size_t i = 0; length > 0 && i < filter->count; i++)
			if (is_part(part, length, filter->containers[i]))
				return (size_t)(part - group) + length;
		part += length + (part[length] == '/');
	}
	return 0;
}

static const char *group_of(const StartRecord *record, uint32_t reader)
{
	uint32_t group = record->readers[reader].group;
	return group > 0 ? record->groups[group - 1] : "";
}

static void add_sum(WhySum *sum, const StartRead *read)
{
	sum->reads++;
	sum->failed += (read->flags & START_READ_FAILED) != 0;
	sum->bytes += read->size;
	sum->fetched += read->fetched;
	sum->waited += read->waited;
}

/* Whose reads these are: the last thread of the same process in the same cgroup, which knows what program the process has become. */
static uint32_t process_of(const StartRecord *record, uint32_t reader)
{
	uint32_t found = reader;
	for (uint32_t i = reader + 1; i < record->reader_count; i++)
		if (record->readers[i].process == record->readers[reader].process &&
		    record->readers[i].group == record->readers[reader].group)
			found = i;
	return found;
}

static int add_reader(WhyReport *report, uint32_t reader, const StartRead *read)
{
	uint32_t process = process_of(report->mount->record, reader);
	size_t i = 0;
	while (i < report->reader_count && report->readers[i].reader != process)
		i++;
	if (i == report->reader_count) {
		WhyReader *larger = reallocarray(report->readers, i + 1, sizeof(*larger));
		if (!larger)
			return -ENOMEM;
		report->readers = larger;
		report->readers[report->reader_count++] = (WhyReader){ .reader = process };
	}
	add_sum(&report->readers[i].sum, read);
	return 0;
}

static int add_file(WhyReport *report, const StartRead *read)
{
	size_t i = 0;
	while (i < report->file_count && report->files[i].inode != read->inode)
		i++;
	if (i == report->file_count) {
		WhyFile *larger = reallocarray(report->files, i + 1, sizeof(*larger));
		if (!larger)
			return -ENOMEM;
		report->files = larger;
		report->files[report->file_count++] =
			(WhyFile){ .inode = read->inode, .first = read->time, .reader = UINT32_MAX };
	}
	WhyFile *file = &report->files[i];
	if (read->source > file->source)
		file->source = (FetchTier)read->source;
	uint32_t reader = read->reader ? process_of(report->mount->record, read->reader - 1u) : UINT32_MAX;
	if (reader != UINT32_MAX && file->reader != reader) {
		file->readers++;
		if (file->reader == UINT32_MAX)
			file->reader = reader;
	}
	add_sum(&file->sum, read);
	return 0;
}

/* Entries of one moment follow each other, so that what is open at any time is one interval that grows. */
static void add_held_up(WhyReport *report, const StartRead *read, uint64_t *until)
{
	uint64_t end = read->time + read->waited;
	if (read->waited > 0 && end > *until) {
		report->held_up += end - (read->time > *until ? read->time : *until);
		*until = end;
	}
	if (end > report->end)
		report->end = end;
}

static int add_reads(WhyReport *report, const WhyFilter *filter, uint32_t *numbers)
{
	const StartRecord *record = report->mount->record;
	uint64_t until = 0;
	for (uint32_t i = 0; i < record->read_count; i++) {
		const StartRead *read = &record->entries[i];
		if (read->reader == 0) {
			add_sum(&report->shared, read);
			if (filter->count > 0)
				continue;
		} else if (filter->count > 0 &&
			   why_container_length(group_of(record, read->reader - 1u), filter) == 0) {
			continue;
		}
		if (report->read_count == 0)
			report->begin = read->time;
		numbers[report->read_count++] = i;
		add_sum(&report->total, read);
		add_sum(&report->sources[read->source], read);
		add_held_up(report, read, &until);
		int r = add_file(report, read);
		if (r == 0 && read->reader > 0)
			r = add_reader(report, read->reader - 1u, read);
		if (r < 0)
			return r;
	}
	return 0;
}

static int compare_files(const void *left, const void *right)
{
	const WhyFile *one = left, *other = right;
	if (one->sum.waited != other->sum.waited)
		return one->sum.waited > other->sum.waited ? -1 : 1;
	return one->first == other->first ? 0 : one->first < other->first ? -1 : 1;
}

static int compare_readers(const void *left, const void *right)
{
	const WhyReader *one = left, *other = right;
	if (one->sum.waited != other->sum.waited)
		return one->sum.waited > other->sum.waited ? -1 : 1;
	return one->reader < other->reader ? -1 : one->reader > other->reader;
}

static int name_files(WhyReport *report, Error *error)
{
	_cleanup_(mount_files_free_p) MountFiles *files = NULL;
	_cleanup_(tree_paths_free_p) TreePaths *paths = NULL;
	int r = mount_files_open(report->mount, &files, error);
	if (r == 0)
		r = tree_paths_new(mount_files_tree(files), &paths);
	for (size_t i = 0; r == 0 && i < report->file_count; i++) {
		r = tree_paths_get(paths, report->files[i].inode, &report->files[i].path);
		if (r == -ENOENT) {
			report->files[i].path = strdup("?");
			r = report->files[i].path ? 0 : -ENOMEM;
		}
	}
	return r;
}

int why_report_make(const MountObserved *mount, const WhyFilter *filter, WhyReport *ret_report, Error *error)
{
	_cleanup_(why_report_done) WhyReport report = { .mount = mount };
	if (!mount->record)
		return error_set(error, -ENODATA,
				 "%s has no record of its reads: its keeper is of another version; mount it again",
				 mount->directory);
	uint32_t *numbers = calloc((size_t)mount->record->read_count + 1, sizeof(*numbers));
	if (!numbers)
		return error_set(error, -ENOMEM, "out of memory");
	report.reads = numbers;
	int r = add_reads(&report, filter, numbers);
	if (r == 0 && report.read_count == 0)
		return error_set(error, -ENODATA, "nothing of %s was read yet%s%s", mount->directory,
				 filter->count > 0 ? " by " : "", filter->count > 0 ? filter->what : "");
	if (r == 0)
		r = name_files(&report, error);
	if (r < 0)
		return error->message[0] ? r : error_set(error, r, "out of memory");
	qsort(report.files, report.file_count, sizeof(*report.files), compare_files);
	if (report.reader_count > 0)
		qsort(report.readers, report.reader_count, sizeof(*report.readers), compare_readers);
	*ret_report = report;
	report = (WhyReport){ 0 };
	return 0;
}
