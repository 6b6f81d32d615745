/*
 * A GPU at work, as the core and the control thread see it: copies are given to the real backend, and what becomes of
 * them is looked at and told to the engine; its copier is let go on; and either thread at any instant. In a calm they
 * sleep, and only what rings their bells wakes them.
 */
#include "tests/simulation/gpu.h"

#define LEAP_NS		700000000ull	/* time passes at most that fast while somebody hangs */
#define EVENTS		32u

/* ---- copies ----------------------------------------------------------------------------------- */

static bool has_lost(const struct sim *sim, const struct engine_copy *copy)
{
	for (uint32_t i = 0; i < copy->n_items; i++) {
		const struct device_pool *view = sim->gpus->pools[copy->client][copy->items[i].pool];
		const struct gpu_pool *pool = view ? view->of : NULL;

		if (!pool || atomic_load(&pool->lost))
			return true;
	}
	return false;
}

void gpus_copy(struct sim *sim, const struct engine_copy *copy)
{
	struct sim_gpu *gpu = gpu_of(sim, copy->device);
	const struct device_copy order = {
		.request = *copy, .layout = &sim->gpus->layouts[model_stable(sim, copy->model)],
		.pools = sim->gpus->pools[copy->client],
	};
	const bool up = gpu_is_up(gpu);

	if (!up || has_lost(sim, copy))
		ports_copy_excuse(sim, copy->device, copy->copy);
	if (!up)
		sim_reach(sim, SIM_REACH_GPU_DOWN);
	kernel_enter(gpu);
	if (GPU.copy(gpu->device, &order) != 0)
		sim_fail(sim, "GPU %u refuses copy %u", gpu->number, copy->copy);
	if (up && gpu->device->copies[copy->copy].state == COPY_WAITS)
		sim_reach(sim, SIM_REACH_GPU_WAITED);
}

void gpus_cancel(struct sim *sim, uint32_t device, uint32_t copy)
{
	struct sim_gpu *gpu = gpu_of(sim, device);

	ports_copy_excuse(sim, device, copy);
	kernel_enter(gpu);
	GPU.cancel(gpu->device, copy);
}

/* No process has it in hand any more, nor has the device of one that is not reaped. */
static void must_be_drained(const struct sim_gpu *gpu, uint64_t serial)
{
	for (uint32_t i = 0; i < SIM_RUNS && gpu->copier.state != COPIER_ZOMBIE; i++)
		if (gpu->copier.runs[i].used && gpu->copier.runs[i].serial == serial)
			sim_fail(gpu->sim, "GPU %u: a copy is DONE, but its copier has it in hand", gpu->number);
}

static void reach_good(struct sim *sim, const struct sim_gpu *gpu, const struct sim_pending *p)
{
	for (uint32_t i = 0; i < SIM_GPUS; i++) {
		const struct sim_gpu *other = &sim->gpus->gpu[i];

		if (other != gpu && other->ends && other->device && !gpu_is_up(other))
			sim_reach(sim, SIM_REACH_GPU_OTHER);
	}
	if (p->cancelled)
		sim_reach(sim, SIM_REACH_GPU_CANCEL_LATE);
	for (uint32_t i = 0; i < p->copy.n_items; i++)
		if (sim->gpus->places[p->copy.client][p->copy.items[i].pool].ends != gpu->ends) {
			sim_reach(sim, SIM_REACH_GPU_BACK);
			return;
		}
}

static void reach_failed(struct sim *sim, const struct sim_pending *p)
{
	const struct sim_slot *slot = &sim->clients[p->copy.client].slots[p->slot];

	if (p->copy.store)
		sim_reach(sim, SIM_REACH_GPU_STORE);
	else if (slot->layers > 0)
		sim_reach(sim, SIM_REACH_GPU_LAYERS);
	if (sim->clients[p->copy.client].leaving)
		sim_reach(sim, SIM_REACH_GPU_CLIENT);
	if (slot->stage == STOKER_STAGE_ENDING && slot->ending == STOKER_STATUS_DEADLINE)
		sim_reach(sim, SIM_REACH_GPU_DEADLINE);
}

/* What the planted bugs of a broker make of an end. False: it is not told at all. */
static bool bend_end(struct sim *sim, struct sim_gpu *gpu, const struct sim_pending *p, enum engine_result *result)
{
	if (*result == ENGINE_OK)
		return true;
	if (sim_is_planted(sim, p->copy.store ? "failed-store" : "failed-load")) {
		memset(p->copy.failed, 0, p->copy.n_items);
		*result = ENGINE_OK;
	}
	return !(sim_is_planted(sim, "forgotten-copies") && p->ends != gpu->ends);
}

