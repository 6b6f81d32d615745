/*
 * Attacks on requests that are under way: see tests/hostile-rig.h for who is who.
 *
 * The attacker has pools, stores, looks up and retrieves like anybody, and meanwhile rewrites, from
 * another thread, all that it can write: keys, segments, ids, request lines, cancel words, wake words,
 * ready words, and the length of the files that are copied from and to. What the broker took once it
 * must use; the rest is the attacker's own loss.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/hostile-rig.h"
#include "tests/random.h"

enum { BLOCK = 8192, BLOCKS = 256, SMALL = 16, LARGE = 2, KEYS = 40 };

static uint64_t rounds_wanted(void)
{
	const char *rounds = getenv("STOKER_HOSTILE_ROUNDS");

	return rounds ? strtoull(rounds, NULL, 10) : 20000;
}

/* ---- an attacker with pools ------------------------------------------------------------------------- */

struct attacker {
	struct raw raw;
	struct rng random;
	int memory;			/* an unsealed memfd: it can be shortened and punched at any time */
	uint32_t model, pool;
	uint32_t generation[SMALL + LARGE], cancelled[SMALL + LARGE];
	uint64_t lease[2];
	_Atomic bool stop;
	bool cutting;			/* the file too is cut and punched */
	uint64_t ended[STOKER_STATUS_BROKER_GONE];	/* jobs, by status */
};

/* What @answer says to @what, if it is a refusal; @r: how asking went. Returns 0 or -1. */
static int refused(const char *what, int r, const struct message_answer *answer)
{
	if (r == 0 && answer->status == STOKER_STATUS_OK)
		return 0;
	fprintf(stderr, "the attacker's %s: %s\n", what, r < 0 ? strerror(-r) : answer->reason);
	return -1;
}

/* Those that left a moment ago may still have their seats. */
static int attach(struct raw *raw)
{
	char reason[MESSAGE_REASON] = "";
	int r = -EACCES;

	for (int i = 0; i < 500 && r == -EACCES; i++) {
		r = raw_attach(rig_name, raw);
		if (r == -EACCES) {
			memcpy(reason, raw->welcome.reason, sizeof(reason));
			raw_close(raw);
			nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
		}
	}
	if (r < 0)
		fprintf(stderr, "the attacker's seat: %s\n", r == -EACCES ? reason : strerror(-r));
	return r;
}

static int attacker_region(struct attacker *a, uint32_t *ret)
{
	struct message_region_add add = { .header.type = MESSAGE_REGION_ADD, .kind = MESSAGE_REGION_HOST, .n_fds = 1,
					  .ranges[0].bytes = BLOCK * BLOCKS };
	struct message_answer answer;

	a->memory = memfd_create("attacker", MFD_CLOEXEC);
	if (a->memory < 0 || ftruncate(a->memory, BLOCK * BLOCKS) < 0 ||
	    posix_fallocate(a->memory, 0, BLOCK * BLOCKS) != 0)
		return -1;
	if (refused("region", raw_ask(&a->raw, &add.header, sizeof(add), &a->memory, 1, &answer), &answer) < 0)
		return -1;
	*ret = answer.number;
	return 0;
}

static int attacker_pool(struct attacker *a, uint32_t region)
{
	struct {
		struct message_pool_add add;
		struct message_plane plane;
	} message = {
		.add = { .header.type = MESSAGE_POOL_ADD, .model = a->model, .n_blocks = BLOCKS, .n_planes = 1 },
		.plane = { .region = region, .block_stride = BLOCK, .bytes = BLOCK / 4, .rows = 4, .row_stride = BLOCK / 4 },
	};
	struct message_answer answer;

	if (refused("pool", raw_ask(&a->raw, &message.add.header, sizeof(message), NULL, 0, &answer), &answer) < 0)
		return -1;
	a->pool = answer.number;
	return 0;
}

static int attacker_open(struct attacker *a)
{
	uint32_t region;
	int model;

	if (attach(&a->raw) < 0)
		return -1;
	memset(a->generation, 0, sizeof(a->generation));
	memset(a->cancelled, 0, sizeof(a->cancelled));
	model = raw_model(&a->raw, "attacker", BLOCK);
	a->model = (uint32_t)model;
	return model < 0 || attacker_region(a, &region) < 0 || attacker_pool(a, region) < 0 ? -1 : 0;
}

