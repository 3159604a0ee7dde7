/* Which files the chunks of an image hold: between start-up profiles and names that people know. */
#pragma once

#include "fs/format/profile.h"
#include "fs/format/tree-paths.h"

/* A stretch of a file's data in a layer's tar. */
typedef struct ProfileFile {
	uint32_t layer;
	uint32_t inode;
	uint64_t tar_offset;
	uint64_t length;
	uint64_t file_offset;
} ProfileFile;

typedef struct ProfileFiles {
	ProfileFile *items; /* by layer and offset */
	size_t count;
} ProfileFiles;

/* Of all regular files of a view. Errors: -ENOMEM. */
int profile_files_list(const Tree *view, ProfileFiles *ret_files) _must_check_;
void profile_files_done(ProfileFiles *files);

/* The first stretch that ends after an offset in a layer; those after it ascend. files->count: there is none. */
size_t profile_files_find(const ProfileFiles *files, uint32_t layer, uint64_t tar_offset);