static void copy_done(struct sim *sim, struct sim_gpu *gpu, uint32_t number, enum engine_result result)
{
	const uint32_t at = ports_copy_find(sim, gpu->number, number);
	struct sim_pending *p;
	bool failed = false;

	if (at == ENGINE_NONE)
		sim_fail(sim, "GPU %u: copy %u is DONE, but it is not under way", gpu->number, number);
	p = &sim->pending[at];
	must_be_drained(gpu, p->serial);
	for (uint32_t i = 0; i < p->copy.n_items; i++)
		failed |= p->copy.failed[i] != 0;
	if (failed && result == ENGINE_OK)
		sim_fail(sim, "GPU %u: copy %u ends well with items that failed", gpu->number, number);
	if (result != ENGINE_OK && ((!p->excused && p->ends == gpu->ends) || (sim->roomy && !p->cancelled)))
		sim_fail(sim, "GPU %u: copy %u failed, and nothing happened to it or its GPU", gpu->number, number);
	if (result == ENGINE_OK)
		reach_good(sim, gpu, p);
	else
		reach_failed(sim, p);
	sim_note(sim, number, (uint64_t)result + 7);
	sim->clients[p->copy.client].slots[p->slot].harmed |= result != ENGINE_OK;
	if (bend_end(sim, gpu, p, &result))
		ports_copy_end(sim, at, result);
}

/* A pool is dead once its memory could not be opened again. */
static void pool_died(struct sim *sim, const struct sim_gpu *gpu, uint32_t client, uint32_t pool)
{
	if (gpu->refusals == 0 && gpu->ends == 0)
		sim_fail(sim, "GPU %u: pool %u of client %u is dead, and nothing happened", gpu->number, pool, client);
	sim_reach(sim, SIM_REACH_GPU_POOL);
	if (sim->clients[client].attached)
		pools_died(sim, client, pool);
}

static void take_event(struct sim *sim, struct sim_gpu *gpu, const struct device_event *event)
{
	switch (event->type) {
	case DEVICE_PROGRESS:
		sim_note(sim, event->copy, event->layers);
		engine_copy_progress(sim->engine, event->copy, event->layers);
		break;
	case DEVICE_DONE:
		copy_done(sim, gpu, event->copy, event->result);
		if (sim_is_planted(sim, "done-twice"))
			copy_done(sim, gpu, event->copy, event->result);
		break;
	case DEVICE_POOL_DEAD:
		pool_died(sim, gpu, event->client, event->pool);
		break;
	case DEVICE_CHECKED:
		sim_fail(sim, "GPU %u answers a check", gpu->number);
	}
}

/* Planted: whoever dies takes a copy of another GPU along. */
static void take_along(struct sim *sim, const struct sim_gpu *dying)
{
	for (uint32_t i = 0; i < sim->n_pending; i++) {
		struct sim_gpu *of = sim->pending[i].kind == SIM_COPY ? gpu_of(sim, sim->pending[i].copy.device) : NULL;

		if (of && of != dying) {
			copy_done(sim, of, sim->pending[i].copy.copy, ENGINE_FAILED);
			return;
		}
	}
}

/* ---- the two threads -------------------------------------------------------------------------- */

static bool core_looks(struct sim *sim)
{
	struct device_event events[EVENTS];
	bool any = false;

	for (uint32_t i = 0; i < SIM_GPUS; i++) {
		struct sim_gpu *gpu = &sim->gpus->gpu[i];
		uint32_t n = 0;

		kernel_enter(gpu);
		if (gpu->device)
			n = GPU.reap(gpu->device, events, 1 + sim_below(&sim->random, EVENTS));
		for (uint32_t e = 0; e < n; e++)
			take_event(sim, gpu, &events[e]);
		if (sim_is_planted(sim, "wrong-gpu") && gpu->copier.state == COPIER_DYING)
			take_along(sim, gpu);
		any |= n > 0;
	}
	return any;
}

/* As before it sleeps: bells armed, and one more look. */
static bool core_arms(struct sim *sim)
{
	bell_arm(&sim->gpus->core);
	for (uint32_t i = 0; i < SIM_GPUS; i++)
		if (sim->gpus->gpu[i].device)
			GPU.arm(sim->gpus->gpu[i].device);
	return core_looks(sim);
}

