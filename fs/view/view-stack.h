/*
 * Stacks of sources: which directories of which layers make up a merged directory, highest layer first. The rules of whiteouts
 * and opaque directories live here (OCI image-spec 1.1, layer.md "Whiteouts"): they hide what lower layers have, never what
 * their own layer has.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/format/tree.h"

typedef struct ViewSource {
	uint32_t layer;
	uint32_t inode;
} ViewSource;

/* A stack, as a range of its set. */
typedef struct ViewStack {
	size_t first;
	uint32_t count;
	/* What says of the directory what it is: its highest source that has an entry of its own in its tar, below an opaque one too,
	 * which hides what the lower ones hold and not what they are. Else the highest one. */
	ViewSource self;
} ViewStack;

typedef struct ViewStackSet {
	const Tree *layers; /* lowest first; the caller's */
	uint32_t layer_count;
	ViewSource *sources; /* of all stacks, owned */
	size_t count, capacity;
} ViewStackSet;

void view_stack_set_done(ViewStackSet *set); /* safe on a zeroed set */

/* Source `index` of a stack, 0 the highest. */
ViewSource view_stack_at(const ViewStackSet *set, ViewStack stack, uint32_t index);

/* The root directory's stack of the lowest `layers` layers. Errors: -ENOMEM. */
int view_stack_root(ViewStackSet *set, uint32_t layers, ViewStack *ret_stack) _must_check_;

/* Is `name` a whiteout or another marker of the ".wh." kind, never a file of its own? */
bool view_name_is_whiteout(TreeString name);

/* Does a source above `index` have `name` or a whiteout of it, so that the source at `index` has no say in it? */
bool view_stack_decides(const ViewStackSet *set, ViewStack stack, uint32_t index, TreeString name);

/*
 * What `name` is, looking down from source `from`: one source if the highest is no directory, else the stack of the merged
 * directory. `here`: the inode that source `from` has of that name, if who asks has it at hand; else NULL. Errors: -ENOENT, -ENOMEM.
 */
int view_stack_child(ViewStackSet *set, ViewStack stack, uint32_t from, TreeString name, const uint32_t *here,
		     ViewStack *ret_stack) _must_check_;

/*
 * Walks `path` from the root of the lowest `layers` layers to something that is no directory. Symlinks on the way are followed as if these layers
 * were unpacked and their root were "/", the last component is not. Errors: -ENOENT, -ENOTDIR, -EISDIR, -ELOOP (more than 40 symlinks, or a
 * path too long), -ENOMEM.
 */
int view_stack_walk(ViewStackSet *set, uint32_t layers, TreeString path, ViewSource *ret_source) _must_check_;
