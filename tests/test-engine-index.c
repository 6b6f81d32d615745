/*
 * The index: keys, ghosts, parents, records; then random runs against a plain table of what should be
 * there.
 */
#include "src/engine/index.h"
#include "tests/random.h"
#include "tests/suite.h"

#include <stdlib.h>
#include <string.h>

#define NONE	ENGINE_NONE
#define MODEL	7u

static const struct stoker_wire_key no_key;

static struct index *index_of(uint32_t entries, uint32_t records)
{
	const size_t bytes = (index_bytes(entries, records) + 63) & ~(size_t)63;
	void *memory = aligned_alloc(64, bytes);

	memset(memory, 0, bytes);
	return index_init(memory, entries, records, 42);
}

static void audit(const struct index *index)
{
	const char *broken = index_audit(index);

	ck_assert_msg(broken == NULL, "%s", broken);
}

static struct stoker_wire_key key_of(uint64_t n)
{
	return (struct stoker_wire_key){ { n, n ^ 5, 0, ~n } };
}

static uint32_t add(struct index *index, uint64_t n)
{
	const struct stoker_wire_key key = key_of(n);

	return index_add(index, MODEL, &key);
}

static uint32_t find(struct index *index, uint64_t n)
{
	const struct stoker_wire_key key = key_of(n);

	return index_find(index, MODEL, &key);
}

static void link_to(struct index *index, uint32_t entry, uint64_t parent)
{
	const struct stoker_wire_key key = key_of(parent);

	index_link(index, entry, &key);
}

static void set_masks(struct index *index, uint32_t entry, uint64_t l1, uint64_t disk)
{
	struct entry *e = index_entry(index, entry);
	const uint64_t l1_before = e->l1, disk_before = e->disk;

	e->l1 = l1;
	e->disk = disk;
	index_mask_changed(index, entry, l1_before, disk_before);
}

/* As eviction would: its masks go, and a ghost list keeps it or not. */
static void evict(struct index *index, uint32_t entry, uint8_t l1_list)
{
	set_masks(index, entry, 0, 0);
	index_entry(index, entry)->l1_list = l1_list;
	index_remove(index, entry);
}

/* ---- keys -------------------------------------------------------------------------------------- */

START_TEST(what_was_added_is_found_until_it_is_removed)
{
	struct index *index = index_of(100, 1);
	const uint32_t a = add(index, 1), b = add(index, 2);

	ck_assert_uint_ne(a, b);
	ck_assert_uint_eq(add(index, 1), a);
	ck_assert_uint_eq(find(index, 1), a);
	ck_assert_uint_eq(find(index, 3), NONE);
	index_remove(index, a);
	ck_assert_uint_eq(find(index, 1), NONE);
	ck_assert_uint_eq(find(index, 2), b);
	ck_assert_uint_eq(index_used(index), 1);
	audit(index);
	free(index);
}
END_TEST

START_TEST(keys_of_different_incarnations_never_meet)
{
	struct index *index = index_of(100, 1);
	const struct stoker_wire_key key = key_of(1);
	const uint32_t a = index_add(index, 1, &key), b = index_add(index, 2, &key);

	ck_assert_uint_ne(a, b);
	ck_assert_uint_eq(index_find(index, 1, &key), a);
	ck_assert_uint_eq(index_find(index, 2, &key), b);
	ck_assert_uint_eq(index_find(index, 3, &key), NONE);
	free(index);
}
END_TEST

START_TEST(a_key_is_compared_whole)
{
	struct index *index = index_of(100, 1);

	for (uint32_t word = 0; word < 4; word++)
		for (uint32_t bit = 0; bit < 64; bit += 21) {
			struct stoker_wire_key key = key_of(9);

			key.word[word] ^= 1ull << bit;
			index_add(index, MODEL, &key);
		}
	ck_assert_uint_eq(find(index, 9), NONE);
	ck_assert_uint_eq(index_used(index), 16);
	free(index);
}
END_TEST

