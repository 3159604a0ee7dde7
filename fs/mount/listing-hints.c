#include "fs/mount/listing-hints.h"

static unsigned slot_of(uint64_t number)
{
	return (unsigned)((number * UINT64_C(0x9e3779b97f4a7c15)) >> 32) % LISTING_HINTS;
}

bool listing_hints_wants_attributes(ListingHints *hints, pid_t lister, uint64_t directory)
{
	unsigned slot = slot_of((uint64_t)lister);
	if (atomic_load_explicit(&hints->lookers[slot], memory_order_relaxed) == lister)
		return true;
	slot = slot_of(directory);
	atomic_store_explicit(&hints->listed[slot].lister, lister, memory_order_relaxed);
	atomic_store_explicit(&hints->listed[slot].directory, directory, memory_order_relaxed);
	return false;
}

void listing_hints_looked_up(ListingHints *hints, uint64_t directory)
{
	unsigned slot = slot_of(directory);
	if (atomic_load_explicit(&hints->listed[slot].directory, memory_order_relaxed) != directory)
		return;
	pid_t lister = atomic_load_explicit(&hints->listed[slot].lister, memory_order_relaxed);
	atomic_store_explicit(&hints->lookers[slot_of((uint64_t)lister)], lister, memory_order_relaxed);
}