static void attacker_close(struct attacker *a)
{
	raw_close(&a->raw);
	close(a->memory);
}

static bool attacker_is_in(struct attacker *a)
{
	char byte;

	return recv(a->raw.socket, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN;
}

/* Keys from a few families, so that they meet again; segments and ids behind them. */
static void input_write(struct attacker *a, uint32_t slot, uint32_t n_keys, uint32_t chunks, bool store)
{
	struct stoker_wire_key *keys = (struct stoker_wire_key *)raw_input(&a->raw, slot);
	struct stoker_segment *segment = (struct stoker_segment *)(keys + n_keys);
	uint32_t *ids = (uint32_t *)(segment + 1);
	const uint64_t family = rng_below(&a->random, 30);

	for (uint32_t i = 0; i < n_keys; i++)
		keys[i] = (struct stoker_wire_key){ { family + 1, i, 1, 1 } };
	if (!chunks)
		return;
	*segment = (struct stoker_segment){ .pool = a->pool, .chunks = chunks, .n_ids = chunks };
	for (uint32_t i = 0; i < chunks; i++)
		ids[i] = store ? i % BLOCKS : rng_below(&a->random, BLOCKS);
}

static struct stoker_request_head request_make(struct attacker *a, uint32_t slot)
{
	static const uint8_t ops[] = { STOKER_OP_STORE, STOKER_OP_STORE, STOKER_OP_LOOKUP, STOKER_OP_LOOKUP,
				       STOKER_OP_RETRIEVE, STOKER_OP_RETRIEVE, STOKER_OP_RELEASE, STOKER_OP_PING };
	struct stoker_request_head head = {
		.op = ops[rng_below(&a->random, sizeof(ops))], .slot = (uint16_t)slot,
		.generation = ++a->generation[slot], .priority = (uint8_t)rng_below(&a->random, 8),
		.model = a->model, .deadline_us = 1000 + rng_below(&a->random, 50000),
		.session = rng_below(&a->random, 3), .lease = { a->lease[0], a->lease[1] },
	};
	const uint32_t chunks = 1 + rng_below(&a->random, KEYS);
	union stoker_request_line *line = &raw_slot(&a->raw, slot)->request;

	memset(line, 0, sizeof(*line));
	if (head.op == STOKER_OP_STORE || head.op == STOKER_OP_LOOKUP)
		head.n_keys = chunks;
	if (head.op == STOKER_OP_STORE || head.op == STOKER_OP_RETRIEVE) {
		head.n_segments = 1;
		head.n_ids = chunks;
		head.flags = rng_below(&a->random, 4) ? 0 : STOKER_F_READY;
	}
	if (head.op == STOKER_OP_LOOKUP)
		head.flags = STOKER_F_PREFETCH | STOKER_F_PARTIAL;
	input_write(a, slot, head.n_keys, head.n_segments ? chunks : 0, head.op == STOKER_OP_STORE);
	return head;
}

/* Every slot that is free gets a request; those that live are cancelled now and then. */
static uint32_t request_round(struct attacker *a)
{
	uint32_t submitted = 0;

	for (uint32_t slot = 0; slot < SMALL; slot++) {
		struct stoker_slot *shared = raw_slot(&a->raw, slot);
		const uint64_t word = atomic_load(&shared->broker.word);
		const bool busy = a->generation[slot] && (slot_word_generation(word) != a->generation[slot] ||
							  slot_word_stage(word) != STOKER_STAGE_DONE);
		struct stoker_request_head head = { .op = STOKER_OP_CANCEL, .slot = (uint16_t)slot,
						    .generation = a->generation[slot] };

		if (!busy) {
			if (a->generation[slot])
				a->ended[slot_word_status(word) % STOKER_STATUS_BROKER_GONE]++;
			const uint64_t lease[2] = { atomic_load(&shared->broker.lease[0]), atomic_load(&shared->broker.lease[1]) };

			if (lease[0])
				memcpy(a->lease, lease, sizeof(lease));
			head = request_make(a, slot);
		} else if (a->cancelled[slot] == a->generation[slot] || rng_below(&a->random, 8)) {
			continue;	/* a second cancel could overrun the ring, which ends the attack too soon */
		} else {
			a->cancelled[slot] = a->generation[slot];
			atomic_store(&shared->client.cancel, a->generation[slot]);
		}
		raw_submit(&a->raw, &head);
		submitted++;
	}
	if (!submitted)
		nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
	return submitted;
}

/* ---- the other thread ------------------------------------------------------------------------------- */

/* Words that are plausible in many places, and some that are nowhere. */
static uint32_t word_invent(struct rng *random)
{
	switch (rng_below(random, 4)) {
	case 0:
		return rng_below(random, 4);
	case 1:
		return rng_below(random, BLOCKS + 2);
	case 2:
		return 0xffffffffu - rng_below(random, 3);
	default:
		return (uint32_t)rng_next(random);
	}
}

static void file_cut(int fd, struct rng *random)
{
	const off_t at = (off_t)rng_below(random, BLOCKS) * BLOCK;

	if (rng_below(random, 2))
		fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, BLOCK);
	else if (ftruncate(fd, at) < 0 || ftruncate(fd, BLOCK * BLOCKS) < 0)
		perror("ftruncate");
}

