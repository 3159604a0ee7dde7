/* Any bytes as a configuration file; what is accepted says the same when it is written and read again. */
#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "fs/base/conf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char *write_conf(const Conf *conf, size_t *ret_size)
{
	char *text = NULL;
	FILE *file = open_memstream(&text, ret_size);
	assert(file);
	for (size_t i = 0; i < conf->count; i++) {
		const ConfEntry *entry = &conf->entries[i];
		if (entry->key)
			fprintf(file, "%s=%s\n", entry->key, entry->value);
		else
			fprintf(file, "[%s%s%s]\n", entry->section, entry->name ? " " : "", entry->name ?: "");
	}
	(void)fclose(file);
	return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	Conf conf = { 0 }, again = { 0 };
	Error error = { 0 };
	if (conf_parse("fuzz", (const char *)data, size, &conf, &error) < 0) {
		assert(error.message[0]);
		return 0;
	}
	size_t length;
	_cleanup_free_ char *text = write_conf(&conf, &length);
	int r = conf_parse("again", text, length, &again, &error);
	assert(r == 0 && again.count == conf.count);
	for (size_t i = 0; i < conf.count; i++) {
		assert(strcmp(conf.entries[i].section, again.entries[i].section) == 0);
		assert(!conf.entries[i].key || strcmp(conf.entries[i].value, again.entries[i].value) == 0);
	}
	conf_done(&conf);
	conf_done(&again);
	return 0;
}
