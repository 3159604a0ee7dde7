/* What a client of the control socket sends: frames, and the requests in them. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fs/control/control-frame.h"
#include "fs/control/control-request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Whatever is taken is what the rest of the daemon relies on. */
static void check(const ControlRequest *request)
{
	if (request->verb >= CONTROL_VERBS || !control_verb_name(request->verb))
		abort();
	if (request->verb == CONTROL_ATTACH && (!request->owner || (!request->reference && !request->layers)))
		abort();
	if (request->directory && request->directory[0] != '/')
		abort();
	if (!request->layers != (request->layer_count == 0) || request->layer_count > CONTROL_LAYERS_MAX)
		abort();
}

static void take(ControlReader *reader)
{
	json_t *json;
	ControlRequest request;
	if (control_reader_take(reader, &json, NULL) < 0)
		return;
	if (control_check_hello(json, NULL) == 0) {
		json_decref(json);
	} else if (control_request_parse(json, &request, NULL) == 0) {
		check(&request);
		control_request_done(&request);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_(control_reader_done) ControlReader reader = { 0 };
	while (size > 0) {
		size_t count = control_reader_wanted(&reader);
		if (count == 0 || count > CONTROL_FRAME_MAX)
			abort();
		if (count > size)
			count = size;
		int r = control_reader_feed(&reader, data, count);
		if (r < 0)
			return 0;
		if (r > 0)
			take(&reader);
		data += count;
		size -= count;
	}
	return 0;
}
