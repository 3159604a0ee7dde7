/* The merged tree while it is built: nodes in breadth-first order, and the entries of each directory. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/view/view-stack.h"

typedef struct ViewNode {
	ViewSource source; /* whose metadata and content it shows */
	ViewStack stack;   /* of a directory */
	uint32_t parent;   /* of a directory: node */
	uint32_t nlink;
	bool directory;
	size_t first_entry; /* of a directory */
	uint32_t entry_count;
} ViewNode;

typedef struct ViewNodes {
	ViewNode *items;
	uint32_t count, capacity;
	TreeDirent *entries; /* names point into the layers */
	size_t entry_count, entry_capacity;
} ViewNodes;

void view_nodes_done(ViewNodes *nodes); /* safe on zeroed ones */

/* Adds a node. Errors: -ENOMEM, -EFBIG above 2^32 - 2 nodes. */
int view_nodes_add(ViewNodes *nodes, ViewNode node, uint32_t *ret_number) _must_check_;

/* The entries of directory `node` come between these two; the second sorts them. One directory at a time. */
void view_nodes_begin_entries(ViewNodes *nodes, uint32_t node);
int view_nodes_add_entry(ViewNodes *nodes, TreeDirent entry) _must_check_;
void view_nodes_end_entries(ViewNodes *nodes, uint32_t node);

/* Writes the tree's sections. Errors: -ENOMEM, -EFBIG. */
int view_nodes_write(const ViewNodes *nodes, const Tree *layers, ImageWriter *image) _must_check_;
