/*
 * The part of engine_audit() that counts again what clients and tenants are said to have of what all
 * share (bound.c), and walks the accounting table (account.c).
 */
#include "src/engine/audit.h"

/** struct books - of one tenant, counted again. */
struct books { uint64_t leases, chunks, holds, pinned, dirty, entries, records; };

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

static const char *users_audit(const struct engine *e)
{
	for (uint32_t i = 0; i < e->config.clients; i++) {
		const struct user *user = &e->users[i];
		struct user sums = { 0 };

		for (uint32_t c = 0; c < e->config.clients && user->clients > 0; c++) {
			const struct client *client = &e->clients[c];

			if (client->state == CLIENT_FREE || client->user != i)
				continue;
			if (client->tenant != user->tenant)
				return "a client's user is another tenant's";
			sums.clients++;
			sums.leases += (uint32_t)client->figures.leases;
			sums.holds += (uint32_t)client->figures.holds;
			sums.chunks += client->chunks;
		}
		if (user->clients > 0 && (sums.clients != user->clients || sums.leases != user->leases ||
					  sums.holds != user->holds || sums.chunks != user->chunks))
			return "what a user has is miscounted";
	}
	return NULL;
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

static void entries_count(struct engine *e, struct books *books)
{
	for (uint32_t i = index_next(e->index, NONE); i != NONE; i = index_next(e->index, i)) {
		const struct entry *entry = entry_of(e, i);

		if (entry->pins + entry->io != 0)
			books[entry->tenant].pinned += mask_bytes(entry_model(e, entry), entry->l1 | entry->filling);
		books[entry->tenant].entries += (entry->l1 | entry->filling | entry->disk) != 0;
		for (uint32_t r = entry->records; r != NONE; r = record_of(e, r)->next) {
			books[entry->tenant].records++;
			if (record_of(e, r)->flags & RECORD_DIRTY)
				books[entry->tenant].dirty += record_bytes(e, record_of(e, r));
		}
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
	if (!broken)
		broken = users_audit(e);
	if (broken)
		return broken;
	recovered_count(e, books);
	entries_count(e, books);
	for (uint32_t i = 0; i < e->config.tenants; i++) {
		const struct tenant *tenant = &e->tenants[i];

		if (books[i].leases != tenant->leases.used || books[i].holds != tenant->holds.used ||
		    books[i].chunks != tenant->chunks.used)
			return "a tenant's leases, chunks or holds are miscounted";
		if (books[i].pinned != tenant->pinned)
			return "a tenant's pinned bytes are miscounted";
		if (books[i].dirty != tenant->dirty)
			return "a tenant's dirty bytes are miscounted";
		if (books[i].entries != tenant->entries.used || books[i].records != tenant->records.used)
			return "a tenant's chunks or objects are miscounted";
	}
	return NULL;
}

/* ---- accounts -------------------------------------------------------------------------------------- */

/** struct rows - sums over rows, each weighted by a number drawn for it: as rows say, and as chunks say. */
struct rows { uint64_t says[2], is[2], entries_says, entries_is, ring_says[2], ring_is[2]; };

static const char *ring_audit(struct engine *e, uint32_t row, bool disk, struct rows *rows)
{
	const uint32_t first = e->accounts[row].hand[disk];
	uint32_t n = 0;

	for (uint32_t i = first; i != NONE;) {
		const uint32_t next = e->rings[disk][i].next;
		const struct entry *entry = entry_of(e, i);

		if (e->owners[i] != row + 1 || (disk ? entry->disk : entry->l1) == 0 || e->rings[disk][next].prev != i ||
		    ++n > e->config.entries)
			return "the ring of an account's chunks is broken";
		i = next == first ? NONE : next;
	}
	rows->ring_says[disk] += n;
	return NULL;
}

static const char *row_audit(struct engine *e, uint32_t row, struct rows *rows)
{
	const struct account *account = &e->accounts[row];
	const char *broken = NULL;

	for (uint32_t disk = 0; disk < 2 && !broken; disk++) {
		rows->says[disk] += audit_weight(row) * account->used[disk];
		if (account_is_over(e, row, disk, 0) != account->over[disk])
			return "an account does not know whether it is above its quota";
		broken = ring_audit(e, row, disk, rows);
	}
	rows->entries_says += audit_weight(row) * account->entries;
	return broken;
}

static const char *tenant_rows_audit(struct engine *e, uint32_t tenant, struct rows *rows, uint32_t over[2])
{
	const uint32_t first = e->tenants[tenant].row;
	uint32_t row = first, n = 0;

	do {
		const struct account *account = &e->accounts[row];
		const char *broken = account->tenant != tenant || n++ > e->config.accounts ||
				     (account->entries == 0 && row != tenant)
				     ? "a tenant's accounts are not its own" : row_audit(e, row, rows);

		if (broken)
			return broken;
		over[0] += account->over[0];
		over[1] += account->over[1];
		row = account->of_tenant.next;
	} while (row != first);
	return n == e->tenants[tenant].accounts + 1 ? NULL : "a tenant's accounts are miscounted";
}

/* What the chunk has, by its records; entry_check() has seen that they are right. */
static const char *owner_count(struct engine *e, uint32_t number, struct rows *rows)
{
	const struct entry *entry = entry_of(e, number);
	const uint32_t row = e->owners[number] - 1u;
	const bool booked = (entry->l1 | entry->filling | entry->disk) != 0;
	const uint64_t parts[2] = { entry->l1 | entry->filling, entry->disk };

	if (booked != (e->owners[number] != 0))
		return "a chunk has places and no account, or an account and no place";
	if (!booked)
		return NULL;
	if (e->accounts[row].tenant != entry->tenant ||
	    (row >= e->config.tenants && e->accounts[row].label != entry->account))
		return "a chunk is booked to another's account";
	for (uint32_t disk = 0; disk < 2; disk++)
		rows->is[disk] += audit_weight(row) * mask_bytes(entry_model(e, entry), parts[disk]);
	rows->entries_is += audit_weight(row);
	rows->ring_is[0] += entry->l1 != 0;
	rows->ring_is[1] += entry->disk != 0;
	return NULL;
}

static const char *over_audit(const struct engine *e, const struct list *list, bool disk, uint32_t n)
{
	uint32_t seen = 0, before = NONE;

	for (uint32_t row = list->first; row != NONE; before = row, row = e->accounts[row].of_over[disk].next)
		if (!e->accounts[row].over[disk] || e->accounts[row].of_over[disk].prev != before || ++seen > list->n)
			return "the list of accounts above their quota is broken";
	return seen == list->n && seen == n && before == list->last ? NULL
			: "the accounts above their quota are miscounted";
}

const char *accounts_audit(struct engine *e)
{
	uint32_t over[2] = { 0, 0 };
	struct rows rows = { .is = { 0 } };
	const char *broken = NULL;

	for (uint32_t i = 0; i < e->config.tenants && !broken; i++)
		broken = tenant_rows_audit(e, i, &rows, over);
	for (uint32_t i = index_next(e->index, NONE); i != NONE && !broken; i = index_next(e->index, i))
		broken = owner_count(e, i, &rows);
	for (uint32_t i = 0; i < e->config.ios && !broken; i++)
		if (e->ios[i].kind == IO_WRITE)
			rows.is[1] += audit_weight(e->owners[record_of(e, e->ios[i].record)->entry] - 1u) * e->ios[i].bytes;
	if (broken)
		return broken;
	if (rows.is[0] != rows.says[0] || rows.is[1] != rows.says[1] || rows.entries_is != rows.entries_says)
		return "an account's bytes or chunks are miscounted";
	if (rows.ring_is[0] != rows.ring_says[0] || rows.ring_is[1] != rows.ring_says[1])
		return "a chunk is in no ring of its account";
	broken = over_audit(e, &e->over[0], false, over[0]);
	return broken ? broken : over_audit(e, &e->over[1], true, over[1]);
}
