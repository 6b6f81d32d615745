/*
 * The bell of queue.h: an eventfd that is written only for a consumer that says it sleeps.
 *
 * The producer puts, then asks whether the bell is armed; the consumer arms it, then looks at its
 * queues. At least one of them must see the other. Each access to `armed` is a read-modify-write,
 * so that all of them stand in one order and each takes over what came before the one in front of
 * it: a producer that stands before the arming has its message seen by the look that follows, and
 * one that stands behind it finds the bell armed. A plain store would break that chain, and a plain
 * load would have to be kept behind a store of Concurrency Kit's, which C11 cannot promise.
 *
 * Whoever finds the bell armed disarms it: one write an arming, however many producers ring. A ring
 * that is late (found it armed, writes after the consumer has woken for another reason) wakes the
 * consumer once more for nothing.
 */
#include "src/common/queue.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>

int bell_init(struct bell *bell)
{
	bell->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (bell->fd < 0)
		return -errno;
	atomic_init(&bell->shared.armed, 0);
	return 0;
}

void bell_fini(struct bell *bell)
{
	if (bell->fd >= 0)
		close(bell->fd);
	bell->fd = -1;
}

void shared_bell_arm(struct shared_bell *bell)
{
	atomic_exchange_explicit(&bell->armed, 1, memory_order_seq_cst);
}

/* It drains also when nobody rang since it was armed: a late ring of before may have come in. */
void shared_bell_disarm(struct shared_bell *bell, int fd)
{
	eventfd_t rings;

	atomic_exchange_explicit(&bell->armed, 0, memory_order_seq_cst);
	(void)eventfd_read(fd, &rings);	/* EAGAIN: nobody rang */
}

void shared_bell_ring(struct shared_bell *bell, int fd)
{
	/* The one error left is a full counter, and then the consumer is awake already. */
	if (atomic_exchange_explicit(&bell->armed, 0, memory_order_seq_cst))
		(void)eventfd_write(fd, 1);
}

void bell_arm(struct bell *bell)
{
	shared_bell_arm(&bell->shared);
}

void bell_disarm(struct bell *bell)
{
	shared_bell_disarm(&bell->shared, bell->fd);
}

void bell_ring(struct bell *bell)
{
	shared_bell_ring(&bell->shared, bell->fd);
}

bool bell_is_armed(const struct bell *bell)
{
	return atomic_load_explicit(&bell->shared.armed, memory_order_relaxed);
}
