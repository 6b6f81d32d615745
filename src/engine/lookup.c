/*
 * LOOKUP: which prefix of a chain of keys is usable, and a lease for it.
 *
 *	begin -> PROBE (at most PROBE_KEYS a step; PIECES: waits for the next piece of a chained one)
 *	      -> LOAD (load.c), if something has to be read or verified first
 *	      -> RANDOM, if there are no random bits for a lease
 *	      -> lookup_finish() (grant.c)
 *
 * Places are the chunks' positions among the keys. What is found is pinned as it is found, so that it
 * stays, and entries[] (in the scratch) remembers it by place; at the end what the answered length
 * does not need is unpinned, leaf first, and the rest becomes the lease's. Two struct usable are fed
 * with what exists and with what is in the arena; of them full groups alone (the common case) need
 * no more than a length each, which is counted here without a call a chunk.
 *
 * An answer within one step is the fast path: nothing else is done for it than is done for all.
 */
#include "src/engine/internal.h"

#define LOOKUP_FLAGS (STOKER_F_PROBE | STOKER_F_PREFETCH | STOKER_F_PARTIAL | STOKER_F_ANY | STOKER_F_RENEW)

/* ---- what exists -------------------------------------------------------------------------------- */

uint64_t entry_exists(struct engine *e, const struct entry *entry, uint32_t tiers)
{
	const uint64_t l1 = tiers & 1 ? entry->l1 : 0;
	const uint32_t disks = tiers >> 1 & e->tiers_up;
	uint32_t tier;

	if (!entry->disk)
		return l1;
	tier = entry_tier(e, entry);
	return disks & 1u << tier ? l1 | entry->disk : l1;
}

/* Parts of the chunk at @place that a prefix of @n chunks needs from the cache. */
uint64_t lookup_needs(const struct job *job, uint32_t place, uint32_t n)
{
	const struct lookup *lk = &job->lookup;

	if (job->flags & STOKER_F_ANY)
		return lk->need;
	if (place >= n)
		return 0;
	if (lk->plain)
		return place < lk->have ? 0 : lk->need;
	return usable_parts(&lk->there, place, n);
}

/* ---- probing --------------------------------------------------------------------------------------- */

/* The chunk's parts, as found, are entered for keys that depend on each other. */
static void take_prefix(struct job *job, struct lookup *lk, uint32_t place, uint64_t there, uint64_t l1)
{
	bool usable;

	if (!lk->plain) {
		usable = usable_feed(&lk->there, there);
		usable_feed(&lk->arena, l1);
		lk->gap = lk->there.full_gap;
	} else {
		usable = place < lk->have || there == lk->need;
		lk->gap = !usable;
		lk->there.longest += usable;
		if (lk->arena.longest == place && (place < lk->have || l1 == lk->need))
			lk->arena.longest++;
	}
	if (usable && place >= lk->have)
		bit_set(lk->bitmap, place);
	(void)job;
}

/* ... and for independent ones: a key exists if all its parts do. */
static uint64_t take_any(struct lookup *lk, uint32_t place, uint64_t there, uint64_t l1)
{
	if (there != lk->need)
		return 0;
	bit_set(lk->bitmap, place);
	lk->there.longest++;
	lk->arena.longest += l1 == lk->need;
	return there;
}

/** struct room_for - what may still be pinned for a client: it is counted when a run of keys has been probed. */
struct room_for { const struct tenant *tenant; uint32_t chunks; };

static inline bool has_room(const struct room_for *room)
{
	return room->chunks > 0 && !bound_is_pinned(room->tenant, 0);
}

