/*
 * The control socket itself, with several clients that do as the bytes say: connect, send parts of frames or whole ones, pass descriptors that nobody asked
 * for, stop sending, hang up in the middle. Whatever they do, a client with manners is answered afterwards, and no descriptor is left over.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "fs/base/bytes.h"
#include "fs/control/control-frame.h"
#include "fs/control/control-server.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CLIENTS   6
#define PART_MAX  255
#define TURNS_MAX 100

typedef struct World {
	char path[64];
	ControlServer *server;
	int clients[CLIENTS]; /* -1: none */
} World;

static int handle(_unused_ void *arg, ControlCall *call, const ControlRequest *request, json_t **ret_answer,
		  Error *error)
{
	if (request->verb == CONTROL_PULL)
		control_call_progress(call, json_pack("{s:i}", "doneBytes", 1));
	if (request->verb == CONTROL_DETACH)
		return error_set(error, -ENOENT, "nobody is called %s", request->owner);
	*ret_answer = json_pack("{s:s}", "call", control_verb_name(request->verb));
	return 0;
}

static void turn(World *world)
{
	if (control_server_turn(world->server, NULL, 0, 0) < 0)
		abort();
}

static int dial(World *world)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", world->path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		abort();
	turn(world);
	return fd;
}

/* What does not go out at once is lost: the server reads slower than it is fed. */
static void give(int fd, const uint8_t *bytes, size_t size, bool with_descriptor)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec part = { (void *)(uintptr_t)bytes, size };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
	int passed = with_descriptor ? open("/dev/null", O_RDONLY | O_CLOEXEC) : -1;
	if (passed >= 0) {
		message.msg_control = control.room;
		message.msg_controllen = sizeof(control.room);
		control.head = (struct cmsghdr){ CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
		memcpy(CMSG_DATA(&control.head), &passed, sizeof(passed));
	}
	ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL);
	(void)sent;
	close_p(&passed);
}

static void hear_all(const World *world)
{
	uint8_t bytes[4096];
	for (size_t i = 0; i < CLIENTS; i++)
		while (world->clients[i] >= 0 && recv(world->clients[i], bytes, sizeof(bytes), 0) > 0)
			;
}

static void hang_up(int *client)
{
	int fd = TAKE_FD(*client);
	close_p(&fd);
}

/* Takes one step; returns how many bytes it took. */
static size_t step(World *world, const uint8_t *data, size_t size)
{
	uint8_t frame[CONTROL_HEADER_SIZE + PART_MAX];
	int *client = &world->clients[data[1] % CLIENTS];
	size_t length = size > 3 ? data[2] : 0, room = size - 3;
	length = length > room ? room : length;
	switch (data[0] % 6) {
	case 0:
		if (*client < 0)
			*client = dial(world);
		return 3;
	case 1:
	case 2:
		if (*client >= 0)
			give(*client, data + 3, length, data[0] % 6 == 2);
		return 3 + length;
	case 3:
		store_le32(frame, (uint32_t)length);
		memcpy(frame + CONTROL_HEADER_SIZE, data + 3, length);
		if (*client >= 0)
			give(*client, frame, CONTROL_HEADER_SIZE + length, false);
		return 3 + length;
	case 4:
		if (*client >= 0)
			(void)shutdown(*client, SHUT_WR);
		return 3;
	default:
		hang_up(client);
		return 3;
	}
}

static void ping(World *world)
{
	_cleanup_close_ int fd = dial(world);
	_cleanup_(control_reader_done) ControlReader reader = { 0 };
	static const char hello[] = "\x0c\0\0\0{\"imgfsd\":1}", request[] = "\x0f\0\0\0{\"call\":\"ping\"}";
	unsigned frames = 0;
	give(fd, (const uint8_t *)hello, sizeof(hello) - 1, false);
	give(fd, (const uint8_t *)request, sizeof(request) - 1, false);
	for (unsigned turns = 0; frames < 2; turns++) {
		json_t *json;
		turn(world);
		int r = control_reader_read(&reader, fd);
		if ((r < 0 && r != -EAGAIN) || turns > TURNS_MAX)
			abort();
		if (r > 0 && control_reader_take(&reader, &json, NULL) == 0) {
			if (++frames == 2 && !json_object_get(json, "ok"))
				abort();
			json_decref(json);
		}
	}
}

static int next_descriptor(void)
{
	int fd = dup(STDERR_FILENO);
	(void)close(fd);
	return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	World world = { .clients = { -1, -1, -1, -1, -1, -1 } };
	int before = next_descriptor();
	(void)snprintf(world.path, sizeof(world.path), "/tmp/imgfs-fuzz-control-%d", (int)getpid());
	ControlServerOptions options = {
		.path = world.path,
		.user = geteuid(),
		.quick = ~(1u << CONTROL_PULL),
		.handle = handle,
	};
	if (control_server_new(&options, &world.server, NULL) < 0)
		abort();
	while (size >= 3) {
		size_t taken = step(&world, data, size);
		data += taken;
		size -= taken;
		turn(&world);
		hear_all(&world);
	}
	ping(&world);
	for (size_t i = 0; i < CLIENTS; i++)
		hang_up(&world.clients[i]);
	(void)control_server_free(world.server);
	if (next_descriptor() != before)
		abort();
	return 0;
}
