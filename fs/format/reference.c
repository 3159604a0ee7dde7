#include "fs/format/reference.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FORM_REMOTE "HOST[:PORT]/NAME[:TAG][@sha256:DIGEST]"
#define FORM_LOCAL  "NAME[:TAG][@sha256:DIGEST]"

static bool is_lower_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool is_alnum(char c)
{
	return is_lower_alnum(c) || (c >= 'A' && c <= 'Z');
}

/* Skips one separator inside a path component: ".", "_", "__" or dashes. */
static const char *skip_separator(const char *at)
{
	if (*at == '-')
		return at + strspn(at, "-");
	if (at[0] == '_' && at[1] == '_')
		return at + 2;
	return *at == '.' || *at == '_' ? at + 1 : at;
}

/* Components, each of runs of [a-z0-9] with separators between them, joined by "/". */
bool reference_name_valid(const char *name)
{
	if (strlen(name) > REFERENCE_NAME_MAX)
		return false;
	for (const char *at = name;;) {
		if (!is_lower_alnum(*at))
			return false;
		while (is_lower_alnum(*at))
			at++;
		if (*at == '\0')
			return true;
		const char *next = *at == '/' ? at + 1 : skip_separator(at);
		if (next == at)
			return false;
		at = next;
	}
}

bool reference_tag_valid(const char *tag)
{
	size_t length = strlen(tag);
	if (length == 0 || length > REFERENCE_TAG_MAX || tag[0] == '.' || tag[0] == '-')
		return false;
	for (const char *at = tag; *at; at++)
		if (!is_alnum(*at) && !strchr("_.-", *at))
			return false;
	return true;
}

static bool port_valid(const char *port)
{
	size_t length = strspn(port, "0123456789");
	if (length == 0 || length > 5 || port[length] != '\0')
		return false;
	long number = strtol(port, NULL, 10);
	return number >= 1 && number <= 65535;
}

/* A name or IPv4 address, or an IPv6 address in brackets, and a port if there is one. */
static bool host_valid(const char *host)
{
	const char *port;
	if (host[0] == '[') {
		char address[INET6_ADDRSTRLEN];
		struct in6_addr binary;
		const char *end = strchr(host, ']');
		if (!end || (size_t)(end - host) > sizeof(address))
			return false;
		memcpy(address, host + 1, (size_t)(end - host - 1));
		address[end - host - 1] = '\0';
		if (inet_pton(AF_INET6, address, &binary) != 1)
			return false;
		port = end + 1;
	} else {
		if (!is_alnum(host[0]))
			return false;
		for (port = host; is_alnum(*port) || *port == '-' || *port == '.'; port++)
			;
	}
	return *port == '\0' || (*port == ':' && port_valid(port + 1));
}

/* Copies `size` bytes as a string; false when they do not fit. */
static bool copy(char *to, size_t room, const char *from, size_t size)
{
	if (size >= room)
		return false;
	memcpy(to, from, size);
	to[size] = '\0';
	return true;
}

/* What follows the host. `text` is the whole reference, for the sentences. */
static int parse_rest(const char *rest, const char *text, const char *form, Reference *reference, Error *error)
{
	size_t length = strcspn(rest, "@");
	if (rest[length] == '@') {
		if (digest_from_text(rest + length + 1, &reference->digest) < 0)
			return error_set(error, -EINVAL,
					 "\"%s\": what follows \"@\" is not \"sha256:\" and 64 lower-case hex digits; "
					 "write " FORM_LOCAL,
					 text);
		reference->has_digest = true;
	}

	const char *slash = memrchr(rest, '/', length);
	const char *last = slash ? slash + 1 : rest;
	const char *colon = memchr(last, ':', length - (size_t)(last - rest));
	size_t name_length = colon ? (size_t)(colon - rest) : length;
	if (!copy(reference->name, sizeof(reference->name), rest, name_length) ||
	    !reference_name_valid(reference->name))
		return error_set(
			error, -EINVAL,
			"\"%s\": the name \"%.*s\" is not lower-case letters and digits with \".\", \"_\", \"-\" "
			"or \"/\" between them; write %s",
			text, (int)name_length, rest, form);
	if (colon) {
		size_t tag_length = length - name_length - 1;
		if (!copy(reference->tag, sizeof(reference->tag), colon + 1, tag_length) ||
		    !reference_tag_valid(reference->tag))
			return error_set(
				error, -EINVAL,
				"\"%s\": the tag \"%.*s\" is not 1 to 128 letters, digits, \"_\", \".\" or \"-\"; "
				"write %s",
				text, (int)tag_length, colon + 1, form);
	} else if (!reference->has_digest) {
		memcpy(reference->tag, "latest", sizeof("latest"));
	}
	return 0;
}

int reference_parse_remote(const char *text, Reference *ret_reference, Error *error)
{
	Reference reference = { 0 };
	const char *slash = strchr(text, '/');
	if (!slash)
		return error_set(error, -EINVAL, "\"%s\" names no host; write " FORM_REMOTE, text);
	if (!copy(reference.host, sizeof(reference.host), text, (size_t)(slash - text)) || !host_valid(reference.host))
		return error_set(error, -EINVAL, "\"%s\": \"%.*s\" is not a host; write " FORM_REMOTE, text,
				 (int)(slash - text), text);
	int r = parse_rest(slash + 1, text, FORM_REMOTE, &reference, error);
	if (r == 0)
		*ret_reference = reference;
	return r;
}

int reference_parse_local(const char *text, Reference *ret_reference, Error *error)
{
	Reference reference = { 0 };
	int r = parse_rest(text, text, FORM_LOCAL, &reference, error);
	if (r == 0)
		*ret_reference = reference;
	return r;
}

char *reference_text(const Reference *reference)
{
	char digest[DIGEST_TEXT_SIZE] = "";
	if (reference->has_digest)
		digest_text(&reference->digest, digest);
	char *text;
	if (asprintf(&text, "%s%s%s%s%s%s%s", reference->host, reference->host[0] ? "/" : "", reference->name,
		     reference->tag[0] ? ":" : "", reference->tag, reference->has_digest ? "@" : "", digest) < 0)
		return NULL;
	return text;
}
