#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "fs/net/net-hosts.h"

static int parse(const char *text, NetHosts *ret_hosts, Error *error)
{
	_cleanup_(conf_done) Conf conf = { 0 };
	assert_int_equal(conf_parse("FILE", text, strlen(text), &conf, NULL), 0);
	return net_hosts_parse(&conf, ret_hosts, error);
}

static void test_parse(void **state _unused_)
{
	NetHosts parsed = { 0 }, hosts = { 0 };
	assert_int_equal(
		parse("[mount]\nquota = 1G\n[host build:8500]\nmirrors = a:1, [::1]:2\nplain-http = Yes\nuser = u:p\n"
		      "[source one]\nurl = https://one:1\n[host a:1]\nca = /ca\ncert = /cert\nkey = /key\n"
		      "[host build:8500]\nmirrors = c\nlogin = /l\npassword-file = /p\n[source two]\nurl = http://2\n",
		      &parsed, NULL),
		0);
	/* A copy of it has all of it, also when it is gone. */
	assert_int_equal(net_hosts_copy(&parsed, &hosts), 0);
	net_hosts_done(&parsed);
	assert_int_equal(hosts.host_count, 2);
	assert_int_equal(hosts.source_count, 2);
	const NetHost *build = net_hosts_find(&hosts, "build:8500"), *a = net_hosts_find(&hosts, "a:1");
	assert_non_null(build);
	assert_int_equal(build->mirror_count, 3);
	assert_string_equal(build->mirrors[1], "[::1]:2");
	assert_string_equal(build->mirrors[2], "c");
	assert_true(build->plain_http);
	assert_string_equal(build->user, "u:p");
	assert_string_equal(build->login, "/l");
	assert_string_equal(build->password_file, "/p");
	assert_non_null(a);
	assert_false(a->plain_http);
	assert_string_equal(a->ca, "/ca");
	assert_string_equal(a->certificate, "/cert");
	assert_string_equal(a->key, "/key");
	assert_string_equal(hosts.sources[1].url, "http://2");
	assert_null(net_hosts_find(&hosts, "b:1"));
	assert_null(net_hosts_find(NULL, "b:1"));
	net_hosts_done(&hosts);
	assert_int_equal(net_hosts_copy(NULL, &hosts), 0);
	assert_int_equal(hosts.host_count, 0);
}

static void test_wrong(void **state _unused_)
{
	static const struct {
		const char *text, *sentence;
	} wrong[] = {
		{ "[host]\n", "FILE:1: a section of a host" },
		{ "[host a/b]\n", "FILE:1: a section of a host" },
		{ "\n[host a]\ncolour = red\n", "FILE:3: a host has mirrors" },
		{ "[host a]\nplain-http = perhaps\n", "FILE:2: neither yes nor no: \"perhaps\"" },
		{ "[host a]\nmirrors =\n", "FILE:2: a value is missing" },
		{ "[host a]\nmirrors = http://b\n", "FILE:2: a mirror is NAME:PORT" },
		{ "[host a]\nmirrors = b a\n", "FILE:2: a host is no mirror of itself" },
		{ "[host a]\nmirrors = 1 2 3 4 5 6 7 8 9\n", "FILE:2: eight mirrors" },
		{ "[host a]\nca =\n", "FILE:2: a value is missing" },
		{ "[source]\nurl = http://a\n", "FILE:1: a source is written" },
		{ "[source a]\nurl = a:8500\n", "FILE:2: a source's url" },
		{ "[source a]\nurl = http://a/b\n", "FILE:2: a source's url" },
		{ "[source a]\nuri = http://a\n", "FILE:2: a source has url" },
		{ "[source a]\n", "[source a] has no url" },
	};
	for (size_t i = 0; i < ELEMENTS(wrong); i++) {
		NetHosts hosts = { 0 };
		Error error = { 0 };
		assert_int_equal(parse(wrong[i].text, &hosts, &error), -EINVAL);
		if (!strstr(error.message, wrong[i].sentence))
			fail_msg("%s: %s", wrong[i].text, error.message);
	}
}

