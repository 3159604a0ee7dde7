/*
 * link.c - a network link of known rate, delay and loss, in user space.
 *
 * The host and every node have a network namespace of their own with a TUN device, link0. One process
 * reads the packets of all these devices, holds each as long as a wire would, and writes it to the
 * device of the other side. All nodes share one wire a direction, as they would share the host's port:
 *
 *     host link0 --> drop-tail queue | serialization | loss | delay --> node K link0      (DOWN)
 *     host link0 <-- drop-tail queue | serialization | loss | delay <-- node K link0      (UP)
 *
 * A wire's packets share one delay, so they leave in the order they came and a list is the time-ordered
 * queue. TCP packets come as large as the sender made them (TSO), and are cut here into bursts that
 * take at most slice_ns on the wire; queue and loss are decided for every MTU-sized packet in them.
 *
 *     link forward [OPTION...] BOARD HOST_NS NODE_NS...    starts the process, returns when it forwards
 *     link test    BOARD SECONDS HOST_NS NODE_NS...        compares a running link with its settings
 *     link stats   BOARD                                   prints the counters
 *
 * BOARD is the file through which the running link shows its settings and counters. It stays locked
 * (flock) as long as the link runs.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <malloc.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_NODES         200 /* the last byte of the address is the node's number + 1 */
#define MAX_PACKET        65535
#define MIN_QUEUE         131072 /* bytes: two of TCP's largest bursts ... */
#define MIN_QUEUE_SECONDS 0.004  /* ... and what is sent meanwhile, as a switch would hold */
#define MIN_SLICE_NS      50000  /* granularity on the wire (a burst, the shortest pause): a hundredth of the */
#define MAX_SLICE_NS      500000 /* delay, within these bounds */
#define CREDIT_NS         50000  /* serialization time a wire may catch up after it stood idle */
#define EARLY_NS          15000  /* a packet due within this leaves now: no timer is finer */
#define MAX_LATENCY_NS    100000 /* a longer wait is not the machine's latency, but another process */
#define READ_BATCH        64     /* packets read from one device before the others get their turn */
#define SECOND            UINT64_C(1000000000)

enum { DOWN, UP, DIRECTIONS };
static const char *const direction_name[] = { "host->node", "node->host" };

/* One direction: settings, then counters. Only the forwarding process writes the counters. */
struct lane {
	double rate; /* bytes a second */
	double loss; /* probability, 0 to 1 */
	uint64_t delay_ns;
	uint64_t queue_bytes;
	uint64_t lost;       /* packets, by --loss */
	uint64_t overflowed; /* packets, by a full queue */
	struct {
		uint64_t packets, bytes; /* delivered; IP packets as they would be on the wire */
	} node[MAX_NODES];
};

struct board {
	char magic[8];
	uint32_t pid, nodes, subnet, mtu, overhead;
	struct lane lane[DIRECTIONS];
};

static const char board_magic[8] = "link 1\n";