/* It races with request_make() on purpose: ThreadSanitizer is not to look at it. */
__attribute__((no_sanitize("thread"))) static void *rewrite_everything(void *arg)
{
	struct attacker *a = arg;
	struct rng random = { (uint64_t)getpid() };

	while (!atomic_load(&a->stop)) {
		const uint32_t slot = rng_below(&random, SMALL + LARGE);
		_Atomic uint32_t *input = (_Atomic uint32_t *)raw_input(&a->raw, slot);
		struct stoker_slot *shared = raw_slot(&a->raw, slot);

		for (uint32_t i = 0; i < 16; i++)
			atomic_store_explicit(&input[rng_below(&random, 512)], word_invent(&random), memory_order_relaxed);
		atomic_store(&shared->client.cancel, word_invent(&random));
		atomic_store(&shared->client.want_wake, a->generation[slot]);
		atomic_store((_Atomic uint32_t *)(a->raw.channel + a->raw.plan.ready_offset), word_invent(&random));
		/* The broker's lines too: it never reads them back. */
		atomic_store(&shared->broker.found, word_invent(&random));
		if (a->cutting && rng_below(&random, 64) == 0)
			file_cut(a->memory, &random);
	}
	return NULL;
}

static int race(void)
{
	static struct attacker a;
	pthread_t thread;

	a.random.state = (uint64_t)getpid();
	for (uint64_t round = 0; round < rounds_wanted(); a.cutting = !a.cutting) {
		if (attacker_open(&a) < 0)
			return 1;
		atomic_store(&a.stop, false);
		if (pthread_create(&thread, NULL, rewrite_everything, &a) != 0)
			return 2;
		for (uint32_t n = 0; n < 2000 && attacker_is_in(&a);)
			n += request_round(&a);
		round += 500;	/* however soon it was let go */
		atomic_store(&a.stop, true);
		pthread_join(thread, NULL);
		attacker_close(&a);
	}
	if (getenv("STOKER_HOSTILE_SAY"))
		for (uint32_t i = 0; i < STOKER_STATUS_BROKER_GONE; i++)
			if (a.ended[i])
				fprintf(stderr, "status %u: %llu\n", i, (unsigned long long)a.ended[i]);
	return 0;
}

START_TEST(what_is_rewritten_while_it_is_under_way_harms_nobody)
{
	pid_t attackers[2];
	int status;

	for (int i = 0; i < 2; i++)
		attackers[i] = rig_start_as(HOSTILE_UID, race);
	for (int i = 0; i < 20; i++)
		rig_honest_is_served();
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(waitpid(attackers[i], &status, 0), attackers[i]);
		ck_assert_msg(status == 0, "the attacker ended with %x", status);
	}
	rig_honest_is_served();
}
END_TEST

/* ---- chained lookups -------------------------------------------------------------------------------- */