/* A mirror is spoken to by its own section; nothing of the host's own goes there. */
static void test_load(void **state _unused_)
{
	NetHosts hosts = { 0 };
	NetAccess access = { 0 }, again = { 0 };
	NetAccessOptions options = { .certs = "/nonexistent", .user = "given:1", .login = NULL };
	char *base, *text;
	assert_int_equal(setenv("DOCKER_CONFIG", "/nonexistent", 1), 0);
	assert_int_equal(parse("[host h:1]\nmirrors = m:2 127.0.0.1:3\nuser = conf:2\n[host m:2]\nuser = "
			       "mirror:3\nplain-http = on\n",
			       &hosts, NULL),
			 0);
	assert_int_equal(net_hosts_load(&hosts, &options, "h:1", false, &access, &base, NULL), 0);
	assert_string_equal(base, "https://h:1");
	assert_string_equal(access.user, "given:1");
	assert_int_equal(access.mirror_count, 2);
	free(base);
	/* As the server of a mount gets it. */
	assert_int_equal(net_access_encode(&access, &text), 0);
	assert_int_equal(net_access_decode(text, &again), 0);
	free(text);
	assert_int_equal(again.mirror_count, 2);
	assert_string_equal(again.mirrors[0].base, "http://m:2");
	assert_string_equal(again.mirrors[0].access->user, "mirror:3");
	assert_string_equal(again.mirrors[1].base, "http://127.0.0.1:3");
	assert_null(again.mirrors[1].access->user);
	char *url = net_mirror_url(&again.mirrors[0], "https://h:1/v2/a/blobs/x");
	assert_string_equal(url, "http://m:2/v2/a/blobs/x");
	free(url);
	net_access_done(&access);
	net_access_done(&again);
	options.user = NULL;
	assert_int_equal(net_hosts_load(&hosts, &options, "h:1", true, &access, &base, NULL), 0);
	assert_string_equal(base, "http://h:1");
	assert_string_equal(access.user, "conf:2");
	free(base);
	net_access_done(&access);
	assert_int_equal(net_access_decode("{\"mirrors\":[{\"user\":\"a:b\"}]}", &again), -EBADMSG);
	assert_int_equal(net_access_decode("{\"mirrors\":[3]}", &again), -EBADMSG);
	assert_int_equal(net_access_decode("{\"mirrors\":3}", &again), -EBADMSG);
	net_hosts_done(&hosts);
}

/* Sources come after the mirrors, as far as there is room; not the host itself, nor one that is a mirror, nor one whose section cannot be read. */
static void test_load_sources(void **state _unused_)
{
	NetHosts hosts = { 0 };
	NetAccess access = { 0 }, again = { 0 };
	NetAccessOptions options = { .certs = "/nonexistent", .user = "given:1" };
	char *base, *text, *url;
	assert_int_equal(setenv("DOCKER_CONFIG", "/nonexistent", 1), 0);
	assert_int_equal(
		parse("[source a]\nurl = http://h:1\n[source b]\nurl = http://m:2\n[source c]\nurl = https://s:3\n"
		      "[source d]\nurl = https://t:4\n[host h:1]\nmirrors = m:2\n[host m:2]\nplain-http = on\n"
		      "[host s:3]\nuser = ann:5\n[host t:4]\nca = /nonexistent\n",
		      &hosts, NULL),
		0);
	assert_int_equal(net_hosts_load(&hosts, &options, "h:1", true, &access, &base, NULL), 0);
	free(base);
	assert_int_equal(net_access_encode(&access, &text), 0);
	assert_int_equal(net_access_decode(text, &again), 0);
	free(text);
	assert_int_equal(again.mirror_count, 2);
	assert_false(again.mirrors[0].is_source);
	assert_true(again.mirrors[1].is_source);
	assert_string_equal(again.mirrors[1].base, "https://s:3");
	assert_string_equal(again.mirrors[1].access->user, "ann:5");
	url = net_mirror_url(&again.mirrors[1], "http://h:1/v2/whisk/app/blobs/sha256:12");
	assert_string_equal(url, "https://s:3/imgfs/blobs/sha256:12");
	free(url);
	net_access_done(&access);
	net_access_done(&again);
	net_hosts_done(&hosts);

	char many[1024] = "";
	for (unsigned i = 0; i < NET_MIRRORS_MAX + 3; i++)
		(void)snprintf(many + strlen(many), sizeof(many) - strlen(many), "[source s%u]\nurl = http://s:%u\n", i,
			       i);
	assert_int_equal(parse(many, &hosts, NULL), 0);
	assert_int_equal(net_hosts_load(&hosts, &options, "h:1", true, &access, &base, NULL), 0);
	free(base);
	assert_int_equal(access.mirror_count, NET_MIRRORS_MAX);
	net_access_done(&access);
	net_hosts_done(&hosts);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_wrong),
		cmocka_unit_test(test_load),
		cmocka_unit_test(test_load_sources),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