static void control_tends(struct sim *sim, struct sim_gpu *gpu)
{
	struct device_answer answer;

	gpu->stirred = false;
	kernel_enter(gpu);
	gpu->next_ns = GPU.tend(gpu->device, sim->now_ns);
	while (GPU.answer(gpu->device, &answer)) {
		gpu_take_answer(sim, &answer);
		kernel_enter(gpu);
	}
}

static bool is_due(const struct sim *sim, const struct sim_gpu *gpu)
{
	return gpu->device && (gpu->stirred || sim->now_ns >= gpu->next_ns);
}

/* ---- while the world is busy ------------------------------------------------------------------ */

/* Somebody hangs, or is not started again yet: else worlds would end before that does. */
static void leap(struct sim *sim)
{
	for (uint32_t i = 0; i < SIM_GPUS; i++) {
		const struct sim_gpu *gpu = &sim->gpus->gpu[i];

		if (!gpu->device || !(gpu->copier.hangs || gpu->copier.state == COPIER_NONE) || gpu->next_ns <= sim->now_ns ||
		    gpu->next_ns == UINT64_MAX)
			continue;
		sim->now_ns += gpu->next_ns - sim->now_ns < LEAP_NS ? gpu->next_ns - sim->now_ns : LEAP_NS;
		return;
	}
}

/* Who was refused tries again. */
static void register_again(struct sim *sim)
{
	const uint32_t c = sim_below(&sim->random, SIM_CLIENTS), p = sim_below(&sim->random, SIM_MODELS * SIM_PARTS);
	const struct sim_pool *pool = &sim->clients[c].pools[p];

	if (sim->clients[c].attached && !sim->clients[c].leaving && pool->dropped && !pool->opening && !pool->dropping &&
	    gpu_of(sim, sim_device(c, p / SIM_PARTS)))
		pools_add(sim, c, p);
}

void gpus_progress(struct sim *sim, uint32_t device)
{
	struct sim_gpu *gpu = gpu_of(sim, device);

	if (sim_below(&sim->random, 8) < gpu->mood.pace)
		copier_step(gpu);
}

void gpus_step(struct sim *sim)
{
	for (uint32_t i = 0; i < SIM_GPUS; i++) {
		struct sim_gpu *gpu = &sim->gpus->gpu[i];

		if (!gpu->device)
			continue;
		kernel_enter(gpu);
		if (sim_below(&sim->random, 8) < gpu->mood.pace)
			copier_step(gpu);
		if (is_due(sim, gpu) && sim_chance(&sim->random, 500))
			control_tends(sim, gpu);
	}
	if (sim_chance(&sim->random, 400))
		core_looks(sim);
	if (sim_chance(&sim->random, 10))
		leap(sim);
	if (sim_chance(&sim->random, 50))
		register_again(sim);
}

/* ---- in a calm -------------------------------------------------------------------------------- */

/* Something will happen without time passing. */
bool gpus_awake(const struct sim *sim)
{
	for (uint32_t i = 0; i < SIM_GPUS; i++)
		if (is_due(sim, &sim->gpus->gpu[i]) || copier_can_step(&sim->gpus->gpu[i]))
			return true;
	return sim->gpus->core_rung;
}

bool gpus_work(struct sim *sim)
{
	bool any = false;

	for (uint32_t i = 0; i < SIM_GPUS; i++) {
		struct sim_gpu *gpu = &sim->gpus->gpu[i];

		kernel_enter(gpu);
		if (copier_can_step(gpu))
			copier_step(gpu);
		if (is_due(sim, gpu))
			control_tends(sim, gpu);
	}
	if (!sim->gpus->core_rung)
		return false;
	sim->gpus->core_rung = false;
	do
		while (core_looks(sim))
			any = true;
	while (core_arms(sim));
	return any;
}

/* The core is awake: it looks, and arms its bells before it sleeps again. */
void gpus_calm(struct sim *sim)
{
	sim->gpus->core_rung = true;
}

/* All that is under way is a device's, and only time will end it. */
bool gpus_stuck(const struct sim *sim)
{
	if (gpus_awake(sim) || (sim->n_pending == 0 && sim->gpus->n_asks == 0))
		return false;
	for (uint32_t i = 0; i < sim->n_pending; i++)
		if (sim->pending[i].kind != SIM_COPY || !gpu_of(sim, sim->pending[i].copy.device))
			return false;
	return true;
}

static uint64_t gpus_due(const struct sim *sim)
{
	uint64_t due = UINT64_MAX;

	for (uint32_t i = 0; i < SIM_GPUS; i++) {
		const struct sim_gpu *gpu = &sim->gpus->gpu[i];

		if (gpu->device && gpu->next_ns < due)
			due = gpu->next_ns;
		if (gpu->device && copier_due(gpu) < due)
			due = copier_due(gpu);
	}
	return due;
}