/* Heads and pieces in any order, of any number, of foreign heads, with cancels in between. */
static int play_with_pieces(void)
{
	struct rng random = { 20261123 };
	static struct raw raw;

	for (int round = 0; round < 400; round++) {
		uint32_t heads[SMALL + LARGE] = { 0 };
		int model;

		if (attach(&raw) < 0)
			return 1;
		model = raw_model(&raw, "attacker", BLOCK);
		for (uint32_t i = 0; i < 30; i++) {
			const uint32_t slot = rng_below(&random, SMALL + LARGE);
			union stoker_request_line *line = &raw_slot(&raw, slot)->request;
			struct stoker_request_head head = {
				.op = rng_below(&random, 3) ? STOKER_OP_LOOKUP_MORE : STOKER_OP_LOOKUP, .slot = (uint16_t)slot,
				.generation = i + 1, .model = (uint32_t)model, .n_keys = 1 + rng_below(&random, 64),
				.deadline_us = 2000, .flags = 0,
			};

			memset(line, 0, sizeof(*line));
			if (head.op == STOKER_OP_LOOKUP) {
				line->lookup.pieces = rng_below(&random, 18);
				heads[slot] = i + 1;
			} else {
				line->more.head_slot = rng_below(&random, 8) ? SMALL + rng_below(&random, 2) : slot;
				line->more.head_generation = heads[line->more.head_slot] + (rng_below(&random, 8) == 0);
				line->more.piece = 1 + rng_below(&random, 4);
			}
			raw_submit(&raw, &head);
			if (rng_below(&random, 4) == 0) {
				struct stoker_request_head cancel = { .op = STOKER_OP_CANCEL, .slot = SMALL, .generation = 1 };

				atomic_store(&raw_slot(&raw, SMALL)->client.cancel, heads[SMALL]);
				raw_submit(&raw, &cancel);
			}
		}
		raw_close(&raw);
	}
	return 0;
}

/* As the library does it, and cancelled in the middle: head and pieces are all answered. */
static int cancel_a_head_among_its_pieces(void)
{
	struct stoker_request_head head = { .op = STOKER_OP_LOOKUP, .slot = SMALL, .generation = 1, .n_keys = 64,
					    .deadline_us = 20000 };
	struct stoker_request_head cancel = { .op = STOKER_OP_CANCEL, .slot = SMALL, .generation = 1 };
	static struct raw raw;

	if (attach(&raw) < 0)
		return 1;
	head.model = (uint32_t)raw_model(&raw, "attacker", BLOCK);
	raw_slot(&raw, SMALL)->request.lookup.pieces = 3;
	raw_submit(&raw, &head);
	head.op = STOKER_OP_LOOKUP_MORE;
	for (uint32_t piece = 1; piece <= 3; piece++) {
		union stoker_request_line *line = &raw_slot(&raw, piece)->request;

		if (piece == 2) {
			atomic_store(&raw_slot(&raw, SMALL)->client.cancel, 1);
			raw_submit(&raw, &cancel);
		}
		head.slot = (uint16_t)piece;
		line->more.head_slot = SMALL;
		line->more.head_generation = 1;
		line->more.piece = piece;
		raw_submit(&raw, &head);
	}
	if (raw_await(&raw, SMALL, 1) != STOKER_STATUS_CANCELLED)
		return 2;
	for (uint32_t piece = 1; piece <= 3; piece++)
		if (raw_await(&raw, piece, 1) < 0)
			return 2 + (int)piece;
	return 0;
}

START_TEST(pieces_of_chained_lookups_in_any_order_harm_nobody)
{
	ck_assert_int_eq(rig_run_as(HOSTILE_UID, play_with_pieces), 0);
	rig_honest_is_served();
	ck_assert_int_eq(rig_run_as(HOSTILE_UID, cancel_a_head_among_its_pieces), 0);
	rig_honest_is_served();
}
END_TEST

/* ---- wakes ------------------------------------------------------------------------------------------ */

/* It asks to be woken, never reads its pipe nor its response ring, rings its doorbell as fast as it can. */
static int never_read_what_comes(void)
{
	static struct raw raw;
	static const char bells[4096];

	if (attach(&raw) < 0)
		return 1;
	for (uint32_t generation = 1; generation < 5000; generation++) {
		const struct stoker_request_head head = { .op = STOKER_OP_PING, .slot = 1, .generation = generation };

		atomic_store(&raw_slot(&raw, 1)->client.want_wake, generation);
		raw_submit(&raw, &head);
		if (write(raw.fds[2], bells, sizeof(bells)) < 0 && errno != EAGAIN)
			return 2;
		while (slot_word_generation(atomic_load(&raw_slot(&raw, 1)->broker.word)) != generation)
			sched_yield();
	}
	return 0;
}

START_TEST(a_client_that_reads_nothing_and_rings_for_ever_harms_nobody)
{
	ck_assert_int_eq(rig_run_as(HOSTILE_UID, never_read_what_comes), 0);
	rig_honest_is_served();
}
END_TEST

