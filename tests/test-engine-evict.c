/*
 * Eviction: who is in a list and who goes next, under LRU and ARC; then random runs against a model
 * that looks through everything each time.
 */
#include "src/engine/evict.h"
#include "tests/random.h"
#include "tests/suite.h"

#include <stdlib.h>
#include <string.h>

#define NONE	ENGINE_NONE
#define MODEL	1u
#define UNIT	4096ull
#define KEYS	120u		/* fewer than a place is looked for, so that the order of lists is exact */

/** struct world - an index with eviction of the arena over it, and the sizes of its chunks. */
struct world {
	struct index *index;
	struct evict arena, tier;
	uint64_t units[KEYS + 1];	/* by key */
	bool incomplete[KEYS + 1];
	uint64_t uses;
	struct rng rng;
};

static uint64_t bytes_of(void *arg, uint32_t entry)
{
	struct world *w = arg;

	return w->units[index_entry(w->index, entry)->key.word[0]] * UNIT;
}

static struct world *world_of(enum engine_policy policy, uint32_t entries, uint64_t capacity)
{
	struct world *w = calloc(1, sizeof(*w));
	const size_t bytes = (index_bytes(entries, 1) + 63) & ~(size_t)63;
	void *memory = aligned_alloc(64, bytes);

	memset(memory, 0, bytes);
	w->index = index_init(memory, entries, 1, 1);
	evict_init(&w->arena, w->index, policy, false, capacity * UNIT, bytes_of, w);
	evict_init(&w->tier, w->index, policy, true, 4 * capacity * UNIT, bytes_of, w);
	for (uint32_t i = 0; i <= KEYS; i++)
		w->units[i] = 1;
	return w;
}

static void world_free(struct world *w)
{
	free(w->index);
	free(w);
}

static void audit(const struct world *w)
{
	const char *broken = index_audit(w->index);

	if (broken == NULL)
		broken = evict_audit(&w->arena);
	if (broken == NULL)
		broken = evict_audit(&w->tier);
	ck_assert_msg(broken == NULL, "%s", broken);
}

static struct stoker_wire_key key_of(uint64_t n)
{
	return (struct stoker_wire_key){ { n, 0, 0, n != 0 } };
}

static uint64_t name_of(const struct world *w, uint32_t entry)
{
	return entry == NONE ? 0 : index_entry(w->index, entry)->key.word[0];
}

static uint32_t find(struct world *w, uint64_t n)
{
	const struct stoker_wire_key key = key_of(n);

	return index_find(w->index, MODEL, &key);
}

static void update(struct world *w, uint32_t entry)
{
	const bool complete = !w->incomplete[name_of(w, entry)];

	evict_update(&w->arena, entry, complete);
	evict_update(&w->tier, entry, complete);
}

static void set_masks(struct world *w, uint32_t entry, uint64_t l1, uint64_t disk)
{
	struct entry *e = index_entry(w->index, entry);
	const uint64_t l1_before = e->l1, disk_before = e->disk;
	const uint32_t parent = index_parent(w->index, entry);

	e->l1 = l1;
	e->disk = disk;
	index_mask_changed(w->index, entry, l1_before, disk_before);
	update(w, entry);
	if (parent != NONE)
		update(w, parent);
}

/* Key @n, child of key @parent (0: a root), comes to the arena. */
static uint32_t come(struct world *w, uint64_t n, uint64_t parent)
{
	const struct stoker_wire_key key = key_of(n), parent_key = key_of(parent);
	const uint32_t entry = index_add(w->index, MODEL, &key);

	expect(entry != NONE);
	index_link(w->index, entry, &parent_key);
	index_entry(w->index, entry)->touched = ++w->uses;
	set_masks(w, entry, 1, index_entry(w->index, entry)->disk);
	return entry;
}

static void use(struct world *w, uint64_t n)
{
	const uint32_t entry = find(w, n);

	index_entry(w->index, entry)->touched = ++w->uses;
	evict_used(&w->arena, entry);
}

static void pin(struct world *w, uint64_t n, int by)
{
	index_entry(w->index, find(w, n))->pins += (uint32_t)by;
	update(w, find(w, n));
}

static uint64_t next(struct world *w)
{
	return name_of(w, evict_next(&w->arena, NONE));
}

