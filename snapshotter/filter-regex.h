/* Regular expressions of filters: RE2's syntax, PCRE2's engine in the mode that has no back-tracking. The text comes from outside. */
#pragma once

#include <stdbool.h>

#include "fs/base/cleanup.h"

typedef struct FilterRegex FilterRegex;

/* Errors: -EINVAL (no expression, or one that RE2 refuses), -ENOMEM. */
int filter_regex_new(const char *pattern, FilterRegex **ret_regex) _must_check_;
FilterRegex *filter_regex_free(FilterRegex *regex);

/* Does it match somewhere in `text`? Thread-safe. What takes too much work or memory does not match. */
bool filter_regex_matches(const FilterRegex *regex, const char *text);