/* Every size from one entry on: as many as it was made for fit, however their keys hash. */
START_TEST(an_index_takes_as_many_entries_as_it_was_made_for)
{
	static const uint32_t sizes[] = { 1, 2, 7, 12, 13, 100, 5000, 100000 };
	const uint32_t size = sizes[_i];
	struct index *index = index_of(size, 1);

	for (uint64_t round = 0; round < 3; round++) {
		for (uint32_t i = 0; i < size; i++)
			expect(add(index, round * size + i) != NONE);
		ck_assert_uint_eq(add(index, UINT64_MAX), NONE);
		ck_assert_uint_eq(index_used(index), size);
		audit(index);
		for (uint32_t i = size; i-- > 0;)
			index_remove(index, find(index, round * size + i));
		ck_assert_uint_eq(index_used(index), 0);
		audit(index);
	}
	free(index);
}
END_TEST

START_TEST(a_probe_of_any_length_finds_what_single_looks_find)
{
	struct index *index = index_of(1000, 1);
	struct stoker_wire_key keys[200];
	uint32_t ret[200];

	for (uint32_t i = 0; i < 200; i++) {
		keys[i] = key_of(i * 3);
		if (i % 5 != 2)
			index_add(index, MODEL, &keys[i]);
	}
	for (uint32_t n = 0; n <= 200; n++) {
		memset(ret, 0xee, sizeof(ret));
		ck_assert_uint_eq(index_probe(index, MODEL, keys, n, false, 0, ret), n);
		for (uint32_t i = 0; i < n; i++)
			expect(ret[i] == index_find(index, MODEL, &keys[i]));
		for (uint32_t i = n; i < 200; i++)
			expect(ret[i] == 0xeeeeeeee);
	}
	free(index);
}
END_TEST

START_TEST(a_probe_that_stops_at_a_gap_tells_how_far_it_came)
{
	struct index *index = index_of(1000, 1);
	struct stoker_wire_key keys[100];
	uint32_t ret[100];

	for (uint32_t i = 0; i < 100; i++) {
		keys[i] = key_of(i);
		set_masks(index, index_add(index, MODEL, &keys[i]), i % 2 ? 3 : 1, i % 2 ? 0 : 2);
	}
	ck_assert_uint_eq(index_probe(index, MODEL, keys, 100, true, 3, ret), 100);
	for (uint32_t gap = 100; gap-- > 0;) {
		const uint32_t entry = find(index, gap);

		set_masks(index, entry, 1, 0);		/* one part is missing */
		ck_assert_uint_eq(index_probe(index, MODEL, keys, 100, true, 3, ret), gap + 1);
		ck_assert_uint_eq(ret[gap], entry);
		ck_assert_uint_eq(index_probe(index, MODEL, keys, gap, true, 3, ret), gap);
		evict(index, entry, LIST_NONE);
		ck_assert_uint_eq(index_probe(index, MODEL, keys, 100, true, 0, ret), gap + 1);
		ck_assert_uint_eq(ret[gap], NONE);
	}
	free(index);
}
END_TEST

/* ---- ghosts ------------------------------------------------------------------------------------ */

START_TEST(a_ghost_is_found_by_nobody_and_comes_back_to_life_under_its_key)
{
	struct index *index = index_of(10, 1);
	struct stoker_wire_key key = key_of(1);
	const uint32_t a = add(index, 1);
	uint32_t ret;

	evict(index, a, LIST_GHOST_RECENT);
	ck_assert_uint_eq(find(index, 1), NONE);
	ck_assert_uint_eq(index_probe(index, MODEL, &key, 1, true, 0, &ret), 1);
	ck_assert_uint_eq(ret, NONE);
	ck_assert_uint_eq(index_ghosts(index), 1);
	ck_assert_uint_eq(index_used(index), 1);
	ck_assert_uint_eq(index_next(index, NONE), NONE);
	audit(index);
	ck_assert_uint_eq(add(index, 1), a);
	ck_assert_uint_eq(find(index, 1), a);
	ck_assert_uint_eq(index_ghosts(index), 0);
	ck_assert_uint_eq(index_entry(index, a)->l1_list, LIST_GHOST_RECENT);	/* eviction has yet to see it */
	audit(index);
	free(index);
}
END_TEST

