/* Any bytes as a filter; one that is taken can be asked, and refused ones say where. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "snapshotter/filter.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *field(const void *object, char *const *path, size_t count)
{
	assert(count > 0);
	return strcmp(path[0], "name") == 0 ? object : NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	FilterSet *set = NULL;
	Error error = { 0 };
	char *text = malloc(size + 1);
	assert(text);
	memcpy(text, data, size);
	text[size] = '\0';
	if (filter_parse(&text, 1, &set, &error) == 0) {
		(void)filter_matches(set, field, "default/1/extract-1 sha256:aa");
		(void)filter_required(set, "labels.a");
		set = filter_free(set);
	} else {
		assert(error.message[0]);
	}
	free(text);
	return 0;
}