static void __attribute__((noreturn, format(printf, 1, 2))) die(const char *format, ...)
{
	va_list args;

	fputs("link: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(2);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

static struct timespec to_timespec(uint64_t ns)
{
	return (struct timespec){ .tv_sec = (time_t)(ns / SECOND), .tv_nsec = (long)(ns % SECOND) };
}

static void enter_namespace(const char *name)
{
	char path[300];
	int fd;

	snprintf(path, sizeof path, "/run/netns/%s", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || setns(fd, CLONE_NEWNET) < 0)
		die("cannot enter the network namespace %s: %s", name, strerror(errno));
	close(fd);
}

/* ---- settings ---- */

struct unit {
	const char *name;
	double factor;
};

static const struct unit rate_units[] = {
	{ "bit", 1 / 8. }, { "kbit", 1e3 / 8 }, { "mbit", 1e6 / 8 }, { "gbit", 1e9 / 8 }, { NULL, 0 }
};
static const struct unit time_units[] = { { "us", 1e3 }, { "ms", 1e6 }, { "s", 1e9 }, { NULL, 0 } };
static const struct unit loss_units[] = { { "%", 0.01 }, { NULL, 0 } };
static const struct unit size_units[] = { { "", 1 }, { "k", 1024 }, { "m", 1048576 }, { NULL, 0 } };

static double parse(const char *option, const char *text, const struct unit *units, double min, double max)
{
	char *end;
	double value = strtod(text, &end);

	for (const struct unit *u = units; u->name && end != text; u++)
		if (strcasecmp(end, u->name) == 0 && value * u->factor >= min && value * u->factor <= max)
			return value * u->factor;
	die("--%s: '%s' is not a value it can have", option, text);
}

/* "A" sets both directions, "A/B" the way down to A and the way up to B. */
static void parse_pair(const char *option, const char *text, const struct unit *units, double min, double max,
		       double ret[DIRECTIONS])
{
	const char *slash = strchr(text, '/');
	char first[40];

	snprintf(first, sizeof first, "%.*s", slash ? (int)(slash - text) : 39, text);
	ret[DOWN] = parse(option, first, units, min, max);
	ret[UP] = slash ? parse(option, slash + 1, units, min, max) : ret[DOWN];
}

struct settings {
	double rate[DIRECTIONS], delay[DIRECTIONS], loss[DIRECTIONS], queue[DIRECTIONS];
	unsigned subnet, mtu, overhead;
	uint64_t seed;
	bool gso;
};

static struct settings parse_options(int argc, char **argv)
{
	static const struct option options[] = { { "rate", 1, NULL, 'r' },   { "delay", 1, NULL, 'd' },
						 { "loss", 1, NULL, 'l' },   { "queue", 1, NULL, 'q' },
						 { "mtu", 1, NULL, 'm' },    { "overhead", 1, NULL, 'o' },
						 { "subnet", 1, NULL, 'x' }, { "seed", 1, NULL, 's' },
						 { "no-gso", 0, NULL, 'G' }, { NULL, 0, NULL, 0 } };
	struct settings s = { .rate = { 1.25e8, 1.25e8 }, .mtu = 1500, .overhead = 38, .seed = 1, .gso = true };
	int c;

	while ((c = getopt_long(argc, argv, "+", options, NULL)) != -1)
		switch (c) {
		case 'r':
			parse_pair("rate", optarg, rate_units, 1000, 1.25e10, s.rate);
			break;
		case 'd':
			parse_pair("delay", optarg, time_units, 0, 1e10, s.delay);
			break;
		case 'l':
			parse_pair("loss", optarg, loss_units, 0, 1, s.loss);
			break;
		case 'q':
			parse_pair("queue", optarg, size_units, 4096, 1e9, s.queue);
			break;
		case 'm':
			s.mtu = (unsigned)parse("mtu", optarg, size_units, 576, 65000);
			break;
		case 'o':
			s.overhead = (unsigned)parse("overhead", optarg, size_units, 0, 1000);
			break;
		case 'x':
			s.subnet = (unsigned)parse("subnet", optarg, size_units, 0, 255);
			break;
		case 's':
			s.seed = (uint64_t)parse("seed", optarg, size_units, 0, 1e15);
			break;
		case 'G':
			s.gso = false;
			break;
		default:
			exit(2);
		}
	return s;
}

static void fill_board(struct board *board, const struct settings *s, unsigned nodes)
{
	memset(board, 0, sizeof *board);
	board->nodes = nodes;
	board->subnet = s->subnet;
	board->mtu = s->mtu;
	board->overhead = s->overhead;
	for (int d = 0; d < DIRECTIONS; d++) {
		struct lane *lane = &board->lane[d];
		double bdp = s->rate[d] * (s->delay[DOWN] + s->delay[UP]) / 1e9;
		double least = MIN_QUEUE + s->rate[d] * MIN_QUEUE_SECONDS;

		lane->rate = s->rate[d];
		lane->loss = s->loss[d];
		lane->delay_ns = (uint64_t)s->delay[d];
		lane->queue_bytes = (uint64_t)(s->queue[d] > 0 ? s->queue[d] : bdp > least ? bdp : least);
	}
	memcpy(board->magic, board_magic, sizeof board_magic);
}

static struct board *map_board(const char *path, bool create)
{
	int fd = open(path, create ? O_RDWR | O_CREAT | O_CLOEXEC : O_RDONLY | O_CLOEXEC, 0644);
	struct board *board;

	if (fd < 0)
		die("cannot open %s: %s", path, strerror(errno));
	if (create && flock(fd, LOCK_EX | LOCK_NB) < 0)
		die("%s belongs to a running link", path);
	if (create && ftruncate(fd, sizeof *board) < 0)
		die("cannot write %s: %s", path, strerror(errno));
	board = mmap(NULL, sizeof *board, create ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, 0);
	if (board == MAP_FAILED)
		die("cannot map %s: %s", path, strerror(errno));
	if (!create && memcmp(board->magic, board_magic, sizeof board_magic) != 0)
		die("%s is not a link's board", path);
	return board; /* fd stays open: it carries the lock */
}

/* ---- the wire ---- */

/* A burst on the wire: one packet, or consecutive packets of one TCP stream, as the device takes them. */
struct parcel {
	struct parcel *next;
	uint64_t depart;
	uint32_t node, packets, bytes, size;
	unsigned char data[]; /* virtio_net_hdr, IP packet */
};

struct wire {
	struct lane *lane;
	struct parcel *head, **tail;
	double ns_per_byte;
	uint64_t queue_ns; /* the queue's bound as time to serialize */
	uint64_t busy;     /* when the last byte of what was accepted is serialized */
	uint64_t arrival;  /* of the packets being read */
};

struct forwarder {
	struct board *board;
	struct wire wire[DIRECTIONS];
	int epoll, tun[MAX_NODES + 1]; /* tun[0] is the host's, tun[K] node K's */
	uint64_t random;
	uint64_t slice_ns;   /* granularity, see MIN_SLICE_NS */
	uint64_t latency_ns; /* what it takes to be woken, learned from the timers */
	uint64_t late_ns;    /* how much later than a packet was due it woke this time */
};

/* What was read from a device. */
struct packet {
	struct virtio_net_hdr vnet;
	const unsigned char *ip;
	size_t size, head; /* head: bytes of IP and TCP header, 0 where it need not be cut */
};

static unsigned get16(const unsigned char *p)
{
	return (unsigned)p[0] << 8 | p[1];
}

static void put16(unsigned char *p, uint32_t v)
{
	p[0] = (unsigned char)(v >> 8);
	p[1] = (unsigned char)v;
}

static uint32_t get32(const unsigned char *p)
{
	return (uint32_t)get16(p) << 16 | get16(p + 2);
}

static void put32(unsigned char *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v);
}

/* The Internet checksum's sum (RFC 1071), folded and not yet inverted; size is even. */
static uint32_t sum16(const unsigned char *p, size_t size, uint32_t sum)
{
	for (size_t i = 0; i < size; i += 2)
		sum += get16(p + i);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* Uniform in [0, 1): a splitmix64 step. */
static double draw(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

/* Serializes one IP packet. False if the queue had no room, or if it is lost on the way. */
static bool transmit(struct forwarder *f, struct wire *w, size_t bytes)
{
	uint64_t cost = (uint64_t)((double)(bytes + f->board->overhead) * w->ns_per_byte);

	if (w->busy + cost > w->arrival + w->queue_ns) {
		w->lane->overflowed++;
		return false;
	}
	w->busy += cost;
	if (w->lane->loss > 0 && draw(&f->random) < w->lane->loss) {
		w->lane->lost++;
		return false;
	}
	return true;
}

static void append(struct wire *w, struct parcel *p)
{
	p->next = NULL;
	p->depart = (w->busy > w->arrival ? w->busy : w->arrival) + w->lane->delay_ns;
	*w->tail = p;
	w->tail = &p->next;
}

static struct parcel *new_parcel(unsigned node, size_t size, size_t packets, size_t bytes)
{
	struct parcel *p = malloc(sizeof *p + size);

	if (p) {
		p->node = node;
		p->size = (uint32_t)size;
		p->packets = (uint32_t)packets;
		p->bytes = (uint32_t)bytes;
	}
	return p; /* NULL drops the packet, as a router out of memory would */
}

static void send_whole(struct wire *w, unsigned node, const struct packet *packet)
{
	struct parcel *p = new_parcel(node, sizeof packet->vnet + packet->size, 1, packet->size);

	if (!p)
		return;
	memcpy(p->data, &packet->vnet, sizeof packet->vnet);
	memcpy(p->data + sizeof packet->vnet, packet->ip, packet->size);
	append(w, p);
}

/* Sends `length` payload bytes from `offset` of a large TCP packet, with headers of their own. */
static void send_part(struct wire *w, unsigned node, const struct packet *packet, size_t offset, size_t length)
{
	size_t segment = packet->vnet.gso_size, count = (length + segment - 1) / segment;
	size_t ip_head = (packet->ip[0] & 15u) * 4, tcp_size = packet->head - ip_head + length;
	struct virtio_net_hdr vnet = packet->vnet;
	struct parcel *p = new_parcel(node, sizeof vnet + packet->head + length, count, count * packet->head + length);
	unsigned char *ip, *tcp;

	if (!p)
		return;
	if (count == 1)
		vnet.gso_type = VIRTIO_NET_HDR_GSO_NONE, vnet.gso_size = 0;
	memcpy(p->data, &vnet, sizeof vnet);
	ip = p->data + sizeof vnet;
	tcp = ip + ip_head;
	memcpy(ip, packet->ip, packet->head);
	memcpy(ip + packet->head, packet->ip + packet->head + offset, length);

	put16(ip + 2, (uint32_t)(packet->head + length));
	put16(ip + 4, (uint32_t)(get16(ip + 4) + offset / segment));
	put16(ip + 10, 0);
	put16(ip + 10, ~sum16(ip, ip_head, 0));
	put32(tcp + 4, get32(tcp + 4) + (uint32_t)offset);
	if (packet->head + offset + length < packet->size)
		tcp[13] &= (unsigned char)~(TH_FIN | TH_PUSH);
	if (offset > 0)
		tcp[13] &= 0x7f;                                              /* CWR belongs to the first packet only */
	put16(tcp + 16, sum16(ip + 12, 8, IPPROTO_TCP + (uint32_t)tcp_size)); /* pseudo header; see NEEDS_CSUM */
	append(w, p);
}

static void send_cut(struct forwarder *f, struct wire *w, unsigned node, const struct packet *packet)
{
	size_t segment = packet->vnet.gso_size, payload = packet->size - packet->head;
	size_t start = 0, end = 0; /* the burst being gathered */
	uint64_t first = 0;

	for (size_t at = 0; at < payload; at += segment) {
		size_t length = payload - at < segment ? payload - at : segment;
		double cost = (double)(packet->head + length + f->board->overhead) * w->ns_per_byte;

		if (end > start && (double)(w->busy - first) + cost > (double)f->slice_ns) {
			send_part(w, node, packet, start, end - start);
			start = end;
		}
		if (end == start)
			first = w->busy;
		if (transmit(f, w, packet->head + length)) {
			end = at + length;
		} else {
			if (end > start)
				send_part(w, node, packet, start, end - start);
			start = end = at + length;
		}
	}
	if (end > start)
		send_part(w, node, packet, start, end - start);
}

/* Finds the headers of a packet. False for what is not IPv4 or does not have the form it claims. */
static bool examine(const unsigned char *data, size_t size, struct packet *ret)
{
	struct packet packet = { .ip = data + sizeof packet.vnet };
	size_t ip_head;

	if (size < sizeof packet.vnet + 20)
		return false;
	memcpy(&packet.vnet, data, sizeof packet.vnet);
	packet.size = size - sizeof packet.vnet;
	if (packet.ip[0] >> 4 != 4)
		return false;
	if (packet.vnet.gso_type != VIRTIO_NET_HDR_GSO_NONE) {
		ip_head = (packet.ip[0] & 15u) * 4;
		if (packet.vnet.gso_type != VIRTIO_NET_HDR_GSO_TCPV4 || packet.vnet.gso_size == 0 || ip_head < 20 ||
		    packet.size < ip_head + 20)
			return false;
		packet.head = ip_head + (packet.ip[ip_head + 12] >> 4) * 4u;
		if (packet.head < ip_head + 20 || packet.size <= packet.head)
			return false;
	}
	*ret = packet;
	return true;
}

/* Reads what waits in a device. */
static void receive(struct forwarder *f, unsigned index)
{
	static _Alignas(8) unsigned char buffer[MAX_PACKET + sizeof(struct virtio_net_hdr)];
	struct wire *w = &f->wire[index == 0 ? DOWN : UP];
	uint64_t credit = f->late_ns > CREDIT_NS ? f->late_ns : CREDIT_NS;
	struct packet packet;

	w->arrival = now_ns() - f->latency_ns;
	if (w->busy + credit < w->arrival)
		w->busy = w->arrival - credit;
	for (int i = 0; i < READ_BATCH; i++) {
		ssize_t n = read(f->tun[index], buffer, sizeof buffer);
		unsigned node = index;

		if (n < 0)
			return; /* EAGAIN; any other error is epoll's to report again */
		if (!examine(buffer, (size_t)n, &packet))
			continue;
		if (index == 0)
			node = get32(packet.ip + 16) - (10u << 24 | 200u << 16 | f->board->subnet << 8) - 1;
		if (node - 1 >= f->board->nodes)
			continue; /* multicast, or nobody's address */
		if (packet.head)
			send_cut(f, w, node, &packet);
		else if (transmit(f, w, packet.size))
			send_whole(w, node, &packet);
	}
}

static void deliver(struct forwarder *f, int direction, uint64_t now)
{
	struct wire *w = &f->wire[direction];
	struct parcel *p;

	while ((p = w->head) && p->depart <= now) {
		w->head = p->next;
		if (!w->head)
			w->tail = &w->head;
		if (write(f->tun[direction == DOWN ? p->node : 0], p->data, p->size) == (ssize_t)p->size) {
			w->lane->node[p->node - 1].packets += p->packets;
			w->lane->node[p->node - 1].bytes += p->bytes;
		}
		free(p);
	}
}

static volatile sig_atomic_t stopped;

static void stop(int signal)
{
	(void)signal;
	stopped = 1;
}

/*
 * Waits for packets, or for `due`, and learns how long this machine takes to wake a process: timers are set
 * that much early, and packets taken to have come that much before the process saw them.
 */
static int await(struct forwarder *f, uint64_t due, struct epoll_event *events, int count, const sigset_t *mask)
{
	uint64_t now = now_ns(), wake = now + f->slice_ns, late;
	struct timespec pause;
	int n;

	if (due > wake + f->latency_ns)
		wake = due - f->latency_ns;
	pause = to_timespec(wake - now);
	n = epoll_pwait2(f->epoll, events, count, due == UINT64_MAX ? NULL : &pause, mask);
	now = now_ns();
	if (n == 0 && now > wake) {
		late = now - wake < MAX_LATENCY_NS ? now - wake : MAX_LATENCY_NS;
		f->latency_ns += late / 16 - f->latency_ns / 16;
	}
	f->late_ns = now > due ? now - due : 0;
	return n;
}

static void forward(struct forwarder *f, const sigset_t *mask)
{
	struct epoll_event events[32];

	while (!stopped) {
		uint64_t now = now_ns(), due = UINT64_MAX;
		int n;

		for (int d = 0; d < DIRECTIONS; d++) {
			deliver(f, d, now + EARLY_NS);
			if (f->wire[d].head && f->wire[d].head->depart < due)
				due = f->wire[d].head->depart;
		}
		n = await(f, due, events, 32, mask);
		for (int i = 0; i < n; i++)
			receive(f, events[i].data.u32);
	}
}

/* The device lives as long as the descriptor: whatever ends this process removes it. */
static int open_tun(const char *namespace, unsigned mtu, bool gso)
{
	struct ifreq request = { .ifr_name = "link0", .ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR };
	int fd, control;

	enter_namespace(namespace);
	fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 || ioctl(fd, TUNSETIFF, &request) < 0 ||
	    ioctl(fd, TUNSETOFFLOAD, gso ? TUN_F_CSUM | TUN_F_TSO4 : 0) < 0)
		die("cannot make a TUN device in %s: %s", namespace, strerror(errno));
	control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	request.ifr_mtu = (int)mtu;
	if (control < 0 || ioctl(control, SIOCSIFMTU, &request) < 0)
		die("cannot set the MTU of the TUN device in %s: %s", namespace, strerror(errno));
	close(control);
	return fd;
}

static void open_forwarder(struct forwarder *f, struct board *board, const struct settings *s, char **namespaces)
{
	int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);

	f->board = board;
	f->random = s->seed;
	f->slice_ns = MAX_SLICE_NS;
	f->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (f->epoll < 0)
		die("cannot make an epoll descriptor: %s", strerror(errno));
	for (unsigned i = 0; i <= board->nodes; i++) {
		struct epoll_event event = { .events = EPOLLIN, .data.u32 = i };

		f->tun[i] = open_tun(namespaces[i], s->mtu, s->gso);
		if (epoll_ctl(f->epoll, EPOLL_CTL_ADD, f->tun[i], &event) < 0)
			die("cannot watch the TUN device: %s", strerror(errno));
	}
	if (home < 0 || setns(home, CLONE_NEWNET) < 0)
		die("cannot return to the first network namespace: %s", strerror(errno));
	close(home);
	for (int d = 0; d < DIRECTIONS; d++) {
		struct wire *w = &f->wire[d];

		w->lane = &board->lane[d];
		w->tail = &w->head;
		if (w->lane->delay_ns / 100 < f->slice_ns)
			f->slice_ns = w->lane->delay_ns / 100 > MIN_SLICE_NS ? w->lane->delay_ns / 100 : MIN_SLICE_NS;
		w->ns_per_byte = 1e9 / w->lane->rate;
		w->queue_ns = (uint64_t)((double)w->lane->queue_bytes * w->ns_per_byte);
	}
}

/* Becomes a background process; the caller's process prints its number and exits, all being in place. */
static void detach(struct board *board)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	pid_t pid = fork();

	if (null < 0 || pid < 0)
		die("cannot start the forwarding process: %s", strerror(errno));
	if (pid > 0) {
		board->pid = (uint32_t)pid;
		printf("%d\n", (int)pid);
		exit(0);
	}
	setsid();
	for (int fd = 0; fd < 3; fd++)
		dup2(null, fd);
	if (chdir("/") < 0)
		_exit(2);
}