/* As the engine does it. Returns the key that went; 0: none can. */
static uint64_t evict_one(struct world *w)
{
	const uint32_t victim = evict_next(&w->arena, NONE);
	const uint64_t n = name_of(w, victim);
	struct entry *entry;

	if (victim == NONE)
		return 0;
	entry = index_entry(w->index, victim);
	evict_gone(&w->arena, victim, true);
	set_masks(w, victim, 0, entry->disk);
	if (entry->disk == 0)
		index_remove(w->index, victim);
	return n;
}

/* ---- rules of both policies -------------------------------------------------------------------- */

START_TEST(a_parent_goes_after_its_children_however_old_it_is)
{
	struct world *w = world_of(_i, 100, 100);

	come(w, 1, 0);
	come(w, 2, 1);
	come(w, 3, 2);
	come(w, 4, 2);
	for (uint64_t n = 0; n < 4; n++)
		ck_assert_uint_eq(evict_one(w), ((const uint64_t[]){ 3, 4, 2, 1 })[n]);
	ck_assert_uint_eq(evict_one(w), 0);
	audit(w);
	world_free(w);
}
END_TEST

START_TEST(a_parent_whose_last_child_went_takes_the_place_of_its_own_last_use)
{
	struct world *w = world_of(_i, 100, 100);

	for (uint64_t n = 1; n <= 3; n++)
		come(w, 10 * n, 0);
	come(w, 11, 10);			/* child of 10 */
	for (uint64_t n = 4; n <= 6; n++)
		come(w, 10 * n, 0);
	index_entry(w->index, find(w, 10))->touched = index_entry(w->index, find(w, 40))->touched;
	index_entry(w->index, find(w, 11))->touched = 0;
	pin(w, 11, 1);				/* it enters anew, as the coldest */
	pin(w, 11, -1);
	ck_assert_uint_eq(evict_one(w), 11);
	ck_assert_uint_eq(evict_one(w), 20);
	ck_assert_uint_eq(evict_one(w), 30);
	ck_assert_uint_eq(evict_one(w), 10);
	ck_assert_uint_eq(evict_one(w), 40);
	audit(w);
	world_free(w);
}
END_TEST

START_TEST(what_is_pinned_or_under_io_is_in_no_list)
{
	struct world *w = world_of(_i, 100, 100);

	come(w, 1, 0);
	come(w, 2, 0);
	pin(w, 1, 1);
	ck_assert_uint_eq(next(w), 2);
	index_entry(w->index, find(w, 2))->io = 1;
	update(w, find(w, 2));
	ck_assert_uint_eq(next(w), 0);
	audit(w);
	pin(w, 1, -1);
	ck_assert_uint_eq(next(w), 1);
	audit(w);
	world_free(w);
}
END_TEST

START_TEST(what_is_incomplete_goes_first)
{
	struct world *w = world_of(_i, 100, 100);

	come(w, 1, 0);
	come(w, 2, 0);
	w->incomplete[2] = true;
	update(w, find(w, 2));
	ck_assert_uint_eq(next(w), 2);
	use(w, 2);
	ck_assert_uint_eq(next(w), 2);
	w->incomplete[2] = false;
	update(w, find(w, 2));
	ck_assert_uint_eq(next(w), 1);
	audit(w);
	world_free(w);
}
END_TEST

START_TEST(a_candidate_that_does_not_suit_is_followed_by_the_next_in_order)
{
	struct world *w = world_of(_i, 100, 100);
	uint32_t entry = NONE;

	for (uint64_t n = 1; n <= 20; n++)
		come(w, n, 0);
	w->incomplete[13] = true;
	update(w, find(w, 13));
	for (uint64_t n = 1; n <= 20; n++) {
		entry = evict_next(&w->arena, entry);
		ck_assert_uint_eq(name_of(w, entry), n == 1 ? 13 : n <= 13 ? n - 1 : n);
	}
	ck_assert_uint_eq(evict_next(&w->arena, entry), NONE);
	world_free(w);
}
END_TEST

START_TEST(a_chunk_that_grows_is_counted_anew)
{
	struct world *w = world_of(_i, 100, 100);

	come(w, 1, 0);
	w->units[1] = 5;
	ck_assert_ptr_nonnull(evict_audit(&w->arena));
	update(w, find(w, 1));
	audit(w);
	ck_assert_uint_eq(w->arena.resident_recent, 5 * UNIT);
	evict_one(w);
	ck_assert_uint_eq(w->arena.resident_recent, 0);
	audit(w);
	world_free(w);
}
END_TEST

