#include "tools/export/layer-names.h"

#include <sys/random.h>
#include <xxhash.h>

#define NAMES_MAX (UINT32_MAX / 4) /* so that the table's size fits too */

int layer_names_init(LayerNames *names)
{
	*names = (LayerNames){ 0 };
	/* Names come from outside: nobody shall know which ones collide. */
	if (getrandom(&names->seed, sizeof(names->seed), 0) != sizeof(names->seed))
		return -EIO;
	return 0;
}

void layer_names_done(LayerNames *names)
{
	layer_names_seal(names);
	free(names->names);
	buffer_done(&names->strings);
	*names = (LayerNames){ 0 };
}

void layer_names_seal(LayerNames *names)
{
	free(names->slots);
	names->slots = NULL;
	names->slot_count = 0;
}

static uint64_t hash_name(const LayerNames *names, uint32_t directory, const char *name, size_t size)
{
	return XXH3_64bits_withSeed(name, size, names->seed + directory * UINT64_C(0x9E3779B97F4A7C15));
}

static uint16_t hash_tag(uint64_t hash)
{
	return (uint16_t)(hash >> 48);
}

LayerName *layer_names_find(const LayerNames *names, uint32_t directory, const char *name, size_t size)
{
	if (names->slot_count == 0)
		return NULL;
	uint64_t hash = hash_name(names, directory, name, size);
	for (uint32_t at = (uint32_t)hash;; at++) {
		uint32_t slot = names->slots[at & (names->slot_count - 1)];
		if (slot == 0)
			return NULL;
		LayerName *found = &names->names[slot - 1];
		if (found->tag == hash_tag(hash) && found->directory == directory && found->size == size &&
		    memcmp(names->strings.data + found->offset, name, size) == 0)
			return found;
	}
}

static void put_slot(LayerNames *names, uint64_t hash, uint32_t number)
{
	uint32_t at = (uint32_t)hash;
	while (names->slots[at & (names->slot_count - 1)] != 0)
		at++;
	names->slots[at & (names->slot_count - 1)] = number + 1;
}

/* Keeps the table at most two thirds full. */
static int grow_slots(LayerNames *names)
{
	if (names->slot_count && (uint64_t)names->count * 3 < (uint64_t)names->slot_count * 2)
		return 0;
	uint32_t slot_count = names->slot_count ? 2 * names->slot_count : 256;
	uint32_t *slots = calloc(slot_count, sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	free(names->slots);
	names->slots = slots;
	names->slot_count = slot_count;
	for (uint32_t i = 0; i < names->count; i++) {
		const LayerName *name = &names->names[i];
		put_slot(
			names,
			hash_name(names, name->directory, (const char *)names->strings.data + name->offset, name->size),
			i);
	}
	return 0;
}

static int grow_names(LayerNames *names)
{
	if (names->count < names->capacity)
		return 0;
	if (names->count >= NAMES_MAX)
		return -EFBIG;
	uint32_t capacity = names->capacity ? names->capacity + names->capacity / 2 : 256;
	LayerName *grown = reallocarray(names->names, capacity, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	names->names = grown;
	names->capacity = capacity;
	return 0;
}

int layer_names_keep(LayerNames *names, const void *data, size_t size, uint32_t *ret_offset)
{
	size_t offset = names->strings.size;
	if (offset > UINT32_MAX || size > UINT32_MAX - offset)
		return -EFBIG;
	int r = buffer_append(&names->strings, data, size);
	if (r == 0)
		*ret_offset = (uint32_t)offset;
	return r;
}

int layer_names_set(LayerNames *names, uint32_t directory, const char *name, size_t size, uint32_t node)
{
	LayerName *found = layer_names_find(names, directory, name, size);
	if (found) {
		found->node = node;
		return 0;
	}
	uint64_t hash = hash_name(names, directory, name, size);
	uint32_t offset = 0;
	int r = grow_names(names);
	if (r == 0)
		r = grow_slots(names);
	if (r == 0)
		r = layer_names_keep(names, name, size, &offset);
	if (r < 0)
		return r;
	names->names[names->count] = (LayerName){
		.directory = directory, .node = node, .offset = offset, .size = (uint16_t)size, .tag = hash_tag(hash)
	};
	put_slot(names, hash, names->count++);
	return 0;
}
