/*
 * Disk tiers: reads into the arena and write-back out of it.
 *
 * A read is queued by priority once its object has a place in the arena, and begun while the tier's
 * bytes under way stay within its depth. Writes are begun only while no read is queued for that
 * tier. All objects of a chunk are on one tier. A read's entry holds an io from its beginning until
 * the verification has ended; a write's from its beginning to its end. The place of a write belongs
 * to the I/O until it has ended well.
 */
#include "src/engine/internal.h"

#define RATE_WINDOW_NS 2000000ull

bool tier_can_write(const struct engine *e)
{
	if (!e->config.write_back)
		return false;
	for (uint32_t i = 0; i < e->config.n_tiers; i++)
		if (e->tiers[i].state != TIER_DOWN)
			return true;
	return false;
}

/* May one more read be queued? A short queue keeps the turns of its askers fair. */
bool tier_has_room(const struct engine *e, uint32_t tier)
{
	const struct tier *t = &e->tiers[tier];

	return t->queued_bytes < e->config.tiers[tier].depth_bytes || t->n_queued == 0;
}

uint64_t tier_expected_us(const struct engine *e, uint64_t bytes)
{
	uint64_t rate = 0;

	for (uint32_t i = 0; i < e->config.n_tiers; i++)
		if (e->tiers[i].state == TIER_UP) {
			bytes += e->tiers[i].queued_bytes + e->tiers[i].flight_bytes;
			rate += e->tiers[i].rate;
		}
	bytes += e->load_bytes;
	return rate < 1000000 ? bytes : bytes / (rate / 1000000);
}

/* How fast reads are: of windows in which some were always under way. */
static void rate_see(struct engine *e, struct tier *t, uint64_t bytes)
{
	const uint64_t passed = e->now - t->window_started;

	t->window_bytes += bytes;
	if (passed < RATE_WINDOW_NS)
		return;
	t->rate = (3 * t->rate + (uint64_t)((double)t->window_bytes * 1e9 / (double)passed)) / 4;
	t->window_started = e->now;
	t->window_bytes = 0;
}

/* ---- reads ---------------------------------------------------------------------------------------- */

static void read_queue(struct engine *e, uint32_t number, uint32_t priority, bool front)
{
	const struct record *record = record_of(e, number);
	struct side *side = &e->sides[number];
	struct tier *t = &e->tiers[record->tier];

	ENGINE_ASSERT(record->state == RECORD_FILLING && record->disk_place != NONE && side->io == NONE);
	side->tier = record->tier;
	side->priority = (uint8_t)priority;
	queue_push(e, &t->reads[priority], number, QUEUE_READ, front);
	t->n_queued++;
	t->queued_bytes += record_bytes(e, record);
}

void tier_read(struct engine *e, uint32_t number, uint32_t priority)
{
	read_queue(e, number, priority, false);
}

/* One more waits for it: it goes by the most urgent of them. */
void tier_raise(struct engine *e, uint32_t number, uint32_t priority)
{
	const struct side *side = &e->sides[number];

	if (side->priority <= priority)
		return;
	if (side->queue == QUEUE_READ) {
		record_unqueue(e, number);
		tier_read(e, number, priority);
	} else if (side->queue == QUEUE_VERIFY) {
		check_verify(e, number, priority);
	}
}

/* Who wanted it most does not any more. What has begun goes on; it has waited longer than others there. */
void tier_lower(struct engine *e, uint32_t number, uint32_t priority)
{
	const uint8_t queue = e->sides[number].queue;

	if (queue != QUEUE_READ && queue != QUEUE_VERIFY)
		return;
	record_unqueue(e, number);
	if (queue == QUEUE_READ)
		read_queue(e, number, priority, true);
	else
		check_verify(e, number, priority);
}

static struct engine_io io_of(struct engine *e, uint32_t number, uint32_t io, uint32_t tier, uint32_t unit)
{
	const struct record *record = record_of(e, number);
	const uint64_t bytes = record_bytes(e, record);
	struct engine_io ret = {
		.io = io, .record = number, .tier = tier, .priority = e->sides[number].priority,
		.arena = { NONE, record->place, bytes }, .disk = { tier, unit, bytes },
	};

	record_object(e, number, &ret.object);
	return ret;
}

static void read_start(struct engine *e, uint32_t tier, uint32_t number)
{
	struct tier *t = &e->tiers[tier];
	struct engine_io read;
	uint32_t io;

	record_unqueue(e, number);
	entry_io(e, record_of(e, number)->entry);
	io = io_take(e, IO_READ, number);
	e->ios[io].tier = (uint8_t)tier;
	if (t->reading++ == 0) {
		t->window_started = e->now;
		t->window_bytes = 0;
	}
	t->flight_bytes += e->ios[io].bytes;
	read = io_of(e, number, io, tier, record_of(e, number)->disk_place);
	e->ports.read(e->ports.shell, &read);
}

