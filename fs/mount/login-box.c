#include "fs/mount/login-box.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>
#include <sys/mman.h>

#include "fs/base/digest.h"
#include "fs/net/net-secret.h"

int login_box_open(int metrics_fd, LoginBoxes **ret_boxes)
{
	void *memory;
	int r = shared_memory_map(metrics_fd, SERVER_METRICS_MAGIC, SERVER_METRICS_VERSION, sizeof(LoginBoxes),
				  &memory);
	if (r == 0)
		*ret_boxes = memory;
	return r;
}

void login_box_close(LoginBoxes *boxes)
{
	if (boxes)
		(void)munmap(boxes, sizeof(*boxes));
}

static int key_of(const char *access, char ret_hex[static DIGEST_HEX_SIZE])
{
	Digest digest;
	int r = digest_of(access, strlen(access), &digest);
	if (r == 0)
		(void)digest_hex(&digest, ret_hex);
	return r;
}

static int encode(const LoginPair *pairs, size_t count, char **ret_text)
{
	json_t *root = json_object();
	int r = root ? 0 : -ENOMEM;
	for (size_t i = 0; r == 0 && i < count; i++) {
		char hex[DIGEST_HEX_SIZE];
		r = key_of(pairs[i].before, hex);
		if (r == 0 && json_object_set_new(root, hex, json_string(pairs[i].now)) < 0)
			r = -ENOMEM;
	}
	char *text = r == 0 ? json_dumps(root, JSON_COMPACT) : NULL;
	json_decref(root);
	if (r == 0 && !text)
		r = -ENOMEM;
	if (r == 0)
		*ret_text = text;
	return r;
}

int login_box_write(LoginBoxes *boxes, const LoginPair *pairs, size_t count)
{
	char *text = NULL;
	int r = encode(pairs, count, &text);
	if (r < 0)
		return r;
	LoginBox *box = &boxes->box;
	size_t size = strlen(text);
	if (size <= LOGIN_BOX_MAX) {
		uint32_t serial = atomic_load(&box->serial) & ~1u;
		atomic_store(&box->serial, serial + 1);
		memcpy(box->text, text, size);
		atomic_store(&box->size, (uint32_t)size);
		atomic_store(&box->serial, serial + 2);
	} else {
		r = -EFBIG;
	}
	net_secret_wipe(&text);
	return r;
}

/* A copy of the text that is whole, or NULL. */
static char *copy_text(LoginBox *box, uint32_t serial, size_t *ret_size)
{
	size_t size = atomic_load(&box->size);
	char *copy = size <= LOGIN_BOX_MAX ? malloc(size + 1) : NULL;
	if (!copy)
		return NULL;
	memcpy(copy, box->text, size);
	copy[size] = '\0';
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load(&box->serial) != serial) {
		net_secret_wipe(&copy);
		return NULL;
	}
	*ret_size = size;
	return copy;
}

int login_box_read(LoginBoxes *boxes, const char *access, uint32_t *serial, char **ret_now)
{
	char hex[DIGEST_HEX_SIZE];
	size_t size;
	uint32_t newest = atomic_load(&boxes->box.serial);
	if (newest == *serial)
		return -ENOENT;
	char *text = newest & 1 ? NULL : copy_text(&boxes->box, newest, &size);
	if (!text)
		return -EAGAIN;
	json_t *root = json_loadb(text, size, 0, NULL);
	net_secret_wipe(&text);
	int r = key_of(access, hex);
	const char *now = r == 0 ? json_string_value(json_object_get(root, hex)) : NULL;
	if (r == 0)
		*serial = newest;
	if (r == 0 && !now)
		r = -ENOENT;
	if (r == 0) {
		*ret_now = strdup(now);
		r = *ret_now ? 0 : -ENOMEM;
	}
	json_decref(root);
	return r;
}
