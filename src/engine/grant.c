/*
 * The end of a LOOKUP: what the answered length needs becomes a lease's, or extends one; the rest is
 * unpinned, leaf first: at once if it is little, else in the background, like the pins of a lease that
 * ends. Then hits are counted, the bitmap is brought into its published form, and the job is DONE.
 */
#include "src/engine/internal.h"

static bool is_kept(struct engine *e, const struct job *job, uint32_t place, uint32_t n)
{
	const struct lookup *lk = &job->lookup;

	if (!(job->flags & STOKER_F_ANY))
		return lookup_needs(job, place, n) != 0;
	return (entry_ready(e, entry_of(e, lk->entries[place])) & lk->need) == lk->need;
}

static void place_unpin(struct engine *e, struct lookup *lk, uint32_t place)
{
	const uint32_t number = lk->entries[place];

	if (number == NONE)
		return;
	if (bit_get(lk->hits, place) || place < lk->have)
		entry_used(e, number);
	lk->entries[place] = NONE;
	entry_unpin(e, number);
}

/* In a place's entry: its pin goes, but not in this step. (No number is that high, nor is any of them NONE.) */
#define PLACE_LATER PIECE_HIT

static void place_drop(struct engine *e, struct lookup *lk, uint32_t place)
{
	if (lk->entries[place] == NONE)
		return;
	if (lk->probed > DROP_CHUNKS)
		lk->entries[place] |= PLACE_LATER;
	else
		place_unpin(e, lk, place);
}

/*
 * What is marked goes as if it had been a lease's: some of it now, the rest little by little. @more: so many chunks
 * of its client's can wait, or the holes of its lease would count twice. What is too much goes now, leaf first.
 */
static void places_end(struct engine *e, struct job *job, uint32_t more)
{
	struct lookup *lk = &job->lookup;
	struct chunks chunks = { .last = NONE, .owner = job->client };
	uint32_t n = 0;

	for (uint32_t place = 0; lk->probed > DROP_CHUNKS && place < lk->probed; place++)
		n += lk->entries[place] != NONE && (lk->entries[place] & PLACE_LATER);
	for (uint32_t place = lk->probed; n > more && place-- > 0;) {
		if (lk->entries[place] == NONE || !(lk->entries[place] & PLACE_LATER))
			continue;
		lk->entries[place] &= ~PLACE_LATER;
		place_unpin(e, lk, place);
		n--;
	}
	for (uint32_t place = 0; n > chunks.n; place++) {
		const uint32_t number = lk->entries[place] & ~PLACE_LATER;
		const bool hit = bit_get(lk->hits, place) || place < lk->have;

		if (lk->entries[place] == NONE || !(lk->entries[place] & PLACE_LATER))
			continue;
		chunks_append(e, &chunks, hit ? number | PIECE_HIT : number);
		lk->entries[place] = NONE;
	}
	chunks_count(e, job->client, n, 0);
	chunks_end(e, &chunks);
}

/* Unpin what a length of @n does not need, leaf first. Returns the first place that is kept; ret_end: after the last. */
static uint32_t unpin_rest(struct engine *e, struct job *job, bool none, uint32_t n, uint32_t *ret_end)
{
	struct lookup *lk = &job->lookup;
	/* Of full groups alone all places from have to n are kept. */
	const bool all = lk->plain && !(job->flags & (STOKER_F_ANY | STOKER_F_PROBE));
	uint32_t first = NONE, more;

	lk->kept = 0;
	*ret_end = 0;
	for (uint32_t place = lk->probed; place-- > 0;) {
		if (all && !none && place == n - 1 && n > lk->have) {
			*ret_end = n;
			first = place = lk->have;
			lk->kept = n - lk->have;
			continue;
		}
		if (lk->entries[place] == NONE)
			continue;
		if (none || !is_kept(e, job, place, n)) {
			place_drop(e, lk, place);
			continue;
		}
		first = place;
		lk->kept++;
		if (*ret_end == 0)
			*ret_end = place + 1;
	}
	more = lk->reserved - (first == NONE ? 0 : *ret_end - first);
	chunks_count(e, job->client, 0, lk->reserved);
	places_end(e, job, more);
	lk->reserved = 0;
	return first;
}