/* A read came back with an error, or its tier went down. The entry's io is held. */
static void read_failed(struct engine *e, uint32_t number)
{
	const struct record *record = record_of(e, number);
	struct tier *t = &e->tiers[record->tier];

	if (t->state != TIER_DOWN)
		record_drop_disk(e, number);
	record_drop_arena(e, number);
}

/* The entry's io is held; it ends here, or when the verification does. */
void read_landed(struct engine *e, uint32_t number, enum engine_result result)
{
	struct record *record = record_of(e, number);
	const uint32_t entry = record->entry;

	if (result == ENGINE_OK) {
		record->flags |= RECORD_LANDED;
		check_verify(e, number, e->sides[number].priority);
		return;
	}
	if (result == ENGINE_CORRUPT) {
		count(e, STOKER_COUNTER_CHECKSUM_ERRORS, 1);
		e->tiers[record->tier].figures.checksum_errors++;
	}
	read_failed(e, number);
	entry_wake(e, entry);
	entry_io_done(e, entry);
}

static void read_done(struct engine *e, const struct io *io, enum engine_result result)
{
	struct tier *t = &e->tiers[io->tier];

	t->reading--;
	t->flight_bytes -= io->bytes;
	count(e, STOKER_COUNTER_DISK_READS, 1);
	measure(e, STOKER_HISTOGRAM_READ_NS, io->started);
	if (result == ENGINE_OK) {
		count(e, STOKER_COUNTER_DISK_READ_BYTES, io->bytes);
		rate_see(e, t, io->bytes);
	} else if (result == ENGINE_FAILED) {
		count(e, STOKER_COUNTER_DISK_READ_ERRORS, 1);
		t->figures.read_errors++;
	}
	read_landed(e, io->record, result);
}

/* ---- writes ----------------------------------------------------------------------------------------- */

/* Which tier a chunk goes to: where it has objects already, else by its key. NONE: none can. */
static uint32_t tier_for(struct engine *e, const struct entry *entry)
{
	const uint32_t at = entry_tier(e, entry);
	uint32_t can[ENGINE_TIERS_MAX], n = 0;

	if (!e->config.write_back)
		return NONE;
	if (at != NONE)
		return e->tiers[at].state == TIER_DOWN ? NONE : at;
	for (uint32_t i = 0; i < e->config.n_tiers; i++)
		if (e->tiers[i].state != TIER_DOWN)
			can[n++] = i;
	return n ? can[entry->key.word[1] % n] : NONE;
}

void tier_write(struct engine *e, uint32_t number)
{
	const struct record *record = record_of(e, number);
	const uint32_t tier = tier_for(e, entry_of(e, record->entry));

	if (tier == NONE) {
		record_lose(e, number);
		return;
	}
	e->sides[number].tier = (uint8_t)tier;
	e->sides[number].priority = PRIORITIES - 1;
	queue_push(e, &e->tiers[tier].writes, number, QUEUE_WRITE, false);
}

/* Where its parent's object of the same part lies, so that a prefix is read in one sweep. */
static uint32_t place_of_parent(struct engine *e, uint32_t tier, const struct record *record)
{
	const uint32_t parent = index_parent(e->index, record->entry);
	uint32_t of_parent;

	if (parent == NONE)
		return NONE;
	of_parent = index_record_find(e->index, parent, record->part);
	if (of_parent == NONE || record_of(e, of_parent)->tier != tier)
		return NONE;
	return record_of(e, of_parent)->disk_place;
}

/* Returns whether another one may be begun in this turn. */
static bool write_start(struct engine *e, uint32_t tier, uint32_t number)
{
	const struct record *record = record_of(e, number);
	const struct entry *entry = entry_of(e, record->entry);
	struct tier *t = &e->tiers[tier];
	struct engine_io write;
	uint32_t io, unit;
	enum room why;

	record_unqueue(e, number);
	if (tier_for(e, entry) != tier) {	/* a sibling went elsewhere meanwhile */
		tier_write(e, number);
		return true;
	}
	unit = room_disk(e, tier, record->entry, record_bytes(e, record), place_of_parent(e, tier, record), &why);
	if (unit == NONE) {
		if (why == ROOM_WAIT)
			tier_write(e, number);
		else
			record_lose(e, number);
		return why != ROOM_WAIT;
	}
	entry_io(e, record->entry);
	io = io_take(e, IO_WRITE, number);
	e->ios[io].tier = (uint8_t)tier;
	e->ios[io].place = unit;
	t->writing++;
	t->flight_bytes += e->ios[io].bytes;
	account_book(e, record->entry, true, e->ios[io].bytes, 0);	/* a quota is hard: the place counts from now */
	write = io_of(e, number, io, tier, unit);
	e->ports.write(e->ports.shell, &write);
	return true;
}