START_TEST(a_ghost_of_two_lists_lives_until_both_have_forgotten_it)
{
	struct index *index = index_of(10, 1);
	const uint32_t a = add(index, 1);

	index_entry(index, a)->disk_list = LIST_GHOST_FREQUENT;
	evict(index, a, LIST_GHOST_RECENT);
	index_entry(index, a)->disk_list = LIST_NONE;
	ck_assert(!index_forget(index, a));
	audit(index);
	index_entry(index, a)->l1_list = LIST_NONE;
	ck_assert(index_forget(index, a));
	ck_assert_uint_eq(index_used(index), 0);
	audit(index);
	free(index);
}
END_TEST

/* ---- parents ----------------------------------------------------------------------------------- */

START_TEST(a_parent_counts_the_children_that_have_an_object_there)
{
	struct index *index = index_of(10, 1);
	const uint32_t root = add(index, 1), a = add(index, 2), b = add(index, 3);

	index_link(index, root, &no_key);
	set_masks(index, b, 1, 1);
	link_to(index, a, 1);
	link_to(index, b, 1);
	ck_assert_uint_eq(index_parent(index, a), root);
	ck_assert_uint_eq(index_parent(index, root), NONE);
	ck_assert_uint_eq(index_entry(index, root)->children_l1, 1);
	set_masks(index, a, 6, 0);
	set_masks(index, a, 4, 2);
	ck_assert_uint_eq(index_entry(index, root)->children_l1, 2);
	ck_assert_uint_eq(index_entry(index, root)->children_disk, 2);
	audit(index);
	set_masks(index, a, 0, 2);
	ck_assert_uint_eq(index_entry(index, root)->children_l1, 1);
	ck_assert_uint_eq(index_entry(index, root)->children_disk, 2);
	audit(index);
	free(index);
}
END_TEST

START_TEST(an_orphan_does_not_count_at_whoever_has_its_parents_number_now)
{
	struct index *index = index_of(10, 1);
	const uint32_t root = add(index, 1), child = add(index, 2);

	link_to(index, child, 1);
	set_masks(index, child, 1, 1);
	index_remove(index, root);
	ck_assert_uint_eq(index_parent(index, child), NONE);
	ck_assert_uint_eq(add(index, 99), root);	/* the number is used again */
	set_masks(index, child, 0, 1);
	ck_assert_uint_eq(index_entry(index, root)->children_l1, 0);
	ck_assert_uint_eq(index_parent(index, child), NONE);
	audit(index);
	free(index);
}
END_TEST

START_TEST(an_orphan_is_linked_again_when_its_parent_is_back)
{
	struct index *index = index_of(10, 1);
	const uint32_t child = add(index, 2);
	uint32_t root;

	set_masks(index, child, 1, 0);
	link_to(index, child, 1);
	ck_assert(index_entry(index, child)->flags & ENTRY_ORPHAN);
	root = add(index, 1);
	link_to(index, child, 1);
	ck_assert(!(index_entry(index, child)->flags & ENTRY_ORPHAN));
	link_to(index, child, 1);
	ck_assert_uint_eq(index_entry(index, root)->children_l1, 1);
	audit(index);
	free(index);
}
END_TEST

START_TEST(a_child_stays_linked_to_a_parent_that_became_a_ghost)
{
	struct index *index = index_of(10, 1);
	const uint32_t root = add(index, 1), child = add(index, 2);

	link_to(index, child, 1);
	set_masks(index, child, 1, 0);
	evict(index, root, LIST_GHOST_RECENT);
	set_masks(index, child, 1, 1);
	ck_assert_uint_eq(add(index, 1), root);
	ck_assert_uint_eq(index_entry(index, root)->children_l1, 1);
	ck_assert_uint_eq(index_entry(index, root)->children_disk, 1);
	audit(index);
	free(index);
}
END_TEST

