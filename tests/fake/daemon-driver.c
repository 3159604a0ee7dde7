/*
 * Speaks to the keeper of the node daemon as its manager does, a line of its input at a time, so that tests see what the manager would hide.
 * Each line is answered by one: "ok", "ok ..." or "error NAME sentence".
 *
 *   open RUNTIME LOG          connects, and starts a keeper where none answers
 *   find RUNTIME              connects
 *   attach SLOT HOST/NAME:TAG CACHE
 *   detach SLOT
 *   list                      ok SLOT,plain|xattr,CHAIN[,refused] ...
 *   reads SLOT                ok READS, of the record
 *   upgrade | end | close
 */
#include <string.h>

#include "fs/fetch/fetch-image.h"
#include "fs/mount/daemon-mounts.h"
#include "fs/mount/start-record.h"

#define WORDS      4
#define TIMEOUT_MS 10000
#define DEADLINE   60000

static DaemonMounts *mounts;

static int open_mounts(char **words, Error *error)
{
	DaemonMountsOptions options = { .runtime = words[1], .log_path = words[2], .start = words[2] != NULL };
	mounts = daemon_mounts_close(mounts);
	return daemon_mounts_open(&options, &mounts, error);
}

static int fetch(const char *reference, const char *cache, FetchImage *ret_image, Error *error)
{
	Reference parsed;
	_cleanup_(cache_store_free_p) CacheStore *store = NULL;
	int r = reference_parse_remote(reference, &parsed, error);
	if (r == 0)
		r = cache_store_open(cache, true, &store, error);
	if (r < 0)
		return r;
	FetchRemote remote = { .reference = &parsed, .plain_http = true, .timeout = TIMEOUT_MS, .cache = store };
	return fetch_image_remote(&remote, ret_image, error);
}

static int attach(char **words, Error *error)
{
	_cleanup_(fetch_image_done) FetchImage image = { 0 };
	DaemonSlot slot;
	int r = words[3] ? fetch(words[2], words[3], &image, error) : -EINVAL;
	if (r < 0)
		return r;
	DaemonAttach attach = {
		.slot = (uint32_t)strtoul(words[1], NULL, 10),
		.image = &image,
		.source = words[2],
		.deadline = DEADLINE,
	};
	r = daemon_mounts_attach(mounts, &attach, &slot, error);
	if (r == 0)
		(void)printf("ok %s/%s\n", slot.xattr ? "xattr" : "plain", slot.chain_id);
	return r < 0 ? r : 1;
}

static int list(Error *error)
{
	_cleanup_free_ DaemonSlot *slots = NULL;
	size_t count;
	int r = daemon_mounts_list(mounts, &slots, &count, error);
	if (r < 0)
		return r;
	(void)printf("ok");
	for (size_t i = 0; i < count; i++)
		(void)printf(" %u,%s,%s%s", slots[i].slot, slots[i].xattr ? "xattr" : "plain", slots[i].chain_id,
			     slots[i].refused ? ",refused" : "");
	(void)printf("\n");
	return 1;
}

static int reads(uint32_t slot, Error *error)
{
	_cleanup_close_ int fd = -1;
	_cleanup_free_ StartRecord *record = NULL;
	int r = daemon_mounts_record(mounts, slot, &fd, error);
	if (r == 0)
		r = start_record_load(fd, &record);
	if (r < 0)
		return r;
	(void)printf("ok %llu\n", (unsigned long long)record->reads);
	return 1;
}

static int obey(char **words, Error *error)
{
	uint32_t slot = words[1] ? (uint32_t)strtoul(words[1], NULL, 10) : 0;
	if (strcmp(words[0], "open") == 0 || strcmp(words[0], "find") == 0)
		return open_mounts(words, error);
	if (!mounts)
		return -ENOTCONN;
	if (strcmp(words[0], "attach") == 0)
		return attach(words, error);
	if (strcmp(words[0], "detach") == 0)
		return daemon_mounts_detach(mounts, slot, error);
	if (strcmp(words[0], "list") == 0)
		return list(error);
	if (strcmp(words[0], "reads") == 0)
		return reads(slot, error);
	if (strcmp(words[0], "upgrade") == 0)
		return daemon_mounts_upgrade(mounts, error);
	if (strcmp(words[0], "end") == 0)
		return daemon_mounts_end(mounts, error);
	if (strcmp(words[0], "close") != 0)
		return -EINVAL;
	mounts = daemon_mounts_close(mounts);
	return 0;
}

int main(void)
{
	char line[4096];
	while (fgets(line, sizeof(line), stdin)) {
		char *words[WORDS + 1] = { 0 }, *rest = line;
		size_t count = 0;
		line[strcspn(line, "\n")] = '\0';
		for (char *word; count < WORDS && (word = strsep(&rest, " "));)
			words[count++] = word;
		Error error = { 0 };
		int r = obey(words, &error);
		if (r < 0)
			(void)printf("error %s %s\n", strerrorname_np(-r), error_text(&error, r));
		else if (r == 0)
			(void)printf("ok\n");
		(void)fflush(stdout);
	}
	mounts = daemon_mounts_close(mounts);
	return 0;
}
