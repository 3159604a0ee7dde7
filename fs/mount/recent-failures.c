#include "fs/mount/recent-failures.h"

void recent_failures_note(RecentFailures *failures, uint64_t node, uint64_t offset, uint32_t size, int64_t now)
{
	failures->entries[failures->next] =
		(RecentFailure){ .offset = offset, .size = size, .node = node, .time = now };
	failures->next = (failures->next + 1) % RECENT_FAILURES;
}

bool recent_failures_take(RecentFailures *failures, uint64_t node, uint64_t offset, int64_t now)
{
	for (unsigned i = 0; i < RECENT_FAILURES; i++) {
		RecentFailure *entry = &failures->entries[i];
		if (entry->time != 0 && now - entry->time < RECENT_FAILURE_WINDOW && entry->node == node &&
		    offset >= entry->offset && offset - entry->offset < entry->size) {
			*entry = (RecentFailure){ 0 };
			return true;
		}
	}
	return false;
}
