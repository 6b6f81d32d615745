/*
 * A request's blocks: taken from the client's pools, told as segments with ids or runs of ids, filled with
 * what is to be stored, and lies about them. Its ready word: whose the blocks are until then.
 */
#include "tests/simulation/sim.h"

/* Up to @n free blocks of a pool for chunk @c; false: too few are free. */
bool request_take_blocks(struct sim *sim, uint32_t number, struct sim_slot *slot, uint32_t part, uint32_t c,
			uint32_t n)
{
	struct sim_pool *pool = &sim->clients[number].pools[slot->part_pool[part]];
	uint32_t at = sim_below(&sim->random, SIM_BLOCKS), got = 0;

	for (uint32_t i = 0; i < SIM_BLOCKS && got < n; i++, at = (at + 1) % SIM_BLOCKS)
		if (!pool->busy[at]) {
			pool->busy[at] = true;
			slot->blocks[part][c][got++] = at;
		}
	return got == n;
}

/* Give back the blocks of chunk @c: there were too few for all of them. */
void request_untake(struct sim *sim, uint32_t number, struct sim_slot *slot, uint32_t part, uint32_t c)
{
	for (uint32_t b = 0; b < 8; b++) {
		const uint32_t id = slot->blocks[part][c][b];

		if (id != STOKER_NO_BLOCK)
			sim->clients[number].pools[slot->part_pool[part]].busy[id] = false;
		slot->blocks[part][c][b] = STOKER_NO_BLOCK;
	}
}

/* The words from @from on, as pairs of first id and count; now and then a run is told in two pieces. */
static void make_runs(struct sim *sim, struct sim_writer *w, uint32_t from, struct stoker_segment *segment)
{
	uint32_t ids[SIM_INPUT / 8];
	const uint32_t n = w->n_ids - from;

	memcpy(ids, &w->ids[from], n * sizeof(ids[0]));
	w->n_ids = from;
	for (uint32_t i = 0, run; i < n; i += run) {
		for (run = 1; i + run < n && !sim_chance(&sim->random, 50); run++)
			if (ids[i + run] != (ids[i] == STOKER_NO_BLOCK ? ids[i] : ids[i] + run))
				break;
		w->ids[w->n_ids++] = ids[i];
		w->ids[w->n_ids++] = run;
	}
	segment->flags |= STOKER_SEGMENT_RUNS;
	segment->n_ids = w->n_ids - from;
}

void request_segment(struct sim *sim, struct sim_writer *w, const struct sim_slot *slot, uint32_t part,
			uint32_t first, uint32_t chunks)
{
	const struct engine_part_config *config = &sim->models[slot->model].config.parts[part];
	struct stoker_segment *segment = &w->segments[w->n_segments++];
	const uint32_t from = w->n_ids;

	*segment = (struct stoker_segment){ .pool = slot->part_pool[part], .group = config->group,
					    .shard = config->shard, .first = first, .chunks = chunks,
					    .n_ids = chunks * config->blocks };
	for (uint32_t c = first; c < first + chunks; c++)
		for (uint32_t b = 0; b < config->blocks; b++)
			w->ids[w->n_ids++] = slot->blocks[part][c][b];
	if (sim_chance(&sim->random, 200))
		make_runs(sim, w, from, segment);
}

void request_write(struct sim_slot *slot, const struct sim_writer *w, size_t at)
{
	uint8_t *input = (uint8_t *)slot->input + ((at + 7) & ~(size_t)7);

	memcpy(input, w->segments, w->n_segments * sizeof(w->segments[0]));
	slot->request.segments = (struct stoker_segment *)input;
	input += w->n_segments * sizeof(w->segments[0]);
	memcpy(input, w->ids, w->n_ids * sizeof(w->ids[0]));
	slot->request.ids = (uint32_t *)input;
	slot->request.head.n_segments = w->n_segments;
	slot->request.head.n_ids = w->n_ids;
}

/* A segment of the first part names the client's second pool of it, which is on another device than the rest. */
static bool name_two_devices(struct sim *sim, struct sim_slot *slot)
{
	struct stoker_segment *segments = (struct stoker_segment *)slot->request.segments;
	const uint32_t first = slot->model * SIM_PARTS;
	uint32_t of_first = 0, i;

	for (i = 0; i < slot->request.head.n_segments; i++)
		of_first += segments[i].pool == first;
	if (slot->request.head.n_segments < 2 || of_first == 0)
		return false;
	for (i = 0; segments[i].pool != first; i++)
		;
	segments[i].pool = SIM_STRAY(slot->model);
	sim_reach(sim, SIM_REACH_DEVICES);
	return true;
}

