#include "tools/export/frame-moves.h"

#include <errno.h>
#include <stdlib.h>

#include "tools/export/digest-set.h"

void frame_moves_done(FrameMoves *moves)
{
	for (size_t i = 0; moves->moves && i < moves->view->layer_count; i++)
		free(moves->moves[i]);
	free(moves->moves);
	*moves = (FrameMoves){ 0 };
}

static int add_layer(DigestSet *frames, DigestSet *indexes, DigestSet *layers, const LayerReader *reader)
{
	int r = digest_set_add(indexes, &reader->layer.index);
	if (r == 0)
		r = digest_set_add(layers, &reader->layer.diff_id);
	for (uint32_t i = 0; i < reader->chunks.count && r == 0; i++) {
		Chunk chunk;
		chunk_table_get(&reader->chunks, i, &chunk);
		r = digest_set_add(frames, &chunk.digest);
	}
	return r;
}

/* A chunk that is not among the node's. */
typedef struct Candidate {
	Digest digest;
	uint32_t layer, chunk;
	uint32_t size;
} Candidate;

typedef struct Candidates {
	Candidate *items;
	size_t count, capacity;
} Candidates;

static int add_candidate(Candidates *candidates, const Candidate *candidate)
{
	if (candidates->count == candidates->capacity) {
		size_t capacity = candidates->capacity ? 2 * candidates->capacity : 256;
		Candidate *items = reallocarray(candidates->items, capacity, sizeof(*items));
		if (!items)
			return -ENOMEM;
		candidates->items = items;
		candidates->capacity = capacity;
	}
	candidates->items[candidates->count++] = *candidate;
	return 0;
}

/* By digest, and the first occurrence before the others. */
static int compare_candidates(const void *left, const void *right)
{
	const Candidate *first = left, *second = right;
	int order = digest_compare(&first->digest, &second->digest);
	if (order == 0)
		order = first->layer < second->layer ? -1 : first->layer > second->layer;
	if (order == 0)
		order = first->chunk < second->chunk ? -1 : first->chunk > second->chunk;
	return order;
}

static int collect_layer(FrameMoves *moves, uint32_t number, const DigestSet *frames, Candidates *candidates)
{
	const ChunkTable *chunks = &moves->view->layers[number].reader->chunks;
	moves->moves[number] = calloc(chunks->count ? chunks->count : 1, sizeof(bool));
	if (!moves->moves[number])
		return -ENOMEM;
	int r = 0;
	for (uint32_t i = 0; i < chunks->count && r == 0; i++) {
		Chunk chunk;
		chunk_table_get(chunks, i, &chunk);
		Candidate candidate = { .digest = chunk.digest, .layer = number, .chunk = i, .size = chunk.blob_size };
		if (!digest_set_has(frames, &chunk.digest))
			r = add_candidate(candidates, &candidate);
	}
	return r;
}

static void mark(FrameMoves *moves, Candidates *candidates)
{
	if (candidates->count > 0)
		qsort(candidates->items, candidates->count, sizeof(*candidates->items), compare_candidates);
	for (size_t i = 0; i < candidates->count; i++) {
		const Candidate *candidate = &candidates->items[i];
		if (i > 0 && digest_equal(&candidate[-1].digest, &candidate->digest))
			continue;
		moves->moves[candidate->layer][candidate->chunk] = true;
		moves->frames += candidate->size;
	}
}

/* Layers of the image that the node lacks; one that occurs twice counts once. */
static void count_layers(FrameMoves *moves, const DigestSet *indexes, const DigestSet *layers)
{
	for (size_t i = 0; i < moves->view->layer_count; i++) {
		const ManifestLayer *layer = &moves->view->layers[i].reader->layer;
		bool again = false;
		for (size_t before = 0; before < i && !again; before++)
			again = digest_equal(&moves->view->layers[before].reader->layer.diff_id, &layer->diff_id);
		if (!again && !digest_set_has(indexes, &layer->index))
			moves->indexes += layer->index_size;
		if (!again && !digest_set_has(layers, &layer->diff_id))
			moves->layers += layer->blob_size;
	}
}

static int fill(FrameMoves *moves, const ImageView *left, DigestSet *frames, DigestSet *indexes, DigestSet *layers)
{
	Candidates candidates = { 0 };
	int r = 0;
	for (size_t i = 0; i < left->layer_count && r == 0; i++)
		r = add_layer(frames, indexes, layers, left->layers[i].reader);
	digest_set_seal(frames);
	digest_set_seal(indexes);
	digest_set_seal(layers);
	moves->moves = calloc(moves->view->layer_count, sizeof(*moves->moves));
	if (!moves->moves)
		r = -ENOMEM;
	for (uint32_t i = 0; i < moves->view->layer_count && r == 0; i++)
		r = collect_layer(moves, i, frames, &candidates);
	if (r == 0) {
		mark(moves, &candidates);
		count_layers(moves, indexes, layers);
	}
	free(candidates.items);
	return r;
}

int frame_moves_new(const ImageView *left, const ImageView *right, FrameMoves *ret_moves)
{
	FrameMoves moves = { .view = right };
	DigestSet frames = { 0 }, indexes = { 0 }, layers = { 0 };
	int r = fill(&moves, left, &frames, &indexes, &layers);
	digest_set_done(&frames);
	digest_set_done(&indexes);
	digest_set_done(&layers);
	if (r < 0) {
		frame_moves_done(&moves);
		return r;
	}
	*ret_moves = moves;
	return 0;
}

typedef struct Sum {
	const FrameMoves *moves;
	uint32_t layer;
	uint64_t bytes;
} Sum;

static int add_extent(void *arg, const TreeExtent *extent)
{
	Sum *sum = arg;
	const ChunkTable *chunks = &sum->moves->view->layers[sum->layer].reader->chunks;
	uint64_t end = extent->tar_offset + extent->length;
	uint32_t number = chunk_table_find(chunks, extent->tar_offset);
	for (uint64_t at = extent->tar_offset; at < end; number++) {
		Chunk chunk;
		chunk_table_get(chunks, number, &chunk);
		uint64_t chunk_end = chunk.tar_offset + chunk.tar_size, to = chunk_end < end ? chunk_end : end;
		if (sum->moves->moves[sum->layer][number])
			sum->bytes += chunk.blob_size * (to - at) / chunk.tar_size;
		at = to;
	}
	return 0;
}

uint64_t frame_moves_of(const FrameMoves *moves, const TreeInode *inode)
{
	Sum sum = { .moves = moves, .layer = inode->layer };
	int r = image_view_extents(moves->view, inode, add_extent, &sum);
	return r == 0 ? sum.bytes : 0;
}
