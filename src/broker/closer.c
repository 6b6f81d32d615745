/* See closer.h. */
#include "src/broker/closer.h"

#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "src/common/log.h"

#define HEAPS	64u
#define FDS	4096u	/* of a uid: so many files at once that cannot be closed are no accident */
#define CALLS	16u

/**
 * struct heap - what one uid has to be closed, and what of its memory is to be let go of. Those are two threads, as
 * one may wait for the uid for ever, and the other for nobody. An empty heap without threads is anybody's.
 */
struct heap {
	uid_t uid;
	bool closing, calling;		/* there is a thread for that */
	uint32_t n, n_calls;
	int fds[FDS];
	struct { void (*run)(void *arg); void *arg; } calls[CALLS];
};

/* Static, because a thread may still wait in close() when the broker that made it is gone. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct heap heaps[HEAPS];

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

		pthread_mutex_unlock(&lock);
		close(fd);
		pthread_mutex_lock(&lock);
	}
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

static struct heap *heap_of(uid_t uid)
{
	struct heap *found = NULL;

	for (uint32_t i = 0; i < HEAPS; i++) {
		struct heap *heap = &heaps[i];
		const bool empty = heap->n + heap->n_calls == 0 && !heap->closing && !heap->calling;

		if (!empty && heap->uid == uid)
			return heap;
		if (empty && !found)
			found = heap;
	}
	if (found)
		found->uid = uid;
	return found;
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

/* False: too many wait already. */
static bool file_put(uid_t uid, int fd)
{
	const struct linger at_once = { 0 };
	struct heap *heap;

	/* The commonest way to be slow can be taken back, unless the peer still holds the socket too. */
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	pthread_mutex_lock(&lock);
	heap = heap_of(uid);
	if (!heap || heap->n == FDS) {
		pthread_mutex_unlock(&lock);
		return false;
	}
	heap->fds[heap->n++] = fd;
	thread_wake(files_close, &heap->closing, heap);
	return true;
}

void closer_take(uid_t uid, int fd)
{
	static uint32_t left_open;

	/* Left open: to close it here could take as long as its peer likes, and nobody else would be heard. */
	if (!file_put(uid, fd) && left_open++ % FDS == 0)
		log_error("%u files of uid %u wait for being closed, which is too many: end its processes", FDS,
			  (unsigned)uid);
}

void closer_close(uid_t uid, int fd)
{
	if (closer_must(fd))
		closer_take(uid, fd);
	else if (!file_put(uid, fd))
		close(fd);
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
