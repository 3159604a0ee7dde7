#include "tools/serve/serve-listen.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/base/cleanup.h"

static int refuse(const char *text, Error *error)
{
	return error_set(error, -EINVAL,
			 "\"%s\" is no address to listen on: write ADDR:PORT in numbers, as in 127.0.0.1:8500, "
			 "0.0.0.0:8500 or [::1]:8500",
			 text);
}

static int parse_port(const char *text, in_port_t *ret_port)
{
	char *end;
	if (text[0] < '0' || text[0] > '9' || strlen(text) > 5)
		return -EINVAL;
	unsigned long port = strtoul(text, &end, 10);
	if (*end || port > UINT16_MAX)
		return -EINVAL;
	*ret_port = htons((uint16_t)port);
	return 0;
}

int serve_address_parse(const char *text, ServeAddress *ret_address, Error *error)
{
	char host[SERVE_ADDRESS_TEXT];
	const char *colon = strrchr(text, ':');
	size_t length = colon ? (size_t)(colon - text) : 0;
	in_port_t port;
	if (length == 0 || length >= sizeof(host) || parse_port(colon + 1, &port) < 0)
		return refuse(text, error);
	memcpy(host, text, length);
	host[length] = '\0';

	ServeAddress address = { 0 };
	if (host[0] == '[' && host[length - 1] == ']') {
		struct sockaddr_in6 six = { .sin6_family = AF_INET6, .sin6_port = port };
		host[length - 1] = '\0';
		if (inet_pton(AF_INET6, host + 1, &six.sin6_addr) != 1)
			return refuse(text, error);
		memcpy(&address.storage, &six, sizeof(six));
		address.size = sizeof(six);
	} else {
		struct sockaddr_in four = { .sin_family = AF_INET, .sin_port = port };
		const char *number = strcmp(host, "localhost") == 0 ? "127.0.0.1" : host;
		if (inet_pton(AF_INET, number, &four.sin_addr) != 1)
			return refuse(text, error);
		memcpy(&address.storage, &four, sizeof(four));
		address.size = sizeof(four);
	}
	*ret_address = address;
	return 0;
}

bool serve_address_is_loopback(const ServeAddress *address)
{
	if (address->storage.ss_family == AF_INET) {
		struct sockaddr_in four;
		memcpy(&four, &address->storage, sizeof(four));
		return ntohl(four.sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
	}
	struct sockaddr_in6 six;
	memcpy(&six, &address->storage, sizeof(six));
	if (IN6_IS_ADDR_V4MAPPED(&six.sin6_addr))
		return six.sin6_addr.s6_addr[12] == IN_LOOPBACKNET;
	return IN6_IS_ADDR_LOOPBACK(&six.sin6_addr);
}

char *serve_address_text(const struct sockaddr *address, char ret_text[static SERVE_ADDRESS_TEXT])
{
	char host[INET6_ADDRSTRLEN] = "?";
	if (address->sa_family == AF_INET) {
		struct sockaddr_in four;
		memcpy(&four, address, sizeof(four));
		(void)inet_ntop(AF_INET, &four.sin_addr, host, sizeof(host));
		(void)snprintf(ret_text, SERVE_ADDRESS_TEXT, "%s:%u", host, ntohs(four.sin_port));
	} else if (address->sa_family == AF_INET6) {
		struct sockaddr_in6 six;
		memcpy(&six, address, sizeof(six));
		(void)inet_ntop(AF_INET6, &six.sin6_addr, host, sizeof(host));
		(void)snprintf(ret_text, SERVE_ADDRESS_TEXT, "[%s]:%u", host, ntohs(six.sin6_port));
	} else {
		(void)snprintf(ret_text, SERVE_ADDRESS_TEXT, "?");
	}
	return ret_text;
}

/* The socket calls of serve_listen(), which puts the sentence to their errors. */
static int listen_on(const ServeAddress *address, int *ret_fd, ServeAddress *ret_actual)
{
	static const int on = 1, off = 0;
	_cleanup_close_ int fd =
		socket(address->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP);
	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0)
		return -errno;
	if (address->storage.ss_family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)) < 0)
		return -errno;
	if (bind(fd, (const struct sockaddr *)&address->storage, address->size) < 0 || listen(fd, SOMAXCONN) < 0)
		return -errno;
	ServeAddress actual = { .size = sizeof(actual.storage) };
	if (getsockname(fd, (struct sockaddr *)&actual.storage, &actual.size) < 0)
		return -errno;
	*ret_actual = actual;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int serve_listen(const ServeAddress *address, int *ret_fd, ServeAddress *ret_actual, Error *error)
{
	int r = listen_on(address, ret_fd, ret_actual);
	if (r >= 0)
		return 0;
	char text[SERVE_ADDRESS_TEXT];
	(void)serve_address_text((const struct sockaddr *)&address->storage, text);
	if (r == -EADDRINUSE)
		return error_set(error, r,
				 "%s is in use by another process: stop it or choose another port with --listen", text);
	return error_set(error, r, "listening on %s failed: %s", text, error_text(NULL, r));
}