/* Hand the pins of the places [first, end) over. */
static void chunks_make(struct engine *e, struct lookup *lk, uint32_t first, uint32_t end, struct chunks *ret)
{
	*ret = (struct chunks){ .last = NONE, .base = first == NONE ? 0 : first, .owner = ret->owner };
	for (uint32_t place = ret->base; place < end; place++) {
		const bool hit = lk->entries[place] != NONE && bit_get(lk->hits, place);

		chunks_append(e, ret, hit ? lk->entries[place] | PIECE_HIT : lk->entries[place]);
	}
	chunks_count(e, ret->owner, ret->n, 0);
}

/*
 * Is that chunk of the lease the one that this lookup asks for there? Keys of later pieces are gone by now; what has
 * been found was found by its key.
 */
static bool is_asked(struct engine *e, const struct job *job, uint32_t place, uint32_t entry)
{
	const struct lookup *lk = &job->lookup;

	if (place < lk->probed && lk->entries[place] != NONE)
		return lk->entries[place] == entry;
	if (place >= lk->total)
		return true;
	if (place < job->n_keys)
		return memcmp(&entry_of(e, entry)->key, &job->keys[place], sizeof(job->keys[0])) == 0;
	return lk->prints[place] == index_print(e->index, &entry_of(e, entry)->key);
}

/* Does what the lease pins agree with what this lookup asks for, and found? */
static bool is_extension(struct engine *e, const struct lease *lease, const struct job *job)
{
	uint32_t at = lease->chunks.n;

	for (uint32_t piece = lease->chunks.last; piece != NONE; piece = e->pieces[piece].before) {
		const uint32_t begin = (at - 1) / PIECE_CHUNKS * PIECE_CHUNKS;

		for (; at > begin; at--) {
			const uint32_t place = lease->chunks.base + at - 1;
			const uint32_t old = piece_entry(&e->pieces[piece], at - 1 - begin);

			if (old != NONE && !is_asked(e, job, place, old))
				return false;
		}
	}
	return true;
}

/*
 * What the lease pins and this lookup does not (what its asker has by now, say) stays pinned: those
 * pins are the lookup's from now on. The lease's own places are all below what was probed.
 */
static void take_over(struct engine *e, struct lease *lease, struct lookup *lk, uint32_t *first)
{
	uint32_t at = lease->chunks.n;

	for (uint32_t piece = lease->chunks.last; piece != NONE; piece = e->pieces[piece].before) {
		const uint32_t begin = (at - 1) / PIECE_CHUNKS * PIECE_CHUNKS;

		for (; at > begin; at--) {
			const uint32_t place = lease->chunks.base + at - 1;
			uint32_t *old = &e->pieces[piece].entries[at - 1 - begin];

			if (*old == NONE || lk->entries[place] != NONE)
				continue;
			lk->entries[place] = *old & ~PIECE_HIT;
			lk->hits[place / 64] &= ~(1ull << (place % 64));
			lk->hits[place / 64] |= (uint64_t)((*old & PIECE_HIT) != 0) << (place % 64);
			*old = NONE;
			if (*first == NONE || place < *first)
				*first = place;
		}
	}
}