void gpus_wait(struct sim *sim)
{
	const uint64_t due = gpus_due(sim);

	if (core_looks(sim))
		sim_fail(sim, "the core sleeps, and nobody has woken it for what it has to take");
	if (sim->roomy || due == UINT64_MAX)
		sim_fail(sim, "asleep, but %u things are under way and %u answers of devices awaited", sim->n_pending,
			 sim->gpus->n_asks);
	sim->now_ns = due > sim->now_ns ? due : sim->now_ns;
}

/* Nobody waits for it, so time will not pass for it here: its copier hangs, or could not be told something yet. */
static bool is_behind(const struct sim_gpu *gpu)
{
	return gpu->device && (gpu->copier.hangs || gpu->device->minder.again_ns != UINT64_MAX);
}

/* Each pool that is known, and how many descriptors of fences there must be, the worker's and the backend's. */
static uint32_t check_places(struct sim *sim, uint32_t known[SIM_GPUS])
{
	uint32_t fences = 0;

	for (uint32_t c = 0; c < SIM_CLIENTS; c++)
		for (uint32_t p = 0; p < SIM_MODELS * SIM_PARTS; p++) {
			const struct sim_place *place = &sim->gpus->places[c][p];
			const struct sim_gpu *gpu = place->gpu;

			if (place->state == PLACE_NONE)
				continue;
			if (place->state != PLACE_KNOWN)
				sim_fail(sim, "pool %u of client %u is neither known nor gone in a calm", p, c);
			known[gpu->number - 1]++;
			fences += 2;
			if (gpu->copier.state == COPIER_UP && gpu_is_up(gpu) && !is_behind(gpu) &&
			    !copier_imports(gpu, c, p, place->birth) && !sim->clients[c].pools[p].dead &&
			    !atomic_load(&((struct gpu_pool *)place->view->of)->lost))
				sim_fail(sim, "pool %u of client %u is known, but its GPU's copier has not imported it", p, c);
		}
	return fences;
}

/* Nobody waits, nothing moves: what is imported is what clients have, and each place has its descriptors. */
void gpus_check(struct sim *sim)
{
	uint32_t known[SIM_GPUS] = { 0 }, open = 0, extents = 0;
	const uint32_t fences = check_places(sim, known);
	bool behind = false;

	for (uint32_t i = 0; i < sim->config.extents; i++)
		extents += sim->extent_added[i];
	for (uint32_t i = 0; i < SIM_GPUS; i++) {
		const struct sim_gpu *gpu = &sim->gpus->gpu[i];

		behind |= is_behind(gpu);
		if (is_behind(gpu) || gpu->copier.state != COPIER_UP || gpu->copier.alone)
			continue;
		if (gpu->copier.extents != extents)
			sim_fail(sim, "GPU %u: %u extents are populated, and its copier was told of %u", i + 1, extents,
				 gpu->copier.extents);
		if (copier_import_count(gpu) > known[i])
			sim_fail(sim, "GPU %u: %u regions are imported, but clients have %u", i + 1,
				 copier_import_count(gpu), known[i]);
	}
	for (uint32_t i = 0; i < SIM_FDS; i++)
		open += sim->gpus->fds[i].kind == FD_FENCE;
	if (open != fences && !behind)
		sim_fail(sim, "%u fences are open, and there should be %u", open, fences);
}

/* All clients are gone: copiers without a region end after a while, and with the broker nothing stays. */
void gpus_end(struct sim *sim)
{
	for (uint32_t i = 0; i < SIM_GPUS; i++) {
		const struct sim_gpu *gpu = &sim->gpus->gpu[i];

		for (uint32_t rounds = 0; gpu->device && gpu->device->minder.state != MINDER_DOWN; rounds++) {
			if (rounds == 100000 || (!gpus_awake(sim) && gpus_due(sim) == UINT64_MAX))
				sim_fail(sim, "GPU %u: nobody has memory of it, but its copier does not end", gpu->number);
			if (gpus_awake(sim))
				gpus_work(sim);
			else
				sim->now_ns = gpus_due(sim) > sim->now_ns ? gpus_due(sim) : sim->now_ns + 1;
			if (gpu->copier.status == 256 && gpu->device->minder.state == MINDER_DOWN)
				sim_reach(sim, SIM_REACH_GPU_IDLE);
		}
	}
	gpus_stop(sim);
}
