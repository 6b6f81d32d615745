/*
 * The part of engine_audit() that counts again what clients and tenants are said to have of what all
 * share (bound.c).
 */
#include "src/engine/audit.h"

/** struct books - of one tenant, counted again. */
struct books { uint64_t leases, chunks, holds, pinned; };

static uint64_t dropping_of(const struct engine *e, uint32_t client)
{
	uint64_t n = 0;

	for (uint32_t piece = e->drop_piece; piece != NONE; piece = e->pieces[piece].before)
		n += e->pieces[piece].owner == client ? PIECE_CHUNKS : 0;
	return n;
}

static const char *client_count(const struct engine *e, uint32_t number, struct books *books)
{
	const struct client *client = &e->clients[number];
	uint64_t chunks = dropping_of(e, number);

	for (uint32_t i = client->leases; i != NONE; i = e->leases[i].of_client.next) {
		if (e->leases[i].chunks.owner != number)
			return "a lease's chunks count as another client's";
		chunks += e->leases[i].chunks.n;
	}
	for (uint32_t i = 0; i < e->config.slots; i++) {
		const struct job *job = &e->jobs[number * e->config.slots + i];

		if (job->phase != PHASE_FREE && job->op == STOKER_OP_LOOKUP)
			chunks += job->lookup.reserved;
	}
	books->leases += client->figures.leases;
	books->holds += client->figures.holds;
	books->chunks += chunks;
	return chunks == client->chunks ? NULL : "a client's leased chunks are miscounted";
}

static void recovered_count(struct engine *e, struct books *books)
{
	uint32_t n = e->recovered.n ? (e->recovered.n - 1) % PIECE_CHUNKS + 1 : 0;

	for (uint32_t piece = e->recovered.last; piece != NONE; piece = e->pieces[piece].before, n = PIECE_CHUNKS)
		for (uint32_t i = 0; i < n; i++)
			books[entry_of(e, piece_entry(&e->pieces[piece], i))->tenant].chunks++;
	for (uint32_t piece = e->drop_piece; piece != NONE; piece = e->pieces[piece].before)
		for (uint32_t i = 0; i < PIECE_CHUNKS && e->pieces[piece].owner == NONE; i++)
			books[entry_of(e, piece_entry(&e->pieces[piece], i))->tenant].chunks++;
}

static void pinned_count(struct engine *e, struct books *books)
{
	for (uint32_t i = index_next(e->index, NONE); i != NONE; i = index_next(e->index, i)) {
		const struct entry *entry = entry_of(e, i);

		if (entry->pins + entry->io != 0)
			books[entry->tenant].pinned += mask_bytes(entry_model(e, entry), entry->l1 | entry->filling);
	}
}

const char *bounds_audit(struct engine *e)
{
	struct books books[256];
	const char *broken = NULL;

	memset(books, 0, sizeof(books));
	for (uint32_t i = 0; i < e->config.clients && !broken; i++)
		if (e->clients[i].state != CLIENT_FREE)
			broken = client_count(e, i, &books[e->clients[i].tenant]);
	if (broken)
		return broken;
	recovered_count(e, books);
	pinned_count(e, books);
	for (uint32_t i = 0; i < e->config.tenants; i++) {
		const struct tenant *tenant = &e->tenants[i];

		if (books[i].leases != tenant->leases.used || books[i].holds != tenant->holds.used ||
		    books[i].chunks != tenant->chunks.used)
			return "a tenant's leases, chunks or holds are miscounted";
		if (books[i].pinned != tenant->pinned)
			return "a tenant's pinned bytes are miscounted";
	}
	return NULL;
}
