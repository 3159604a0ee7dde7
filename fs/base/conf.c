#include "fs/base/conf.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>

#include "fs/base/fd.h"

typedef struct Parser {
	Conf *conf;
	const char *section, *name; /* that the lines belong to; NULL: none yet */
	unsigned line;
	Error *error;
} Parser;

void conf_done(Conf *conf)
{
	free(conf->path);
	free(conf->text);
	free(conf->entries);
	*conf = (Conf){ 0 };
}

static int fail(const Parser *parser, const char *what)
{
	return error_set(parser->error, -EINVAL, "%s:%u: %s", parser->conf->path, parser->line, what);
}

static bool is_blank(char byte)
{
	return byte == ' ' || byte == '\t' || byte == '\r';
}

static char *strip(char *text)
{
	while (is_blank(*text))
		text++;
	size_t size = strlen(text);
	while (size > 0 && is_blank(text[size - 1]))
		text[--size] = '\0';
	return text;
}

/* Letters, digits, '-' and '_', a letter first. */
static bool is_word(const char *text)
{
	if (!isalpha((unsigned char)text[0]))
		return false;
	for (; *text; text++)
		if (!isalnum((unsigned char)*text) && *text != '-' && *text != '_')
			return false;
	return true;
}

static int add(const Parser *parser, const char *key, const char *value)
{
	Conf *conf = parser->conf;
	ConfEntry *larger = reallocarray(conf->entries, conf->count + 1, sizeof(*larger));
	if (!larger)
		return error_set(parser->error, -ENOMEM, "out of memory");
	conf->entries = larger;
	conf->entries[conf->count++] = (ConfEntry){
		.section = parser->section,
		.name = parser->name,
		.key = key,
		.value = value,
		.line = parser->line,
	};
	return 0;
}

static int parse_section(Parser *parser, char *line)
{
	char *end = strrchr(line, ']'); /* a name may be an address in brackets */
	if (!end || end[1] != '\0')
		return fail(parser, "a section is written [NAME], with nothing after it");
	*end = '\0';
	char *section = strip(line + 1);
	char *blank = section + strcspn(section, " \t");
	char *name = NULL;
	if (*blank) {
		*blank = '\0';
		name = strip(blank + 1);
	}
	if (!is_word(section))
		return fail(parser, "the name of a section is a word");
	parser->section = section;
	parser->name = name;
	return add(parser, NULL, NULL);
}

static int parse_line(Parser *parser, char *line)
{
	for (const char *byte = line; *byte; byte++)
		if (iscntrl((unsigned char)*byte) && !is_blank(*byte))
			return fail(parser, "a control character");
	line = strip(line);
	if (line[0] == '\0' || line[0] == '#' || line[0] == ';')
		return 0;
	if (line[0] == '[')
		return parse_section(parser, line);
	char *equals = strchr(line, '=');
	if (!equals)
		return fail(parser, "neither [SECTION] nor KEY = VALUE");
	*equals = '\0';
	char *key = strip(line);
	if (!is_word(key))
		return fail(parser, "a key is a word");
	if (!parser->section)
		return fail(parser, "a key before the first [SECTION]");
	return add(parser, key, strip(equals + 1));
}

int conf_parse(const char *path, const char *text, size_t size, Conf *ret_conf, Error *error)
{
	_cleanup_(conf_done) Conf conf = { .path = strdup(path), .text = malloc(size + 1) };
	if (!conf.path || !conf.text)
		return error_set(error, -ENOMEM, "out of memory");
	memcpy(conf.text, text, size);
	conf.text[size] = '\0';
	Parser parser = { .conf = &conf, .error = error };
	char *end = conf.text + size;
	for (char *line = conf.text, *next; line < end; line = next) {
		char *newline = memchr(line, '\n', (size_t)(end - line));
		next = newline ? newline + 1 : end;
		parser.line++;
		if (newline)
			*newline = '\0';
		if (strlen(line) != (size_t)((newline ?: end) - line))
			return fail(&parser, "a NUL byte");
		int r = parse_line(&parser, line);
		if (r < 0)
			return r;
	}
	*ret_conf = conf;
	conf = (Conf){ 0 };
	return 0;
}

int conf_read(const char *path, Conf *ret_conf, Error *error)
{
	_cleanup_free_ char *text = NULL;
	size_t size;
	int r = fd_read_file(AT_FDCWD, path, CONF_FILE_MAX, &text, &size);
	if (r < 0)
		return error_set(error, r, "the configuration %s cannot be read: %s", path, strerror(-r));
	return conf_parse(path, text, size, ret_conf, error);
}

int conf_size(const char *text, uint64_t *ret_bytes)
{
	static const char units[] = "kMGT";
	char *end;
	if (!isdigit((unsigned char)text[0]))
		return -EINVAL;
	errno = 0;
	unsigned long long bytes = strtoull(text, &end, 10);
	if (errno != 0)
		return -ERANGE;
	const char *unit = *end ? strchr(units, *end == 'K' ? 'k' : *end) : NULL;
	if (unit) {
		end++;
		unsigned long long base = *end == 'i' ? 1024 : 1000;
		end += *end == 'i';
		for (const char *step = units; step <= unit; step++)
			if (__builtin_mul_overflow(bytes, base, &bytes))
				return -ERANGE;
	}
	end += *end == 'B';
	if (*end)
		return -EINVAL;
	*ret_bytes = bytes;
	return 0;
}
