/*
 * What the rooms of the engine do for each other, file by file; internal.h, which includes this, says what
 * they are about.
 */
#ifndef STOKER_ENGINE_ROOMS_H
#define STOKER_ENGINE_ROOMS_H

#include "src/engine/internal.h"

/* ---- clock.c: what ends by the clock ------------------------------------------------------------- */

void clock_set(struct engine *engine, uint64_t now_ns);
bool clock_run(struct engine *engine);			/* timers that have fired; true: there are more */
void clock_job(struct engine *engine, struct job *job, uint64_t span);
void clock_job_over(struct engine *engine, struct job *job);
void clock_lease(struct engine *engine, uint32_t lease, uint64_t span);
void clock_lease_over(struct engine *engine, uint32_t lease);

/* ---- run.c: who is next ----------------------------------------------------------------------- */

void run_push(struct engine *engine, struct job *job, enum run run);	/* by the main link */
void run_push_issue(struct engine *engine, struct job *job, uint32_t tier_bit);	/* by the issue link */
struct job *run_pop(struct engine *engine, enum run run);		/* NULL: none */
bool run_is_empty(const struct engine *engine, enum run run);
void job_leave(struct engine *engine, struct job *job);		/* whatever list the main link is in */
void job_leave_issue(struct engine *engine, struct job *job);
void job_wait_entry(struct engine *engine, struct job *job, uint32_t entry);
void job_wait_room(struct engine *engine, struct job *job, bool issue);	/* by the issue link or the main one */
void job_wait_random(struct engine *engine, struct job *job);
void entry_wake(struct engine *engine, uint32_t entry);		/* a fill of it has ended, well or not */
void room_wake(struct engine *engine);
void random_wake(struct engine *engine);

/* ---- job.c ---------------------------------------------------------------------------------- */

void job_publish(struct engine *engine, struct job *job, enum stoker_stage stage, struct engine_answer *answer);
/* It is over: publish DONE with @answer (NULL: nothing but the status), free the slot. */
void job_done(struct engine *engine, struct job *job, enum stoker_status status, struct engine_answer *answer);
void job_park(struct engine *engine, struct job *job);	/* it outlives the call that brought it */
void job_step(struct engine *engine, struct job *job);	/* its next bounded piece of work */
/* Cancel, deadline, reset, client gone: end it as soon as its memory is quiet. */
void job_stop(struct engine *engine, struct job *job, enum stoker_status status);

/* ---- lookup.c, grant.c, load.c ------------------------------------------------------------------------- */

void lookup_begin(struct engine *engine, struct job *job, const struct engine_request *request);
void lookup_more(struct engine *engine, struct job *job, const struct engine_request *request);
void lookup_step(struct engine *engine, struct job *job);
void lookup_stop(struct engine *engine, struct job *job, enum stoker_status status);
void lookup_finish(struct engine *engine, struct job *job, enum stoker_status status, uint32_t n);
void lookup_pieces_end(struct engine *engine, struct job *job);	/* they are not needed any more */
uint64_t lookup_needs(const struct job *job, uint32_t place, uint32_t n);	/* parts */
/* Parts of an entry that exist for a lookup that may use @tiers (bit 0 arena, 1 + i tier i). */
uint64_t entry_exists(struct engine *engine, const struct entry *entry, uint32_t tiers);
void load_begin(struct engine *engine, struct job *job);
void load_step(struct engine *engine, struct job *job);
void load_issue(struct engine *engine, struct job *job, uint32_t tier_bit);	/* ask for the next place */
void load_end(struct engine *engine, struct job *job);
uint32_t load_reached(struct engine *engine, struct job *job);	/* usable length that is ready now */

/* ---- segment.c, retrieve.c, store.c -------------------------------------------------------------- */