static int cmd_forward(int argc, char **argv)
{
	static struct forwarder f;
	struct sigaction action = { .sa_handler = stop };
	struct sched_param priority = { .sched_priority = 1 };
	struct settings s;
	struct board *board;
	sigset_t block, mask;
	int namespaces;

	close_range(3, ~0U, 0); /* a caller's locks and pipes are not ours to hold */
	s = parse_options(argc, argv);
	namespaces = argc - optind - 1;
	if (namespaces < 2 || namespaces > MAX_NODES + 1)
		die("forward: BOARD, one host and 1 to %d nodes", MAX_NODES);
	board = map_board(argv[optind], true);
	fill_board(board, &s, (unsigned)namespaces - 1);
	open_forwarder(&f, board, &s, argv + optind + 1);

	sigemptyset(&block);
	for (size_t i = 0; i < 3; i++) {
		static const int signals[] = { SIGTERM, SIGINT, SIGHUP };

		sigaddset(&block, signals[i]);
		sigaction(signals[i], &action, NULL);
	}
	sigprocmask(SIG_BLOCK, &block, NULL);
	sigemptyset(&mask); /* signals come only while it waits */
	detach(board);
	prctl(PR_SET_TIMERSLACK, 1);
	if (sched_setscheduler(0, SCHED_FIFO, &priority) < 0) /* a late forwarder is a slower link */
		setpriority(PRIO_PROCESS, 0, -20);
	mallopt(M_TRIM_THRESHOLD, 64 << 20);
	mallopt(M_MMAP_THRESHOLD, 1 << 20);
	forward(&f, &mask);
	return 0;
}

