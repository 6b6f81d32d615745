/* See closer.h. */
#include "src/broker/closer.h"

#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "src/broker/clock.h"
#include "src/common/log.h"

#define HEAPS	64u
#define FDS	4096u	/* of a uid: so many files at once that cannot be closed are no accident */
#define SHARE	8u	/* or fewer: so much of all that may be open leaves enough to others */
#define CALLS	16u
#define HANGS_NS	1000000000u	/* a close that lasts so long waits for somebody */

/**
 * struct heap - what one uid has to be closed, and what of its memory is to be let go of. Those are two threads, as
 * one may wait for the uid for ever, and the other for nobody. An empty heap without threads is anybody's.
 */
struct heap {
	uid_t uid;
	bool closing, calling;		/* there is a thread for that */
	uint32_t n, room, n_calls;
	uint32_t tell;			/* when so many files wait, that is told; 0: at files_most() */
	int *fds;
	uint64_t begun_ns;		/* the last of them whose close was begun: when that was */
	struct { void (*run)(void *arg); void *arg; } calls[CALLS];
};

/* Static, because a thread may still wait in close() when the broker that made it is gone. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct heap heaps[HEAPS];

static uint32_t files_most(void)
{
	struct rlimit limit;

	return getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur / SHARE < FDS ? (uint32_t)(limit.rlim_cur / SHARE) : FDS;
}

bool closer_must(int fd)
{
	return fcntl(fd, F_GET_SEALS) < 0;
}

static void *files_close(void *arg)
{
	struct heap *heap = arg;

	prctl(PR_SET_NAME, "stokerd-closer");
	pthread_mutex_lock(&lock);
	while (heap->n > 0) {
		const int fd = heap->fds[--heap->n];

		heap->begun_ns = clock_kernel_ns();
		pthread_mutex_unlock(&lock);
		close(fd);
		pthread_mutex_lock(&lock);
	}
	free(heap->fds);
	heap->fds = NULL;
	heap->room = heap->tell = 0;
	heap->closing = false;
	pthread_mutex_unlock(&lock);
	return NULL;
}

static void *calls_make(void *arg)
{
	struct heap *heap = arg;

	prctl(PR_SET_NAME, "stokerd-closer");
	pthread_mutex_lock(&lock);
	while (heap->n_calls > 0) {
		void (*const run)(void *arg) = heap->calls[--heap->n_calls].run;
		void *const of = heap->calls[heap->n_calls].arg;

		pthread_mutex_unlock(&lock);
		run(of);
		pthread_mutex_lock(&lock);
	}
	heap->calling = false;
	pthread_mutex_unlock(&lock);
	return NULL;
}

static int thread_start(void *(*main)(void *heap), struct heap *heap)
{
	pthread_attr_t attributes;
	pthread_t thread;
	int r;

	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	r = pthread_create(&thread, &attributes, main, heap);
	pthread_attr_destroy(&attributes);
	return r;
}

static bool is_empty(const struct heap *heap)
{
	return heap->n + heap->n_calls == 0 && !heap->closing && !heap->calling;
}

/* The uid's own, or NULL: there is nothing of its to be done. */
static struct heap *heap_find(uid_t uid)
{
	for (uint32_t i = 0; i < HEAPS; i++)
		if (!is_empty(&heaps[i]) && heaps[i].uid == uid)
			return &heaps[i];
	return NULL;
}

/* The uid's own; NULL: there is none left for it. */
static struct heap *heap_of(uid_t uid)
{
	struct heap *heap = heap_find(uid);

	for (uint32_t i = 0; i < HEAPS && !heap; i++)
		if (is_empty(&heaps[i])) {
			heap = &heaps[i];
			heap->uid = uid;
		}
	return heap;
}

/* There is something to do for a thread: see to it. The lock is held, and let go of. */
static void thread_wake(void *(*main)(void *heap), bool *runs, struct heap *heap)
{
	const bool start = !*runs;
	char name[16] = "";

	*runs = true;
	pthread_mutex_unlock(&lock);
	if (!start || thread_start(main, heap) == 0)
		return;
	prctl(PR_GET_NAME, name);	/* no thread can be had: this one does it, and keeps its name */
	main(heap);
	prctl(PR_SET_NAME, name);
}

static bool file_add(struct heap *heap, int fd)
{
	const uint32_t room = heap->room ? 2 * heap->room : 64;
	int *fds = heap->n < heap->room ? heap->fds : realloc(heap->fds, room * sizeof(*fds));

	if (!fds)
		return false;
	heap->room = heap->n < heap->room ? heap->room : room;
	heap->fds = fds;
	heap->fds[heap->n++] = fd;
	return true;
}

/* False: @most wait already, or there is no memory. */
static bool file_put(uid_t uid, int fd, uint32_t most)
{
	const struct linger at_once = { 0 };
	struct heap *heap;
	uint32_t told = 0;

	/* The commonest way to be slow can be taken back, unless the peer still holds the socket too. */
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	pthread_mutex_lock(&lock);
	heap = heap_of(uid);
	if (!heap)
		heap = &heaps[uid % HEAPS];	/* it stands behind somebody else's */
	if (heap->n >= most || !file_add(heap, fd)) {
		pthread_mutex_unlock(&lock);
		return false;
	}
	if (!heap->closing)
		heap->begun_ns = clock_kernel_ns();	/* by a thread that is still to be made */
	if (heap->n >= (heap->tell ? heap->tell : files_most())) {
		told = heap->n;
		heap->tell = 2 * heap->n;
	}
	thread_wake(files_close, &heap->closing, heap);
	if (told)
		log_warning("%u files of uid %u wait for being closed: until they are, no message of it is taken; if that "
			    "lasts, end its processes", told, (unsigned)uid);
	return true;
}

void closer_take(uid_t uid, int fd)
{
	/* To close it here could take as long as its peer likes, and nobody else would be heard. */
	if (!file_put(uid, fd, UINT32_MAX))
		log_error("a file of uid %u stays open: there is no memory to have it closed", (unsigned)uid);
}

void closer_close(uid_t uid, int fd)
{
	if (closer_must(fd))
		closer_take(uid, fd);
	else if (!file_put(uid, fd, files_most()))
		close(fd);
}

enum closer_room closer_room(uid_t uid)
{
	enum closer_room room = CLOSER_ROOM;
	const struct heap *heap;

	pthread_mutex_lock(&lock);
	heap = heap_find(uid);
	if (heap && heap->n > 0 && heap->n >= files_most())
		room = clock_kernel_ns() - heap->begun_ns > HANGS_NS ? CLOSER_HANGS : CLOSER_BUSY;
	pthread_mutex_unlock(&lock);
	return room;
}

void closer_run(uid_t uid, void (*run)(void *arg), void *arg)
{
	struct heap *heap;

	pthread_mutex_lock(&lock);
	heap = heap_of(uid);
	if (!heap || heap->n_calls == CALLS) {
		pthread_mutex_unlock(&lock);
		run(arg);
		return;
	}
	heap->calls[heap->n_calls].run = run;
	heap->calls[heap->n_calls++].arg = arg;
	thread_wake(calls_make, &heap->calling, heap);
}

void closer_take_socket(uid_t uid, int fd)
{
	shutdown(fd, SHUT_RDWR);
	closer_take(uid, fd);
}