/* Check the segments against @limit chunks, lay out the scratch. Then segments_step() until it is done. */
enum stoker_status segments_begin(struct engine *engine, struct job *job, uint32_t limit);
enum segments { SEGMENTS_MORE, SEGMENTS_DONE, SEGMENTS_BAD };
enum segments segments_step(struct engine *engine, struct job *job);
void segments_end(struct engine *engine, struct job *job);	/* its pools are not used any more */
/* The items [first, end) of a chunk. */
static inline uint32_t items_first(const struct transfer *t, uint32_t chunk)
{
	return chunk ? t->ends[chunk - 1] : 0;
}
void retrieve_begin(struct engine *engine, struct job *job, const struct engine_request *request);
void retrieve_step(struct engine *engine, struct job *job);
void retrieve_copied(struct engine *engine, struct job *job, enum engine_result result);
void retrieve_stop(struct engine *engine, struct job *job, enum stoker_status status);
void store_begin(struct engine *engine, struct job *job, const struct engine_request *request);
void store_step(struct engine *engine, struct job *job);
void store_copied(struct engine *engine, struct job *job, enum engine_result result);
void store_stop(struct engine *engine, struct job *job, enum stoker_status status);

/* ---- bound.c: shares of what there is a fixed number of ------------------------------------------ */

void bounds_init(struct engine *engine);
void bound_client_in(struct engine *engine, struct client *client, uint32_t user);
void bound_client_gone(struct engine *engine, const struct client *client);
/* How many more of them the client may have. */
uint32_t bound_leases(const struct engine *engine, uint32_t client);
uint32_t bound_chunks(const struct engine *engine, uint32_t client);
uint32_t bound_holds(const struct engine *engine, uint32_t client);
static inline bool bound_is_pinned(const struct tenant *tenant, uint64_t bytes)	/* are @bytes more too many? */
{
	return tenant->pinned >= tenant->pinned_max || bytes > tenant->pinned_max - tenant->pinned;
}
/* Would @bytes more keep it, together with what is to be written yet, from what others may have? */
static inline bool bound_is_dirty(const struct tenant *tenant, uint64_t bytes)
{
	return tenant->dirty > 0 && bound_is_pinned(tenant, tenant->dirty + bytes);
}
static inline struct tenant *tenant_of_client(const struct engine *engine, uint32_t client)
{
	return &engine->tenants[engine->clients[client].tenant];
}
/* There were none left. @free: for others there are. */
static inline void bound_met(struct engine *engine, bool free)
{
	count(engine, STOKER_COUNTER_JOBS_BOUNDED, free);
}

/* ---- lease.c, session.c, hold.c ----------------------------------------------------------------- */

void chunks_count(struct engine *engine, uint32_t client, uint32_t more, uint32_t fewer);	/* books of chunks */
uint32_t chunks_append(struct engine *engine, struct chunks *chunks, uint32_t entry);
static inline uint32_t piece_entry(const struct piece *piece, uint32_t i)
{
	return piece->entries[i] == NONE ? NONE : piece->entries[i] & ~PIECE_HIT;
}
void chunks_end(struct engine *engine, struct chunks *chunks);	/* pins are given back, leaf first */
void chunks_drop_some(struct engine *engine, uint32_t n);	/* go on with what chunks_end() left over */
uint32_t lease_find(struct engine *engine, const struct job *job, const uint64_t token[2]);
uint32_t lease_new(struct engine *engine, struct job *job);
uint32_t lease_set_time(struct engine *engine, uint32_t lease, uint32_t lease_ms);	/* its life in ms */
void lease_end(struct engine *engine, uint32_t lease);
void lease_return(struct engine *engine, uint32_t lease, uint32_t reader);
void lease_spell(struct engine *engine, const struct lease *lease, uint32_t first, uint32_t n, uint32_t *ret);
void lease_release(struct engine *engine, struct job *job, const struct engine_request *request);
void session_link(struct engine *engine, uint32_t lease);
void session_unlink(struct engine *engine, uint32_t lease);
void session_begin(struct engine *engine, struct job *job, const struct engine_request *request);
void session_step(struct engine *engine, struct job *job);
bool token_take(struct engine *engine, uint32_t number, uint64_t ret[2]);	/* false: no random bits */
bool token_is(const uint64_t a[2], const uint64_t b[2]);
void hold_map(struct engine *engine, struct job *job, const struct engine_request *request);
void hold_step(struct engine *engine, struct job *job);		/* MAP: there are random bits */
void hold_unmap(struct engine *engine, struct job *job, const struct engine_request *request);
void hold_end(struct engine *engine, uint32_t hold);

