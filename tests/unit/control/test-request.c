/* Requests: what is taken, and the sentence for each thing that is not. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "fs/control/control-request.h"

#define HEX    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define DIGEST "sha256:" HEX
#define LAYER                                                                                     \
	"{\"diffId\":\"" DIGEST "\",\"blob\":\"" DIGEST "\",\"blobSize\":900,\"index\":\"" DIGEST \
	"\",\"indexOffset\":500,\"indexSize\":300"

static int parse(const char *text, ControlRequest *ret_request, Error *error)
{
	json_t *json = json_loads(text, 0, NULL);
	assert_non_null(json);
	return control_request_parse(json, ret_request, error);
}

static void test_attach(_unused_ void **state)
{
	_cleanup_(control_request_done) ControlRequest request = { 0 };
	assert_int_equal(parse("{\"call\":\"attach\",\"reference\":\"build:8500/a:v1\",\"owner\":\"/"
			       "mnt\",\"directory\":\"/mnt\","
			       "\"deadline\":30000,\"timeout\":1,\"plain_http\":true,\"noexec\":false,\"no_fill\":true,"
			       "\"fill_rate\":2048,"
			       "\"access\":{\"user\":\"u:p\",\"ca\":\"/ca.pem\"}}",
			       &request, NULL),
			 0);
	assert_int_equal(request.verb, CONTROL_ATTACH);
	assert_string_equal(request.reference, "build:8500/a:v1");
	assert_string_equal(request.owner, "/mnt");
	assert_string_equal(request.directory, "/mnt");
	assert_int_equal(request.deadline, 30000);
	assert_int_equal(request.timeout, 1);
	assert_true(request.plain_http);
	assert_false(request.noexec);
	assert_true(request.no_fill);
	assert_int_equal(request.fill_rate, 2048);
	assert_string_equal(request.access.user, "u:p");
	assert_string_equal(request.access.ca, "/ca.pem");
	assert_null(request.access.login);
	assert_null(request.store);
	assert_int_equal(request.layer_count, 0);
}

static void test_layers(_unused_ void **state)
{
	_cleanup_(control_request_done) ControlRequest request = { 0 };
	assert_int_equal(parse("{\"call\":\"attach\",\"owner\":\"snapshotter:1\",\"layers\":[" LAYER "}," LAYER
			       ",\"size\":7}]}",
			       &request, NULL),
			 0);
	assert_int_equal(request.layer_count, 2);
	assert_int_equal(request.layers[0].size, 0);
	assert_int_equal(request.layers[1].size, 7);
	assert_int_equal(request.layers[0].blob_size, 900);
	assert_int_equal(request.layers[0].index_offset, 500);
	assert_int_equal(request.layers[0].index_size, 300);
	char text[DIGEST_TEXT_SIZE];
	assert_string_equal(digest_text(&request.layers[1].index, text), DIGEST);
}

static void test_every_call(_unused_ void **state)
{
	static const char *const texts[CONTROL_VERBS] = {
		[CONTROL_ATTACH] = "{\"call\":\"attach\",\"owner\":\"o\",\"reference\":\"r\"}",
		[CONTROL_DETACH] = "{\"call\":\"detach\",\"owner\":\"o\",\"lazy\":true}",
		[CONTROL_PULL] = "{\"call\":\"pull\",\"reference\":\"r\",\"seal\":true}",
		[CONTROL_PIN] = "{\"call\":\"pin\",\"reference\":\"r\"}",
		[CONTROL_UNPIN] = "{\"call\":\"unpin\",\"reference\":\"r\"}",
		[CONTROL_STATUS] = "{\"call\":\"status\"}",
		[CONTROL_LIST] = "{\"call\":\"list\",\"after\":\"o\"}",
		[CONTROL_RELOAD] = "{\"call\":\"reload\"}",
		[CONTROL_PING] = "{\"call\":\"ping\"}",
		[CONTROL_UPGRADE] = "{\"call\":\"upgrade\"}",
		[CONTROL_END] = "{\"call\":\"end\"}",
	};
	for (int verb = 0; verb < CONTROL_VERBS; verb++) {
		_cleanup_(control_request_done) ControlRequest request = { 0 };
		assert_int_equal(parse(texts[verb], &request, NULL), 0);
		assert_int_equal(request.verb, verb);
	}
}

static void test_refused(_unused_ void **state)
{
	static const struct {
		const char *text;
		int result;
		const char *sentence;
	} cases[] = {
		{ "{}", -EINVAL, "\"call\" of the request: it is missing" },
		{ "{\"call\":1}", -EINVAL, "\"call\"" },
		{ "{\"call\":\"fly\"}", -ENOSYS, "there is no call \"fly\"" },
		{ "{\"call\":\"ping\",\"owner\":\"o\"}", -EINVAL,
		  "\"owner\" of the request: this call knows no such key" },
		{ "{\"call\":\"attach\",\"reference\":\"r\"}", -EINVAL, "\"owner\" of the request: it is missing" },
		{ "{\"call\":\"attach\",\"owner\":\"o\"}", -EINVAL, "\"reference\"" },
		{ "{\"call\":\"detach\",\"owner\":\"\"}", -EINVAL, "1 to 4096 bytes" },
		{ "{\"call\":\"detach\",\"owner\":\"a\\nb\"}", -EINVAL, "control character" },
		{ "{\"call\":\"detach\",\"owner\":7}", -EINVAL, "\"owner\"" },
		{ "{\"call\":\"detach\",\"owner\":\"o\",\"lazy\":1}", -EINVAL, "true or false" },
		{ "{\"call\":\"attach\",\"owner\":\"o\",\"reference\":\"r\",\"directory\":\"mnt\"}", -EINVAL,
		  "absolute path" },
		{ "{\"call\":\"attach\",\"owner\":\"o\",\"reference\":\"r\",\"deadline\":0}", -EINVAL, "\"deadline\"" },
		{ "{\"call\":\"attach\",\"owner\":\"o\",\"reference\":\"r\",\"deadline\":86400001}", -EINVAL,
		  "\"deadline\"" },
		{ "{\"call\":\"attach\",\"owner\":\"o\",\"reference\":\"r\",\"access\":{\"token\":\"t\"}}", -EINVAL,
		  "not known" },
		{ "{\"call\":\"attach\",\"owner\":\"o\",\"reference\":\"r\",\"access\":{\"key\":\"/k\"}}", -EINVAL,
		  "go together" },
		{ "{\"call\":\"attach\",\"owner\":\"o\",\"reference\":\"r\",\"fill_rate\":1023}", -EINVAL,
		  "\"fill_rate\"" },
		{ "{\"call\":\"detach\",\"owner\":\"o\",\"no_fill\":true}", -EINVAL, "no such key" },
		{ "{\"call\":\"attach\",\"owner\":\"o\",\"layers\":[]}", -EINVAL, "1 to 1024 layers" },
		{ "{\"call\":\"attach\",\"owner\":\"o\",\"layers\":[1]}", -EINVAL, "a layer has" },
		{ "{\"call\":\"attach\",\"owner\":\"o\",\"layers\":[" LAYER ",\"more\":1}]}", -EINVAL, "a layer has" },
		{ "{\"call\":\"attach\",\"owner\":\"o\",\"layers\":[" LAYER ",\"size\":-1}]}", -EINVAL, "\"size\"" },
		{ "{\"call\":\"attach\",\"owner\":\"o\",\"store\":\"/s\",\"layers\":[" LAYER "}]}", -EINVAL,
		  "a store is asked" },
	};
	for (size_t i = 0; i < ELEMENTS(cases); i++) {
		ControlRequest request = { 0 };
		Error error = { 0 };
		assert_int_equal(parse(cases[i].text, &request, &error), cases[i].result);
		if (!strstr(error.message, cases[i].sentence))
			fail_msg("%s: %s", cases[i].text, error.message);
		assert_null(request.json);
	}
}

static void test_too_much(_unused_ void **state)
{
	json_t *layers = json_array(), *layer = json_loads(LAYER "}", 0, NULL);
	for (size_t i = 0; i <= CONTROL_LAYERS_MAX; i++)
		json_array_append(layers, layer);
	ControlRequest request = { 0 };
	assert_int_equal(
		control_request_parse(json_pack("{s:s, s:s, s:o}", "call", "attach", "owner", "o", "layers", layers),
				      &request, NULL),
		-EINVAL);
	json_decref(layer);
	char owner[1026];
	memset(owner, 'o', sizeof(owner) - 1);
	owner[1025] = '\0';
	assert_int_equal(
		control_request_parse(json_pack("{s:s, s:s}", "call", "detach", "owner", owner), &request, NULL),
		-EINVAL);
	owner[1024] = '\0';
	assert_int_equal(
		control_request_parse(json_pack("{s:s, s:s}", "call", "detach", "owner", owner), &request, NULL), 0);
	control_request_done(&request);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_attach),  cmocka_unit_test(test_layers),   cmocka_unit_test(test_every_call),
		cmocka_unit_test(test_refused), cmocka_unit_test(test_too_much),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