/* The common case: all that is asked for is in the arena, and can be served. */
static inline bool take_hit(struct engine *e, struct lookup *lk, uint32_t number, struct room_for *room)
{
	const uint32_t place = lk->probed;

	if (number == NONE || place < lk->have || !has_room(room) ||
	    (entry_of(e, number)->l1 & lk->need) != lk->need)
		return false;
	entry_pin(e, number);
	lk->probed++;
	lk->reserved++;
	room->chunks--;
	lk->there.longest++;
	lk->arena.longest += lk->arena.longest == place;
	bit_set(lk->bitmap, place);
	bit_set(lk->hits, place);
	lk->entries[place] = number;
	return true;
}

/* Enter what a probe found for the next place: an entry, or none. */
static void take_place(struct engine *e, struct job *job, struct lookup *lk, uint32_t number, struct room_for *room)
{
	const uint32_t place = lk->probed++;
	uint64_t there = 0, l1 = 0, ready = 0;

	lk->entries[place] = NONE;
	if (!(job->flags & STOKER_F_PROBE) && (number != NONE || lk->reserved > 0)) {
		if (!has_room(room)) {
			lk->crowded = lk->gap = true;	/* as far as pins go, and no further */
			bound_met(e, e->chunks_taken + lk->reserved < e->config.leased_chunks);
			return;
		}
		lk->reserved++;		/* a lease keeps places for its holes too */
		room->chunks--;
	}
	if (number != NONE) {
		const struct entry *entry = entry_of(e, number);

		there = entry_exists(e, entry, lk->tiers) & lk->need;
		l1 = entry->l1 & there;
		ready = e->unverified ? entry_ready(e, entry) & l1 : l1;
	}
	if (job->flags & STOKER_F_ANY)
		there = take_any(lk, place, there, l1);
	else
		take_prefix(job, lk, place, there, l1);
	if (there == 0 || lk->gap || (job->flags & STOKER_F_PROBE))
		return;
	if (there == ready)
		bit_set(lk->hits, place);
	lk->unready |= (l1 & ~ready) != 0;
	lk->waited_bytes += there == l1 ? 0 : mask_bytes(&e->models[job->model], there & ~l1);
	lk->entries[place] = number;
	entry_pin(e, number);
}

/* Enter what a probe found for a run of keys, as far as the client may pin. */
static void take_run(struct engine *e, struct job *job, struct lookup *lk, const uint32_t *found, uint32_t n, bool easy)
{
	const uint32_t left = bound_chunks(e, job->client);
	struct room_for room = { tenant_of_client(e, job->client), left };

	for (uint32_t i = 0; i < n && !lk->gap; i++)
		if (!easy || !take_hit(e, lk, found[i], &room))
			take_place(e, job, lk, found[i], &room);
	chunks_count(e, job->client, left - room.chunks, 0);
	e->turn_pins += left - room.chunks;
}

/*
 * Leases that have ended keep their places until their pins have been given back: who lacks room because
 * of that is not cut short, but gives some of them back itself, and waits, until those are gone that were in line when
 * it first lacked room.
 */
static bool waits_for_room(struct engine *e, const struct job *job, struct lookup *lk)
{
	const uint32_t n = lk->keys_left < PROBE_KEYS ? lk->keys_left : PROBE_KEYS;

	if (e->drop_piece == NONE || lk->gap || job->flags & STOKER_F_PROBE ||
	    (bound_chunks(e, job->client) >= n && !bound_is_pinned(tenant_of_client(e, job->client), 0)))
		return false;
	if (lk->room_at == 0)
		lk->room_at = e->to_drop;
	if (e->dropped >= lk->room_at)
		return false;
	chunks_drop_some(e, DROP_CHUNKS);
	return true;
}

/* What remains of keys whose piece is given back, for a lease to be compared with. */
static void keys_print(const struct engine *e, struct lookup *lk, uint32_t n)
{
	for (uint32_t i = 0; lk->prints && i < n; i++)
		lk->prints[lk->total + i] = index_print(e->index, &lk->keys[i]);
}

