/*
 * The wake protocol, all of it: every interleaving of the steps of a broker and of one or two
 * clients is visited, and in none may somebody sleep while work waits for him and nobody is about to
 * wake him. (tests/test-shm-wake.c runs the same steps as real instructions.)
 *
 * The model. A client submits jobs, up to `depth` at once, and waits for the oldest:
 *	submit: store sequence, load need_wake, ring the doorbell if it was 1
 *	wait:   load word; store want_wake; load word; sleep on the completion pipe; drain it
 * The broker polls a channel until it is empty, parks it, and sleeps when all are parked:
 *	serve:  load sequence, store word, load want_wake, write the completion pipe if it is meant
 *	park:   store need_wake = 1, load sequence, sleep on all doorbells
 *	wake:   drain the doorbell, store need_wake = 0, serve
 * Memory is sequentially consistent, and each step is one access. A store that is only release may
 * also wait in a first-in, first-out buffer of its thread, as on x86, where its own thread alone
 * sees it. Pipes are words without a buffer: a system call orders more than that.
 *
 * A thread without a step to make sleeps or has finished. States in which nobody has a step are the
 * ends of all runs: there every client must have finished, and every job must have been served.
 * Each flaw below is planted into the protocol, and must be found: that is the test of the model.
 * The bell of src/common/queue.h is the same protocol with an exchange in place of the load, and with
 * the drain behind the disarming.
 */
#include "tests/suite.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define CLIENTS 2
#define DEPTH	2
#define BUFFER	4
#define BROKER	CLIENTS		/* its number among the threads */

enum flaw {
	NO_FLAW,
	SUBMIT_LOADS_FIRST,	/* need_wake is loaded before the sequence is stored */
	PARK_LOADS_FIRST,	/* the ring is looked at before need_wake is stored */
	PARK_LOOKS_NEVER,	/* ... or not at all */
	WAIT_LOADS_FIRST,	/* the word is looked at before want_wake is stored */
	WAIT_LOOKS_NEVER,
	ANSWER_LOADS_FIRST,	/* want_wake is loaded before the word is stored */
	SUBMIT_RELEASE,		/* stores that are release only */
	PARK_RELEASE,
	WAIT_RELEASE,
	ANSWER_RELEASE,
	DRAIN_LAST,		/* the doorbell is drained after the ring was found empty, before sleeping */
	FLAWS
};

struct setup {
	uint8_t clients, jobs, depth;
	bool waits;		/* false: clients submit and leave; the broker must still serve */
	bool bell;		/* need_wake is exchanged for 0 by whoever rings */
	enum flaw flaw;
};

enum { SEQUENCE, NEED, WORD, WANT = WORD + DEPTH, VARIABLES = WANT + DEPTH };

enum step {		/* what a thread does next */
	SUBMIT, SUBMIT_LOAD, SUBMIT_RING, NEXT, POLL, WANT_STORE, LOOK, SLEEP, END,
	SERVE, ANSWER, ANSWER_LOAD, ANSWER_WRITE, PARK, PARK_LOOK, AFTER_PARK, BROKER_SLEEP, BROKER_DRAIN, UNPARK,
};

/* Bytes only and all set, so that states are compared and hashed as bytes. */
struct state {
	uint8_t memory[CLIENTS][VARIABLES];
	uint8_t doorbell[CLIENTS], completion[CLIENTS];
	uint8_t step[CLIENTS + 1];
	uint8_t buffered[CLIENTS + 1];			/* stores that nobody else sees yet */
	uint8_t buffer[CLIENTS + 1][BUFFER][3];		/* client, variable, value */
	uint8_t submitted[CLIENTS], finished[CLIENTS], loaded[CLIENTS];
	uint8_t taken[CLIENTS], parked[CLIENTS], channel, wanted, seen;
};

/* ---- memory ------------------------------------------------------------------------------ */

static uint8_t load(const struct state *s, int thread, int client, int variable)
{
	for (int i = s->buffered[thread]; i > 0; i--) {
		const uint8_t *store = s->buffer[thread][i - 1];

		if (store[0] == client && store[1] == variable)
			return store[2];
	}
	return s->memory[client][variable];
}

static void flush_one(struct state *s, int thread)
{
	const uint8_t *store = s->buffer[thread][0];

	s->memory[store[0]][store[1]] = store[2];
	memmove(s->buffer[thread][0], s->buffer[thread][1], sizeof(s->buffer[0]) - sizeof(s->buffer[0][0]));
	s->buffered[thread]--;
	memset(s->buffer[thread][s->buffered[thread]], 0, sizeof(s->buffer[0][0]));
}

