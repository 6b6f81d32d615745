/*
 * The loading half of a LOOKUP: what it found is read from tiers or verified, and its answer waits.
 *
 * Two positions go through the places. `issued`: what lies before it has been asked for; the job
 * stands in line for the next place by its issue link, in the queue of the tier it needs, so that
 * clients take turns and only a short queue of reads is ever made. `cursor`: what lies before it has
 * been fed to `arena`, whose longest length is what is ready; the job waits there for the first
 * chunk that is not. Fills are shared: whoever wants an object that is being read only waits for it.
 *
 * A fill has the priority of the most urgent job that waits for it. When that one leaves, what is only
 * queued goes by the next: chunks of one chain are at the same place in every lookup of it, so who wants
 * them is found without books. Who is not found that way raises it again when that chunk is all it waits for.
 *
 * A part that will not come (its read failed, or there was no room) is fed as absent: the answer is
 * the greatest length that is usable without it.
 */
#include "src/engine/internal.h"

#define PLACES_A_STEP 512u

static void publish(struct engine *e, struct job *job, enum stoker_stage stage)
{
	const struct lookup *lk = &job->lookup;
	struct engine_answer answer;

	memset(&answer, 0, sizeof(answer));
	answer.found = lk->found;
	answer.found_l1 = lk->found_l1;
	answer.expected_us = lk->expected_us;
	answer.ready = lk->shown;
	job_publish(e, job, stage, &answer);
}

void load_begin(struct engine *e, struct job *job)
{
	struct lookup *lk = &job->lookup;
	const uint64_t us = tier_expected_us(e, lk->waited_bytes);

	job->phase = PHASE_LOAD;
	lk->loaded = lk->announced = true;
	lk->expected_us = us < UINT32_MAX ? (uint32_t)us : UINT32_MAX;
	lk->load_bytes = lk->waited_bytes;
	e->load_bytes += lk->load_bytes;
	lk->cursor = lk->issued = lk->shown = 0;
	lk->cut = NONE;
	if (lk->plain)
		lk->arena.longest = 0;
	else
		usable_init(&lk->arena, lk->there.n_groups, lk->there.groups, lk->have);
	publish(e, job, STOKER_STAGE_PROBED);
	load_step(e, job);
}

/* Other lookups of the model that load; a few are enough, since beyond them nothing is lowered. */
#define OTHERS_MAX 32u
struct others { const struct job *job[OTHERS_MAX]; uint32_t n; };

/* false: there are too many to look at. */
static bool others_find(const struct engine *e, const struct job *leaving, struct others *ret)
{
	ret->n = 0;
	for (uint32_t number = e->models[leaving->model].jobs; number != NONE; number = e->jobs[number].of_model.next) {
		const struct job *job = &e->jobs[number];

		if (job == leaving || job->phase != PHASE_LOAD)
			continue;
		if (ret->n == OTHERS_MAX)
			return false;
		ret->job[ret->n++] = job;
	}
	return true;
}

static bool wants(const struct job *job, uint32_t place, uint32_t entry)
{
	const struct lookup *lk = &job->lookup;

	if (job->flags & STOKER_F_ANY)		/* its places are its own: it may */
		return true;
	return place < lk->issued && place >= lk->cursor && lk->entries[place] == entry;
}

/* The leaving job was the most urgent one for fills of this place that nobody has begun. */
static void place_lower(struct engine *e, const struct job *leaving, const struct others *others, uint32_t place)
{
	const uint32_t entry = leaving->lookup.entries[place];
	uint32_t next, priority = PRIORITIES - 1;

	for (uint32_t job = e->waiters[entry], i = 0; job; job = e->jobs[job - 1].link.next + 1, i++) {
		if (i == OTHERS_MAX)
			return;
		if (e->jobs[job - 1].priority < priority)
			priority = e->jobs[job - 1].priority;
	}
	for (uint32_t i = 0; i < others->n; i++)
		if (others->job[i]->priority < priority && wants(others->job[i], place, entry))
			priority = others->job[i]->priority;
	for (uint32_t r = entry_of(e, entry)->records; r != NONE; r = next) {
		next = record_of(e, r)->next;
		if (e->sides[r].priority == leaving->priority && priority > leaving->priority)
			tier_lower(e, r, priority);
	}
}

/* What it asked for last is what may still be queued. Alone with a chunk, it takes the fill along. */
static void fills_lower(struct engine *e, const struct job *job)
{
	const struct lookup *lk = &job->lookup;
	struct others others;
	uint32_t left = PLACES_A_STEP;

	if (job->phase != PHASE_LOAD || job->priority == PRIORITIES - 1 || !others_find(e, job, &others))
		return;
	for (uint32_t place = lk->issued; place > lk->cursor && left > 0; left--) {
		const uint32_t entry = lk->entries[--place];

		if (entry != NONE && entry_of(e, entry)->pins > 1)
			place_lower(e, job, &others, place);
	}
}

