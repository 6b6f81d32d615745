/*
 * Accounts: the one table of who has how much, by tenant and account, in the arena and on the tiers.
 *
 * A chunk is its storer's from its first place to its last one, and its bytes are booked to the row of
 * (tenant, account) for that time. Rows are fixed in number and tenants have equal shares of them: who
 * finds none is booked to the row of its tenant's others, and stays there until it has nothing any more.
 * So what survives a restart is booked again as it is recovered, and nothing else has to be kept.
 *
 * Quotas of tenants are hard and those of accounts soft: who is above one is refused nothing, but loses
 * its chunks before all others when room is needed (make-room.c). For that each row has two rings, of
 * its chunks in the arena and on the tiers, with a hand that goes round; and rows above their quota are
 * in a list. Rings are in order of arrival: a lookup touches neither of them. All that is done here
 * takes a constant time.
 */
#include "src/engine/internal.h"

/* ---- rows ---------------------------------------------------------------------------------------- */

static uint32_t *bucket_of(const struct engine *e, uint32_t tenant, uint64_t label)
{
	const uint64_t mixed = (label ^ (uint64_t)tenant << 56 ^ e->config.seed) * 0x9e3779b97f4a7c15ull;

	return &e->account_buckets[(uint32_t)(mixed >> 32) & e->account_mask];
}

static uint32_t row_find(const struct engine *e, uint32_t tenant, uint64_t label)
{
	uint32_t row = *bucket_of(e, tenant, label);

	while (row != NONE && (e->accounts[row].tenant != tenant || e->accounts[row].label != label))
		row = e->accounts[row].next;
	return row;
}

static void row_init(struct engine *e, uint32_t row, uint32_t tenant, uint64_t label)
{
	struct tenant *t = &e->tenants[tenant];
	struct account *account = &e->accounts[row];

	*account = (struct account){ .label = label, .tenant = (uint8_t)tenant, .hand = { NONE, NONE }, .next = NONE };
	if (t->row == NONE) {
		t->row = row;
		account->of_tenant = (struct link){ row, row };
		return;
	}
	account->of_tenant = (struct link){ .next = t->row, .prev = e->accounts[t->row].of_tenant.prev };
	e->accounts[account->of_tenant.prev].of_tenant.next = row;
	e->accounts[t->row].of_tenant.prev = row;
}

/* The row of an account, made if there is one to be had; else the others'. */
static uint32_t row_take(struct engine *e, uint32_t tenant, uint64_t label)
{
	uint32_t *bucket = bucket_of(e, tenant, label);
	uint32_t row = row_find(e, tenant, label);

	if (row != NONE)
		return row;
	if (e->tenants[tenant].accounts >= e->config.accounts / e->config.tenants)
		return tenant;
	row = e->free_account;
	e->free_account = e->accounts[row].next;
	row_init(e, row, tenant, label);
	e->accounts[row].next = *bucket;
	*bucket = row;
	e->tenants[tenant].accounts++;
	return row;
}

/* Nothing is booked there any more. */
static void row_give(struct engine *e, uint32_t row)
{
	struct account *account = &e->accounts[row];
	struct tenant *tenant = &e->tenants[account->tenant];
	uint32_t *link = bucket_of(e, account->tenant, account->label);

	ENGINE_ASSERT(account->used[0] + account->used[1] == 0 && !account->over[0] && !account->over[1]);
	if (row < e->config.tenants)
		return;			/* the others' stays */
	while (*link != row)
		link = &e->accounts[*link].next;
	*link = account->next;
	if (tenant->row == row)
		tenant->row = account->of_tenant.next;	/* the others' is in the ring: it is not empty */
	e->accounts[account->of_tenant.prev].of_tenant.next = account->of_tenant.next;
	e->accounts[account->of_tenant.next].of_tenant.prev = account->of_tenant.prev;
	account->next = e->free_account;
	e->free_account = row;
	tenant->accounts--;
}

void accounts_init(struct engine *e)
{
	const uint32_t rows = e->config.tenants + e->config.accounts;

	for (uint32_t i = 0; i <= e->account_mask; i++)
		e->account_buckets[i] = NONE;
	for (uint32_t i = 0; i < e->config.tenants; i++) {
		e->tenants[i].row = NONE;
		row_init(e, i, i, 0);
	}
	for (uint32_t i = e->config.tenants; i < rows; i++)
		e->accounts[i].next = i + 1 < rows ? i + 1 : NONE;
	e->free_account = e->config.accounts > 0 ? e->config.tenants : NONE;
	e->over[0] = e->over[1] = (struct list){ NONE, NONE, 0 };
}

/* ---- above the quota -------------------------------------------------------------------------------- */

static void over_put(struct engine *e, uint32_t row, bool disk)
{
	struct list *list = &e->over[disk];

	e->accounts[row].of_over[disk] = (struct link){ .next = NONE, .prev = list->last };
	if (list->last == NONE)
		list->first = row;
	else
		e->accounts[list->last].of_over[disk].next = row;
	list->last = row;
	list->n++;
}

static void over_take(struct engine *e, uint32_t row, bool disk)
{
	const struct link link = e->accounts[row].of_over[disk];
	struct list *list = &e->over[disk];

	if (link.prev == NONE)
		list->first = link.next;
	else
		e->accounts[link.prev].of_over[disk].next = link.next;
	if (link.next == NONE)
		list->last = link.prev;
	else
		e->accounts[link.next].of_over[disk].prev = link.prev;
	list->n--;
}

