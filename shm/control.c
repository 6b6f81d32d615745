/*
 * The control page: checking and mapping it, its rows under seqlocks, its counters and histograms.
 *
 * Seqlocks without fences (ThreadSanitizer does not know fences): a row travels as 32-bit words,
 * stored with release and loaded with acquire. Whoever loads a word that a writer stored sees the
 * odd version that the writer had stored before it, and so notices that its copy is torn.
 *
 * A reader waits for a writer some milliseconds at most: a broker that died inside a row left it odd
 * for ever, and that row is then unreadable, no more. Texts in copies are terminated, whatever the
 * page holds.
 */
#include "shm/control.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/*
 * A row is written in well under a microsecond. Who still finds it odd after some tries has met a
 * writer that lost its core, and sleeps a little; after some milliseconds it has met a dead one.
 */
#define READ_TRIES    200
#define READ_SLEEPS   50
#define READ_SLEEP_NS 100000

static_assert(sizeof(struct control_tier) % 4 == 0 && offsetof(struct control_tier, version) == 0 &&
	      sizeof(struct control_client) % 4 == 0 && offsetof(struct control_client, version) == 0 &&
	      sizeof(struct control_model) % 4 == 0 && offsetof(struct control_model, version) == 0 &&
	      sizeof(struct control_gpu) % 4 == 0 && offsetof(struct control_gpu, version) == 0,
	      "rows travel as 32-bit words, their version first");
static_assert(offsetof(struct control_page, magic) == 0 && offsetof(struct control_page, abi) == 8 &&
	      offsetof(struct control_page, bytes) == 12,
	      "every ABI tells its number at the same place");

int control_name_check(const char *name)
{
	size_t n;

	if (!name || name[0] != '/')
		return -EINVAL;
	n = strspn(name + 1, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");
	if (n < 1 || n > 64 || name[1 + n] != '\0')
		return -EINVAL;
	/* They name directories, not objects: shm_open() could only fail on them, and less clearly. */
	if (strcmp(name, "/.") == 0 || strcmp(name, "/..") == 0)
		return -EINVAL;
	return 0;
}

static bool is_terminated(const char *text, size_t bytes)
{
	return memchr(text, '\0', bytes) != NULL;
}

int control_check(const struct control_page *page, size_t bytes)
{
	if (bytes < offsetof(struct control_page, bytes) + sizeof(page->bytes))
		return -EPROTO;
	if (page->magic != CONTROL_MAGIC)
		return -EPROTO;
	if (page->abi != STOKER_ABI)
		return -EPROTONOSUPPORT;
	if (page->bytes != sizeof(*page) || bytes < sizeof(*page))
		return -EPROTO;
	if (!is_terminated(page->name, sizeof(page->name)) ||
	    !is_terminated(page->version, sizeof(page->version)) ||
	    !is_terminated(page->socket, sizeof(page->socket)))
		return -EPROTO;
	if (atomic_load_explicit(&page->dead, memory_order_acquire))
		return -EPIPE;
	return 0;
}

/*
 * The mapping may be longer than a foreign object is; control_check() is told how much there is, and
 * reads no further.
 */
int control_map_fd(int fd, const struct control_page **ret)
{
	struct stat st;
	void *map;
	size_t bytes;
	int r;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_size <= 0)
		return -EPROTO;
	map = mmap(NULL, sizeof(struct control_page), PROT_READ, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return -errno;
	bytes = sizeof(struct control_page);
	if ((uint64_t)st.st_size < bytes)
		bytes = (size_t)st.st_size;
	r = control_check(map, bytes);
	if (r < 0) {
		munmap(map, sizeof(struct control_page));
		return r;
	}
	*ret = map;
	return 0;
}

int control_map(const char *name, const struct control_page **ret)
{
	int r = control_name_check(name);
	int fd;

	if (r < 0)
		return r;
	/* Not blocking, because a fifo of that name would hold us up. */
	fd = shm_open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	r = control_map_fd(fd, ret);
	close(fd);
	return r;
}

void control_unmap(const struct control_page *page)
{
	if (page)
		munmap((void *)page, sizeof(*page));
}

/*
 * The store is followed by a load of the same kind: sequentially consistent accesses keep their
 * order, and no store of the row passes that load. On x86 the store alone is a full barrier.
 */
void control_row_begin(_Atomic uint32_t *version)
{
	const uint32_t v = atomic_load_explicit(version, memory_order_relaxed);

	atomic_store_explicit(version, v + 1, memory_order_seq_cst);
	(void)atomic_load_explicit(version, memory_order_seq_cst);
}

void control_row_end(_Atomic uint32_t *version)
{
	const uint32_t v = atomic_load_explicit(version, memory_order_relaxed);

	atomic_store_explicit(version, v + 1, memory_order_release);
}

/* Words behind the version of a row of @bytes. */
static void row_write(_Atomic uint32_t *shared, const void *row, size_t bytes)
{
	const char *from = row;

	control_row_begin(shared);
	for (size_t i = 1; i < bytes / sizeof(uint32_t); i++) {
		uint32_t word;

		memcpy(&word, from + i * sizeof(word), sizeof(word));
		atomic_store_explicit(&shared[i], word, memory_order_release);
	}
	control_row_end(shared);
}

static bool row_read_once(const _Atomic uint32_t *shared, void *row, size_t bytes)
{
	const uint32_t version = atomic_load_explicit(shared, memory_order_acquire);
	char *to = row;

	if (version & 1)
		return false;
	memcpy(to, &version, sizeof(version));
	for (size_t i = 1; i < bytes / sizeof(uint32_t); i++) {
		const uint32_t word = atomic_load_explicit(&shared[i], memory_order_acquire);

		memcpy(to + i * sizeof(word), &word, sizeof(word));
	}
	return atomic_load_explicit(shared, memory_order_relaxed) == version;
}

static bool row_read(const _Atomic uint32_t *shared, void *row, size_t bytes)
{
	const struct timespec pause = { .tv_nsec = READ_SLEEP_NS };

	for (int i = 0; i <= READ_SLEEPS; i++) {
		if (i > 0)
			nanosleep(&pause, NULL);
		for (int j = 0; j < READ_TRIES; j++) {
			if (row_read_once(shared, row, bytes))
				return true;
		}
	}
	return false;
}

void control_write_tier(struct control_page *page, uint32_t i, const struct control_tier *row)
{
	assert(i < CONTROL_TIERS);
	row_write(&page->tiers[i].version, row, sizeof(*row));
}

void control_write_client(struct control_page *page, uint32_t i, const struct control_client *row)
{
	assert(i < CONTROL_CLIENTS);
	row_write(&page->clients[i].version, row, sizeof(*row));
}

void control_write_model(struct control_page *page, uint32_t i, const struct control_model *row)
{
	assert(i < CONTROL_MODELS);
	row_write(&page->models[i].version, row, sizeof(*row));
}

void control_write_gpu(struct control_page *page, uint32_t i, const struct control_gpu *row)
{
	assert(i < CONTROL_GPUS);
	row_write(&page->gpus[i].version, row, sizeof(*row));
}

bool control_read_tier(const struct control_page *page, uint32_t i, struct control_tier *ret)
{
	if (i >= CONTROL_TIERS || !row_read(&page->tiers[i].version, ret, sizeof(*ret)))
		return false;
	ret->name[sizeof(ret->name) - 1] = '\0';
	ret->path[sizeof(ret->path) - 1] = '\0';
	return true;
}

bool control_read_client(const struct control_page *page, uint32_t i, struct control_client *ret)
{
	if (i >= CONTROL_CLIENTS || !row_read(&page->clients[i].version, ret, sizeof(*ret)))
		return false;
	ret->name[sizeof(ret->name) - 1] = '\0';
	return true;
}

bool control_read_model(const struct control_page *page, uint32_t i, struct control_model *ret)
{
	return i < CONTROL_MODELS && row_read(&page->models[i].version, ret, sizeof(*ret));
}

bool control_read_gpu(const struct control_page *page, uint32_t i, struct control_gpu *ret)
{
	if (i >= CONTROL_GPUS || !row_read(&page->gpus[i].version, ret, sizeof(*ret)))
		return false;
	ret->name[sizeof(ret->name) - 1] = '\0';
	ret->why[sizeof(ret->why) - 1] = '\0';
	return true;
}

uint64_t control_counter(const struct control_page *page, enum stoker_counter counter)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < CONTROL_BLOCKS; i++)
		sum += atomic_load_explicit(&page->blocks[i].counters[counter], memory_order_relaxed);
	return sum;
}