/* ---- chunk.c: states and books of entries and records ---------------------------------------------- */

/** struct was - an entry as it was before a change. */
struct was { uint64_t l1, disk, arena; uint32_t tier; bool busy; };
struct was entry_was(struct engine *engine, uint32_t entry);
void entry_settle(struct engine *engine, uint32_t entry, const struct was *was);
void entry_unpin(struct engine *engine, uint32_t entry);	/* it may be gone afterwards */
void entry_io(struct engine *engine, uint32_t entry);		/* one more under way */
void entry_io_done(struct engine *engine, uint32_t entry);	/* it may be gone afterwards */
void entry_touch(struct engine *engine, uint32_t entry);
void entry_used(struct engine *engine, uint32_t entry);		/* a hit of what was there before; pinned */
void entry_met_busy(struct engine *engine, uint32_t entry);	/* eviction came upon it: out of its lists */
void entry_link(struct engine *engine, uint32_t entry);		/* to its parent, if that is there (again) */
uint32_t entry_tier(struct engine *engine, const struct entry *entry);	/* of its objects on disk, or NONE */
uint64_t entry_ready(struct engine *engine, const struct entry *entry);	/* parts to be served at once */
bool entry_is_dirty(struct engine *engine, const struct entry *entry);
bool entry_may_leave(struct engine *engine, const struct entry *entry);
uint64_t some_bytes(const struct model *model, uint64_t parts);
static inline uint64_t mask_bytes(const struct model *model, uint64_t parts)
{
	return parts == model->all ? model->bytes : some_bytes(model, parts);
}
/* These parts in the arena are in use from now on. */
static inline void pinned_add(struct engine *engine, const struct model *model, uint64_t parts)
{
	const uint64_t bytes = mask_bytes(model, parts);

	engine->pinned_bytes += bytes;
	engine->tenants[model->tenant].pinned += bytes;
}
/*
 * One pin more. What comes into use stays in its eviction lists until it is met there or its use ends: a
 * lookup touches nothing but the first line of what it finds.
 */
static inline void entry_pin(struct engine *engine, uint32_t number)
{
	struct entry *entry = entry_of(engine, number);

	if (entry->pins++ + entry->io == 0)
		pinned_add(engine, entry_model(engine, entry), entry->l1 | entry->filling);
}
void record_used(struct engine *engine, uint32_t record);	/* it has just been made, for its entry */
void record_remove(struct engine *engine, uint32_t record);	/* it is nowhere any more */
void record_object(struct engine *engine, uint32_t record, struct engine_object *ret);
void record_place(struct engine *engine, uint32_t record, uint32_t unit);	/* in the arena, FILLING */
void record_ready(struct engine *engine, uint32_t record);	/* its last byte is there and verified */
void record_drop_arena(struct engine *engine, uint32_t record);	/* books and place; the record may be gone */
void record_set_disk(struct engine *engine, uint32_t record, uint32_t tier, uint32_t unit);
void record_drop_disk(struct engine *engine, uint32_t record);
void record_set_dirty(struct engine *engine, uint32_t record, bool dirty);
void record_lose(struct engine *engine, uint32_t record);	/* no tier will take it */
uint64_t entry_leave_arena(struct engine *engine, uint32_t entry, bool ghost);	/* bytes freed */
uint64_t entry_leave_disk(struct engine *engine, uint32_t entry, bool ghost);
uint64_t entry_forget(struct engine *engine, uint32_t entry);	/* both, at pins = io = 0 */
void queue_push(struct engine *engine, struct queued *queue, uint32_t record, enum queue kind, bool front);
void record_unqueue(struct engine *engine, uint32_t record);

/* ---- account.c: who has how much ------------------------------------------------------------------- */

