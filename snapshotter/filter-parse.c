/* The parser of filters. It goes over the text rune by rune, as containerd's does, so that both take and refuse the same. */
#include <stdint.h>
#include <string.h>

#include "fs/format/buffer.h"
#include "snapshotter/filter-private.h"

#define RUNE_END     (-1)
#define RUNE_ILLEGAL (-2)

typedef struct Parser {
	const char *text;
	size_t size;
	size_t at;
	Error *error;
} Parser;

static int fail(const Parser *parser, size_t at, const char *what)
{
	return error_set(parser->error, -EINVAL, "filter \"%s\" is wrong at byte %zu: %s", parser->text, at, what);
}

/* One UTF-8 sequence; its length comes back, 0 for what is none. */
static size_t decode_rune(const uint8_t *text, size_t size, int32_t *ret_rune)
{
	static const uint32_t smallest[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t length = text[0] < 0x80 ? 1 : text[0] >= 0xf0 ? 4 : text[0] >= 0xe0 ? 3 : text[0] >= 0xc2 ? 2 : 0;
	if (length == 0 || length > size || text[0] > 0xf4)
		return 0;
	uint32_t rune = length == 1 ? text[0] : text[0] & (0xffu >> (length + 1));
	for (size_t i = 1; i < length; i++) {
		if ((text[i] & 0xc0) != 0x80)
			return 0;
		rune = rune << 6 | (text[i] & 0x3f);
	}
	if (rune < smallest[length] || rune > 0x10ffff || (rune >= 0xd800 && rune < 0xe000))
		return 0;
	*ret_rune = (int32_t)rune;
	return length;
}

static int32_t peek(const Parser *parser, size_t *ret_length)
{
	int32_t rune;
	*ret_length = 0;
	if (parser->at == parser->size)
		return RUNE_END;
	*ret_length = decode_rune((const uint8_t *)parser->text + parser->at, parser->size - parser->at, &rune);
	return *ret_length == 0 ? RUNE_ILLEGAL : rune;
}

/* White_Space of Unicode. */
static bool is_space(int32_t rune)
{
	return (rune >= 0x9 && rune <= 0xd) || rune == 0x20 || rune == 0x85 || rune == 0xa0 || rune == 0x1680 ||
	       (rune >= 0x2000 && rune <= 0x200a) || rune == 0x2028 || rune == 0x2029 || rune == 0x202f ||
	       rune == 0x205f || rune == 0x3000;
}

static bool is_field(int32_t rune)
{
	return rune == '_' || (rune >= '0' && rune <= '9') || (rune >= 'A' && rune <= 'Z') ||
	       (rune >= 'a' && rune <= 'z');
}

/* All that can be seen; of the rest, control characters are left out, and rare ones that no name has are let in. */
static bool is_value(int32_t rune)
{
	return rune > 0x20 && rune != ',' && rune != 0x7f && !(rune >= 0x80 && rune < 0xa0) && !is_space(rune);
}

static bool is_quote(int32_t rune)
{
	return rune == '"' || rune == '/' || rune == '|';
}

static void skip_spaces(Parser *parser)
{
	size_t length;
	while (is_space(peek(parser, &length)))
		parser->at += length;
}

static int put_rune(Buffer *text, uint32_t rune)
{
	uint8_t bytes[4];
	size_t length = rune < 0x80 ? 1 : rune < 0x800 ? 2 : rune < 0x10000 ? 3 : 4;
	for (size_t i = length; i-- > 1; rune >>= 6)
		bytes[i] = (uint8_t)(0x80 | (rune & 0x3f));
	bytes[0] = (uint8_t)(length == 1 ? rune : (0xf00u >> length & 0xff) | rune);
	return buffer_append(text, bytes, length);
}

/* `count` digits to a base of 8 or 16. */
static int read_digits(Parser *parser, unsigned base, unsigned count, uint32_t *ret_value)
{
	static const char digits[] = "0123456789abcdef";
	uint32_t value = 0;
	for (; count > 0; count--) {
		char digit = parser->text[parser->at]; /* NUL at the end */
		const char *found = digit ? strchr(digits, digit | (digit >= 'A' ? 0x20 : 0)) : NULL;
		if (!found || (size_t)(found - digits) >= base)
			return fail(parser, parser->at, "an escape that lacks digits");
		value = value * base + (uint32_t)(found - digits);
		parser->at++;
	}
	*ret_value = value;
	return 0;
}

static int read_numeric_escape(Parser *parser, char kind, Buffer *text)
{
	uint32_t value;
	unsigned count = kind == 'x' ? 2 : kind == 'u' ? 4 : kind == 'U' ? 8 : 3;
	if (count == 3)
		parser->at--; /* the first digit of an octal one is its kind */
	int r = read_digits(parser, count == 3 ? 8 : 16, count, &value);
	if (r < 0)
		return r;
	if (value > (count <= 3 ? 0xffu : 0x10ffffu) || value == 0)
		return fail(parser, parser->at, "an escape for what is no character");
	if (count > 3)
		return put_rune(text, value >= 0xd800 && value < 0xe000 ? 0xfffd : value);
	uint8_t byte = (uint8_t)value;
	return buffer_append(text, &byte, 1);
}

/* After the backslash. */
static int read_escape(Parser *parser, char quote, Buffer *text)
{
	static const char names[] = "abfnrtv\\", bytes[] = "\a\b\f\n\r\t\v\\";
	char kind = parser->text[parser->at]; /* NUL at the end */
	const char *name = kind ? strchr(names, kind) : NULL;
	parser->at++;
	if (name)
		return buffer_append(text, bytes + (name - names), 1);
	if (kind == quote)
		return buffer_append(text, &kind, 1);
	if (kind && strchr("xuU01234567", kind))
		return read_numeric_escape(parser, kind, text);
	return fail(parser, parser->at - 1, "an unknown escape");
}

static int finish_text(Buffer *text, char **ret_text)
{
	int r = buffer_append(text, "", 1);
	if (r < 0)
		return r;
	*ret_text = (char *)text->data;
	*text = (Buffer){ 0 };
	return 0;
}

/* `parser` stands at the quote that opens it. */
static int read_quoted(Parser *parser, char **ret_text)
{
	_cleanup_(buffer_done) Buffer text = { 0 };
	char quote = parser->text[parser->at];
	size_t start = parser->at++;
	for (;;) {
		size_t length;
		int32_t rune = peek(parser, &length);
		int r;
		if (rune < 0 || rune == '\n')
			return fail(parser, start, "a quote that is not closed");
		size_t from = parser->at;
		parser->at += length;
		if (rune == quote)
			return finish_text(&text, ret_text);
		if (rune == '\\')
			r = read_escape(parser, quote, &text);
		else
			r = buffer_append(&text, parser->text + from, length);
		if (r < 0)
			return r;
	}
}

static int read_while(Parser *parser, bool (*belongs)(int32_t), char **ret_text)
{
	size_t start = parser->at, length;
	while (belongs(peek(parser, &length)))
		parser->at += length;
	*ret_text = strndup(parser->text + start, parser->at - start);
	return *ret_text ? 0 : -ENOMEM;
}

static int read_field(Parser *parser, char **ret_field)
{
	size_t length;
	skip_spaces(parser);
	int32_t rune = peek(parser, &length);
	if (is_field(rune))
		return read_while(parser, is_field, ret_field);
	if (rune == '"')
		return read_quoted(parser, ret_field);
	return fail(parser, parser->at, "a field is letters, digits and '_', or stands in quotes");
}

static int read_path(Parser *parser, FilterSelector *selector)
{
	for (;;) {
		char *field, **larger = reallocarray(selector->path, selector->path_count + 1, sizeof(*larger));
		if (!larger)
			return -ENOMEM;
		selector->path = larger;
		int r = read_field(parser, &field);
		if (r < 0)
			return r;
		selector->path[selector->path_count++] = field;
		if (parser->at == parser->size || parser->text[parser->at] != '.')
			return 0;
		parser->at++;
	}
}

static int read_operator(Parser *parser, FilterOperator *ret_operator)
{
	static const char *const names[] = { [FILTER_EQUAL] = "==", [FILTER_UNEQUAL] = "!=", [FILTER_MATCHES] = "~=" };
	skip_spaces(parser);
	const char *text = parser->text + parser->at;
	size_t length = strspn(text, "=!~");
	for (FilterOperator i = FILTER_EQUAL; i <= FILTER_MATCHES; i++) {
		if (length == 2 && strncmp(text, names[i], 2) == 0) {
			parser->at += length;
			*ret_operator = i;
			return 0;
		}
	}
	return fail(parser, parser->at, "an operator is ==, != or ~=");
}

static int read_value(Parser *parser, FilterSelector *selector)
{
	size_t length;
	skip_spaces(parser);
	int32_t rune = peek(parser, &length);
	if (is_quote(rune)) {
		if (rune != '"' && selector->operator!= FILTER_MATCHES)
			return fail(parser, parser->at, "this quote is for regular expressions only");
		return read_quoted(parser, &selector->value);
	}
	if (!is_value(rune) || (rune < 0x80 && strchr(".=!~", rune)))
		return fail(parser, parser->at, "a value is missing");
	return read_while(parser, is_value, &selector->value);
}

static int read_selector(Parser *parser, FilterSelector *selector)
{
	int r = read_path(parser, selector);
	if (r < 0 || parser->at == parser->size || parser->text[parser->at] == ',')
		return r; /* FILTER_PRESENT is 0 */
	r = read_operator(parser, &selector->operator);
	if (r == 0)
		r = read_value(parser, selector);
	if (r < 0 || selector->operator!= FILTER_MATCHES)
		return r;
	r = filter_regex_new(selector->value, &selector->regex);
	return r == -EINVAL ? 0 : r;
}

static int read_filter(Parser *parser, Filter *filter)
{
	if (parser->size == 0)
		return 0;
	for (;;) {
		FilterSelector *larger = reallocarray(filter->selectors, filter->count + 1, sizeof(*larger));
		if (!larger)
			return -ENOMEM;
		filter->selectors = larger;
		larger[filter->count] = (FilterSelector){ 0 };
		int r = read_selector(parser, &larger[filter->count++]);
		if (r < 0 || parser->at == parser->size)
			return r;
		if (parser->text[parser->at] != ',')
			return fail(parser, parser->at, "a comma or the end should be here");
		parser->at++;
	}
}

int filter_parse(char *const *filters, size_t count, FilterSet **ret_set, Error *error)
{
	_cleanup_(filter_free_p) FilterSet *set = calloc(1, sizeof(*set));
	if (!set || !(set->filters = calloc(count ? count : 1, sizeof(*set->filters))))
		return error_set(error, -ENOMEM, "out of memory");
	for (size_t i = 0; i < count; i++) {
		Parser parser = { .text = filters[i], .size = strlen(filters[i]), .error = error };
		int r = read_filter(&parser, &set->filters[set->count++]);
		if (r < 0)
			return r == -ENOMEM ? error_set(error, r, "out of memory") : r;
	}
	*ret_set = TAKE_PTR(set);
	return 0;
}
