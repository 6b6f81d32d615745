/*
 * The sweep: one pass over leases and records, a batch a turn, for whatever cannot be done at once: what
 * a reset has made stale is freed, a `clear` forgets what nobody uses, and after a restart what is
 * in the arena alone is verified and queued for its tier. Something new to sweep for starts it over.
 */
#include "src/engine/internal.h"

void sweep_start(struct engine *e)
{
	e->sweeping = true;
	e->sweep_at = e->sweep_lease = 0;
}

static void lease_sweep(struct engine *e, uint32_t number)
{
	const struct lease *lease = &e->leases[number];

	if (lease->used && e->models[lease->model].incarnation != lease->incarnation)
		lease_end(e, number);
}

/*
 * It survived a restart and is on no tier: it is to be written. It is verified first, unless a lookup
 * has seen to that already.
 */
static void recovered_sweep(struct engine *e, uint32_t number)
{
	const struct record *record = record_of(e, number);

	if (record->disk_place != NONE || !tier_can_write(e))
		return;
	if (record->state == RECORD_UNVERIFIED) {
		record_set_dirty(e, number, true);
		check_verify(e, number, PRIORITIES - 1);
	} else if (record->state == RECORD_READY && (record->flags & (RECORD_COMMITTED | RECORD_DIRTY | RECORD_LOST)) ==
		   RECORD_COMMITTED && e->sides[number].queue == QUEUE_NONE && e->sides[number].io == NONE) {
		record_set_dirty(e, number, true);
		tier_write(e, number);
	}
}

/* Of an older epoch, and still in use: it goes when that ends, and no tier is to have it. */
static void stale_sweep(struct engine *e, uint32_t number)
{
	if (e->sides[number].queue == QUEUE_SEAL || e->sides[number].queue == QUEUE_WRITE)
		record_unqueue(e, number);
	record_set_dirty(e, number, false);
}

static void record_sweep(struct engine *e, uint32_t number)
{
	const struct record *record = record_of(e, number);
	const struct entry *entry;

	if (record->state == RECORD_FREE)
		return;
	entry = entry_of(e, record->entry);
	if (entry->pins == 0 && entry->io == 0 && (e->clearing || entry_is_stale(e, entry))) {
		e->cleared += entry_forget(e, record->entry);
		return;
	}
	if (entry_is_stale(e, entry))
		stale_sweep(e, number);
	else if (e->sweep_recovered)
		recovered_sweep(e, number);
}

bool sweep_some(struct engine *e)
{
	if (!e->sweeping)
		return false;
	for (uint32_t i = 0; i < SWEEP_RECORDS && e->sweep_lease < e->config.leases; i++)
		lease_sweep(e, e->sweep_lease++);
	for (uint32_t i = 0; i < SWEEP_RECORDS && e->sweep_at < e->records_high; i++) {
		if (e->sweep_recovered && e->n_verifies >= e->config.ios)
			return i > 0;	/* they are begun in the next turn; it goes on when some have been verified */
		record_sweep(e, e->sweep_at++);
	}
	if (e->sweep_lease < e->config.leases || e->sweep_at < e->records_high)
		return true;
	e->sweeping = e->sweep_recovered = e->clearing = false;
	e->room_changed = true;
	return true;
}