/* The lease is to be @n long, with what is kept in [first, end); false: there are not so many places. */
static bool extend(struct engine *e, struct lease *lease, struct lookup *lk, uint32_t n, uint32_t first, uint32_t end)
{
	const uint32_t begin = lease->chunks.n && lease->chunks.base < first ? lease->chunks.base : first;

	if (end < lease->chunks.base + lease->chunks.n)
		end = lease->chunks.base + lease->chunks.n;
	if (begin < end && end - begin > bound_chunks(e, lease->client)) {
		bound_met(e, end - begin <= e->config.leased_chunks - e->chunks_taken);
		return false;
	}
	take_over(e, lease, lk, &first);
	chunks_end(e, &lease->chunks);
	chunks_make(e, lk, first, first == NONE ? 0 : end, &lease->chunks);
	lease->length = n;
	return true;
}

/* The lease lives on, over what this lookup found if that is no less. */
static enum stoker_status renew(struct engine *e, struct job *job, uint32_t *n, struct engine_answer *answer)
{
	struct lookup *lk = &job->lookup;
	const uint32_t number = lease_find(e, job, lk->token);
	uint32_t first, end;
	struct lease *lease;
	bool extends;

	if (number == NONE) {
		unpin_rest(e, job, true, 0, &end);
		*n = 0;
		return STOKER_STATUS_EXPIRED;
	}
	lease = &e->leases[number];
	if (!is_extension(e, lease, job)) {
		unpin_rest(e, job, true, 0, &end);
		*n = 0;
		return STOKER_STATUS_BAD_REQUEST;
	}
	extends = *n > lease->length;
	first = unpin_rest(e, job, !extends, *n, &end);
	if (extends && !extend(e, lease, lk, *n, first, end)) {
		for (uint32_t place = end; place-- > first;)
			place_drop(e, lk, place);
		places_end(e, job, bound_chunks(e, job->client));
	}
	*n = lease->length;
	lease->readers |= lk->readers;
	answer->lease_ms = lease_set_time(e, number, lk->lease_ms);
	memcpy(answer->lease, lease->token, sizeof(answer->lease));
	return STOKER_STATUS_OK;
}

/* A new lease over what is kept of a length of @n. */
static enum stoker_status grant(struct engine *e, struct job *job, uint32_t *n, struct engine_answer *answer)
{
	struct lookup *lk = &job->lookup;
	const bool full = bound_leases(e, job->client) == 0;
	uint32_t end, number;
	const uint32_t first = unpin_rest(e, job, full, *n, &end);

	if (full && *n > lk->have) {
		bound_met(e, e->free_lease != NONE);
		*n = 0;
		return STOKER_STATUS_NO_MEMORY;
	}
	if (job->flags & STOKER_F_ANY && !(job->flags & STOKER_F_PROBE))
		*n = lk->kept;
	if (first == NONE)
		return STOKER_STATUS_OK;
	number = lease_new(e, job);
	chunks_make(e, lk, first, end, &e->leases[number].chunks);
	e->leases[number].length = job->flags & STOKER_F_ANY ? lk->probed : *n;
	e->leases[number].readers = lk->readers ? lk->readers : 1;
	answer->lease_ms = lease_set_time(e, number, lk->lease_ms);
	memcpy(answer->lease, e->leases[number].token, sizeof(answer->lease));
	return STOKER_STATUS_OK;
}

/* Chunks that counted as usable, by where they were. */
static void count_hits(struct engine *e, struct job *job, uint32_t n, struct engine_answer *answer)
{
	struct lookup *lk = &job->lookup;
	const bool any = (job->flags & STOKER_F_ANY) != 0;
	const uint32_t end = any || n > lk->probed ? lk->probed : n;	/* a renewed lease may be longer */
	uint32_t hits = 0, disk = 0;

	if (!any && !lk->loaded)
		hits = end > lk->have ? end - lk->have : 0;
	else for (uint32_t place = lk->have < end ? lk->have : end; place < end; place++) {
		if (lk->entries[place] == NONE)
			hits += !any;	/* no group needs it: it counts with its prefix */
		else if (bit_get(lk->hits, place) || (place < lk->found_l1 && !any))
			hits++;		/* or it survived a restart, and was only verified */
		else if (lk->loaded && (any || lookup_needs(job, place, n)))
			disk++;
		else
			hits++;
	}
	answer->counts[0] = hits;
	answer->counts[1] = disk;
	count(e, STOKER_COUNTER_HITS_L1, hits);
	count(e, STOKER_COUNTER_HITS_DISK, disk);
	if (lk->total > lk->have)
		count(e, STOKER_COUNTER_MISSES, lk->total - lk->have - hits - disk);
}