void load_end(struct engine *e, struct job *job)
{
	fills_lower(e, job);
	job_leave_issue(e, job);
	e->load_bytes -= job->lookup.load_bytes;
	job->lookup.load_bytes = 0;
}

/* ---- asking -------------------------------------------------------------------------------------- */

enum asked { ASKED, ASKED_ELSEWHERE, ASKED_WAIT, ASKED_IN_VAIN };

/* It may be more than was expected: what was to be verified only, and came to nothing, is read after all. */
static void asked_for(struct engine *e, struct lookup *lk, uint64_t bytes)
{
	const uint64_t expected = bytes < lk->load_bytes ? bytes : lk->load_bytes;

	lk->load_bytes -= expected;
	e->load_bytes -= expected;
}

/* Ask for one part. @bit: the queue whose turn it is; *ret_bit: the one that the part needs. */
static enum asked ask_part(struct engine *e, struct job *job, uint32_t entry, uint32_t part, uint32_t bit,
			   uint32_t *ret_bit)
{
	const uint32_t number = index_record_find(e->index, entry, part);
	const struct model *model = &e->models[job->model];
	const uint64_t bytes = model->parts[part].image_bytes;
	struct record *record;
	enum room why;
	uint32_t unit;

	if (number == NONE)
		return ASKED;		/* gone meanwhile: the cursor will see it */
	record = record_of(e, number);
	if (record->state == RECORD_FILLING) {
		tier_raise(e, number, job->priority);
		return ASKED;
	}
	*ret_bit = record->state == RECORD_UNVERIFIED ? 0 : record->tier + 1u;
	if (record->state == RECORD_ABSENT && e->tiers[record->tier].state != TIER_UP)
		return ASKED;
	if (*ret_bit != bit)
		return ASKED_ELSEWHERE;
	if (record->state == RECORD_UNVERIFIED) {
		check_verify(e, number, job->priority);
		return ASKED;
	}
	unit = room_arena(e, entry, bytes, NONE, &why);
	if (unit == NONE)
		return why == ROOM_WAIT ? ASKED_WAIT : ASKED_IN_VAIN;
	asked_for(e, &job->lookup, bytes);
	record_place(e, number, unit);
	tier_read(e, number, job->priority);
	return ASKED;
}

/* Parts of a place that the target needs and that cannot be served yet. */
static uint64_t missing_at(struct engine *e, struct job *job, uint32_t place)
{
	struct lookup *lk = &job->lookup;
	const uint32_t number = lk->entries[place];

	if (number == NONE)
		return 0;
	return lookup_needs(job, place, lk->target) & ~entry_ready(e, entry_of(e, number));
}

static enum asked ask_place(struct engine *e, struct job *job, uint32_t place, uint32_t bit, uint32_t *ret_bit)
{
	for (uint64_t parts = missing_at(e, job, place); parts; parts &= parts - 1) {
		const enum asked asked = ask_part(e, job, job->lookup.entries[place],
						  (uint32_t)__builtin_ctzll(parts), bit, ret_bit);

		if (asked != ASKED)
			return asked;
	}
	return ASKED;
}

void load_issue(struct engine *e, struct job *job, uint32_t bit)
{
	struct lookup *lk = &job->lookup;
	uint32_t left = PLACES_A_STEP, next = bit;

	while (lk->issued < lk->target && left-- > 0) {
		const bool any = missing_at(e, job, lk->issued) != 0;
		const enum asked asked = any ? ask_place(e, job, lk->issued, bit, &next) : ASKED;

		if (asked == ASKED_WAIT) {
			job_wait_room(e, job, true);
			break;
		}
		if (asked == ASKED_ELSEWHERE) {
			run_push_issue(e, job, next);
			break;
		}
		if (asked == ASKED_IN_VAIN) {
			lk->cut = lk->issued;
			lk->issued = lk->target;
			lk->crowded = true;
			break;
		}
		lk->issued++;
		if (any)
			break;		/* the next client's turn */
	}
	if (job->issuing == WHERE_NOWHERE && lk->issued < lk->target)
		run_push_issue(e, job, next);
	if (job->where == WHERE_NOWHERE)
		load_step(e, job);
}

/* ---- waiting -------------------------------------------------------------------------------------- */

enum coming { COMING, COMING_AGAIN, COMING_NEVER };

/* Will the missing parts come? AGAIN: one has to be asked for (once more). */
static enum coming is_coming(struct engine *e, uint32_t entry, uint64_t missing)
{
	enum coming coming = COMING;