/* Returns false if the store has to wait for room in the buffer. */
static bool store(struct state *s, int thread, int client, int variable, uint8_t value, bool release)
{
	if (!release) {		/* sequentially consistent: what was stored before is seen before */
		while (s->buffered[thread] > 0)
			flush_one(s, thread);
		s->memory[client][variable] = value;
		return true;
	}
	if (s->buffered[thread] == BUFFER)
		return false;
	memcpy(s->buffer[thread][s->buffered[thread]++],
	       (uint8_t[]){ (uint8_t)client, (uint8_t)variable, value }, 3);
	return true;
}

/* ---- the client -------------------------------------------------------------------------- */

static uint8_t need_load(const struct setup *setup, struct state *s, int c)
{
	const uint8_t need = load(s, c, c, NEED);

	if (setup->bell)
		store(s, c, c, NEED, 0, false);
	return need;
}

/* Has the oldest job been answered? */
static bool is_answered(const struct setup *setup, const struct state *s, int c)
{
	return load(s, c, c, WORD + s->finished[c] % setup->depth) == s->finished[c] + 1;
}

static bool submit_step(const struct setup *setup, struct state *s, int c)
{
	const bool swapped = setup->flaw == SUBMIT_LOADS_FIRST;

	if (s->step[c] == SUBMIT_LOAD) {
		s->loaded[c] = need_load(setup, s, c);
		s->step[c] = swapped ? SUBMIT : s->loaded[c] ? SUBMIT_RING : NEXT;
		return true;
	}
	if (s->step[c] == SUBMIT_RING) {
		s->doorbell[c] = 1;
		s->step[c] = NEXT;
		return true;
	}
	if (!store(s, c, c, SEQUENCE, s->submitted[c] + 1, setup->flaw == SUBMIT_RELEASE))
		return false;
	s->submitted[c]++;
	s->step[c] = !swapped ? SUBMIT_LOAD : s->loaded[c] ? SUBMIT_RING : NEXT;
	return true;
}

/* The two ways that a client has here are two successors: @choice 1 is to wait though it could submit. */
static bool next_step(const struct setup *setup, struct state *s, int c, int choice)
{
	const bool may_submit = s->submitted[c] < setup->jobs &&
				(!setup->waits || s->submitted[c] - s->finished[c] < setup->depth);

	if (s->finished[c] == setup->jobs || (!setup->waits && !may_submit)) {
		s->step[c] = END;
		return choice == 0;
	}
	if (choice == 0 && may_submit)
		s->step[c] = setup->flaw == SUBMIT_LOADS_FIRST ? SUBMIT_LOAD : SUBMIT;
	else if (choice == 1 && setup->waits && s->submitted[c] > s->finished[c])
		s->step[c] = POLL;
	else
		return false;
	return true;
}

static bool wait_step(const struct setup *setup, struct state *s, int c)
{
	const int slot = s->finished[c] % setup->depth;

	switch (s->step[c]) {
	case POLL:
		if (is_answered(setup, s, c)) {
			s->finished[c]++;
			s->step[c] = NEXT;
		} else {
			s->step[c] = setup->flaw == WAIT_LOADS_FIRST ? LOOK : WANT_STORE;
		}
		return true;
	case WANT_STORE:
		if (!store(s, c, c, WANT + slot, s->finished[c] + 1, setup->flaw == WAIT_RELEASE))
			return false;
		s->step[c] = setup->flaw == WAIT_LOADS_FIRST || setup->flaw == WAIT_LOOKS_NEVER ? SLEEP : LOOK;
		return true;
	case LOOK:
		s->step[c] = is_answered(setup, s, c) ? POLL : setup->flaw == WAIT_LOADS_FIRST ? WANT_STORE : SLEEP;
		return true;
	case SLEEP:
		if (!s->completion[c])
			return false;
		s->completion[c] = 0;
		s->step[c] = POLL;
		return true;
	default:
		return false;
	}
}

static bool client_step(const struct setup *setup, struct state *s, int c, int choice)
{
	if (s->step[c] == NEXT)
		return next_step(setup, s, c, choice);
	if (choice != 0)
		return false;
	if (s->step[c] == SUBMIT || s->step[c] == SUBMIT_LOAD || s->step[c] == SUBMIT_RING)
		return submit_step(setup, s, c);
	return wait_step(setup, s, c);
}

/* ---- the broker -------------------------------------------------------------------------- */

static bool answer_step(const struct setup *setup, struct state *s)
{
	const int c = s->channel;
	const bool swapped = setup->flaw == ANSWER_LOADS_FIRST;
	const int slot = (s->taken[c] - 1) % setup->depth;

	switch (s->step[BROKER]) {
	case ANSWER:
		if (!store(s, BROKER, c, WORD + slot, s->taken[c], setup->flaw == ANSWER_RELEASE))
			return false;
		s->step[BROKER] = swapped ? ANSWER_WRITE : ANSWER_LOAD;
		return true;
	case ANSWER_LOAD:
		s->wanted = load(s, BROKER, c, WANT + slot) == s->taken[c];
		s->step[BROKER] = swapped ? ANSWER : ANSWER_WRITE;
		return true;
	default:
		if (s->wanted)
			s->completion[c] = 1;
		s->wanted = 0;
		s->step[BROKER] = SERVE;
		return true;
	}
}

