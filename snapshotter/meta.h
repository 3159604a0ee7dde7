/*
 * What the snapshotter knows of its snapshots, in a SQLite database: write-ahead log, synchronous=FULL. A change is on disk before the
 * call returns; changes of several threads that wait at the same time share one transaction and so one fsync. Thread-safe; every
 * function blocks for the disk.
 *
 * One space of keys for all kinds. Errors that a client has to tell apart: -ENOENT (no such snapshot), -EEXIST (the key is taken),
 * -EINVAL, -EBUSY (not in this state); others: -EIO, -ENOSPC, -ENOMEM. Each with a sentence.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/base/error.h"

typedef enum MetaKind { META_VIEW = 1, META_ACTIVE = 2, META_COMMITTED = 3 } MetaKind;

typedef struct MetaLabel {
	char *name, *value;
} MetaLabel;

typedef struct MetaLabels {
	size_t count;
	MetaLabel *labels;
	size_t size; /* as META_LABELS_MAX counts */
} MetaLabels;

/*
 * Limits, since what a snapshot is called and labelled with comes from images too (annotations of layers), and each answer of List has a hundred
 * snapshots, together less than WIRE_MESSAGE_MAX: bytes of all labels of a snapshot, names and values and META_LABEL_COST for each; and of a key.
 */
#define META_LABELS_MAX 98304u
#define META_LABEL_COST 64u
#define META_KEY_MAX    32768u

typedef struct MetaInfo {
	uint64_t id;
	char *key;
	char *parent; /* NULL: none */
	MetaKind kind;
	int64_t created, updated; /* nanoseconds since 1970 */
	int64_t size, inodes;     /* committed ones: bytes and count of what this layer has alone */
	char *lazy_path;          /* of a lazy one: where its tree was seen last; NULL: it is none */
	MetaLabels labels;
} MetaInfo;

/*
 * A chain of ancestors, the nearest first. It ends before the first lazy one, whose tree is all of it and all below: it has a directory
 * of its own and needs no other.
 */
typedef struct MetaChain {
	size_t count;
	uint64_t *ids;
	uint64_t lazy_id; /* 0: none is lazy */
	char *lazy_path;  /* where it was seen last */
} MetaChain;

void meta_labels_done(MetaLabels *labels); /* these three are safe on zeroed ones */
void meta_info_done(MetaInfo *info);
void meta_chain_done(MetaChain *chain);

/* Puts copies there in place of one with that name; an empty value is none, as containerd has it. Errors: -EINVAL (too many), -ENOMEM. */
int meta_labels_set(MetaLabels *labels, const char *name, const char *value, Error *error) _must_check_;
const char *meta_labels_get(const MetaLabels *labels, const char *name); /* NULL: none */

typedef struct Meta Meta;

/*
 * Opens the database, makes it or brings it to this build's version. Errors: -EINVAL when a later build made it, and what SQLite says.
 */
int meta_open(const char *path, Meta **ret_meta, Error *error) _must_check_;

/* As it is, for reading alone. Errors: -ENOENT, -EINVAL (of another version), and what SQLite says. */
int meta_look(const char *path, Meta **ret_meta, Error *error) _must_check_;
Meta *meta_close(Meta *meta);
DEFINE_CLEANUP(Meta, meta_close);

int meta_stat(Meta *meta, const char *key, MetaInfo *ret_info, Error *error) _must_check_;

/* The snapshot and its ancestors, out of one state of the database. */
int meta_chain(Meta *meta, const char *key, MetaInfo *ret_info, MetaChain *ret_chain, Error *error) _must_check_;

typedef struct MetaCreate {
	uint64_t id;   /* never used before */
	MetaKind kind; /* META_ACTIVE or META_VIEW */
	const char *key;
	const char *parent; /* NULL: none; otherwise a committed snapshot: -EINVAL */
	const MetaLabels *labels;
	int64_t now;
} MetaCreate;

int meta_create(Meta *meta, const MetaCreate *create, MetaChain *ret_chain, Error *error) _must_check_;

