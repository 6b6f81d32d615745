/*
 * Copies of a simulated copier: taken from the ring, moved word by word, told.
 *
 * Any of them goes on at a step, so loads and stores pass each other. Whatever is moved must be for a copy that is
 * under way at the broker's, in memory that is imported and still its owner's.
 */
#include "tests/simulation/gpu.h"

void run_free(struct sim_run *run)
{
	free(run->items);
	free(run->at);
	free(run->failed);
	*run = (struct sim_run){ .used = false };
}

static void lay_items(struct sim_gpu *gpu, struct sim_run *run, const uint8_t *from)
{
	uint64_t at = 0;

	run->items = malloc(run->command.bytes);
	memcpy(run->items, from, run->command.bytes);
	run->at = malloc(run->command.n_items * sizeof(*run->at));
	run->failed = calloc(run->command.n_items, 1);
	for (uint32_t i = 0; i < run->command.n_items; i++) {
		run->at[i] = at;
		at += (sizeof(struct wire_item) +
		       ((const struct wire_item *)(run->items + at))->n_ids * sizeof(uint32_t) + 7) & ~7ull;
	}
	if (at != run->command.bytes)
		sim_fail(gpu->sim, "GPU %u: the items of a copy are %llu bytes, not %llu", gpu->number,
			 (unsigned long long)at, (unsigned long long)run->command.bytes);
}

static void take_copy(struct sim_gpu *gpu, const struct wire_command *command)
{
	struct wire_segment *segment = lane_of(gpu)->segment;
	struct sim_run *run = NULL;

	for (uint32_t i = 0; i < SIM_RUNS && !run; i++)
		run = gpu->copier.runs[i].used ? NULL : &gpu->copier.runs[i];
	if (!run)
		sim_fail(gpu->sim, "GPU %u: more than %u copies", gpu->number, SIM_RUNS);
	*run = (struct sim_run){ .used = true, .command = *command, .layer = command->layer_first,
				 .begun = ++gpu->copier.begun };
	run->serial = ports_copy_serial(gpu->sim, gpu->number, command->copy);
	if (run->serial == 0)
		sim_fail(gpu->sim, "GPU %u: copy %u comes, but it is not under way", gpu->number, command->copy);
	lay_items(gpu, run, wire_items(segment) + (command->at & (segment->item_bytes - 1)));
	atomic_store(&segment->bytes_taken, command->at + command->bytes);
}

/* Once it runs it may be too late. */
static void cancel(struct sim_gpu *gpu, uint32_t number)
{
	for (uint32_t i = 0; i < SIM_RUNS; i++)
		if (gpu->copier.runs[i].used && gpu->copier.runs[i].command.copy == number &&
		    sim_chance(&gpu->sim->random, 600))
			gpu->copier.runs[i].cancelled = true;
}

bool runs_take_command(struct sim_gpu *gpu)
{
	struct wire_command command;

	if (!shared_queue_get(lane_of(gpu)->commands, &command))
		return false;
	if (command.type == WIRE_COPY)
		take_copy(gpu, &command);
	else
		cancel(gpu, command.copy);
	return true;
}

static uint64_t *word_at(struct sim_gpu *gpu, const struct wire_row *row, uint32_t id)
{
	const struct sim_import *import = copier_import_find(&gpu->copier, row->region);
	const uint64_t at = row->offset + id * row->block_stride;
	struct sim_pool *pool = import ? gpu_memory(gpu->sim, import) : NULL;

	if (!pool)
		sim_fail(gpu->sim, "GPU %u: a copy touches memory of a client that was closed", gpu->number);
	if (id >= SIM_BLOCKS || at + sizeof(uint64_t) > sizeof(pool->word))
		sim_fail(gpu->sim, "GPU %u: a copy names block %u, at %llu", gpu->number, id, (unsigned long long)at);
	return &pool->word[0][0] + at / sizeof(uint64_t);
}

/* It is about to move something, or the device does after its end: is it still to? */
static void must_be_under_way(struct sim_gpu *gpu, const struct sim_run *run)
{
	if (ports_copy_serial(gpu->sim, gpu->number, run->command.copy) != run->serial)
		sim_fail(gpu->sim, "GPU %u: words are moved for copy %u, which is DONE", gpu->number, run->command.copy);
}

/* The words of one item in one layer; @spoil: what a device that goes down leaves there. */
void run_move(struct sim_gpu *gpu, const struct sim_run *run, uint32_t i, uint32_t layer, bool spoil)
{
	const struct wire_item *item = (const struct wire_item *)(run->items + run->at[i]);
	const struct sim_view *view = copier_view_find(&gpu->copier, item->pool);
	const struct wire_row *row = view && layer < view->n_rows ? &view->rows[layer] : NULL;
	uint64_t *payload;

	if (!view)
		sim_fail(gpu->sim, "GPU %u: copy %u names pool %u, which it has not", gpu->number, run->command.copy,
			 item->pool);
	if (!row)
		return;
	must_be_under_way(gpu, run);
	payload = (uint64_t *)(gpu->sim->arena + item->payload + row->payload);
	for (uint32_t b = 0; b < item->n_ids; b++) {
		const bool none = item->ids[b] == STOKER_NO_BLOCK;
		uint64_t *word = none ? NULL : word_at(gpu, row, item->ids[b]);

		if (run->command.store)
			payload[b] = (none ? 0 : *word) ^ (spoil ? 0x100 : 0);
		else if (!none)
			*word = payload[b] ^ (spoil ? 0x100 : 0);
	}
}

