#define PCRE2_CODE_UNIT_WIDTH 8
#include "snapshotter/filter-regex.h"

#include <ctype.h>
#include <errno.h>
#include <pcre2.h>
#include <string.h>

#define PATTERN_MAX  4096
#define HEAP_KIB_MAX 4096
#define MATCHES_MAX  100000
#define WORKSPACE    2000
#define NESTING_MAX  100

struct FilterRegex {
	pcre2_code *code;
};

/* After "(?": non-capturing, named, or flags as RE2 has them. */
static bool is_group_allowed(const char *text)
{
	if (text[0] == 'P')
		return text[1] == '<';
	if (text[0] == '<')
		return text[1] != '=' && text[1] != '!';
	text += strspn(text, "imsU");
	if (*text == '-') {
		text++;
		text += strspn(text, "imsU");
	}
	return *text == ':' || *text == ')';
}

static bool is_escape_allowed(const char *text)
{
	if (*text >= '1' && *text <= '7')
		return text[1] >= '0' && text[1] <= '7'; /* octal; a single digit would refer back */
	return *text && (ispunct((unsigned char)*text) || strchr("AaBbDdEfnPpQrSstvWwxz0", *text));
}

/* The end of "[...]": what stands within has no meaning of its own but for escapes and "[:name:]". */
static const char *skip_class(const char *text)
{
	text++;
	if (*text == '^')
		text++;
	if (*text == ']')
		text++;
	for (; *text && *text != ']'; text++) {
		if (text[0] == '[' && text[1] == ':') {
			const char *end = strstr(text + 2, ":]");
			text = end ? end + 1 : text;
		} else if (text[0] == '\\' && text[1]) {
			text++;
		}
	}
	return text;
}

/* Does it keep to what RE2 has? PCRE2 says the rest: that it is an expression at all. */
static bool is_re2(const char *pattern)
{
	bool repeats = false; /* an operator of repetition stands right before */
	for (const char *text = pattern; *text; text++) {
		bool is_repetition = strchr("*+?", *text);
		if (*text == '\\') {
			if (!is_escape_allowed(++text))
				return false;
			if (*text == 'Q') {
				const char *end = strstr(text, "\\E");
				if (!end)
					return true;
				text = end + 1;
			}
		} else if (*text == '[') {
			text = skip_class(text);
			if (!*text)
				return false;
		} else if (*text == '(' && (text[1] == '*' || (text[1] == '?' && !is_group_allowed(text + 2)))) {
			return false;
		} else if (*text == '(' && text[1] == '?') {
			text++;
			is_repetition = false;
		} else if (is_repetition && repeats) {
			if (*text != '?' || text[1] == '?' || text[1] == '*' || text[1] == '+')
				return false;
		} else if (*text == '}') {
			is_repetition = true;
		}
		repeats = is_repetition;
	}
	return true;
}

int filter_regex_new(const char *pattern, FilterRegex **ret_regex)
{
	int code;
	PCRE2_SIZE offset;
	size_t length = strlen(pattern);
	if (length > PATTERN_MAX || !is_re2(pattern))
		return -EINVAL;
	FilterRegex *regex = calloc(1, sizeof(*regex));
	pcre2_compile_context *context = pcre2_compile_context_create(NULL);
	if (!regex || !context) {
		free(regex);
		pcre2_compile_context_free(context);
		return -ENOMEM;
	}
	(void)pcre2_set_parens_nest_limit(context, NESTING_MAX);
	regex->code = pcre2_compile((PCRE2_SPTR)pattern, length,
				    PCRE2_UTF | PCRE2_DOLLAR_ENDONLY | PCRE2_NEVER_BACKSLASH_C | PCRE2_NO_AUTO_CAPTURE,
				    &code, &offset, context);
	pcre2_compile_context_free(context);
	if (!regex->code) {
		free(regex);
		return -EINVAL;
	}
	*ret_regex = regex;
	return 0;
}

FilterRegex *filter_regex_free(FilterRegex *regex)
{
	if (!regex)
		return NULL;
	pcre2_code_free(regex->code);
	free(regex);
	return NULL;
}

bool filter_regex_matches(const FilterRegex *regex, const char *text)
{
	int workspace[WORKSPACE];
	pcre2_match_context *context = pcre2_match_context_create(NULL);
	pcre2_match_data *match = pcre2_match_data_create(1, NULL);
	bool matches = false;
	if (context && match) {
		(void)pcre2_set_match_limit(context, MATCHES_MAX);
		(void)pcre2_set_heap_limit(context, HEAP_KIB_MAX);
		int r = pcre2_dfa_match(regex->code, (PCRE2_SPTR)text, strlen(text), 0, PCRE2_DFA_SHORTEST, match,
					context, workspace, WORKSPACE);
		matches = r >= 0;
	}
	pcre2_match_data_free(match);
	pcre2_match_context_free(context);
	return matches;
}
