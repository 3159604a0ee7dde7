#include "fs/mount/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "fs/base/fd.h"

#define MAGIC UINT64_C(0x6c6e6a7366676d69) /* "imgfsjnl" */
#define PAGE  4096u

/* Kept apart from the slots, which the kernel overwrites. */
typedef struct Meta {
	uint32_t tries;
	uint32_t interrupted;
	uint32_t waiting;
	uint32_t unused;
	int64_t deadline;
} Meta;

typedef struct Shared {
	uint64_t magic;
	uint32_t version;
	uint32_t culprit; /* the image whose request a server died of; 0: none */
	Meta metas[JOURNAL_SLOTS];
	_Alignas(PAGE) uint8_t receive[JOURNAL_RECEIVE_SLOTS][JOURNAL_RECEIVE_SIZE];
	uint8_t parked[JOURNAL_PARKED_SLOTS][JOURNAL_PARKED_SIZE];
} Shared;

struct Journal {
	Shared *shared;
	pthread_mutex_t lock;
	pthread_cond_t freed;
	unsigned free_count;
	unsigned free[JOURNAL_PARKED_SLOTS]; /* parked slots not in use */
};

int journal_create(int *ret_fd)
{
	_cleanup_close_ int fd = memfd_create("imgfs-journal", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0 || ftruncate(fd, sizeof(Shared)) < 0)
		return -errno;
	uint64_t magic = MAGIC;
	uint32_t version = JOURNAL_VERSION;
	if (pwrite(fd, &magic, sizeof(magic), offsetof(Shared, magic)) < 0 ||
	    pwrite(fd, &version, sizeof(version), offsetof(Shared, version)) < 0)
		return -errno;
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return -errno;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* Reading and writing back one byte a page makes it present and writable; it changes nothing. */
static void touch(Shared *shared)
{
	for (size_t i = 0; i < sizeof(Shared); i += PAGE) {
		volatile uint8_t *byte = (volatile uint8_t *)shared + i;
		*byte = *byte;
	}
	/* Beyond the limit of locked memory the journal works as well, only less surely under memory pressure. */
	(void)mlock(shared, sizeof(Shared));
	(void)madvise(shared, sizeof(Shared), MADV_DONTDUMP);
}

static uint32_t slot_size(unsigned slot)
{
	return slot < JOURNAL_RECEIVE_SLOTS ? JOURNAL_RECEIVE_SIZE : JOURNAL_PARKED_SIZE;
}

void *journal_slot(Journal *journal, unsigned slot)
{
	if (slot < JOURNAL_RECEIVE_SLOTS)
		return journal->shared->receive[slot];
	return journal->shared->parked[slot - JOURNAL_RECEIVE_SLOTS];
}

static struct fuse_in_header *header_of(Journal *journal, unsigned slot)
{
	return journal_slot(journal, slot);
}

static uint32_t load_length(Journal *journal, unsigned slot)
{
	return __atomic_load_n(&header_of(journal, slot)->len, __ATOMIC_ACQUIRE);
}

static void store_length(Journal *journal, unsigned slot, uint32_t length)
{
	__atomic_store_n(&header_of(journal, slot)->len, length, __ATOMIC_RELEASE);
}

int journal_open(int fd, Journal **ret_journal)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (st.st_size != sizeof(Shared))
		return -EBADMSG;
	_cleanup_(journal_free_p) Journal *journal = calloc(1, sizeof(*journal));
	if (!journal)
		return -ENOMEM;
	(void)pthread_mutex_init(&journal->lock, NULL);
	(void)pthread_cond_init(&journal->freed, NULL);
	void *shared = mmap(NULL, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (shared == MAP_FAILED)
		return -errno;
	journal->shared = shared;
	if (journal->shared->magic != MAGIC || journal->shared->version != JOURNAL_VERSION)
		return -EBADMSG;
	touch(journal->shared);
	for (unsigned slot = JOURNAL_RECEIVE_SLOTS; slot < JOURNAL_SLOTS; slot++) {
		if (load_length(journal, slot) == 0)
			journal->free[journal->free_count++] = slot;
	}
	*ret_journal = TAKE_PTR(journal);
	return 0;
}

Journal *journal_free(Journal *journal)
{
	if (!journal)
		return NULL;
	if (journal->shared)
		(void)munmap(journal->shared, sizeof(Shared));
	(void)pthread_cond_destroy(&journal->freed);
	(void)pthread_mutex_destroy(&journal->lock);
	free(journal);
	return NULL;
}

static bool slot_valid(Journal *journal, unsigned slot)
{
	uint32_t length = load_length(journal, slot);
	if (length < sizeof(struct fuse_in_header) || length > slot_size(slot))
		return false;
	uint32_t opcode = header_of(journal, slot)->opcode;
	if (opcode == FUSE_INTERRUPT)
		return length >= sizeof(struct fuse_in_header) + sizeof(struct fuse_interrupt_in);
	return opcode != FUSE_FORGET && opcode != FUSE_BATCH_FORGET;
}

/* A server that died while it parked a request leaves it in both slots; the parked one is kept. */
static bool slot_is_duplicate(Journal *journal, unsigned slot)
{
	if (slot >= JOURNAL_RECEIVE_SLOTS)
		return false;
	uint64_t unique = header_of(journal, slot)->unique;
	for (unsigned other = slot + 1; other < JOURNAL_SLOTS; other++) {
		if (load_length(journal, other) != 0 && header_of(journal, other)->unique == unique)
			return true;
	}
	return false;
}

static void apply_interrupt(Journal *journal, unsigned slot)
{
	struct fuse_interrupt_in interrupt;
	memcpy(&interrupt, (uint8_t *)journal_slot(journal, slot) + sizeof(struct fuse_in_header), sizeof(interrupt));
	journal_interrupt(journal, interrupt.unique);
}

size_t journal_recover(Journal *journal, unsigned *ret_slots)
{
	size_t count = 0;
	for (unsigned slot = 0; slot < JOURNAL_SLOTS; slot++) {
		if (load_length(journal, slot) == 0)
			continue;
		bool keep = slot_valid(journal, slot) && !slot_is_duplicate(journal, slot);
		if (keep && header_of(journal, slot)->opcode == FUSE_INTERRUPT) {
			apply_interrupt(journal, slot);
			keep = false;
		}
		if (!keep) {
			journal_end(journal, slot);
			continue;
		}
		if (__atomic_exchange_n(&journal->shared->metas[slot].waiting, 0, __ATOMIC_RELAXED) == 0)
			__atomic_add_fetch(&journal->shared->metas[slot].tries, 1, __ATOMIC_RELAXED);
		ret_slots[count++] = slot;
	}
	return count;
}

unsigned journal_tries(Journal *journal, unsigned slot)
{
	return __atomic_load_n(&journal->shared->metas[slot].tries, __ATOMIC_RELAXED);
}

static void meta_store(Journal *journal, unsigned slot, Meta meta)
{
	__atomic_store_n(&journal->shared->metas[slot].tries, meta.tries, __ATOMIC_RELAXED);
	__atomic_store_n(&journal->shared->metas[slot].interrupted, meta.interrupted, __ATOMIC_RELAXED);
	__atomic_store_n(&journal->shared->metas[slot].waiting, meta.waiting, __ATOMIC_RELAXED);
	__atomic_store_n(&journal->shared->metas[slot].deadline, meta.deadline, __ATOMIC_RELAXED);
}

/* Nearly always it is clear already, and then must not be written: threads that receive have theirs in one line of the cache. */
static bool meta_is_clear(Journal *journal, unsigned slot)
{
	const Meta *meta = &journal->shared->metas[slot];
	return __atomic_load_n(&meta->tries, __ATOMIC_RELAXED) == 0 &&
	       __atomic_load_n(&meta->interrupted, __ATOMIC_RELAXED) == 0 &&
	       __atomic_load_n(&meta->waiting, __ATOMIC_RELAXED) == 0 &&
	       __atomic_load_n(&meta->deadline, __ATOMIC_RELAXED) == 0;
}

void journal_begin(Journal *journal, unsigned slot)
{
	if (!meta_is_clear(journal, slot))
		meta_store(journal, slot, (Meta){ 0 });
	store_length(journal, slot, 0);
}

void journal_end(Journal *journal, unsigned slot)
{
	store_length(journal, slot, 0);
	if (slot < JOURNAL_RECEIVE_SLOTS)
		return;
	(void)pthread_mutex_lock(&journal->lock);
	journal->free[journal->free_count++] = slot;
	(void)pthread_cond_signal(&journal->freed);
	(void)pthread_mutex_unlock(&journal->lock);
}

int journal_park(Journal *journal, unsigned slot, int64_t deadline, unsigned *ret_slot)
{
	if (slot >= JOURNAL_RECEIVE_SLOTS) {
		*ret_slot = slot;
		return 0;
	}
	uint32_t length = load_length(journal, slot);
	if (length > JOURNAL_PARKED_SIZE)
		return -EMSGSIZE;

	(void)pthread_mutex_lock(&journal->lock);
	while (journal->free_count == 0)
		(void)pthread_cond_wait(&journal->freed, &journal->lock);
	unsigned parked = journal->free[--journal->free_count];
	/* The lock keeps an interrupt from being noted in the slot that is about to be left. */
	Meta meta = { .tries = journal_tries(journal, slot),
		      .interrupted = journal_interrupted(journal, slot),
		      .deadline = deadline };
	meta_store(journal, parked, meta);
	memcpy((uint8_t *)journal_slot(journal, parked) + sizeof(length),
	       (uint8_t *)journal_slot(journal, slot) + sizeof(length), length - sizeof(length));
	store_length(journal, parked, length); /* from here on both are marked */
	store_length(journal, slot, 0);
	(void)pthread_mutex_unlock(&journal->lock);
	*ret_slot = parked;
	return 0;
}

int64_t journal_deadline(Journal *journal, unsigned slot)
{
	return __atomic_load_n(&journal->shared->metas[slot].deadline, __ATOMIC_RELAXED);
}

void journal_set_waiting(Journal *journal, unsigned slot, bool waiting)
{
	__atomic_store_n(&journal->shared->metas[slot].waiting, waiting, __ATOMIC_RELAXED);
}

/*
 * The kernel may be writing to another thread's slot meanwhile (which a thread sanitizer rightly sees). What is misread
 * so marks a request that nobody interrupted, and then a look at its reader tells that it lives.
 */
__attribute__((no_sanitize("thread"))) static bool slot_holds(Journal *journal, unsigned slot, uint64_t unique)
{
	const struct fuse_in_header *header = header_of(journal, slot);
	return header->len != 0 && header->unique == unique;
}

void journal_interrupt(Journal *journal, uint64_t unique)
{
	(void)pthread_mutex_lock(&journal->lock);
	for (unsigned slot = 0; slot < JOURNAL_SLOTS; slot++) {
		if (slot_holds(journal, slot, unique))
			__atomic_store_n(&journal->shared->metas[slot].interrupted, 1, __ATOMIC_RELAXED);
	}
	(void)pthread_mutex_unlock(&journal->lock);
}

bool journal_interrupted(Journal *journal, unsigned slot)
{
	return __atomic_load_n(&journal->shared->metas[slot].interrupted, __ATOMIC_RELAXED) != 0;
}

void journal_blame(Journal *journal, unsigned slot)
{
	uint32_t image = (uint32_t)(header_of(journal, slot)->nodeid >> 32);
	if (load_length(journal, slot) != 0)
		journal_blame_image(journal, image);
}

void journal_blame_image(Journal *journal, uint32_t image)
{
	__atomic_store_n(&journal->shared->culprit, image, __ATOMIC_RELAXED);
}

uint32_t journal_take_culprit(int fd)
{
	uint32_t culprit, none = 0;
	if (fd_pread_all(fd, &culprit, sizeof(culprit), offsetof(Shared, culprit)) < 0 || culprit == 0 ||
	    fd_pwrite_all(fd, &none, sizeof(none), offsetof(Shared, culprit)) < 0)
		return 0;
	return culprit;
}
