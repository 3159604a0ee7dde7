/* The body of an answer to a request for several ranges: the first byte says how it is cut into pieces. */
#include <stdlib.h>
#include <string.h>

#include "fs/net/net-multipart.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const NetSpan spans[] = { { .offset = 3, .size = 4 }, { .offset = 100, .size = 2 } };

typedef struct Outcome {
	int result;
	size_t size;
	uint8_t bytes[6];
} Outcome;

static Outcome feed(const uint8_t *data, size_t size, size_t step)
{
	Outcome outcome = { 0 };
	NetMultipart parts;
	Error error = { 0 };
	net_multipart_init(&parts, spans, ELEMENTS(spans), "b");
	while (size > 0) {
		size_t piece = step < size ? step : size;
		size -= piece;
		while (piece > 0) {
			const uint8_t *part, *before = data;
			size_t part_size, piece_before = piece;
			outcome.result = net_multipart_next(&parts, &data, &piece, &part, &part_size, &error);
			if (outcome.result < 0)
				return outcome;
			/* It goes on, within its piece, and gives no more than was asked for. */
			if ((size_t)(data - before) != piece_before - piece || piece == piece_before ||
			    outcome.size + part_size > sizeof(outcome.bytes))
				abort();
			if (part_size > 0)
				memcpy(outcome.bytes + outcome.size, part, part_size);
			outcome.size += part_size;
		}
	}
	if ((parts.state == NET_PART_END) != (outcome.size == sizeof(outcome.bytes)))
		abort();
	return outcome;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	Outcome whole = feed(data + 1, size - 1, SIZE_MAX), cut = feed(data + 1, size - 1, 1 + data[0] % 16u);
	if (whole.result != cut.result || whole.size != cut.size || memcmp(whole.bytes, cut.bytes, whole.size) != 0)
		abort();
	return 0;
}
