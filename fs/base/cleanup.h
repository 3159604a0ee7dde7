/* Scope-bound clean-up: a variable marked _cleanup_(f) is handed to f when it goes out of scope. */
#pragma once

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define _cleanup_(f)        __attribute__((cleanup(f)))
#define _must_check_        __attribute__((warn_unused_result))
#define _printf_(fmt, args) __attribute__((format(printf, fmt, args)))
#define _unused_            __attribute__((unused))

/* Defines name##_p() for use with _cleanup_: calls `destroy` (which must accept NULL) on the pointer. */
#define DEFINE_CLEANUP(type, destroy)                 \
	static inline void destroy##_p(type **object) \
	{                                             \
		*object = destroy(*object);           \
	}                                             \
	struct destroy##_p_is_defined

static inline void free_p(void *pointer)
{
	free(*(void **)pointer);
}

static inline void close_p(const int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
}

static inline void fclose_p(FILE **file)
{
	if (*file)
		(void)fclose(*file);
}

static inline void closedir_p(DIR **dir)
{
	if (*dir)
		(void)closedir(*dir);
}

#define _cleanup_free_     _cleanup_(free_p)
#define _cleanup_close_    _cleanup_(close_p)
#define _cleanup_fclose_   _cleanup_(fclose_p)
#define _cleanup_closedir_ _cleanup_(closedir_p)

/* Hands over ownership: yields the value and leaves the source empty. */
#define TAKE_PTR(pointer)                               \
	({                                              \
		__typeof__(pointer) taken_ = (pointer); \
		(pointer) = NULL;                       \
		taken_;                                 \
	})
#define TAKE_FD(fd)                \
	({                         \
		int taken_ = (fd); \
		(fd) = -1;         \
		taken_;            \
	})

#define ELEMENTS(array) (sizeof(array) / sizeof((array)[0]))
