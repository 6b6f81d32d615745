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

/** struct heap - what one uid has to be closed. A heap without files and thread is anybody's. */
struct heap {
	uid_t uid;
	bool running;
	uint32_t n;
	int fds[FDS];
};

/* Static, because a thread may still wait in close() when the broker that made it is gone. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct heap heaps[HEAPS];

bool closer_must(int fd)
{
	return fcntl(fd, F_GET_SEALS) < 0;
}

static void *heap_run(void *arg)
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
	heap->running = false;
	pthread_mutex_unlock(&lock);
	return NULL;
}

static int heap_start(struct heap *heap)
{
	pthread_attr_t attributes;
	pthread_t thread;
	int r;

	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	r = pthread_create(&thread, &attributes, heap_run, heap);
	pthread_attr_destroy(&attributes);
	return r;
}

static struct heap *heap_of(uid_t uid)
{
	struct heap *found = NULL;

	for (uint32_t i = 0; i < HEAPS; i++) {
		struct heap *heap = &heaps[i];
		const bool empty = heap->n == 0 && !heap->running;

		if (!empty && heap->uid == uid)
			return heap;
		if (empty && !found)
			found = heap;
	}
	if (found)
		found->uid = uid;
	return found;
}

void closer_take(uid_t uid, int fd)
{
	const struct linger at_once = { 0 };
	static uint32_t left_open;
	struct heap *heap;
	bool start = false;

	/* The commonest way to be slow can be taken back, unless the peer still holds the socket too. */
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	pthread_mutex_lock(&lock);
	heap = heap_of(uid);
	if (heap && heap->n < FDS) {
		heap->fds[heap->n++] = fd;
		start = !heap->running;
		heap->running = true;
	} else {
		heap = NULL;
	}
	pthread_mutex_unlock(&lock);
	if (!heap) {
		/* Left open: to close it here could take as long as its peer likes, and nobody else would be heard. */
		if (left_open++ % FDS == 0)
			log_error("%u files of uid %u wait for being closed, which is too many: end its processes", FDS,
				  (unsigned)uid);
	} else if (start && heap_start(heap) != 0) {
		heap_run(heap);
	}
}

void closer_close(uid_t uid, int fd)
{
	if (closer_must(fd))
		closer_take(uid, fd);
	else
		close(fd);
}

void closer_take_socket(uid_t uid, int fd)
{
	shutdown(fd, SHUT_RDWR);
	closer_take(uid, fd);
}