static bool park_step(const struct setup *setup, struct state *s)
{
	const int c = s->channel;

	switch (s->step[BROKER]) {
	case PARK:
		if (!store(s, BROKER, c, NEED, 1, setup->flaw == PARK_RELEASE))
			return false;
		s->step[BROKER] = setup->flaw == PARK_LOADS_FIRST || setup->flaw == PARK_LOOKS_NEVER ?
					  AFTER_PARK : PARK_LOOK;
		return true;
	case PARK_LOOK:
		s->seen = load(s, BROKER, c, SEQUENCE) != s->taken[c];
		s->step[BROKER] = setup->flaw == PARK_LOADS_FIRST ? PARK : AFTER_PARK;
		return true;
	default:
		s->step[BROKER] = s->seen ? UNPARK : BROKER_SLEEP;
		if (!s->seen) {
			s->parked[c] = 1;
			if (setup->flaw == DRAIN_LAST)
				s->doorbell[c] = 0;
			for (int i = 0; i < setup->clients; i++) {
				if (!s->parked[i]) {	/* only at the start: the others have not been looked at */
					s->channel = (uint8_t)i;
					s->step[BROKER] = SERVE;
				}
			}
		}
		s->seen = 0;
		return true;
	}
}

/* @choice: whose doorbell is answered, if both have been rung. */
static bool broker_step(const struct setup *setup, struct state *s, int choice)
{
	if (s->step[BROKER] == BROKER_SLEEP) {
		if (choice >= setup->clients || !s->doorbell[choice])
			return false;
		s->channel = (uint8_t)choice;
		if (!setup->bell)
			s->doorbell[choice] = 0;
		s->step[BROKER] = UNPARK;
		return true;
	}
	if (choice != 0)
		return false;
	switch (s->step[BROKER]) {
	case SERVE:
		if (load(s, BROKER, s->channel, SEQUENCE) == s->taken[s->channel]) {
			s->step[BROKER] = setup->flaw == PARK_LOADS_FIRST ? PARK_LOOK : PARK;
			return true;
		}
		s->taken[s->channel]++;
		s->step[BROKER] = setup->flaw == ANSWER_LOADS_FIRST ? ANSWER_LOAD : ANSWER;
		return true;
	case UNPARK:
		s->parked[s->channel] = 0;
		store(s, BROKER, s->channel, NEED, 0, false);
		s->step[BROKER] = setup->bell ? BROKER_DRAIN : SERVE;
		return true;
	case BROKER_DRAIN:
		s->doorbell[s->channel] = 0;
		s->step[BROKER] = SERVE;
		return true;
	case PARK:
	case PARK_LOOK:
	case AFTER_PARK:
		return park_step(setup, s);
	default:
		return answer_step(setup, s);
	}
}

/* ---- all states -------------------------------------------------------------------------- */

struct states {
	struct state *all;
	uint32_t *table;	/* open addressing: number of a state + 1 */
	uint32_t n, room, places;
};

static uint64_t hash_of(const struct state *s)
{
	const uint8_t *bytes = (const uint8_t *)s;
	uint64_t hash = 14695981039346656037ull;

	for (size_t i = 0; i < sizeof(*s); i++)
		hash = (hash ^ bytes[i]) * 1099511628211ull;
	return hash;
}

static uint32_t *place_of(struct states *states, const struct state *s)
{
	uint64_t i = hash_of(s);

	for (;; i++) {
		uint32_t *place = &states->table[i & (states->places - 1)];

		if (*place == 0 || memcmp(&states->all[*place - 1], s, sizeof(*s)) == 0)
			return place;
	}
}

static void grow(struct states *states)
{
	states->room = states->room ? states->room * 2 : 4096;
	states->places = states->room * 2;
	states->all = realloc(states->all, states->room * sizeof(*states->all));
	free(states->table);
	states->table = calloc(states->places, sizeof(*states->table));
	expect(states->all && states->table);
	for (uint32_t i = 0; i < states->n; i++)
		*place_of(states, &states->all[i]) = i + 1;
}

static void visit(struct states *states, const struct state *s)
{
	uint32_t *place;

	if (states->n == states->room)
		grow(states);
	place = place_of(states, s);
	if (*place == 0) {
		states->all[states->n++] = *s;
		*place = states->n;
	}
}