/*
 * Values below 8 have a bucket each; above, the eight buckets of an octave share it evenly. So a
 * bucket is at most an eighth as wide as its values are high, and values below 16 are exact.
 */
uint32_t histogram_bucket(uint64_t value)
{
	return block_bucket(value);
}

uint64_t histogram_value(uint32_t bucket)
{
	const uint32_t octave = bucket / 8 + 2;

	if (bucket < 8)
		return bucket;
	if (octave > 63)
		return UINT64_MAX;
	return (uint64_t)(8 + bucket % 8) << (octave - 3);
}

/* The middle of a bucket, which errs by a sixteenth at most. */
static uint64_t bucket_middle(uint32_t bucket)
{
	const uint64_t low = histogram_value(bucket);
	const uint64_t next = histogram_value(bucket + 1);

	return low + (next - low - (next > low)) / 2;
}

uint64_t control_quantile(const struct control_page *page, enum stoker_histogram histogram, double q)
{
	uint64_t sums[CONTROL_BUCKETS] = { 0 };
	uint64_t total = 0, rank, below = 0;

	for (uint32_t i = 0; i < CONTROL_BLOCKS; i++) {
		for (uint32_t j = 0; j < CONTROL_BUCKETS; j++) {
			const uint64_t n = atomic_load_explicit(&page->blocks[i].histograms[histogram][j],
								memory_order_relaxed);

			sums[j] += n;
			total += n;
		}
	}
	if (total == 0)
		return 0;
	rank = q <= 0 ? 1 : q >= 1 ? total : (uint64_t)(q * (double)total + 0.999999999);
	if (rank < 1)
		rank = 1;
	if (rank > total)
		rank = total;
	for (uint32_t j = 0; j < CONTROL_BUCKETS; j++) {
		below += sums[j];
		if (below >= rank)
			return bucket_middle(j);
	}
	return UINT64_MAX;	/* not reached: all sums together are the total */
}
