/* Private to the wire: a header field as nghttp2 takes it. Name and value stay the caller's, until nghttp2 has copied them. */
#pragma once

#include <nghttp2/nghttp2.h>
#include <stdint.h>
#include <string.h>

static inline nghttp2_nv wire_header(const char *name, const char *value)
{
	return (nghttp2_nv){
		.name = (uint8_t *)(uintptr_t)name,
		.value = (uint8_t *)(uintptr_t)value,
		.namelen = strlen(name),
		.valuelen = strlen(value),
		.flags = NGHTTP2_NV_FLAG_NONE,
	};
}