static void fail_item(struct sim_gpu *gpu, struct sim_run *run, uint32_t i)
{
	if (run->failed[i] == 0)
		run->failed[i] = 1;
	run->any_failed = true;
	ports_copy_excuse(gpu->sim, gpu->number, run->command.copy);
}

static void layer_ends(struct sim_run *run)
{
	run->item = 0;
	run->layer++;
	if (!run->any_failed)
		run->layers_done = run->layer - run->command.layer_first;
}

/* One item further. */
static void run_step(struct sim_gpu *gpu, struct sim_run *run)
{
	const uint32_t i = run->item;
	const struct wire_item *item = (const struct wire_item *)(run->items + run->at[i]);

	if (run->cancelled) {
		for (uint32_t j = 0; j < run->command.n_items; j++)
			fail_item(gpu, run, j);
		sim_reach(gpu->sim, SIM_REACH_GPU_CANCEL);
		run->over = true;
		return;
	}
	if (run->command.layer_first >= run->command.layer_end)
		run->layer = run->command.layer_end;
	if (run->layer < run->command.layer_end) {
		if (item->pool == WIRE_NO_POOL || gpu_draws(gpu, gpu->mood.item)) {
			if (item->pool != WIRE_NO_POOL)
				run_move(gpu, run, i, run->layer, true);
			fail_item(gpu, run, i);
		} else if (run->failed[i] == 0) {
			run_move(gpu, run, i, run->layer, false);
		}
		if (++run->item == run->command.n_items)
			layer_ends(run);
	}
	run->over = run->layer >= run->command.layer_end;
	for (uint32_t r = 0; r < SIM_RUNS && run->over && !run->command.store; r++)
		if (gpu->copier.runs[r].used && gpu->copier.runs[r].command.store && !gpu->copier.runs[r].over &&
		    gpu->copier.runs[r].begun < run->begun)
			sim_reach(gpu->sim, SIM_REACH_GPU_PASSED);
}

static bool put(struct sim_gpu *gpu, const struct sim_run *run, enum wire_event_type type, uint32_t value)
{
	const struct wire_event event = { .type = type, .copy = run->command.copy, .value = value };

	return shared_queue_put(lane_of(gpu)->events, &event);
}

/* Failures, progress, the end, in that order, as far as there is room. True: something was told. */
static bool run_tell(struct sim_gpu *gpu, struct sim_run *run)
{
	bool any = false;

	for (uint32_t i = 0; i < run->command.n_items && run->any_failed; i++) {
		if (run->failed[i] != 1)
			continue;
		if (!put(gpu, run, WIRE_FAILED, i))
			return any;
		run->failed[i] = 2;
		any = true;
	}
	if (run->layers_done > run->layers_told) {
		if (!put(gpu, run, WIRE_PROGRESS, run->layers_done))
			return any;
		run->layers_told = run->layers_done;
		any = true;
	}
	if (!run->over)
		return any;
	must_be_under_way(gpu, run);
	if (!put(gpu, run, WIRE_DONE, run->any_failed ? ENGINE_FAILED : ENGINE_OK))
		return any;
	run_free(run);
	return true;
}

bool run_has_news(const struct sim_run *run)
{
	return run->over || run->layers_done > run->layers_told;
}

bool runs_tell(struct sim_gpu *gpu)
{
	bool any = false;

	for (uint32_t i = 0; i < SIM_RUNS; i++)
		if (gpu->copier.runs[i].used && run_has_news(&gpu->copier.runs[i]))
			any |= run_tell(gpu, &gpu->copier.runs[i]);
	if (any)
		shared_bell_ring(&lane_of(gpu)->segment->core_bell, gpu->sim->gpus->core.fd);
	return any;
}

/* Any of them goes on: streams are not in step with each other. */
bool runs_go_on(struct sim_gpu *gpu)
{
	const uint32_t at = sim_below(&gpu->sim->random, SIM_RUNS);

	for (uint32_t i = 0; i < SIM_RUNS; i++) {
		struct sim_run *run = &gpu->copier.runs[(at + i) % SIM_RUNS];

		if (!run->used || run->over)
			continue;
		for (uint32_t left = 1 + sim_below(&gpu->sim->random, 8); left > 0 && !run->over; left--)
			run_step(gpu, run);
		return true;
	}
	return false;
}
