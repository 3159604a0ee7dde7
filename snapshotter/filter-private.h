/* What parser and matcher of filters share. */
#pragma once

#include "snapshotter/filter-regex.h"
#include "snapshotter/filter.h"

typedef enum FilterOperator { FILTER_PRESENT, FILTER_EQUAL, FILTER_UNEQUAL, FILTER_MATCHES } FilterOperator;

typedef struct FilterSelector {
	size_t path_count;
	char **path;
	FilterOperator operator;
	char *value;        /* NULL for FILTER_PRESENT */
	FilterRegex *regex; /* of FILTER_MATCHES; NULL: an expression that is none */
} FilterSelector;

typedef struct Filter {
	size_t count;
	FilterSelector *selectors;
} Filter;

struct FilterSet {
	size_t count;
	Filter *filters;
};
