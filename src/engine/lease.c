/*
 * Leases: runs of pinned chunks under a token that any client of the same tenant may use.
 *
 * A token is 96 random bits and the lease's number: found in one step, compared whole, in a time that
 * does not depend on where it differs. Repeats do nothing: giving back what has ended is fine. A
 * lease ends at once; the pins of a long one are given back in the background, little by little,
 * leaf first, so that a leaf is colder than its root.
 */
#include "src/engine/internal.h"

/* ---- tokens ---------------------------------------------------------------------------------------- */

bool token_take(struct engine *e, uint32_t number, uint64_t ret[2])
{
	if (e->n_random < 2)
		return false;
	ret[0] = e->random[--e->n_random];
	ret[1] = (e->random[--e->n_random] & ~0xffffffffull) | number;
	return true;
}

bool token_is(const uint64_t a[2], const uint64_t b[2])
{
	return ((a[0] ^ b[0]) | (a[1] ^ b[1])) == 0;
}

/* ---- runs of chunks --------------------------------------------------------------------------------- */

void chunks_count(struct engine *e, uint32_t client, uint32_t more, uint32_t fewer)
{
	e->chunks_taken += more - fewer;
	if (client == NONE)
		return;		/* recovered ones: see piece_unpin() */
	e->clients[client].chunks += more - fewer;
	e->users[e->clients[client].user].chunks += more - fewer;
	tenant_of_client(e, client)->chunks.used += more - fewer;
}

/*
 * One more chunk (| PIECE_HIT; NONE: a place without one); its pin comes along. There is room for it, and
 * the caller counts it.
 */
uint32_t chunks_append(struct engine *e, struct chunks *chunks, uint32_t entry)
{
	const uint32_t at = chunks->n % PIECE_CHUNKS;

	if (at == 0) {
		const uint32_t piece = e->free_piece;

		ENGINE_ASSERT(piece != NONE);
		e->free_piece = e->pieces[piece].before;
		e->pieces[piece].before = chunks->last;
		e->pieces[piece].owner = chunks->owner;
		chunks->last = piece;
	}
	e->pieces[chunks->last].entries[at] = entry;
	return chunks->n++;
}

/* Its @n places count as taken until here, so that a piece is there for whoever may append. */
static void piece_free(struct engine *e, uint32_t piece, uint32_t n)
{
	chunks_count(e, e->pieces[piece].owner, 0, n);
	e->pieces[piece].before = e->free_piece;
	e->free_piece = piece;
}

/*
 * What entry_unpin() is going to touch of these entries comes from all over the index: their second
 * lines and sizes first, then those of their neighbours in the eviction list.
 */
static void piece_prefetch(struct engine *e, const struct piece *piece, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (piece->entries[i] != NONE) {
			const struct entry *entry = entry_of(e, piece_entry(piece, i));

			__builtin_prefetch(entry, 1);
			__builtin_prefetch(&entry->parent, 1);
			__builtin_prefetch(index_side(e->index, piece_entry(piece, i)), 1);
		}
	for (uint32_t i = 0; i < n; i++)
		if (piece->entries[i] != NONE) {
			const struct entry *entry = entry_of(e, piece_entry(piece, i));

			if (entry->l1_list == LIST_NONE)
				continue;
			if (entry->l1_prev != NONE)
				__builtin_prefetch(&entry_of(e, entry->l1_prev)->parent, 1);
			if (entry->l1_next != NONE)
				__builtin_prefetch(&entry_of(e, entry->l1_next)->parent, 1);
		}
}

/* The pins of the first @n places of a piece are given back, last place first. */
static void piece_unpin(struct engine *e, uint32_t piece, uint32_t n)
{
	piece_prefetch(e, &e->pieces[piece], n);
	while (n-- > 0) {
		const uint32_t number = piece_entry(&e->pieces[piece], n);

		if (number == NONE)
			continue;
		if (e->pieces[piece].owner == NONE)
			e->tenants[entry_of(e, number)->tenant].chunks.used--;
		if (e->pieces[piece].entries[n] & PIECE_HIT)
			entry_used(e, number);
		entry_unpin(e, number);
	}
}

static uint32_t in_last_piece(const struct chunks *chunks)
{
	return chunks->n ? (chunks->n - 1) % PIECE_CHUNKS + 1 : 0;
}

void chunks_end(struct engine *e, struct chunks *chunks)
{
	uint32_t n = in_last_piece(chunks), done = 0;
	uint32_t piece = chunks->last;

	while (piece != NONE && done < DROP_CHUNKS) {
		const uint32_t before = e->pieces[piece].before;

		piece_unpin(e, piece, n);
		piece_free(e, piece, n);
		done += PIECE_CHUNKS;
		n = PIECE_CHUNKS;
		piece = before;
	}
	*chunks = (struct chunks){ .last = NONE, .owner = chunks->owner };
	if (piece == NONE)
		return;
	/* What is left is whole pieces. They stand in line, or who ends leases all the time would keep others'. */
	if (e->drop_piece == NONE)
		e->drop_piece = piece;
	else
		e->pieces[e->drop_last].before = piece;
	for (; piece != NONE; piece = e->pieces[piece].before) {
		e->drop_last = piece;
		e->to_drop++;
	}
}