/* Probe up to @budget keys of the piece at hand. Beyond a gap keys are only counted. Returns how many. */
static uint32_t probe_some(struct engine *e, struct job *job, uint32_t budget)
{
	struct lookup *lk = &job->lookup;
	uint32_t found[PROBE_KEYS], n = lk->keys_left, got = 0;
	bool stop = lk->plain && !(job->flags & STOKER_F_ANY);
	const bool easy = stop && !(job->flags & STOKER_F_PROBE) && (lk->tiers & 1) && e->unverified == 0;

	if (lk->gap) {
		keys_print(e, lk, n);
		lk->total += n;
		lk->keys_left = 0;
		return 0;
	}
	if (n > budget)
		n = budget;
	if (lk->probed < lk->have) {
		stop = false;		/* what the asker has may be absent here */
		n = n < lk->have - lk->probed ? n : lk->have - lk->probed;
	}
	got = index_probe(e->index, job->incarnation, lk->keys, n, stop, lk->need, found);
	take_run(e, job, lk, found, got, easy);
	/* Not probed because of a gap that the index saw: the gap's own key was the last. */
	lk->gap |= got < n;
	keys_print(e, lk, n);
	lk->keys += n;
	lk->keys_left -= n;
	lk->total += n;
	return n;
}

/* The keys of the piece at hand are used up: go to the next. Returns false if it has not come yet. */
static bool next_piece(struct engine *e, struct job *job)
{
	struct lookup *lk = &job->lookup;
	struct job *piece;

	if (lk->source != job_number(e, job)) {
		piece = &e->jobs[lk->source];
		lk->source = job_number(e, job);
		job_done(e, piece, STOKER_STATUS_OK, NULL);
	}
	if (lk->queue_first == NONE)
		return false;
	lk->source = lk->queue_first;
	piece = &e->jobs[lk->source];
	lk->queue_first = piece->next_piece;
	lk->keys = piece->keys;
	lk->keys_left = piece->n_keys;
	return true;
}

static void probed(struct engine *e, struct job *job)
{
	struct lookup *lk = &job->lookup;
	const bool any = (job->flags & STOKER_F_ANY) != 0;

	lk->found = lk->there.longest;
	lk->found_l1 = lk->arena.longest;
	lk->target = any ? lk->probed : job->flags & STOKER_F_PREFETCH ? lk->found : lk->found_l1;
	if (job->flags & STOKER_F_PROBE)
		lookup_finish(e, job, STOKER_STATUS_OK, lk->found);
	else if (lk->unready || (job->flags & STOKER_F_PREFETCH && lk->found != lk->found_l1))
		load_begin(e, job);
	else
		lookup_finish(e, job, STOKER_STATUS_OK, lk->found_l1);
}

void lookup_step(struct engine *e, struct job *job)
{
	struct lookup *lk = &job->lookup;
	uint32_t budget = PROBE_KEYS;

	if (job->phase == PHASE_LOAD) {
		load_step(e, job);
		return;
	}
	if (job->phase == PHASE_RANDOM) {
		lookup_finish(e, job, job->status, lk->target);
		return;
	}
	job->phase = PHASE_PROBE;
	if (waits_for_room(e, job, lk)) {
		run_push(e, job, RUN_LOOKUP);
		return;
	}
	while (lk->keys_left > 0 && (budget > 0 || lk->gap))
		budget -= probe_some(e, job, budget);
	if (lk->keys_left == 0 && !next_piece(e, job)) {
		if (lk->pieces_came == lk->pieces)
			probed(e, job);
		else
			job->phase = PHASE_PIECES;	/* lookup_more() goes on */
		return;
	}
	run_push(e, job, RUN_LOOKUP);
}

/* ---- begin -------------------------------------------------------------------------------------------- */

/* A mask that names what there is not, or nothing that has bytes here. */
static bool groups_are_bad(const struct model *model, uint32_t mask)
{
	uint64_t parts = 0;

	for (uint32_t g = 0; g < model->n_groups; g++)
		if (mask == 0 || mask >> g & 1)
			parts |= model->groups[g].parts;
	return mask >> model->n_groups || parts == 0;
}