void accounts_init(struct engine *engine);
void accounts_review(struct engine *engine, uint32_t tenant);	/* its quotas have changed */
/* Bytes of a place of the entry's that was taken or given back. account_settle() follows, by entry_settle(). */
void account_book(struct engine *engine, uint32_t entry, bool disk, uint64_t more, uint64_t fewer);
void account_settle(struct engine *engine, uint32_t entry, const struct was *was);
uint32_t account_of(const struct engine *engine, uint32_t entry);	/* the row that it has, or will have */
bool account_is_over(const struct engine *engine, uint32_t row, bool disk, uint64_t more);
uint32_t account_over_next(struct engine *engine, bool disk);	/* of those in engine->over, in turns */
uint32_t account_of_tenant_next(struct engine *engine, uint32_t tenant);	/* of all its rows, in turns */
uint32_t account_hand(const struct engine *engine, uint32_t row, bool disk);	/* a chunk, or NONE */
uint32_t account_hand_on(struct engine *engine, uint32_t row, bool disk);	/* moves on; the next chunk */

/* ---- make-room.c ------------------------------------------------------------------------------------ */

/* A place for an object of @entry. */
uint32_t room_arena(struct engine *engine, uint32_t entry, uint64_t bytes, uint32_t near, enum room *why);
uint32_t room_disk(struct engine *engine, uint32_t tier, uint32_t entry, uint64_t bytes, uint32_t near, enum room *why);
uint32_t room_entry(struct engine *engine, uint32_t incarnation, const struct stoker_wire_key *key);
uint32_t room_record(struct engine *engine, uint32_t entry, uint32_t part);
uint64_t room_evict(struct engine *engine, uint32_t n);	/* up to @n coldest chunks; bytes freed */
bool room_may_come(const struct engine *engine);	/* write-back or drops under way will free some */
bool room_refill(struct engine *engine);		/* true: more to do */

/* ---- check.c, tier.c ----------------------------------------------------------------------------------- */

uint32_t io_take(struct engine *engine, enum io_kind kind, uint32_t record);
void io_give(struct engine *engine, uint32_t io);
bool io_may(const struct engine *engine, enum io_kind kind);
void check_verify(struct engine *engine, uint32_t record, uint32_t priority);	/* UNVERIFIED or landed */
void check_seal(struct engine *engine, uint32_t record);
void check_pump(struct engine *engine);
void tier_read(struct engine *engine, uint32_t record, uint32_t priority);	/* placed, FILLING */
void tier_raise(struct engine *engine, uint32_t record, uint32_t priority);
void tier_lower(struct engine *engine, uint32_t record, uint32_t priority);	/* if it is queued yet */
void tier_write(struct engine *engine, uint32_t record);	/* sealed and dirty */
void tier_pump(struct engine *engine, uint32_t tier);
bool tier_has_work(struct engine *engine, uint32_t tier);	/* that can be begun in the next turn */
bool tier_has_room(const struct engine *engine, uint32_t tier);
bool tier_can_write(const struct engine *engine);
uint64_t tier_expected_us(const struct engine *engine, uint64_t bytes);
void read_landed(struct engine *engine, uint32_t record, enum engine_result result);

/* ---- model.c, pool.c, client.c, sweep.c, recover.c, admin.c ----------------------------------------------- */

void model_link(struct engine *engine, struct job *job);
void model_unlink(struct engine *engine, struct job *job);
void model_drained(struct engine *engine, uint32_t model);	/* one older job's copy less */
void model_closed(struct engine *engine, uint32_t model);	/* nothing is left of it: its number is free */
uint32_t pool_find(struct engine *engine, uint32_t client, uint32_t number);
void pool_use(struct engine *engine, uint32_t pool);
void pool_unuse(struct engine *engine, uint32_t pool);
void pool_free(struct engine *engine, uint32_t pool);
void pools_leave(struct engine *engine, uint32_t client);	/* the client left: its pools go when they can */
void client_job_over(struct engine *engine, uint32_t client);
bool clients_leave_some(struct engine *engine);
void sweep_start(struct engine *engine);
bool sweep_some(struct engine *engine);
void recover_end(struct engine *engine);
bool admin_close(struct engine *engine, uint32_t model, engine_token token);	/* told when it is empty; false: too many wait */
bool admin_some(struct engine *engine);

#endif