void chunks_drop_some(struct engine *e, uint32_t n)
{
	for (uint32_t done = 0; done < n && e->drop_piece != NONE; done += PIECE_CHUNKS) {
		const uint32_t piece = e->drop_piece;

		e->drop_piece = e->pieces[piece].before;
		e->dropped++;
		piece_unpin(e, piece, PIECE_CHUNKS);
		piece_free(e, piece, PIECE_CHUNKS);
		/* Who waits for room because of them finds out if it was in vain: others may have pinned the same. */
		e->room_changed |= e->drop_piece == NONE;
	}
}

/* ---- leases ------------------------------------------------------------------------------------------ */

uint32_t lease_find(struct engine *e, const struct job *job, const uint64_t token[2])
{
	const uint32_t number = (uint32_t)token[1];
	const struct lease *lease;

	if (number >= e->config.leases)
		return NONE;
	lease = &e->leases[number];
	if (!lease->used || !token_is(lease->token, token) || e->clients[lease->client].state != CLIENT_LIVE)
		return NONE;
	if (e->models[lease->model].tenant != e->clients[job->client].tenant ||
	    e->models[lease->model].incarnation != lease->incarnation)
		return NONE;
	return number;
}

/* Needs two random words, and that bound_leases() has some left for the job's client. */
uint32_t lease_new(struct engine *e, struct job *job)
{
	const uint32_t number = e->free_lease;
	struct client *client = &e->clients[job->client];
	struct lease *lease;
	bool random;

	ENGINE_ASSERT(number != NONE);
	lease = &e->leases[number];
	e->free_lease = lease->next;
	e->leases_used++;
	tenant_of_client(e, job->client)->leases.used++;
	e->users[client->user].leases++;
	*lease = (struct lease){
		.used = true, .client = job->client, .model = job->model, .incarnation = job->incarnation,
		.session = job->session, .chunks = { .last = NONE, .owner = job->client }, .next = NONE,
	};
	random = token_take(e, number, lease->token);
	ENGINE_ASSERT(random);
	lease->of_client = (struct link){ .next = client->leases, .prev = NONE };
	if (client->leases != NONE)
		e->leases[client->leases].of_client.prev = number;
	client->leases = number;
	client->figures.leases++;
	session_link(e, number);
	count(e, STOKER_COUNTER_LEASES_GRANTED, 1);
	return number;
}

/* Returns its life in milliseconds. */
uint32_t lease_set_time(struct engine *e, uint32_t number, uint32_t lease_ms)
{
	uint64_t span = lease_ms ? lease_ms * 1000000ull : e->config.lease_default_ns;

	if (span > e->config.lease_max_ns)
		span = e->config.lease_max_ns;
	clock_lease(e, number, span);
	return (uint32_t)(span / 1000000);
}

void lease_end(struct engine *e, uint32_t number)
{
	struct lease *lease = &e->leases[number];
	struct client *client = &e->clients[lease->client];

	ENGINE_ASSERT(lease->used);
	clock_lease_over(e, number);
	session_unlink(e, number);
	if (lease->of_client.prev == NONE)
		client->leases = lease->of_client.next;
	else
		e->leases[lease->of_client.prev].of_client.next = lease->of_client.next;
	if (lease->of_client.next != NONE)
		e->leases[lease->of_client.next].of_client.prev = lease->of_client.prev;
	client->figures.leases--;
	lease->used = false;
	lease->token[0] = lease->token[1] = 0;
	lease->next = e->free_lease;
	e->free_lease = number;
	e->leases_used--;
	tenant_of_client(e, lease->client)->leases.used--;
	e->users[client->user].leases--;
	chunks_end(e, &lease->chunks);
}

void lease_return(struct engine *e, uint32_t number, uint32_t reader)
{
	struct lease *lease = &e->leases[number];

	lease->readers &= ~(1ull << reader);
	if (lease->readers == 0)
		lease_end(e, number);
}

/* Entries of the places @first to @first + @n - 1; NONE where there is none. */
void lease_spell(struct engine *e, const struct lease *lease, uint32_t first, uint32_t n, uint32_t *ret)
{
	const struct chunks *chunks = &lease->chunks;
	uint32_t at = chunks->n;	/* place + 1 - base of the next one to look at */

	for (uint32_t i = 0; i < n; i++)
		ret[i] = NONE;
	for (uint32_t piece = chunks->last; piece != NONE; piece = e->pieces[piece].before) {
		const uint32_t begin = (at - 1) / PIECE_CHUNKS * PIECE_CHUNKS;

		for (; at > begin; at--) {
			const uint32_t place = chunks->base + at - 1;

			if (place >= first && place - first < n)
				ret[place - first] = piece_entry(&e->pieces[piece], at - 1 - begin);
		}
		if (chunks->base + begin <= first)
			return;
	}
}

void lease_release(struct engine *e, struct job *job, const struct engine_request *request)
{
	const uint32_t reader = request->line.release.reader;
	uint32_t lease;

	if (reader > 63 || job->flags != 0) {
		job_done(e, job, STOKER_STATUS_BAD_REQUEST, NULL);
		return;
	}
	lease = lease_find(e, job, request->head.lease);
	if (lease != NONE)
		lease_return(e, lease, reader);
	job_done(e, job, STOKER_STATUS_OK, NULL);
}