/* ---- counters ---- */

static int cmd_stats(int argc, char **argv)
{
	const struct board *board;

	if (argc != 2)
		die("stats: BOARD is missing");
	board = map_board(argv[1], false);
	printf("%-18s %12s %15s %10s %10s\n", "", "packets", "bytes", "lost", "overflowed");
	for (int d = 0; d < DIRECTIONS; d++) {
		const struct lane *lane = &board->lane[d];
		uint64_t packets = 0, bytes = 0;

		for (unsigned i = 0; i < board->nodes; i++)
			packets += lane->node[i].packets, bytes += lane->node[i].bytes;
		printf("%-18s %12" PRIu64 " %15" PRIu64 " %10" PRIu64 " %10" PRIu64 "\n", direction_name[d], packets,
		       bytes, lane->lost, lane->overflowed);
		for (unsigned i = 0; i < board->nodes && board->nodes > 1; i++)
			printf("  node%-12u %12" PRIu64 " %15" PRIu64 "\n", i + 1, lane->node[i].packets,
			       lane->node[i].bytes);
	}
	return 0;
}

/* ---- calibration ---- */

struct calibration {
	const struct board *board;
	char **namespaces; /* [0] the host's, [K] node K's */
	double seconds;
	bool off; /* something was out of its bounds */
};

