/* Any text as a reference; one that is accepted is written as a text that means the same. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fs/format/reference.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef int (*Parse)(const char *text, Reference *ret_reference, Error *error);

static void check(const char *text, Parse parse)
{
	Reference reference, again;
	Error error;
	if (parse(text, &reference, &error) < 0)
		return;
	assert(reference_name_valid(reference.name) && !strstr(reference.name, ".."));
	_cleanup_free_ char *back = reference_text(&reference);
	assert(back);
	int r = parse(back, &again, &error);
	assert(r == 0 && memcmp(&reference, &again, sizeof(again)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_free_ char *text = malloc(size + 1);
	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	check(text, reference_parse_remote);
	check(text, reference_parse_local);
	return 0;
}