static bool is_bad(const struct engine *e, const struct job *job, const struct engine_request *request)
{
	const uint32_t flags = job->flags;
	const uint32_t pieces = request->line.lookup.pieces;

	if ((flags & ~LOOKUP_FLAGS) || job->n_keys > job->keys_max || job->n_segments || job->n_ids)
		return true;
	if (job->n_keys == 0 && !((flags & STOKER_F_RENEW) && pieces == 0))
		return true;
	if ((flags & STOKER_F_RENEW) && (flags & (STOKER_F_PROBE | STOKER_F_ANY)))
		return true;
	if ((flags & STOKER_F_ANY) && request->line.lookup.have != 0)
		return true;
	if (pieces > STOKER_PIECES_MAX || (pieces > 0 && job->keys_max < STOKER_LARGE_KEYS))
		return true;
	if (job->model != NONE && groups_are_bad(&e->models[job->model], request->line.lookup.groups))
		return true;
	for (int i = 0; i < 5; i++)
		if (request->line.lookup.reserved[i])
			return true;
	return false;
}

/* Lay out the scratch: usable lengths, hits, prints, entries. */
static void lay_scratch(struct job *job, struct lookup *lk)
{
	const size_t places = (size_t)job->keys_max * (lk->pieces + 1);
	const size_t words = (places + 63) / 64, used = (job->n_keys + 63) / 64;
	const size_t prints = lk->pieces && job->flags & STOKER_F_RENEW ? places : 0;

	ENGINE_ASSERT(words * 16 + prints * 8 + places * 4 <= job->scratch_bytes);
	lk->bitmap = (uint64_t *)(void *)job->scratch;
	lk->hits = lk->bitmap + words;
	lk->prints = prints ? lk->hits + words : NULL;
	lk->entries = (uint32_t *)(void *)(lk->hits + words + prints);
	memset(lk->bitmap, 0, (lk->pieces ? words : used) * 8);
	memset(lk->hits, 0, (lk->pieces ? words : used) * 8);
}

static void groups_set(const struct model *model, struct lookup *lk, uint32_t mask)
{
	struct usable_group groups[STOKER_GROUPS_MAX];
	bool plain = true;

	lk->need = 0;
	for (uint32_t g = 0; g < model->n_groups; g++) {
		const bool asked = mask == 0 || (mask >> g & 1);

		groups[g].parts = asked ? model->groups[g].parts : 0;
		groups[g].window = model->groups[g].kind == MODEL_GROUP_FULL ? 0
				   : model->groups[g].kind == MODEL_GROUP_STATE ? 1 : model->groups[g].window;
		lk->need |= groups[g].parts;
		plain &= groups[g].parts == 0 || groups[g].window == 0;
	}
	lk->plain = plain;
	if (plain) {
		lk->there.longest = lk->arena.longest = 0;
		return;
	}
	usable_init(&lk->there, model->n_groups, groups, lk->have);
	usable_init(&lk->arena, model->n_groups, groups, lk->have);
}

static void lookup_init(struct engine *e, struct job *job, const struct engine_request *request)
{
	struct lookup *lk = &job->lookup;

	memset(lk, 0, offsetof(struct lookup, there));
	lk->source = job_number(e, job);
	lk->queue_first = lk->queue_last = NONE;
	lk->renew = NONE;
	lk->keys = job->keys;
	lk->keys_left = job->n_keys;
	lk->pieces = request->line.lookup.pieces;
	lk->have = request->line.lookup.have;
	lk->tiers = request->line.lookup.tiers ? request->line.lookup.tiers : ~0u;
	lk->lease_ms = request->line.lookup.lease_ms;
	lk->readers = request->line.lookup.readers;
	lay_scratch(job, lk);
	groups_set(&e->models[job->model], lk, request->line.lookup.groups);
}