static void judge(struct calibration *c, const char *what, double value, double low, double high, const char *unit)
{
	bool good = value >= low && value <= high;

	printf("%-16s %10.3f %-7s expected %10.3f to %10.3f   %s\n", what, value, unit, low, high, good ? "ok" : "OFF");
	fflush(stdout);
	c->off |= !good;
}

static struct sockaddr_in address_of(const struct calibration *c, unsigned index)
{
	uint32_t ip = 10u << 24 | 200u << 16 | c->board->subnet << 8 | (index + 1);

	return (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(ip) };
}

static int socket_in(const struct calibration *c, unsigned index, int type, int protocol)
{
	int fd;

	enter_namespace(c->namespaces[index]);
	fd = socket(AF_INET, type | SOCK_CLOEXEC, protocol);
	if (fd < 0)
		die("cannot make a socket in %s: %s", c->namespaces[index], strerror(errno));
	return fd;
}

static double cpu_seconds(const struct calibration *c)
{
	struct timespec t = { 0 };
	clockid_t clock;

	if (clock_getcpuclockid((pid_t)c->board->pid, &clock) == 0)
		clock_gettime(clock, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* One echo request from the host to node K; its round trip in ms, or a negative number if it got lost. */
static double ping(const struct calibration *c, int fd, unsigned node, unsigned sequence)
{
	struct sockaddr_in to = address_of(c, node);
	unsigned char request[64] = { ICMP_ECHO }, reply[200];
	uint64_t start, limit;

	put16(request + 4, (uint32_t)getpid() & 0xffff);
	put16(request + 6, sequence);
	put16(request + 2, ~sum16(request, sizeof request, 0));
	start = now_ns();
	limit = start + c->board->lane[DOWN].delay_ns + c->board->lane[UP].delay_ns + SECOND / 2;
	if (sendto(fd, request, sizeof request, 0, (struct sockaddr *)&to, sizeof to) < 0)
		die("cannot ping node %u: %s", node, strerror(errno));
	for (uint64_t now = start; now < limit; now = now_ns()) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		ssize_t n;

		if (poll(&p, 1, (int)((limit - now) / 1000000) + 1) <= 0)
			break;
		n = recv(fd, reply, sizeof reply, 0);
		if (n >= 28 && reply[20] == ICMP_ECHOREPLY && memcmp(reply + 24, request + 4, 4) == 0)
			return (double)(now_ns() - start) / 1e6;
	}
	return -1;
}

static void test_rtt(struct calibration *c)
{
	const struct lane *lane = c->board->lane;
	unsigned count = c->board->nodes > 20 ? c->board->nodes : 20, received = 0;
	double rtt[MAX_NODES], wire = (84 + c->board->overhead) * (1 / lane[DOWN].rate + 1 / lane[UP].rate) * 1e3;
	double expected = (double)(lane[DOWN].delay_ns + lane[UP].delay_ns) / 1e6 + wire;
	struct sched_param urgent = { .sched_priority = 1 }, normal = { 0 };
	int fd = socket_in(c, 0, SOCK_RAW, IPPROTO_ICMP);

	sched_setscheduler(0, SCHED_FIFO, &urgent); /* so that a busy machine is not taken for a slow link */
	for (unsigned i = 0; i < count + 20; i++) { /* the first 20 let the link learn the machine's latency */
		double ms = ping(c, fd, i % c->board->nodes + 1, i);
		struct timespec pause = to_timespec(SECOND / 50);

		if (ms >= 0 && i >= 20)
			rtt[received++] = ms;
		nanosleep(&pause, NULL);
	}
	sched_setscheduler(0, SCHED_OTHER, &normal);
	close(fd);
	if (received == 0)
		die("no echo request came back");
	qsort(rtt, received, sizeof rtt[0], compare_doubles);
	judge(c, "round trip", rtt[received / 2], expected - wire - 0.01, expected * 1.05 + 0.3, "ms");
}

/* A connection from the host to node K or back; the receiving end goes to *ret_in, the sending to *ret_out. */
static void connect_pair(const struct calibration *c, int direction, unsigned node, int *ret_in, int *ret_out)
{
	unsigned from = direction == DOWN ? 0 : node, to = direction == DOWN ? node : 0;
	struct sockaddr_in address = address_of(c, to);
	socklen_t length = sizeof address;
	int listener = socket_in(c, to, SOCK_STREAM, 0), out = socket_in(c, from, SOCK_STREAM, 0), in;

	if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 1) < 0 ||
	    getsockname(listener, (struct sockaddr *)&address, &length) < 0 ||
	    connect(out, (struct sockaddr *)&address, sizeof address) < 0)
		die("cannot connect over the link: %s", strerror(errno));
	in = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (in < 0 || fcntl(out, F_SETFL, O_NONBLOCK) < 0)
		die("cannot accept over the link: %s", strerror(errno));
	close(listener);
	*ret_in = in;
	*ret_out = out;
}