START_TEST(links_never_form_a_ring_whatever_a_client_says)
{
	struct index *index = index_of(10, 1);
	const uint32_t a = add(index, 1), b = add(index, 2), c = add(index, 3);

	link_to(index, a, 1);				/* its own parent */
	ck_assert_uint_eq(index_parent(index, a), NONE);
	link_to(index, b, 1);
	link_to(index, c, 2);
	link_to(index, a, 3);				/* its own grandchild */
	ck_assert_uint_eq(index_parent(index, a), NONE);
	ck_assert(index_entry(index, a)->flags & ENTRY_ORPHAN);
	audit(index);
	free(index);
}
END_TEST

/* ---- records ----------------------------------------------------------------------------------- */

START_TEST(records_belong_to_a_chunk_by_part)
{
	struct index *index = index_of(10, 3);
	const uint32_t a = add(index, 1), b = add(index, 2);
	const uint32_t r0 = index_record_add(index, a, 0), r5 = index_record_add(index, a, 5);
	const uint32_t s0 = index_record_add(index, b, 0);

	ck_assert_uint_eq(index_record_add(index, b, 1), NONE);
	ck_assert_uint_eq(index_record_find(index, a, 0), r0);
	ck_assert_uint_eq(index_record_find(index, a, 5), r5);
	ck_assert_uint_eq(index_record_find(index, a, 1), NONE);
	ck_assert_uint_eq(index_record_find(index, b, 0), s0);
	audit(index);
	index_record(index, r0)->version = 8;
	index_record_remove(index, r0);
	ck_assert_uint_eq(index_record_find(index, a, 0), NONE);
	ck_assert_uint_eq(index_record_find(index, a, 5), r5);
	ck_assert_uint_eq(index_record_add(index, b, 1), r0);
	ck_assert_uint_eq(index_record(index, r0)->version, 8);
	ck_assert_uint_eq(index_record(index, r0)->state, RECORD_ABSENT);
	audit(index);
	free(index);
}
END_TEST

START_TEST(recovery_takes_records_by_number)
{
	struct index *index = index_of(10, 100);
	const uint32_t a = add(index, 1);
	bool taken[100] = { false };

	ck_assert(index_record_add_at(index, 50, a, 0));
	ck_assert(!index_record_add_at(index, 50, a, 1));
	ck_assert(!index_record_add_at(index, 100, a, 1));
	ck_assert(index_record_add_at(index, 3, a, 1));
	ck_assert(index_record_add_at(index, 99, a, 2));
	taken[50] = taken[3] = taken[99] = true;
	audit(index);
	for (uint32_t i = 3; i < 64; i++) {
		const uint32_t record = index_record_add(index, a, i);

		expect(record < 100 && !taken[record]);
		taken[record] = true;
	}
	ck_assert_uint_eq(index_records_used(index), 64);
	audit(index);
	free(index);
}
END_TEST

/* ---- random ------------------------------------------------------------------------------------ */

#define KEYS	600u		/* so that keys come again */
#define ENTRIES	400u
#define RECORDS	500u

struct known {			/* what should be in the index of each key */
	bool live, ghost;
	uint32_t entry;
	uint64_t l1, disk;
	uint64_t parent;	/* key; KEYS: none */
	uint32_t records[3];
};

struct world {
	struct index *index;
	struct rng rng;
	struct known known[KEYS + 1];
	uint32_t live, ghosts, records;
};

/* The parent of key n is a lesser one, always the same. */
static uint64_t parent_of(uint64_t n)
{
	return n % 7 == 0 ? KEYS : n - 1 - (n % 7) / 2 * (n > 9);
}

