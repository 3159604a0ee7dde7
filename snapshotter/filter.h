/*
 * containerd's filters (its package "filters"): what List is asked for. A set of filters matches what one of them matches; a filter is
 * selectors joined by commas, all of which must match:
 *
 *     selector := path | path operator value     path := field ("." field)*     field := [A-Za-z0-9_]+ | quoted
 *     operator := "==" | "!=" | "~="             value := quoted | what comes before a comma or blank
 *     quoted   := as a string in Go; the value of "~=" may have '/' or '|' in place of '"'
 *
 * Without an operator a selector asks whether the field is there. Blanks may stand before operator and value only. Regular
 * expressions are RE2's as far as PCRE2 knows them: what RE2 lacks (look-around, back references, possessive and atomic
 * groups) is refused here too, and is, as there, no error but matches nothing. Left as PCRE2 has them: \s, \v, '$' with the flag m, and repetitions
 * above 1000.
 *
 * The texts come from outside. Thread-safe: a parsed set may be used by several threads.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "fs/base/error.h"

typedef struct FilterSet FilterSet;

/* The value of a field, or NULL where there is none. `path` has `count` parts, at least one. */
typedef const char *FilterField(const void *object, char *const *path, size_t count);

/* No filter at all, and an empty one, match everything. Errors: -EINVAL with a sentence that shows where, -ENOMEM. */
int filter_parse(char *const *filters, size_t count, FilterSet **ret_set, Error *error) _must_check_;
FilterSet *filter_free(FilterSet *set);
DEFINE_CLEANUP(FilterSet, filter_free);

bool filter_matches(const FilterSet *set, FilterField *field, const void *object);

/*
 * If every object that can match has the value `ret_value` in the field of this path, which the set says by "==": that value, or NULL. It
 * saves looking at all others. `path` is joined with dots.
 */
const char *filter_required(const FilterSet *set, const char *path);