/* ---- numbers at their ends -------------------------------------------------------------------------- */

static int offer_impossible_pools(void)
{
	static const struct {
		uint32_t n_blocks;
		struct message_plane plane;
	} pools[] = {
		{ 0xffffffff, { .block_stride = BLOCK, .bytes = BLOCK, .rows = 1 } },
		{ 0, { .block_stride = BLOCK, .bytes = BLOCK, .rows = 1 } },
		{ 2, { .offset = 1ull << 63, .block_stride = BLOCK, .bytes = BLOCK, .rows = 1 } },
		{ 2, { .offset = -(uint64_t)BLOCK, .block_stride = BLOCK, .bytes = BLOCK, .rows = 1 } },
		{ 2, { .block_stride = 1ull << 63, .bytes = BLOCK, .rows = 1 } },
		{ 3, { .block_stride = 1ull << 63, .bytes = BLOCK, .rows = 1 } },
		{ 2, { .block_stride = UINT64_MAX - BLOCK + 1, .bytes = BLOCK, .rows = 1 } },
		{ 2, { .block_stride = BLOCK, .bytes = BLOCK / 2, .rows = 2, .row_stride = 1ull << 63 } },
		{ 2, { .block_stride = BLOCK, .bytes = BLOCK / 2, .rows = 2, .row_stride = UINT64_MAX } },
		{ 2, { .block_stride = BLOCK, .bytes = 1, .rows = BLOCK, .row_stride = UINT64_MAX / BLOCK } },
		{ 2, { .block_stride = BLOCK, .bytes = 0, .rows = 0xffffffff } },
		{ 2, { .block_stride = BLOCK, .bytes = 0x80000000, .rows = 2 } },
		{ 2, { .block_stride = BLOCK, .bytes = BLOCK, .rows = 0 } },
		{ 2, { .region = 63, .block_stride = BLOCK, .bytes = BLOCK, .rows = 1 } },
		{ 2, { .region = 0xffffffff, .block_stride = BLOCK, .bytes = BLOCK, .rows = 1 } },
		{ 2, { .layer = 1, .block_stride = BLOCK, .bytes = BLOCK, .rows = 1 } },
		{ BLOCKS + 1, { .block_stride = BLOCK, .bytes = BLOCK, .rows = 1 } },
	};
	static struct attacker a;
	uint32_t region;

	if (attach(&a.raw) < 0)
		return 1;
	a.model = (uint32_t)raw_model(&a.raw, "attacker", BLOCK);
	if (attacker_region(&a, &region) < 0)
		return 2;
	for (uint32_t i = 0; i < sizeof(pools) / sizeof(pools[0]); i++) {
		struct {
			struct message_pool_add add;
			struct message_plane plane;
		} message = { .add = { .header.type = MESSAGE_POOL_ADD, .model = a.model, .n_blocks = pools[i].n_blocks,
				       .n_planes = 1 }, .plane = pools[i].plane };
		struct message_answer answer;

		if (raw_ask(&a.raw, &message.add.header, sizeof(message), NULL, 0, &answer) < 0)
			return 100 + (int)i;
		if (answer.status == STOKER_STATUS_OK || !answer.reason[0])
			return 10 + (int)i;
	}
	return 0;
}

START_TEST(a_pool_whose_numbers_cannot_be_is_refused_with_a_reason)
{
	ck_assert_int_eq(rig_run_as(HOSTILE_UID, offer_impossible_pools), 0);
	rig_honest_is_served();
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("hostile copies");
	TCase *all = tcase_create("three uids");

	if (geteuid() != 0) {
		printf("1..0 # SKIP broker, honest and hostile client need three uids, and only root can become them\n");
		return 0;
	}
	signal(SIGPIPE, SIG_IGN);
	tcase_add_checked_fixture(all, rig_setup, rig_teardown);
	tcase_set_timeout(all, 300);
	tcase_add_test(all, what_is_rewritten_while_it_is_under_way_harms_nobody);
	tcase_add_test(all, pieces_of_chained_lookups_in_any_order_harm_nobody);
	tcase_add_test(all, a_client_that_reads_nothing_and_rings_for_ever_harms_nobody);
	tcase_add_test(all, a_pool_whose_numbers_cannot_be_is_refused_with_a_reason);
	suite_add_tcase(suite, all);
	return suite_run(suite);
}