static void write_landed(struct engine *e, const struct io *io)
{
	const struct engine_place place = { io->tier, io->place, io->bytes };
	struct engine_object object;

	count(e, STOKER_COUNTER_DISK_WRITES, 1);
	count(e, STOKER_COUNTER_DISK_WRITE_BYTES, io->bytes);
	record_set_dirty(e, io->record, false);
	record_set_disk(e, io->record, io->tier, io->place);
	record_object(e, io->record, &object);
	e->ports.slab_add(e->ports.shell, &place, &object);
}

static void write_failed(struct engine *e, const struct io *io)
{
	struct record *record = record_of(e, io->record);

	count(e, STOKER_COUNTER_DISK_WRITE_ERRORS, 1);
	e->tiers[io->tier].figures.write_errors++;
	if (record->flags & RECORD_RETRIED) {
		record_lose(e, io->record);
		return;
	}
	record->flags |= RECORD_RETRIED;
	tier_write(e, io->record);
}

static void write_done(struct engine *e, const struct io *io, enum engine_result result)
{
	struct tier *t = &e->tiers[io->tier];
	const uint32_t entry = record_of(e, io->record)->entry;
	const uint32_t at = entry_tier(e, entry_of(e, entry));

	t->writing--;
	t->flight_bytes -= io->bytes;
	account_book(e, entry, true, 0, io->bytes);	/* record_set_disk() books it for good */
	measure(e, STOKER_HISTOGRAM_WRITE_NS, io->started);
	if (result == ENGINE_OK && t->state != TIER_DOWN && !entry_is_stale(e, entry_of(e, entry)) &&
	    (at == NONE || at == io->tier)) {
		write_landed(e, io);
	} else {
		space_free(t->space, io->place);
		if (entry_is_stale(e, entry_of(e, entry)))
			record_set_dirty(e, io->record, false);
		else
			write_failed(e, io);
	}
	e->room_changed = true;
	entry_io_done(e, entry);
}

/* ---- both ---------------------------------------------------------------------------------------------- */

static bool depth_allows(const struct engine *e, uint32_t tier, uint64_t bytes)
{
	const struct tier *t = &e->tiers[tier];

	return t->flight_bytes == 0 || t->flight_bytes + bytes <= e->config.tiers[tier].depth_bytes;
}

/* The most urgent read; a large one is not passed by smaller ones that are less urgent. */
static uint32_t read_next(const struct tier *t)
{
	for (uint32_t p = 0; p < PRIORITIES && t->n_queued > 0; p++)
		if (t->reads[p].first != NONE)
			return t->reads[p].first;
	return NONE;
}

void tier_pump(struct engine *e, uint32_t tier)
{
	struct tier *t = &e->tiers[tier];
	uint32_t number;

	if (t->state != TIER_UP)
		return;
	while ((number = read_next(t)) != NONE) {
		if (!io_may(e, IO_READ) || !depth_allows(e, tier, record_bytes(e, record_of(e, number))))
			return;
		read_start(e, tier, number);
	}
	for (uint32_t i = 0; i < TURN_STEPS && t->writes.first != NONE; i++) {
		if (!io_may(e, IO_WRITE) ||
		    !depth_allows(e, tier, record_bytes(e, record_of(e, t->writes.first))))
			return;
		if (!write_start(e, tier, t->writes.first))
			return;
	}
}

/* The bound of a turn, or a write that belongs elsewhere or waits for a quota, has left what could be begun at once. */
bool tier_has_work(struct engine *e, uint32_t tier)
{
	const struct tier *t = &e->tiers[tier];
	const uint32_t read = read_next(t), next = read == NONE ? t->writes.first : read;

	return t->state == TIER_UP && next != NONE && io_may(e, read == NONE ? IO_WRITE : IO_READ) &&
	       depth_allows(e, tier, record_bytes(e, record_of(e, next)));
}

void engine_io_done(struct engine *e, uint32_t number, enum engine_result result)
{
	const struct io io = e->ios[number];

	ENGINE_ASSERT(number < e->config.ios && (io.kind == IO_READ || io.kind == IO_WRITE));
	io_give(e, number);
	if (io.kind == IO_READ)
		read_done(e, &io, result);
	else
		write_done(e, &io, result);
}