/* A layer that is fetched as it is read: a committed snapshot that never was an active one. */
typedef struct MetaLazy {
	uint64_t id;
	const char *name;
	const char *parent; /* NULL: none; otherwise a lazy snapshot */
	const MetaLabels
		*labels;   /* one is containerd.io/snapshot.ref: -EEXIST when the parent has a child with the same */
	const char *layer; /* what meta_lazy_layers() gives back */
	const char *reference; /* may be NULL */
	const char *path;      /* of the tree */
	int64_t now;
} MetaLazy;

int meta_create_lazy(Meta *meta, const MetaLazy *lazy, Error *error) _must_check_;

/* The tree of a lazy snapshot is somewhere else now. */
int meta_move_lazy(Meta *meta, uint64_t id, const char *path, Error *error) _must_check_;

/* What was given to meta_create_lazy() for a snapshot and all its ancestors, the lowest first. */
typedef struct MetaLayers {
	size_t count;
	char **layers;
	char *reference; /* of the topmost; NULL: none */
} MetaLayers;
void meta_layers_done(MetaLayers *layers); /* safe on a zeroed one */

/* Errors: -ENOENT, -EBUSY (it is, or has below it, a snapshot that is not lazy). */
int meta_lazy_layers(Meta *meta, const char *key, MetaLayers *ret_layers, Error *error) _must_check_;

/* The key of a lazy snapshot. */
int meta_lazy_key(Meta *meta, uint64_t id, char **ret_key, Error *error) _must_check_;

/* Is there a committed child of `parent` (NULL: a snapshot with none) with this label containerd.io/snapshot.ref? 1 or 0. */
int meta_has_ref(Meta *meta, const char *parent, const char *ref, Error *error) _must_check_;

typedef struct MetaCommit {
	uint64_t id; /* that `key` is expected to have; else it is -ENOENT */
	const char *key, *name;
	const char *parent; /* NULL, or one for a snapshot that has none */
	const MetaLabels *labels;
	int64_t size, inodes;
	int64_t now;
} MetaCommit;

int meta_commit(Meta *meta, const MetaCommit *commit, Error *error) _must_check_;

/* -EBUSY when it is another's parent. */
int meta_remove(Meta *meta, const char *key, Error *error) _must_check_;

/* Replaces all labels, or with `count` paths what they name: "labels", or "labels.<name>". -EINVAL for another path. */
typedef struct MetaUpdate {
	const char *key;
	const MetaLabels *labels;
	char *const *paths;
	size_t path_count;
	int64_t now;
} MetaUpdate;

int meta_update(Meta *meta, const MetaUpdate *update, MetaInfo *ret_info, Error *error) _must_check_;

/*
 * Up to `limit` snapshots with ids above `after`, in the order of ids; one that is there from the first to the last call of a walk is seen
 * exactly once. With `ref` only those with this label containerd.io/snapshot.ref. `ret_infos` has room for `limit`.
 */
int meta_list(Meta *meta, uint64_t after, const char *ref, size_t limit, MetaInfo *ret_infos, size_t *ret_count,
	      Error *error) _must_check_;

/* All ids, in order; owned by the caller. */
int meta_ids(Meta *meta, uint64_t **ret_ids, size_t *ret_count, Error *error) _must_check_;

/* Those of snapshots that are lazy, and that are not. */
int meta_lazy_ids(Meta *meta, uint64_t **ret_ids, size_t *ret_count, Error *error) _must_check_;
int meta_directory_ids(Meta *meta, uint64_t **ret_ids, size_t *ret_count, Error *error) _must_check_;

/*
 * The mappings of ids that snapshots have by their labels, each once, of which one text may be NULL, and with the lazy snapshot that is below;
 * the caller's, an array.
 */
typedef struct MetaMapping {
	char *uids, *gids;
	uint64_t lazy_id; /* 0: none is */
} MetaMapping;
int meta_mappings(Meta *meta, MetaMapping **ret_mappings, size_t *ret_count, Error *error) _must_check_;
void meta_mappings_free(MetaMapping *mappings, size_t count);

/* The highest id that ever was, 0 for none. */
int meta_last_id(Meta *meta, uint64_t *ret_id, Error *error) _must_check_;