static void forgotten(struct world *w, uint64_t n)
{
	for (uint64_t i = 0; i < KEYS; i++)
		if (w->known[i].parent == n)
			w->known[i].parent = KEYS;	/* links to it have ended */
	w->known[n].live = w->known[n].ghost = false;
}

/* For index_add() when the index is full: some ghost. */
static bool forget_some_ghost(void *arg)
{
	struct world *w = arg;

	for (uint64_t n = 0; n < KEYS; n++) {
		if (!w->known[n].ghost)
			continue;
		index_entry(w->index, w->known[n].entry)->l1_list = LIST_NONE;
		expect(index_forget(w->index, w->known[n].entry));
		forgotten(w, n);
		w->ghosts--;
		return true;
	}
	return false;
}

static void step_add(struct world *w, uint64_t n)
{
	struct known *k = &w->known[n];
	const bool was_ghost = k->ghost, was_live = k->live;
	const uint32_t before = k->entry, entry = add(w->index, n);
	const uint64_t parent = parent_of(n);

	if (entry == NONE) {
		expect(!was_ghost && !was_live && w->live == ENTRIES && w->ghosts == 0);
		return;
	}
	expect(!(was_ghost || was_live) || entry == before);
	if (was_live)
		return;
	if (was_ghost)
		w->ghosts--;
	else
		*k = (struct known){ .parent = KEYS, .records = { NONE, NONE, NONE } };
	k->live = true;
	k->ghost = false;
	k->entry = entry;
	index_entry(w->index, entry)->l1_list = LIST_NONE;
	w->live++;
	if (parent == KEYS) {
		index_link(w->index, entry, &no_key);
		return;
	}
	link_to(w->index, entry, parent);
	if (w->known[parent].live || w->known[parent].ghost)
		k->parent = parent;
}

static void step_remove(struct world *w, uint64_t n)
{
	struct known *k = &w->known[n];
	const bool ghost = rng_below(&w->rng, 2);

	for (uint32_t p = 0; p < 3; p++) {
		if (k->records[p] == NONE)
			continue;
		index_record_remove(w->index, k->records[p]);
		k->records[p] = NONE;
		w->records--;
	}
	k->l1 = k->disk = 0;
	evict(w->index, k->entry, ghost ? LIST_GHOST_FREQUENT : LIST_NONE);
	w->live--;
	if (ghost) {
		k->live = false;
		k->ghost = true;
		w->ghosts++;
	} else {
		forgotten(w, n);
	}
}

static void step_record(struct world *w, uint64_t n)
{
	struct known *k = &w->known[n];
	const uint32_t part = rng_below(&w->rng, 3);

	if (k->records[part] != NONE) {
		index_record_remove(w->index, k->records[part]);
		k->records[part] = NONE;
		w->records--;
		return;
	}
	if (rng_below(&w->rng, 2)) {
		const uint32_t at = rng_below(&w->rng, RECORDS);

		if (index_record_add_at(w->index, at, k->entry, part))
			k->records[part] = at;
	} else {
		k->records[part] = index_record_add(w->index, k->entry, part);
		expect(k->records[part] != NONE || w->records == RECORDS);
	}
	w->records += k->records[part] != NONE;
}