	for (; missing; missing &= missing - 1) {
		const uint32_t number = index_record_find(e->index, entry, (uint32_t)__builtin_ctzll(missing));
		const struct record *record;

		if (number == NONE)
			return COMING_NEVER;
		record = record_of(e, number);
		if (record->state == RECORD_FILLING && !(record->flags & RECORD_COPYING))
			continue;
		if (record->state == RECORD_UNVERIFIED) {
			if (e->sides[number].queue == QUEUE_NONE && e->sides[number].io == NONE)
				coming = COMING_AGAIN;
			continue;
		}
		if (record->disk_place == NONE || e->tiers[record->tier].state != TIER_UP)
			return COMING_NEVER;
		coming = COMING_AGAIN;
	}
	return coming;
}

/*
 * Wait for what is missing. It may be another lookup that asked for it, less urgently, after a verification that
 * this one had asked for came to nothing.
 */
static void wait_for(struct engine *e, struct job *job, uint32_t entry, uint64_t missing)
{
	for (; missing; missing &= missing - 1) {
		const uint32_t number = index_record_find(e->index, entry, (uint32_t)__builtin_ctzll(missing));

		if (number != NONE)
			tier_raise(e, number, job->priority);
	}
	job_wait_entry(e, job, entry);
}

/* What a place has to offer is entered; returns false if no longer length can be had. */
static bool feed(struct engine *e, struct job *job, uint32_t place, uint64_t missing)
{
	struct lookup *lk = &job->lookup;
	const uint32_t number = lk->entries[place];
	uint64_t there;

	lk->cursor++;
	if (job->flags & STOKER_F_ANY) {
		lk->shown += number != NONE && missing == 0;
		return true;
	}
	if (lk->plain) {
		lk->arena.longest += missing == 0;
		return missing == 0;
	}
	there = number == NONE ? 0 : entry_ready(e, entry_of(e, number)) & lk->need;
	/* What was stored since the probe counts too, so this length may be new to the bitmap. */
	if (usable_feed(&lk->arena, there) && place >= lk->have)
		lk->bitmap[place / 64] |= 1ull << place % 64;
	return !lk->arena.full_gap;
}

static void finish(struct engine *e, struct job *job)
{
	struct lookup *lk = &job->lookup;
	const bool any = (job->flags & STOKER_F_ANY) != 0;

	load_end(e, job);
	if (lk->failed && !(job->flags & STOKER_F_PARTIAL))
		lookup_finish(e, job, STOKER_STATUS_IO, 0);
	else
		lookup_finish(e, job, STOKER_STATUS_OK, any ? lk->shown : lk->arena.longest);
}

/* Show how far it is, and go on waiting. */
static void show(struct engine *e, struct job *job)
{
	struct lookup *lk = &job->lookup;
	const uint32_t ready = job->flags & STOKER_F_ANY ? lk->shown : lk->arena.longest;

	if (ready == lk->shown && !(job->flags & STOKER_F_ANY))
		return;
	lk->shown = ready;
	publish(e, job, STOKER_STAGE_LOADING);
}

void load_step(struct engine *e, struct job *job)
{
	struct lookup *lk = &job->lookup;
	uint32_t left = PLACES_A_STEP;

	for (; lk->cursor < lk->target; left--) {
		const uint32_t place = lk->cursor;
		const uint64_t missing = missing_at(e, job, place);

		if (left == 0) {
			run_push(e, job, RUN_LOOKUP);
			break;
		}
		if (missing) {
			const enum coming coming = is_coming(e, lk->entries[place], missing);

			if (coming == COMING_AGAIN && place < lk->issued && place < lk->cut)
				lk->issued = place;	/* another copy of it can be had */
			if (coming == COMING || (coming == COMING_AGAIN && place >= lk->issued)) {
				if (place < lk->issued)
					wait_for(e, job, lk->entries[place], missing);
				break;		/* else load_issue() comes by */
			}
			if (place < lk->cut)
				lk->failed = true;
		}
		if (!feed(e, job, place, missing)) {
			finish(e, job);
			return;
		}
	}
	if (lk->cursor == lk->target) {
		finish(e, job);
		return;
	}
	show(e, job);
	if (job->issuing == WHERE_NOWHERE && lk->issued < lk->target)
		run_push_issue(e, job, 0);
}

uint32_t load_reached(struct engine *e, struct job *job)
{
	struct lookup *lk = &job->lookup;

	if (job->flags & STOKER_F_ANY)
		return lk->shown;
	if (!lk->plain)
		while (lk->cursor < lk->target && feed(e, job, lk->cursor, 0))
			;
	return lk->arena.longest;
}