/* The bitmap as it is published: the last STOKER_LARGE_KEYS lengths of a chained lookup. */
static void bitmap_out(struct job *job, struct engine_answer *answer)
{
	struct lookup *lk = &job->lookup;
	const uint32_t total = lk->total > lk->probed ? lk->total : lk->probed;
	const uint32_t shift = total > STOKER_LARGE_KEYS ? total - STOKER_LARGE_KEYS : 0;
	const uint32_t words = (total - shift + 63) / 64;

	if (shift)
		for (uint32_t i = 0; i < words; i++) {
			const uint32_t from = shift / 64 + i;
			const uint64_t low = lk->bitmap[from] >> (shift % 64);
			const uint64_t high = shift % 64 ? lk->bitmap[from + 1] << (64 - shift % 64) : 0;

			lk->bitmap[i] = low | high;
		}
	answer->bitmap = lk->bitmap;
	answer->bitmap_words = words;
}

/* Lengths (keys) from @n on are not to be had after all. */
static void bitmap_cut(struct engine *e, struct job *job, uint32_t n)
{
	struct lookup *lk = &job->lookup;

	for (uint32_t i = 0; i < lk->probed; i++) {
		const bool lost = job->flags & STOKER_F_ANY
				  ? lk->entries[i] != NONE && !is_kept(e, job, i, n) : i >= n;

		if (lost)
			lk->bitmap[i / 64] &= ~(1ull << (i % 64));
	}
}

void lookup_finish(struct engine *e, struct job *job, enum stoker_status status, uint32_t n)
{
	struct lookup *lk = &job->lookup;
	const bool probe = (job->flags & STOKER_F_PROBE) != 0;
	struct engine_answer answer;
	uint32_t end;

	/* With ANY a lease may be due although no length is usable. */
	if (status == STOKER_STATUS_OK && (n > 0 || job->flags & STOKER_F_ANY) && !probe && lk->renew == NONE &&
	    e->n_random < 2) {
		if (!lk->late) {
			job->phase = PHASE_RANDOM;
			lk->target = n;
			job_wait_random(e, job);
			return;
		}
		status = STOKER_STATUS_DEADLINE;
	}
	memset(&answer, 0, sizeof(answer));
	if (status != STOKER_STATUS_OK)
		n = 0;
	if (status != STOKER_STATUS_OK)
		memset(lk->bitmap, 0, (size_t)(lk->probed + 63) / 64 * 8);
	else if (lk->failed)
		bitmap_cut(e, job, n);
	if (status != STOKER_STATUS_OK)
		unpin_rest(e, job, true, 0, &end);
	else if (lk->renew != NONE)
		status = renew(e, job, &n, &answer);
	else
		status = grant(e, job, &n, &answer);
	if (status == STOKER_STATUS_OK && !probe)
		count_hits(e, job, n, &answer);
	if (status == STOKER_STATUS_OK && n == 0 && lk->crowded)
		status = STOKER_STATUS_NO_MEMORY;
	answer.found = lk->found;
	answer.found_l1 = lk->found_l1;
	answer.expected_us = lk->expected_us;
	answer.n = n;
	answer.ready = n > lk->shown ? n : lk->shown;	/* it only rises */
	bitmap_out(job, &answer);
	lookup_pieces_end(e, job);
	answer.measured = 1 + (lk->loaded ? STOKER_HISTOGRAM_PREFETCH_NS : STOKER_HISTOGRAM_LOOKUP_NS);
	job_done(e, job, status, &answer);
}
