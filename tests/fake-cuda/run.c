/*
 * The thread that executes what streams hold: late, and in any order that is allowed. See fake.h.
 *
 * It looks at all streams, chooses one of those whose first operation may go on, does a piece of it and
 * chooses again; so copies of several streams run into each other, and a batch is half done for a while.
 * Seed 0 is for those who measure: the first stream that can, and no delays.
 */
#include "tests/fake-cuda/fake.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static _Thread_local bool in_host_function;

bool fake_in_host_function(void)
{
	return in_host_function;
}

/* --- who may go on ---------------------------------------------------------------------------------------------- */

static bool value_is_there(const struct fake_op *op)
{
	const uint32_t seen = atomic_load(op->word);

	switch (op->flags) {
	case CUDA_STREAM_WAIT_VALUE_EQ:
		return seen == op->value;
	case CUDA_STREAM_WAIT_VALUE_AND:
		return (seen & op->value) != 0;
	default:
		return (int32_t)(seen - op->value) >= 0;
	}
}

/* The null stream waits for whatever blocking streams were given before, and they for it. */
static bool is_held_up(const struct cuda_stream *stream)
{
	if (stream->flags & CUDA_STREAM_NON_BLOCKING)
		return false;
	for (const struct cuda_stream *other = fake_streams; other; other = other->next)
		if (other->context == stream->context && other->is_null != stream->is_null && other->first &&
		    !(other->flags & CUDA_STREAM_NON_BLOCKING) && other->first->sequence < stream->first->sequence)
			return true;
	return false;
}

static bool may_go_on(const struct cuda_stream *stream)
{
	const struct fake_op *op = stream->first;

	if (!op || stream->hung || is_held_up(stream))
		return false;
	if (op->deed == FAKE_WAIT_EVENT)
		return op->event->completed >= op->generation;
	return op->deed != FAKE_WAIT || value_is_there(op);
}

/* One of those that may go on, or NULL; @pending: whether there is anything at all. */
static struct cuda_stream *choose(bool *pending)
{
	struct cuda_stream *chosen = NULL;
	uint64_t n = 0;

	*pending = false;
	for (struct cuda_stream *stream = fake_streams; stream; stream = stream->next) {
		*pending |= stream->first != NULL;
		if (may_go_on(stream) && (fake.config.seed == 0 || fake_below(++n) == 0))
			chosen = stream;
	}
	return atomic_load(&fake.control->hold) ? NULL : chosen;
}

/* --- what is done ----------------------------------------------------------------------------------------------- */

static void release_move(struct fake_move *move)
{
	if (move->to_span)
		move->to_span->busy--;
	if (move->from_span)
		move->from_span->busy--;
	if (move->snapshot)
		free((void *)(uintptr_t)move->from);
}

/* A piece of the move under way; the mutex is given away meanwhile. True when the last is done. */
static bool move_on(struct fake_op *op)
{
	struct fake_move *move = &op->moves[op->done];
	const uint64_t left = move->bytes - op->within;
	const uint64_t bytes = left < FAKE_PIECE ? left : FAKE_PIECE;

	pthread_mutex_unlock(&fake.mutex);
	memcpy(move->to + op->within, move->from + op->within, bytes);
	pthread_mutex_lock(&fake.mutex);
	atomic_fetch_add(&fake.control->copied_bytes, bytes);
	op->within += bytes;
	if (op->within < move->bytes)
		return false;
	atomic_fetch_add(&fake.control->copies, 1);
	release_move(move);
	op->within = 0;
	return ++op->done == op->n_moves;
}

static bool go_on(struct fake_op *op)
{
	switch (op->deed) {
	case FAKE_MOVES:
		return move_on(op);
	case FAKE_RECORD:
		if (op->event && op->event->completed < op->generation)
			op->event->completed = op->generation;
		return true;
	case FAKE_FUNCTION:
		pthread_mutex_unlock(&fake.mutex);
		in_host_function = true;
		op->function(op->data);
		in_host_function = false;
		pthread_mutex_lock(&fake.mutex);
		return true;
	case FAKE_WRITE:
		atomic_store(op->word, op->value);
		op->span->busy--;
		return true;
	case FAKE_WAIT:
		op->span->busy--;
		return true;
	case FAKE_WAIT_EVENT:
		return true;
	}
	return true;
}

/* Does its beginning end in a hang, or in the death of the context? */
static bool begins(struct cuda_stream *stream)
{
	enum cuda_result failure;

	if (stream->first->begun)
		return true;
	stream->first->begun = true;
	atomic_fetch_add(&fake.control->calls[FAKE_CALL_execute], 1);
	stream->hung = (fake.config.hang > 0 && --fake.config.hang == 0) || fake_countdown(&fake.control->hang_in);
	failure = fake_injected(FAKE_CALL_execute);
	if (failure != CUDA_OK)
		fake_kill_context(failure);
	return !stream->hung && failure == CUDA_OK;
}

static void finish(struct cuda_stream *stream)
{
	struct fake_op *op = stream->first;

	stream->first = op->next;
	if (!stream->first)
		stream->last = NULL;
	free(op->moves);
	free(op);
	pthread_cond_broadcast(&fake.changed);
}

/* A nap without the mutex: for what nobody announces (values in memory, the test's hold), and to be late. */
static void nap(unsigned microseconds)
{
	pthread_mutex_unlock(&fake.mutex);
	usleep(microseconds);
	pthread_mutex_lock(&fake.mutex);
}

static void *run(void *nothing)
{
	pthread_mutex_lock(&fake.mutex);
	while (fake.dead == CUDA_OK) {
		bool pending;
		struct cuda_stream *stream = choose(&pending);

		if (!pending) {
			pthread_cond_wait(&fake.changed, &fake.mutex);
			continue;
		}
		if (!stream) {
			nap(50);
			continue;
		}
		if (begins(stream) && go_on(stream->first))
			finish(stream);
		if (fake.config.seed != 0 && fake_below(8) == 0)
			nap((unsigned)fake_below(100));
	}
	pthread_mutex_unlock(&fake.mutex);
	return nothing;
}

void fake_run_start(void)
{
	static int started;		/* in which process */
	sigset_t all, before;
	pthread_t thread;

	if (started == fake.pid)
		return;
	started = fake.pid;
	sigfillset(&all);		/* signals are for the program's own threads */
	pthread_sigmask(SIG_SETMASK, &all, &before);
	if (pthread_create(&thread, NULL, run, NULL) != 0 || pthread_detach(thread) != 0)
		fake_die("could not start the thread that runs streams");
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}