bool account_is_over(const struct engine *e, uint32_t row, bool disk, uint64_t more)
{
	const struct account *account = &e->accounts[row];
	const struct engine_quota *quota = &e->tenants[account->tenant].quota;
	const uint64_t most = disk ? quota->account_disk_bytes : quota->account_arena_bytes;

	return most && account->used[disk] + more > most;
}

static void review(struct engine *e, uint32_t row, bool disk)
{
	const bool over = account_is_over(e, row, disk, 0);

	if (over == e->accounts[row].over[disk])
		return;
	e->accounts[row].over[disk] = over;
	if (over)
		over_put(e, row, disk);
	else
		over_take(e, row, disk);
}

void accounts_review(struct engine *e, uint32_t tenant)
{
	const uint32_t first = e->tenants[tenant].row;
	uint32_t row = first;

	do {
		review(e, row, false);
		review(e, row, true);
		row = e->accounts[row].of_tenant.next;
	} while (row != first);
}

uint32_t account_over_next(struct engine *e, bool disk)
{
	const uint32_t row = e->over[disk].first;

	over_take(e, row, disk);	/* to the end: they take turns */
	over_put(e, row, disk);
	return row;
}

uint32_t account_of_tenant_next(struct engine *e, uint32_t tenant)
{
	return e->tenants[tenant].row = e->accounts[e->tenants[tenant].row].of_tenant.next;
}

/* ---- rings ---------------------------------------------------------------------------------------------- */

/* Last in turn: just before the hand. */
static void ring_put(struct engine *e, struct account *account, bool disk, uint32_t entry)
{
	struct link *links = e->rings[disk];
	const uint32_t next = account->hand[disk];

	if (next == NONE) {
		account->hand[disk] = entry;
		links[entry] = (struct link){ entry, entry };
		return;
	}
	links[entry] = (struct link){ .next = next, .prev = links[next].prev };
	links[links[entry].prev].next = entry;
	links[next].prev = entry;
}

static void ring_take(struct engine *e, struct account *account, bool disk, uint32_t entry)
{
	struct link *links = e->rings[disk];

	if (account->hand[disk] == entry)
		account->hand[disk] = links[entry].next == entry ? NONE : links[entry].next;
	links[links[entry].prev].next = links[entry].next;
	links[links[entry].next].prev = links[entry].prev;
}

uint32_t account_hand(const struct engine *e, uint32_t row, bool disk)
{
	return e->accounts[row].hand[disk];
}

uint32_t account_hand_on(struct engine *e, uint32_t row, bool disk)
{
	struct account *account = &e->accounts[row];

	return account->hand[disk] = e->rings[disk][account->hand[disk]].next;
}

/* ---- books ---------------------------------------------------------------------------------------------- */

uint32_t account_of(const struct engine *e, uint32_t entry)
{
	const struct entry *chunk = index_entry(e->index, entry);
	uint32_t row;

	if (e->owners[entry])
		return e->owners[entry] - 1u;
	row = row_find(e, chunk->tenant, chunk->account);
	return row == NONE ? chunk->tenant : row;
}

void account_book(struct engine *e, uint32_t number, bool disk, uint64_t more, uint64_t fewer)
{
	const struct entry *entry = entry_of(e, number);
	struct account *account;

	if (e->owners[number] == 0) {
		const uint32_t row = row_take(e, entry->tenant, entry->account);

		e->owners[number] = (uint16_t)(row + 1);
		e->accounts[row].entries++;
		e->tenants[entry->tenant].entries.used++;
	}
	account = &e->accounts[e->owners[number] - 1u];
	account->used[disk] += more - fewer;
	e->tenants[entry->tenant].used[disk] += more - fewer;
	review(e, e->owners[number] - 1u, disk);
}

static void ring_settle(struct engine *e, uint32_t entry, bool disk, bool was, bool is)
{
	struct account *account = &e->accounts[e->owners[entry] - 1u];

	if (!was && is)
		ring_put(e, account, disk, entry);
	else if (was && !is)
		ring_take(e, account, disk, entry);
}

void account_settle(struct engine *e, uint32_t number, const struct was *was)
{
	const struct entry *entry = entry_of(e, number);
	uint32_t row;

	if (e->owners[number] == 0)
		return;
	ring_settle(e, number, false, was->l1 != 0, entry->l1 != 0);
	ring_settle(e, number, true, was->disk != 0, entry->disk != 0);
	if (entry->l1 | entry->filling | entry->disk)
		return;
	row = e->owners[number] - 1u;
	e->owners[number] = 0;
	e->tenants[entry->tenant].entries.used--;
	if (--e->accounts[row].entries == 0)
		row_give(e, row);
}

/* ---- figures -------------------------------------------------------------------------------------------- */

uint32_t engine_account_rows(const struct engine *e)
{
	return e->config.tenants + e->config.accounts;
}

bool engine_account_at(const struct engine *e, uint32_t row, struct engine_account_figures *ret)
{
	const struct account *account = &e->accounts[row];

	ENGINE_ASSERT(row < engine_account_rows(e));
	if (account->entries == 0)
		return false;
	*ret = (struct engine_account_figures){
		.tenant = account->tenant, .others = row < e->config.tenants, .account = account->label,
		.chunks = account->entries, .arena_bytes = account->used[0], .disk_bytes = account->used[1],
	};
	return true;
}