START_TEST(arena_and_tier_have_lists_of_their_own)
{
	struct world *w = world_of(_i, 100, 100);

	come(w, 1, 0);
	come(w, 2, 1);
	set_masks(w, find(w, 1), 1, 1);
	ck_assert_uint_eq(next(w), 2);
	ck_assert_uint_eq(name_of(w, evict_next(&w->tier, NONE)), 1);	/* its child is not on the tier */
	evict_one(w);
	evict_one(w);
	ck_assert_uint_eq(next(w), 0);
	ck_assert_uint_eq(name_of(w, evict_next(&w->tier, NONE)), 1);
	audit(w);
	world_free(w);
}
END_TEST

/* A long list and an entry whose place is deep inside: it is put where the search ends. */
START_TEST(finding_a_place_is_bounded_and_keeps_the_lists_whole)
{
	struct world *w = world_of(_i, 100000, 100000);
	struct stoker_wire_key key = key_of(1);

	for (uint32_t i = 0; i < 50000; i++) {
		uint32_t entry;

		key.word[2] = i;
		entry = index_add(w->index, MODEL, &key);
		index_entry(w->index, entry)->touched = i;
		set_masks(w, entry, 1, 0);
	}
	for (uint32_t i = 0; i < 50000; i += 1000) {
		key.word[2] = i;
		index_entry(w->index, index_find(w->index, MODEL, &key))->pins = 1;
		update(w, index_find(w->index, MODEL, &key));
		index_entry(w->index, index_find(w->index, MODEL, &key))->pins = 0;
		update(w, index_find(w->index, MODEL, &key));
	}
	audit(w);
	world_free(w);
}
END_TEST

/* ---- LRU and ARC ------------------------------------------------------------------------------- */

START_TEST(lru_takes_the_one_whose_last_use_is_longest_ago)
{
	struct world *w = world_of(ENGINE_POLICY_LRU, 100, 100);

	for (uint64_t n = 1; n <= 5; n++)
		come(w, n, 0);
	use(w, 1);
	use(w, 3);
	for (uint64_t n = 0; n < 5; n++)
		ck_assert_uint_eq(evict_one(w), ((const uint64_t[]){ 2, 4, 5, 1, 3 })[n]);
	ck_assert_uint_eq(index_used(w->index), 0);	/* it remembers nothing */
	world_free(w);
}
END_TEST

START_TEST(arc_without_a_ghost_that_came_back_is_lru)
{
	struct world *w = world_of(ENGINE_POLICY_ARC, 100, 100);

	for (uint64_t n = 1; n <= 5; n++)
		come(w, n, 0);
	use(w, 1);
	use(w, 3);
	for (uint64_t n = 0; n < 5; n++)
		ck_assert_uint_eq(evict_one(w), ((const uint64_t[]){ 2, 4, 5, 1, 3 })[n]);
	world_free(w);
}
END_TEST

START_TEST(arc_keeps_what_was_used_again_longer_once_it_missed_it)
{
	struct world *w = world_of(ENGINE_POLICY_ARC, 100, 10);

	for (uint64_t n = 1; n <= 5; n++)
		come(w, n, 0);
	for (uint64_t n = 1; n <= 3; n++)
		use(w, n);
	for (uint32_t i = 0; i < 5; i++)
		evict_one(w);
	ck_assert_uint_eq(w->arena.handicap, EVICT_HANDICAP_NONE);
	for (uint64_t n = 1; n <= 3; n++)
		come(w, n, 0);
	ck_assert_uint_gt(w->arena.handicap, EVICT_HANDICAP_NONE);
	for (uint64_t n = 11; n <= 15; n++)
		come(w, n, 0);
	for (uint64_t n = 0; n < 3; n++)	/* 1, 2, 3 are the older ones, but came twice */
		ck_assert_uint_eq(evict_one(w), ((const uint64_t[]){ 11, 12, 1 })[n]);
	audit(w);
	world_free(w);
}
END_TEST

START_TEST(arc_turns_towards_recent_chunks_when_it_missed_those)
{
	struct world *w = world_of(ENGINE_POLICY_ARC, 100, 10);

	for (uint64_t n = 1; n <= 5; n++)
		come(w, n, 0);
	for (uint32_t i = 0; i < 5; i++)
		evict_one(w);
	come(w, 2, 0);
	ck_assert_uint_lt(w->arena.handicap, EVICT_HANDICAP_NONE);
	ck_assert_uint_eq(w->arena.resident_frequent, UNIT);	/* it belongs to those seen again */
	audit(w);
	world_free(w);
}
END_TEST

