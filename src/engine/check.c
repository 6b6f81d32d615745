/*
 * Seals and verifications: the checksums of objects, made and compared by the shell's helpers.
 *
 * A fresh store is sealed in the background (header and checksum are written), then committed to the
 * arena table, then written to a tier if it is to be. What came from a tier is verified before it is
 * served, with the entry's io held since the read began (RECORD_LANDED); what survived a restart
 * (RECORD_UNVERIFIED) when the first lookup wants it. Verifications go before seals.
 */
#include "src/engine/internal.h"

/* ---- numbers of I/Os and checks --------------------------------------------------------------- */

/* Reads may have all of them; nothing else may crowd them out. */
bool io_may(const struct engine *e, enum io_kind kind)
{
	const uint32_t ios = e->config.ios;
	uint32_t writing = 0;

	if (e->free_io == NONE)
		return false;
	switch (kind) {
	case IO_SEAL:
		return e->checks_used < ios / 4;
	case IO_VERIFY:
		return e->checks_used < ios / 2;
	case IO_WRITE:
		for (uint32_t i = 0; i < e->config.n_tiers; i++)
			writing += e->tiers[i].writing;
		return writing < ios / 4;
	default:
		return true;
	}
}

uint32_t io_take(struct engine *e, enum io_kind kind, uint32_t record)
{
	const uint32_t number = e->free_io;
	struct io *io = &e->ios[number];

	ENGINE_ASSERT(number != NONE);
	e->free_io = io->next;
	e->ios_used++;
	*io = (struct io){
		.record = record, .next = NONE, .place = NONE, .kind = (uint8_t)kind, .tier = 0,
		.bytes = record_bytes(e, record_of(e, record)), .started = e->now,
	};
	e->sides[record].io = number;
	return number;
}

void io_give(struct engine *e, uint32_t number)
{
	struct io *io = &e->ios[number];

	e->sides[io->record].io = NONE;
	io->kind = IO_FREE;
	io->next = e->free_io;
	e->free_io = number;
	e->ios_used--;
}

/* ---- queues ------------------------------------------------------------------------------------- */

void check_verify(struct engine *e, uint32_t record, uint32_t priority)
{
	struct side *side = &e->sides[record];

	if (side->io != NONE)
		return;		/* it is being verified */
	if (side->queue == QUEUE_VERIFY && side->priority <= priority)
		return;
	record_unqueue(e, record);
	side->priority = (uint8_t)priority;
	queue_push(e, &e->verifies[priority], record, QUEUE_VERIFY, false);
	e->n_verifies++;
}

void check_seal(struct engine *e, uint32_t record)
{
	queue_push(e, &e->seals, record, QUEUE_SEAL, false);
}

static void check_start(struct engine *e, uint32_t number, enum io_kind kind)
{
	const struct record *record = record_of(e, number);
	struct engine_check check = { .record = number };

	record_unqueue(e, number);
	if (!(record->flags & RECORD_LANDED))
		entry_io(e, record->entry);
	check.io = io_take(e, kind, number);
	check.arena = (struct engine_place){ NONE, record->place, record_bytes(e, record) };
	record_object(e, number, &check.object);
	e->checks_used++;
	if (kind == IO_SEAL)
		e->ports.seal(e->ports.shell, &check);
	else
		e->ports.verify(e->ports.shell, &check);
}

void check_pump(struct engine *e)
{
	for (uint32_t p = 0; p < PRIORITIES; p++)
		while (e->verifies[p].first != NONE && io_may(e, IO_VERIFY))
			check_start(e, e->verifies[p].first, IO_VERIFY);
	while (e->seals.first != NONE && io_may(e, IO_SEAL))
		check_start(e, e->seals.first, IO_SEAL);
}

/* ---- ends ---------------------------------------------------------------------------------------- */

static void commit(struct engine *e, uint32_t number)
{
	struct record *record = record_of(e, number);
	const struct engine_place place = { NONE, record->place, record_bytes(e, record) };
	struct engine_object object;

	record_object(e, number, &object);
	record->flags |= RECORD_COMMITTED;
	e->ports.commit(e->ports.shell, number, &place, &object);
	if (e->sides[number].holds > 0)
		e->ports.held(e->ports.shell, number, true);
}

static void sealed(struct engine *e, uint32_t number, enum engine_result result, uint64_t checksum)
{
	struct record *record = record_of(e, number);

	if (entry_is_stale(e, entry_of(e, record->entry))) {
		record_set_dirty(e, number, false);
		return;
	}
	if (result != ENGINE_OK) {
		record_lose(e, number);
		return;
	}
	record->checksum = checksum;
	commit(e, number);
	if (record->flags & RECORD_DIRTY)
		tier_write(e, number);
}

/*
 * Its bytes are not what they should be: whatever copy they are goes. What a reset has overtaken names the
 * epoch before, and is sound.
 */
static void is_corrupt(struct engine *e, uint32_t number)
{
	const struct record *record = record_of(e, number);
	const bool stale = entry_is_stale(e, entry_of(e, record->entry));

	count(e, STOKER_COUNTER_CHECKSUM_ERRORS, !stale);
	if (record->flags & RECORD_LANDED) {
		e->tiers[record->tier].figures.checksum_errors += !stale;
		e->tiers[record->tier].figures.corrupt_in_a_row += !stale;
		record_drop_disk(e, number);
	}
	record_drop_arena(e, number);
}

static void verified(struct engine *e, uint32_t number, enum engine_result result, uint64_t checksum)
{
	struct record *record = record_of(e, number);
	const bool landed = (record->flags & RECORD_LANDED) != 0;

	if (result != ENGINE_OK) {
		is_corrupt(e, number);
		return;
	}
	if (landed)
		e->tiers[record->tier].figures.corrupt_in_a_row = 0;
	record->checksum = checksum;
	record->flags &= (uint8_t)~RECORD_LANDED;
	record_ready(e, number);
	if (entry_is_stale(e, entry_of(e, record->entry))) {
		record_set_dirty(e, number, false);
		return;
	}
	if (landed)
		commit(e, number);
	else if (record->flags & RECORD_DIRTY)
		tier_write(e, number);
}

void engine_check_done(struct engine *e, uint32_t number, enum engine_result result, uint64_t checksum)
{
	const struct io io = e->ios[number];
	uint32_t entry;

	ENGINE_ASSERT(number < e->config.ios && (io.kind == IO_SEAL || io.kind == IO_VERIFY));
	entry = record_of(e, io.record)->entry;
	io_give(e, number);
	e->checks_used--;
	if (io.kind == IO_SEAL)
		sealed(e, io.record, result, checksum);
	else
		verified(e, io.record, result, checksum);
	entry_wake(e, entry);
	entry_io_done(e, entry);
}