/* All states that one step leads to. Returns how many steps there were. */
static int successors(const struct setup *setup, struct states *states, uint32_t i)
{
	int steps = 0;

	for (int thread = 0; thread <= BROKER; thread++) {
		if (thread < BROKER && thread >= setup->clients)
			continue;
		for (int choice = 0; choice < 2; choice++) {
			struct state next = states->all[i];

			if (thread == BROKER ? broker_step(setup, &next, choice) :
					       client_step(setup, &next, thread, choice)) {
				visit(states, &next);
				steps++;
			}
		}
		if (states->all[i].buffered[thread] > 0) {
			struct state next = states->all[i];

			flush_one(&next, thread);
			visit(states, &next);
			steps++;
		}
	}
	return steps;
}

/* Nobody has a step left: has everybody got what he wanted? */
static bool is_good_end(const struct setup *setup, const struct state *s)
{
	for (int c = 0; c < setup->clients; c++) {
		if (s->step[c] != END || s->taken[c] != setup->jobs)
			return false;
	}
	return s->step[BROKER] == BROKER_SLEEP;
}

struct verdict {
	uint32_t states, ends, bad_ends;
};

/* @stop: at the first bad end. */
static struct verdict explore(const struct setup *setup, bool stop)
{
	struct states states = { 0 };
	struct verdict verdict = { 0 };
	struct state first;

	memset(&first, 0, sizeof(first));
	for (int c = 0; c < CLIENTS; c++)
		first.step[c] = NEXT;
	first.step[BROKER] = SERVE;
	visit(&states, &first);
	for (uint32_t i = 0; i < states.n && !(stop && verdict.bad_ends); i++) {
		if (successors(setup, &states, i) > 0)
			continue;
		verdict.ends++;
		verdict.bad_ends += !is_good_end(setup, &states.all[i]);
	}
	verdict.states = states.n;
	free(states.all);
	free(states.table);
	return verdict;
}

static const struct setup setups[] = {
	{ .clients = 1, .jobs = 4, .depth = 1, .waits = true },
	{ .clients = 1, .jobs = 4, .depth = 2, .waits = true },
	{ .clients = 1, .jobs = 4, .depth = 1, .waits = false },
	{ .clients = 2, .jobs = 2, .depth = 1, .waits = true },
	{ .clients = 2, .jobs = 2, .depth = 2, .waits = true },
	{ .clients = 2, .jobs = 3, .depth = 1, .waits = false },
	{ .clients = 1, .jobs = 4, .depth = 2, .waits = true, .bell = true },
	{ .clients = 1, .jobs = 4, .depth = 1, .waits = false, .bell = true },
	{ .clients = 2, .jobs = 2, .depth = 1, .waits = true, .bell = true },
};
#define SETUPS ((int)(sizeof(setups) / sizeof(setups[0])))

START_TEST(in_no_interleaving_does_anybody_sleep_while_work_waits_for_him)
{
	const struct verdict verdict = explore(&setups[_i], false);

	ck_assert_uint_gt(verdict.states, 50);
	ck_assert_uint_gt(verdict.ends, 0);
	ck_assert_uint_eq(verdict.bad_ends, 0);
}
END_TEST

/* Concurrency Kit's put is a release store only: it is the exchange behind it that makes it seen in time. */
START_TEST(a_bell_makes_do_with_release_stores_in_front_of_its_exchange)
{
	for (int i = 0; i < SETUPS; i++) {
		struct setup setup = setups[i];

		if (!setup.bell)
			continue;
		setup.flaw = SUBMIT_RELEASE;
		ck_assert_uint_eq(explore(&setup, false).bad_ends, 0);
		setup.bell = false;
		ck_assert_uint_gt(explore(&setup, true).bad_ends, 0);	/* with a load instead it is lost */
	}
}
END_TEST

/* Is it found in one setup at least that has the step it spoils? */
START_TEST(each_planted_flaw_is_found)
{
	bool found = false;

	for (int i = 0; i < SETUPS && !found; i++) {
		struct setup setup = setups[i];

		setup.flaw = (enum flaw)_i;
		found = explore(&setup, true).bad_ends > 0;
	}
	ck_assert_msg(found, "flaw %d was planted and not found", _i);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("model-wake");
	TCase *interleavings = tcase_create("interleavings");

	tcase_set_timeout(interleavings, 120);
	tcase_add_loop_test(interleavings, in_no_interleaving_does_anybody_sleep_while_work_waits_for_him, 0, SETUPS);
	tcase_add_test(interleavings, a_bell_makes_do_with_release_stores_in_front_of_its_exchange);
	tcase_add_loop_test(interleavings, each_planted_flaw_is_found, NO_FLAW + 1, FLAWS);
	suite_add_tcase(s, interleavings);
	return s;
}

int main(void)
{
	return suite_run(suite());
}
