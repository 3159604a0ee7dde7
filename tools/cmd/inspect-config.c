#include "tools/cmd/inspect-config.h"

#include <stdio.h>
#include <string.h>

#include "tools/cmd/output.h"

int inspect_config(Store *store, const Manifest *manifest, json_t **ret_config, Error *error)
{
	_cleanup_free_ char *text = NULL;
	char digest[DIGEST_TEXT_SIZE];
	int r = store_image_config(store, manifest, &text, error);
	if (r < 0)
		return r;
	json_t *config = json_loadb(text, manifest->config_size, 0, NULL);
	if (!json_is_object(config)) {
		json_decref(config);
		return error_set(error, -EBADMSG, "store %s: the config %s is no JSON object; export the image again",
				 store_path(store), digest_text(&manifest->config, digest));
	}
	*ret_config = config;
	return 0;
}

typedef struct Search {
	Store *store;
	const Digest *digest;
	json_t *names;
} Search;

static int on_tag(void *arg, const char *name, const char *tag, time_t changed _unused_)
{
	const Search *search = arg;
	_cleanup_free_ char *json = NULL;
	size_t size;
	Digest digest;
	if (store_tag_get(search->store, name, tag, &json, &size) < 0)
		return 0;
	int r = digest_of(json, size, &digest);
	if (r < 0 || !digest_equal(&digest, search->digest))
		return r;
	return json_array_append_new(search->names, json_sprintf("%s:%s", name, tag)) < 0 ? -ENOMEM : 0;
}

int inspect_names(Store *store, const Digest *digest, json_t **ret_names, Error *error)
{
	Search search = { .store = store, .digest = digest, .names = json_array() };
	int r = search.names ? store_tag_each(store, on_tag, &search) : -ENOMEM;
	if (r < 0) {
		json_decref(search.names);
		return error_set(error, r, "store %s: cannot list its images: %s", store_path(store),
				 error_text(NULL, r));
	}
	*ret_names = search.names;
	return 0;
}

/* Strings side by side, as a shell would not quite take them, but a person reads them. */
static void print_strings(const char *label, const json_t *strings)
{
	if (json_array_size(strings) == 0)
		return;
	printf("%s", label);
	for (size_t i = 0; i < json_array_size(strings); i++) {
		printf("%s", i > 0 ? " " : "");
		(void)output_text(stdout, json_string_value(json_array_get(strings, i)) ?: "?");
	}
	printf("\n");
}

static void print_string(const char *label, const json_t *value)
{
	const char *text = json_string_value(value);
	if (!text || !text[0])
		return;
	printf("%s", label);
	(void)output_text(stdout, text);
	printf("\n");
}

void inspect_print_config(const json_t *names, const json_t *config)
{
	const json_t *process = json_object_get(config, "config");
	print_strings("names       ", names);
	printf("platform    ");
	(void)output_text(stdout, json_string_value(json_object_get(config, "os")) ?: "?");
	printf("/");
	(void)output_text(stdout, json_string_value(json_object_get(config, "architecture")) ?: "?");
	printf("\n");
	print_string("created     ", json_object_get(config, "created"));
	print_strings("entrypoint  ", json_object_get(process, "Entrypoint"));
	print_strings("command     ", json_object_get(process, "Cmd"));
	print_string("directory   ", json_object_get(process, "WorkingDir"));
	print_string("user        ", json_object_get(process, "User"));
}

const char *inspect_created_by(const json_t *config, size_t number)
{
	const json_t *history = json_object_get(config, "history");
	for (size_t i = 0; i < json_array_size(history); i++) {
		const json_t *step = json_array_get(history, i);
		if (json_is_true(json_object_get(step, "empty_layer")))
			continue;
		if (number-- == 0)
			return json_string_value(json_object_get(step, "created_by"));
	}
	return NULL;
}