static void __attribute__((noreturn)) pour(struct pollfd *out, unsigned count)
{
	static char buffer[131072];

	for (;;) {
		poll(out, count, -1);
		for (unsigned i = 0; i < count; i++)
			if (out[i].revents && send(out[i].fd, buffer, sizeof buffer, MSG_NOSIGNAL) < 0 &&
			    errno != EAGAIN)
				_exit(1);
	}
}

/* Reads and discards until `end`; got[] counts the bytes that came after `begin`. */
static void drain(struct pollfd *in, unsigned count, uint64_t begin, uint64_t end, double *got)
{
	for (uint64_t now = now_ns(); now < end; now = now_ns()) {
		poll(in, count, 10);
		for (unsigned i = 0; i < count; i++) {
			ssize_t n = in[i].revents ? recv(in[i].fd, NULL, 1 << 20, MSG_TRUNC) : 0;

			if (n > 0 && now >= begin)
				got[i] += (double)n;
		}
	}
}

static pid_t fork_sender(void)
{
	pid_t pid = fork();

	if (pid < 0)
		die("cannot start a sender: %s", strerror(errno));
	if (pid == 0)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	return pid;
}

/* All nodes at once, one connection each. With loss a single stream cannot fill the wire: only shown. */
static void test_tcp(struct calibration *c, int direction)
{
	const struct lane *lane = &c->board->lane[direction];
	unsigned nodes = c->board->nodes;
	struct pollfd in[MAX_NODES], out[MAX_NODES];
	double got[MAX_NODES] = { 0 }, sum = 0, least = 1e300, most = 0, cpu, wire;
	char control[16] = "?";
	socklen_t length = sizeof control;
	uint64_t start, warm = 40 * (c->board->lane[DOWN].delay_ns + c->board->lane[UP].delay_ns);
	pid_t sender;

	for (unsigned i = 0; i < nodes; i++) {
		connect_pair(c, direction, i + 1, &in[i].fd, &out[i].fd);
		in[i].events = POLLIN;
		out[i].events = POLLOUT;
	}
	getsockopt(out[0].fd, IPPROTO_TCP, TCP_CONGESTION, control, &length);
	sender = fork_sender();
	if (sender == 0)
		pour(out, nodes);
	warm = warm < SECOND ? SECOND : warm;
	start = now_ns();
	cpu = cpu_seconds(c);
	drain(in, nodes, start + warm, start + warm + (uint64_t)(c->seconds * 1e9), got);
	cpu = (cpu_seconds(c) - cpu) / (c->seconds + (double)warm / 1e9);
	kill(sender, SIGKILL);
	waitpid(sender, NULL, 0);
	for (unsigned i = 0; i < nodes; i++) {
		struct linger abort = { .l_onoff = 1 };

		setsockopt(out[i].fd, SOL_SOCKET, SO_LINGER, &abort, sizeof abort);
		close(out[i].fd);
		close(in[i].fd);
		got[i] *= 8 / c->seconds / 1e6;
		sum += got[i];
		least = got[i] < least ? got[i] : least;
		most = got[i] > most ? got[i] : most;
	}
	wire = lane->rate * 8 / 1e6 * (c->board->mtu - 52.) / (c->board->mtu + (double)c->board->overhead);
	judge(c, direction_name[direction], sum, lane->loss > 0 ? 0 : wire * 0.93, wire * 1.02, "Mbit/s");
	printf("    TCP (%.15s), %u stream%s of %.3f to %.3f Mbit/s; forwarder %.0f %% of a CPU\n", control, nodes,
	       nodes > 1 ? "s" : "", least, most, cpu * 100);
}