START_TEST(ghosts_have_together_as_many_bytes_as_the_arena_and_no_more)
{
	struct world *w = world_of(ENGINE_POLICY_ARC, 1000, 30);

	for (uint64_t n = 1; n <= KEYS; n++) {
		w->units[n] = 1 + n % 5;
		come(w, n, 0);
		if (n % 3 == 0)
			use(w, n);
		while (w->arena.resident_recent + w->arena.resident_frequent > 30 * UNIT)
			evict_one(w);
		expect(w->arena.ghosts[0].bytes + w->arena.ghosts[1].bytes <= 30 * UNIT);
		audit(w);
	}
	ck_assert_uint_gt(w->arena.ghosts[0].bytes, 10 * UNIT);
	ck_assert_uint_gt(w->arena.ghosts[1].bytes, 10 * UNIT);
	world_free(w);
}
END_TEST

START_TEST(a_full_index_forgets_its_coldest_ghosts_before_it_refuses)
{
	struct world *w = world_of(ENGINE_POLICY_ARC, 20, 100);

	for (uint64_t n = 1; n <= 20; n++)
		come(w, n, 0);
	for (uint32_t i = 0; i < 10; i++)
		evict_one(w);
	ck_assert_uint_eq(index_ghosts(w->index), 10);
	for (uint64_t n = 21; n <= 30; n++)
		come(w, n, 0);
	ck_assert_uint_eq(index_ghosts(w->index), 0);
	ck_assert_uint_eq(index_add(w->index, MODEL, &(struct stoker_wire_key){ { 99 } }), NONE);
	audit(w);
	world_free(w);
}
END_TEST

START_TEST(a_chunk_that_left_the_arena_for_its_tier_is_a_ghost_there_and_found_all_the_same)
{
	struct world *w = world_of(ENGINE_POLICY_ARC, 100, 100);
	const uint32_t entry = come(w, 1, 0);

	set_masks(w, entry, 1, 1);
	evict_one(w);
	ck_assert_uint_eq(find(w, 1), entry);
	ck_assert_uint_eq(w->arena.ghosts[0].n, 1);
	ck_assert_uint_eq(index_ghosts(w->index), 0);
	audit(w);
	set_masks(w, entry, 1, 1);			/* read back */
	ck_assert_uint_eq(w->arena.ghosts[0].n, 0);
	ck_assert_uint_eq(w->arena.resident_frequent, UNIT);
	audit(w);
	world_free(w);
}
END_TEST

/* ---- random ------------------------------------------------------------------------------------ */

/* What LRU takes: the coldest that can go, incomplete ones before all others. Uses differ. */
static uint64_t lru_model(struct world *w)
{
	uint32_t best = NONE;

	for (uint32_t i = index_next(w->index, NONE); i != NONE; i = index_next(w->index, i)) {
		const struct entry *entry = index_entry(w->index, i);
		bool parent = false;

		for (uint32_t k = index_next(w->index, NONE); k != NONE; k = index_next(w->index, k))
			parent = parent || (index_entry(w->index, k)->l1 != 0 && index_parent(w->index, k) == i);
		if (entry->l1 == 0 || entry->pins > 0 || entry->io > 0 || parent)
			continue;
		if (best != NONE && w->incomplete[name_of(w, best)] != w->incomplete[name_of(w, i)]) {
			if (w->incomplete[name_of(w, i)])
				best = i;
		} else if (best == NONE || entry->touched < index_entry(w->index, best)->touched) {
			best = i;
		}
	}
	return name_of(w, best);
}

static void step_live(struct world *w, uint64_t n, uint32_t entry)
{
	struct entry *e = index_entry(w->index, entry);

	switch (rng_below(&w->rng, 7)) {
	case 0:
		e->pins += 1;
		break;
	case 1:
		e->pins -= e->pins > 0;
		break;
	case 2:
		e->io = !e->io;
		break;
	case 3:
		w->incomplete[n] = rng_below(&w->rng, 3) == 0;
		break;
	case 4:
		w->units[n] = 1 + rng_below(&w->rng, 9);
		break;
	case 5:
		if (e->l1 != 0)
			use(w, n);
		break;
	default:
		if (e->l1 != 0 && e->pins == 0 && e->io == 0)
			set_masks(w, entry, e->l1, !e->disk);
	}
	update(w, entry);
}

