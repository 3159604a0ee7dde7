#include <string.h>

#include "snapshotter/filter-private.h"

static void selector_done(FilterSelector *selector)
{
	for (size_t i = 0; i < selector->path_count; i++)
		free(selector->path[i]);
	free(selector->path);
	free(selector->value);
	(void)filter_regex_free(selector->regex);
}

FilterSet *filter_free(FilterSet *set)
{
	if (!set)
		return NULL;
	for (size_t i = 0; i < set->count; i++) {
		for (size_t j = 0; j < set->filters[i].count; j++)
			selector_done(&set->filters[i].selectors[j]);
		free(set->filters[i].selectors);
	}
	free(set->filters);
	free(set);
	return NULL;
}

static bool selector_matches(const FilterSelector *selector, FilterField *field, const void *object)
{
	const char *value = field(object, selector->path, selector->path_count);
	switch (selector->operator) {
	case FILTER_PRESENT:
		return value;
	case FILTER_EQUAL:
		return value && strcmp(value, selector->value) == 0;
	case FILTER_UNEQUAL:
		return strcmp(value ?: "", selector->value) != 0;
	case FILTER_MATCHES:
		return selector->regex && filter_regex_matches(selector->regex, value ?: "");
	}
	return false;
}

static bool all_match(const Filter *filter, FilterField *field, const void *object)
{
	for (size_t i = 0; i < filter->count; i++)
		if (!selector_matches(&filter->selectors[i], field, object))
			return false;
	return true;
}

bool filter_matches(const FilterSet *set, FilterField *field, const void *object)
{
	for (size_t i = 0; i < set->count; i++)
		if (all_match(&set->filters[i], field, object))
			return true;
	return set->count == 0;
}

/* Is `path` the parts of `selector` with dots between them? */
static bool path_is(const FilterSelector *selector, const char *path)
{
	for (size_t i = 0; i < selector->path_count; i++) {
		size_t length = strlen(selector->path[i]);
		if (strncmp(path, selector->path[i], length) != 0)
			return false;
		path += length;
		if (i + 1 < selector->path_count && *path++ != '.')
			return false;
	}
	return *path == '\0';
}

const char *filter_required(const FilterSet *set, const char *path)
{
	const Filter *filter = set->filters;
	if (set->count != 1)
		return NULL;
	for (size_t i = 0; i < filter->count; i++)
		if (filter->selectors[i].operator== FILTER_EQUAL && path_is(&filter->selectors[i], path))
			return filter->selectors[i].value;
	return NULL;
}
