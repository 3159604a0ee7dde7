#include "tools/serve/serve-names.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <limits.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

void serve_names_done(ServeNames *names)
{
	for (size_t i = 0; i < names->count; i++)
		free(names->names[i]);
	free(names->names);
	*names = (ServeNames){ 0 };
}

static int add(ServeNames *names, const char *name)
{
	for (size_t i = 0; i < names->count; i++)
		if (strcasecmp(names->names[i], name) == 0)
			return 0;
	char **more = reallocarray(names->names, names->count + 1, sizeof(*more));
	if (!more)
		return -ENOMEM;
	names->names = more;
	more[names->count] = strdup(name);
	if (!more[names->count])
		return -ENOMEM;
	names->count++;
	return 0;
}

/* The address in numbers, without port; false for those of other families, and for ones that only mean something on one link. */
static bool address_text(const struct sockaddr *address, char ret_text[static INET6_ADDRSTRLEN])
{
	if (address->sa_family == AF_INET) {
		struct sockaddr_in four;
		memcpy(&four, address, sizeof(four));
		return inet_ntop(AF_INET, &four.sin_addr, ret_text, INET6_ADDRSTRLEN) != NULL;
	}
	if (address->sa_family != AF_INET6)
		return false;
	struct sockaddr_in6 six;
	memcpy(&six, address, sizeof(six));
	return !IN6_IS_ADDR_LINKLOCAL(&six.sin6_addr) &&
	       inet_ntop(AF_INET6, &six.sin6_addr, ret_text, INET6_ADDRSTRLEN) != NULL;
}

static int add_interfaces(ServeNames *names)
{
	struct ifaddrs *list;
	if (getifaddrs(&list) < 0)
		return -errno;
	int r = 0;
	for (const struct ifaddrs *one = list; one && r == 0; one = one->ifa_next) {
		char text[INET6_ADDRSTRLEN];
		if (one->ifa_addr && one->ifa_flags & IFF_UP && address_text(one->ifa_addr, text))
			r = add(names, text);
	}
	freeifaddrs(list);
	return r;
}

static bool is_any(const ServeAddress *address)
{
	if (address->storage.ss_family == AF_INET) {
		struct sockaddr_in four;
		memcpy(&four, &address->storage, sizeof(four));
		return four.sin_addr.s_addr == htonl(INADDR_ANY);
	}
	struct sockaddr_in6 six;
	memcpy(&six, &address->storage, sizeof(six));
	return IN6_IS_ADDR_UNSPECIFIED(&six.sin6_addr);
}

static void own_name(char ret_name[static HOST_NAME_MAX + 1])
{
	if (gethostname(ret_name, HOST_NAME_MAX) < 0)
		ret_name[0] = '\0';
	ret_name[HOST_NAME_MAX] = '\0';
}

static int collect(const ServeAddress *address, const char *const *extra, size_t extra_count, ServeNames *names)
{
	char host[HOST_NAME_MAX + 1], text[INET6_ADDRSTRLEN];
	own_name(host);
	int r = host[0] ? add(names, host) : 0;
	if (r == 0)
		r = add(names, "localhost");
	if (r == 0 && is_any(address))
		r = add_interfaces(names);
	else if (r == 0 && address_text((const struct sockaddr *)&address->storage, text))
		r = add(names, text);
	for (size_t i = 0; r == 0 && i < extra_count; i++)
		r = add(names, extra[i]);
	return r;
}

int serve_names_collect(const ServeAddress *address, const char *const *extra, size_t extra_count,
			ServeNames *ret_names)
{
	ServeNames names = { 0 };
	int r = collect(address, extra, extra_count, &names);
	if (r < 0) {
		serve_names_done(&names);
		return r;
	}
	*ret_names = names;
	return 0;
}

void serve_names_best(const ServeAddress *actual, const char *const *extra, size_t extra_count, char *ret_text,
		      size_t size)
{
	char text[SERVE_ADDRESS_TEXT], host[HOST_NAME_MAX + 1];
	(void)serve_address_text((const struct sockaddr *)&actual->storage, text);
	own_name(host);
	const char *port = strrchr(text, ':');
	const char *name = extra_count > 0 ? extra[0] : host;
	struct in6_addr six;
	if (extra_count == 0 && (!is_any(actual) || !host[0]))
		(void)snprintf(ret_text, size, "%s", text);
	else if (inet_pton(AF_INET6, name, &six) == 1)
		(void)snprintf(ret_text, size, "[%s]%s", name, port ?: "");
	else
		(void)snprintf(ret_text, size, "%s%s", name, port ?: "");
}