void lookup_begin(struct engine *e, struct job *job, const struct engine_request *request)
{
	struct lookup *lk = &job->lookup;
	enum stoker_status status = STOKER_STATUS_OK;
	uint32_t lease = NONE;

	count(e, STOKER_COUNTER_LOOKUPS, 1);
	e->clients[job->client].figures.lookups++;
	if (is_bad(e, job, request))
		status = STOKER_STATUS_BAD_REQUEST;
	else if (!e->serving)
		status = STOKER_STATUS_STARTING;
	else if (job->model == NONE)
		status = STOKER_STATUS_NO_LAYOUT;
	else if ((job->flags & STOKER_F_RENEW) && (lease = lease_find(e, job, request->head.lease)) == NONE)
		status = STOKER_STATUS_EXPIRED;
	else if (lease != NONE && e->leases[lease].model != job->model)
		status = STOKER_STATUS_BAD_REQUEST;
	if (status != STOKER_STATUS_OK) {
		job_done(e, job, status, NULL);
		return;
	}
	lookup_init(e, job, request);
	if (job->flags & STOKER_F_RENEW) {
		lk->renew = lease;
		lk->token[0] = request->head.lease[0];
		lk->token[1] = request->head.lease[1];
	}
	lookup_step(e, job);
}

void lookup_more(struct engine *e, struct job *job, const struct engine_request *request)
{
	const uint32_t slot = request->line.more.head_slot;
	struct job *head = &e->jobs[job->client * e->config.slots + slot];
	struct lookup *lk = &head->lookup;

	if (job->flags || job->n_keys == 0 || job->n_keys > job->keys_max ||
	    slot >= e->clients[job->client].slots || slot == job->slot || head->phase == PHASE_FREE ||
	    head->op != STOKER_OP_LOOKUP || head->generation != request->line.more.head_generation ||
	    request->line.more.piece != lk->pieces_came + 1 || lk->pieces_came == lk->pieces ||
	    job->n_keys > head->keys_max) {
		job_done(e, job, STOKER_STATUS_BAD_REQUEST, NULL);
		return;
	}
	lk->pieces_came++;
	job->phase = PHASE_PIECE;
	if (lk->queue_first == NONE)
		lk->queue_first = job_number(e, job);
	else
		e->jobs[lk->queue_last].next_piece = job_number(e, job);
	lk->queue_last = job_number(e, job);
	if (head->phase == PHASE_PIECES)
		lookup_step(e, head);
}

/* Pieces that wait for a head that has ended: their keys are not needed any more. */
void lookup_pieces_end(struct engine *e, struct job *job)
{
	struct lookup *lk = &job->lookup;

	if (lk->source != job_number(e, job))
		job_done(e, &e->jobs[lk->source], STOKER_STATUS_OK, NULL);
	lk->source = job_number(e, job);
	while (lk->queue_first != NONE) {
		struct job *piece = &e->jobs[lk->queue_first];

		lk->queue_first = piece->next_piece;
		job_done(e, piece, STOKER_STATUS_OK, NULL);
	}
}

void lookup_stop(struct engine *e, struct job *job, enum stoker_status status)
{
	struct lookup *lk = &job->lookup;

	job_leave(e, job);
	job_leave_issue(e, job);
	load_end(e, job);
	if (status != STOKER_STATUS_DEADLINE || !(job->flags & STOKER_F_PARTIAL) ||
	    job->phase == PHASE_RANDOM) {
		lookup_finish(e, job, status, 0);
		return;
	}
	lk->late = true;
	lk->found = lk->there.longest;
	if (job->phase == PHASE_LOAD)
		lookup_finish(e, job, STOKER_STATUS_OK, load_reached(e, job));
	else
		lookup_finish(e, job, STOKER_STATUS_OK, lk->unready ? 0 : lk->arena.longest);
}