static void compare(struct world *w)
{
	uint32_t children_l1[KEYS + 1] = { 0 }, children_disk[KEYS + 1] = { 0 };
	uint32_t live = 0;

	for (uint64_t n = 0; n < KEYS; n++) {
		const struct known *k = &w->known[n];

		expect(find(w->index, n) == (k->live ? k->entry : NONE));
		if (!k->live)
			continue;
		expect(index_entry(w->index, k->entry)->l1 == k->l1 && index_entry(w->index, k->entry)->disk == k->disk);
		expect(index_parent(w->index, k->entry) == (k->parent == KEYS ? NONE : w->known[k->parent].entry));
		children_l1[k->parent] += k->l1 != 0;
		children_disk[k->parent] += k->disk != 0;
		for (uint32_t p = 0; p < 3; p++)
			expect(index_record_find(w->index, k->entry, p) == k->records[p]);
	}
	for (uint64_t n = 0; n < KEYS; n++) {
		const struct known *k = &w->known[n];

		if (!k->live && !k->ghost)
			continue;
		expect(index_entry(w->index, k->entry)->children_l1 == children_l1[n]);
		expect(index_entry(w->index, k->entry)->children_disk == children_disk[n]);
	}
	for (uint32_t i = index_next(w->index, NONE); i != NONE; i = index_next(w->index, i))
		live++;
	expect(live == w->live && index_used(w->index) == w->live + w->ghosts);
	expect(index_ghosts(w->index) == w->ghosts && index_records_used(w->index) == w->records);
	audit(w->index);
}

START_TEST(random_runs_agree_with_a_plain_table)
{
	struct world *w = calloc(1, sizeof(*w));

	w->rng.state = (uint64_t)_i;
	w->index = index_of(ENTRIES, RECORDS);
	index_on_full(w->index, forget_some_ghost, w);
	for (uint32_t i = 0; i <= KEYS; i++)
		w->known[i].parent = KEYS;
	for (uint32_t step = 0; step < 30000; step++) {
		const uint32_t what = rng_below(&w->rng, 10);
		const uint64_t n = rng_below(&w->rng, KEYS);
		struct known *k = &w->known[n];

		if (what < 4) {
			step_add(w, n);
		} else if (k->live && what < 5) {
			step_remove(w, n);
		} else if (k->live && what < 7) {
			step_record(w, n);
		} else if (k->live) {
			k->l1 = rng_below(&w->rng, 4);
			k->disk = rng_below(&w->rng, 4);
			set_masks(w->index, k->entry, k->l1, k->disk);
		}
		if (step % 100 == 0)
			compare(w);
	}
	free(w->index);
	free(w);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("engine-index");
	TCase *keys = tcase_create("keys"), *ghosts = tcase_create("ghosts"), *parents = tcase_create("parents");
	TCase *records = tcase_create("records"), *random = tcase_create("random");

	tcase_add_test(keys, what_was_added_is_found_until_it_is_removed);
	tcase_add_test(keys, keys_of_different_incarnations_never_meet);
	tcase_add_test(keys, a_key_is_compared_whole);
	tcase_set_timeout(keys, 60);
	tcase_add_loop_test(keys, an_index_takes_as_many_entries_as_it_was_made_for, 0, 8);
	tcase_add_test(keys, a_probe_of_any_length_finds_what_single_looks_find);
	tcase_add_test(keys, a_probe_that_stops_at_a_gap_tells_how_far_it_came);
	tcase_add_test(ghosts, a_ghost_is_found_by_nobody_and_comes_back_to_life_under_its_key);
	tcase_add_test(ghosts, a_ghost_of_two_lists_lives_until_both_have_forgotten_it);
	tcase_add_test(parents, a_parent_counts_the_children_that_have_an_object_there);
	tcase_add_test(parents, an_orphan_does_not_count_at_whoever_has_its_parents_number_now);
	tcase_add_test(parents, an_orphan_is_linked_again_when_its_parent_is_back);
	tcase_add_test(parents, a_child_stays_linked_to_a_parent_that_became_a_ghost);
	tcase_add_test(parents, links_never_form_a_ring_whatever_a_client_says);
	tcase_add_test(records, records_belong_to_a_chunk_by_part);
	tcase_add_test(records, recovery_takes_records_by_number);
	tcase_set_timeout(random, 120);
	tcase_add_loop_test(random, random_runs_agree_with_a_plain_table, 0, 4);
	suite_add_tcase(s, keys);
	suite_add_tcase(s, ghosts);
	suite_add_tcase(s, parents);
	suite_add_tcase(s, records);
	suite_add_tcase(s, random);
	return suite_run(s);
}