/* Sends datagrams of `size` bytes at `rate` (bytes a second on the wire) until the time is over. */
static uint64_t send_datagrams(const struct calibration *c, int fd, size_t size, double rate)
{
	static const char buffer[2000];
	uint64_t start = now_ns(), sent = 0, end = start + (uint64_t)(c->seconds * 1e9);

	for (uint64_t now = start; now < end; now = now_ns()) {
		double due = rate * (double)(now - start) / 1e9 / (double)(size + 28 + c->board->overhead);
		struct timespec pause = to_timespec(500000);

		for (; (double)sent < due; sent++)
			if (send(fd, buffer, size, 0) < 0)
				die("cannot send over the link: %s", strerror(errno));
		nanosleep(&pause, NULL);
	}
	return sent;
}

/* Datagrams from the host to node 1 or back: how many were sent, how many came, and in what time. */
static double send_and_count(struct calibration *c, int direction, size_t size, double rate, uint64_t *ret_sent,
			     double *ret_seconds)
{
	unsigned from = direction == DOWN ? 0 : 1, to = direction == DOWN ? 1 : 0;
	struct sockaddr_in address = address_of(c, to);
	socklen_t length = sizeof address;
	int in = socket_in(c, to, SOCK_DGRAM, 0), out = socket_in(c, from, SOCK_DGRAM, 0), result[2], room = 8 << 20;
	uint64_t first = 0, last = 0, count = 0;
	struct pollfd p = { .fd = in, .events = POLLIN };
	pid_t sender;

	setsockopt(in, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
	if (bind(in, (struct sockaddr *)&address, sizeof address) < 0 ||
	    getsockname(in, (struct sockaddr *)&address, &length) < 0 ||
	    connect(out, (struct sockaddr *)&address, sizeof address) < 0 || pipe2(result, O_CLOEXEC) < 0)
		die("cannot prepare datagrams: %s", strerror(errno));
	sender = fork_sender();
	if (sender == 0) {
		uint64_t sent = send_datagrams(c, out, size, rate);

		_exit(write(result[1], &sent, sizeof sent) == sizeof sent ? 0 : 1);
	}
	while (poll(&p, 1, 1000 + (int)(c->board->lane[direction].delay_ns / 1000000)) > 0)
		while (recv(in, NULL, 0, MSG_DONTWAIT | MSG_TRUNC) >= 0) {
			last = now_ns();
			first = first ? first : last;
			count++;
		}
	waitpid(sender, NULL, 0);
	if (read(result[0], ret_sent, sizeof *ret_sent) != sizeof *ret_sent)
		die("the sender of datagrams failed");
	close(in), close(out), close(result[0]), close(result[1]);
	*ret_seconds = (double)(last - first) / 1e9;
	return (double)count;
}

/* For 0 to 1, by Newton; spares the maths library. */
static double square_root(double x)
{
	double root = 1;

	for (int i = 0; i < 60; i++)
		root = (root + x / root) / 2;
	return root;
}

/* With loss: the share of small datagrams lost at half the rate, then the rate from sending too much. */
static void test_loss(struct calibration *c, int direction)
{
	const struct lane *lane = &c->board->lane[direction];
	double overhead = c->board->overhead, rate = lane->rate / 2 < 5e6 ? lane->rate / 2 : 5e6;
	size_t size = c->board->mtu < 1500 ? c->board->mtu - 28 : 1472;
	double seconds, count, loss, spread, wire;
	uint64_t sent;

	count = send_and_count(c, direction, 100, rate, &sent, &seconds);
	loss = 1 - count / (double)sent;
	/* four standard deviations of a binomial distribution */
	spread = 4 * square_root(lane->loss * (1 - lane->loss) / (double)sent);
	judge(c, direction_name[direction], loss * 100, (lane->loss - spread) * 100, (lane->loss + spread) * 100,
	      "% lost");
	count = send_and_count(c, direction, size, lane->rate * 1.2, &sent, &seconds);
	wire = lane->rate * 8 / 1e6 * (double)size / ((double)size + 28 + overhead) * (1 - lane->loss);
	judge(c, direction_name[direction], count * (double)size * 8 / seconds / 1e6, wire * 0.95, wire * 1.05,
	      "Mbit/s");
	printf("    UDP, sent at 120 %% of the rate\n");
}

static int cmd_test(int argc, char **argv)
{
	struct calibration c = { 0 };

	if (argc < 5)
		die("test: BOARD SECONDS HOST_NS NODE_NS...");
	c.board = map_board(argv[1], false);
	c.seconds = parse("seconds", argv[2], size_units, 0.1, 600);
	c.namespaces = argv + 3;
	if ((unsigned)argc - 4 != c.board->nodes)
		die("test: the link has %u nodes", c.board->nodes);
	test_rtt(&c);
	for (int d = 0; d < DIRECTIONS; d++) {
		if (c.board->lane[d].loss > 0)
			test_loss(&c, d);
		test_tcp(&c, d);
	}
	return c.off ? 1 : 0;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(int argc, char **argv);
	} verbs[] = { { "forward", cmd_forward }, { "stats", cmd_stats }, { "test", cmd_test } };

	for (size_t i = 0; argc > 1 && i < sizeof verbs / sizeof verbs[0]; i++)
		if (strcmp(argv[1], verbs[i].name) == 0)
			return verbs[i].run(argc - 1, argv + 1);
	die("usage: link forward|stats|test BOARD ...");
}