/* A lie about the segments that an honest library would not tell, or an application by mistake. */
void request_bend(struct sim *sim, struct sim_slot *slot)
{
	struct stoker_segment *segment = (struct stoker_segment *)slot->request.segments;
	uint32_t *ids = (uint32_t *)slot->request.ids;

	switch (sim_below(&sim->random, 10)) {
	case 0: segment->pool = 1000 + sim_below(&sim->random, 9); break;
	case 1: segment->chunks += 1000; break;
	case 2: segment->first = 0xfffffff0u; break;
	case 3: ids[0] = SIM_BLOCKS + sim_below(&sim->random, 99); break;
	case 4: segment->shard += 40; break;
	case 5: segment->flags ^= 2u << sim_below(&sim->random, 15); break;
	case 6: segment->n_ids -= 1; break;
	case 7: slot->request.head.n_ids -= 1; break;
	case 8:			/* its chunks are not all of the lease, or of the keys */
		segment->first = slot->request.head.op == STOKER_OP_STORE ? slot->n : slot->lease.length;
		sim_reach(sim, SIM_REACH_BEYOND);
		break;
	case 9:
		if (!name_two_devices(sim, slot))
			segment->pool = 1000;
		break;
	}
	slot->lies = true;
}

void request_fill(struct sim *sim, uint32_t number, struct sim_slot *slot, uint32_t part, uint32_t c)
{
	struct sim_pool *pool = &sim->clients[number].pools[slot->part_pool[part]];
	const uint32_t layers = sim->models[slot->model].config.parts[part].layers;

	for (uint32_t b = 0; b < 8; b++)
		for (uint32_t layer = 0; layer < layers && slot->blocks[part][c][b] != STOKER_NO_BLOCK; layer++)
			pool->word[layer][slot->blocks[part][c][b]] = pool->shadow[layer][slot->blocks[part][c][b]] =
				oracle_word(sim, slot->model, slot->epoch, slot->keys[c], part, layer, b);
}

/* ---- ready words ------------------------------------------------------------------------------ */

/* Each block of the job, in each layer of its pool, holds @word from now on, and the worker knows. */
static void scribble(struct sim *sim, uint32_t number, const struct sim_slot *slot, uint64_t word)
{
	for (uint32_t part = 0; part < SIM_PARTS; part++)
		for (uint32_t i = 0; i < SIM_DEPTH * 8 && slot->part_pool[part] != ENGINE_NONE; i++) {
			struct sim_pool *pool = &sim->clients[number].pools[slot->part_pool[part]];
			const uint32_t id = slot->blocks[part][i / 8][i % 8];

			for (uint32_t layer = 0; id != STOKER_NO_BLOCK && layer < SIM_LAYERS; layer++)
				pool->word[layer][id] = pool->shadow[layer][id] = word;
		}
}

/*
 * Until its word is reached the blocks are the worker's: what is to be stored is not there yet, and what is to be
 * overwritten is read.
 */
void request_watch_maybe(struct sim *sim, uint32_t number, struct sim_slot *slot)
{
	if (!sim_chance(&sim->random, 200))
		return;
	slot->request.head.flags |= STOKER_F_READY;
	slot->waits = true;
	scribble(sim, number, slot, sim_draw(&sim->random));
	if (slot->request.head.op == STOKER_OP_STORE)
		slot->request.line.store.ready_value = 1 + sim_below(&sim->random, 99);
	else
		slot->request.line.retrieve.ready_value = 1 + sim_below(&sim->random, 99);
}

void request_ready_some(struct sim *sim)
{
	const uint32_t number = sim_below(&sim->random, SIM_CLIENTS), s = sim_below(&sim->random, SIM_SLOTS);

	if (sim->clients[number].attached && sim->clients[number].slots[s].watched)
		request_reach(sim, number, s);
}

/* The worker's stream has come so far: it has filled the blocks, or does not need what they held any more. */
void request_reach(struct sim *sim, uint32_t number, uint32_t s)
{
	struct sim_slot *slot = &sim->clients[number].slots[s];

	slot->watched = false;
	if (!sim_is_planted(sim, "ready-ignored")) {
		for (uint32_t pool = 0; pool < SIM_MODELS * SIM_PARTS; pool++)
			oracle_pool(sim, number, pool);
		scribble(sim, number, slot, 0);
		for (uint32_t part = 0; part < SIM_PARTS && slot->request.head.op == STOKER_OP_STORE; part++)
			for (uint32_t c = 0; c < slot->n && slot->part_pool[part] != ENGINE_NONE; c++)
				request_fill(sim, number, slot, part, c);
		if (slot->request.head.op == STOKER_OP_STORE)
			sim_reach(sim, SIM_REACH_READY);
	}
	slot->waits = false;
	engine_ready(sim->engine, number, s);
}