/* A slab is reclaimed: a chunk goes although it is a parent. */
static void reclaim(struct world *w, uint32_t entry)
{
	const struct entry *e = index_entry(w->index, entry);

	if (e->pins > 0 || e->io > 0)
		return;
	evict_gone(&w->arena, entry, rng_below(&w->rng, 2));
	set_masks(w, entry, 0, 0);
	index_remove(w->index, entry);
}

static void step(struct world *w)
{
	const uint64_t n = 1 + rng_below(&w->rng, KEYS);
	const uint32_t entry = find(w, n), what = rng_below(&w->rng, 20);

	if (what < 5) {
		evict_one(w);
	} else if (entry == NONE || index_entry(w->index, entry)->l1 == 0) {
		if (entry == NONE && index_used(w->index) - index_ghosts(w->index) == index_max(w->index))
			return;
		if (entry == NONE)
			w->incomplete[n] = false;
		come(w, n, n / 2);
	} else if (what == 5) {
		reclaim(w, entry);
	} else {
		step_live(w, n, entry);
	}
}

START_TEST(random_runs_of_lru_take_the_coldest_that_can_go)
{
	struct world *w = world_of(ENGINE_POLICY_LRU, 100, 60);

	w->rng.state = (uint64_t)_i;
	for (uint32_t i = 0; i < 5000; i++) {
		step(w);
		expect(next(w) == lru_model(w));
		if (i % 20 == 0)
			audit(w);
	}
	world_free(w);
}
END_TEST

START_TEST(random_runs_of_arc_keep_the_books)
{
	struct world *w = world_of(ENGINE_POLICY_ARC, 60 + (uint32_t)_i * 20, 60);
	uint32_t ghosts = 0, moves = 0;
	uint64_t before = EVICT_HANDICAP_NONE;

	w->rng.state = (uint64_t)_i;
	for (uint32_t i = 0; i < 5000; i++) {
		step(w);
		ghosts += index_ghosts(w->index) > 0;
		moves += w->arena.handicap != before;
		before = w->arena.handicap;
		if (i % 10 == 0)
			audit(w);
		expect((next(w) == 0) == (lru_model(w) == 0));	/* it finds one if there is one */
	}
	ck_assert_uint_gt(ghosts, 500);
	ck_assert_uint_gt(moves, 10);
	world_free(w);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("engine-evict");
	TCase *both = tcase_create("both"), *policies = tcase_create("policies"), *random = tcase_create("random");

	tcase_add_loop_test(both, a_parent_goes_after_its_children_however_old_it_is, 0, 2);
	tcase_add_loop_test(both, a_parent_whose_last_child_went_takes_the_place_of_its_own_last_use, 0, 2);
	tcase_add_loop_test(both, what_is_pinned_or_under_io_is_in_no_list, 0, 2);
	tcase_add_loop_test(both, what_is_incomplete_goes_first, 0, 2);
	tcase_add_loop_test(both, a_candidate_that_does_not_suit_is_followed_by_the_next_in_order, 0, 2);
	tcase_add_loop_test(both, a_chunk_that_grows_is_counted_anew, 0, 2);
	tcase_add_loop_test(both, arena_and_tier_have_lists_of_their_own, 0, 2);
	tcase_add_loop_test(both, finding_a_place_is_bounded_and_keeps_the_lists_whole, 0, 2);
	tcase_add_test(policies, lru_takes_the_one_whose_last_use_is_longest_ago);
	tcase_add_test(policies, arc_without_a_ghost_that_came_back_is_lru);
	tcase_add_test(policies, arc_keeps_what_was_used_again_longer_once_it_missed_it);
	tcase_add_test(policies, arc_turns_towards_recent_chunks_when_it_missed_those);
	tcase_add_test(policies, ghosts_have_together_as_many_bytes_as_the_arena_and_no_more);
	tcase_add_test(policies, a_full_index_forgets_its_coldest_ghosts_before_it_refuses);
	tcase_add_test(policies, a_chunk_that_left_the_arena_for_its_tier_is_a_ghost_there_and_found_all_the_same);
	tcase_set_timeout(random, 120);
	tcase_add_loop_test(random, random_runs_of_lru_take_the_coldest_that_can_go, 0, 3);
	tcase_add_loop_test(random, random_runs_of_arc_keep_the_books, 0, 3);
	suite_add_tcase(s, both);
	suite_add_tcase(s, policies);
	suite_add_tcase(s, random);
	return suite_run(s);
}
