/*
 * What the control thread does for those who have memory on a GPU: a backend is started when somebody names the
 * device, regions and pools are registered, answered for later, and closed when the core has let go of them. The
 * backend is the real one. The faults that a GPU has in this world are drawn here, for each by itself: often one is
 * well.
 */
#include <errno.h>

#include "tests/simulation/gpu.h"

#define HANG_MS		3u
#define IDLE_NS		40000000ull

/* ---- the world's faults ----------------------------------------------------------------------- */

bool gpu_draws(struct sim_gpu *gpu, uint32_t permyriad)
{
	return permyriad > 0 && !gpu->sim->roomy && sim_below(&gpu->sim->random, 100000) < permyriad;
}

/* Rates of 100,000 steps or calls. */
static void mood_make(struct sim *sim, struct sim_mood *mood)
{
	struct sim_random *random = &sim->random;

	*mood = (struct sim_mood){ .pace = sim->roomy ? 8 : 1 + sim_below(random, 8) };
	if (sim->roomy || (!sim->plant && sim_chance(random, 350)))
		return;
	mood->kill = sim_below(random, 80);
	mood->fatal = sim_below(random, 40);
	mood->hang = sim_below(random, 30);
	mood->stick = sim_below(random, 100);
	mood->item = sim_chance(random, 500) ? sim_below(random, 200) : 0;
	mood->import = sim_below(random, 4000);
	mood->view = sim_below(random, 1500);
	mood->start = sim_below(random, 10000);
	mood->call = sim_chance(random, 500) ? sim_below(random, 300) : 0;
}

/* ---- layouts ---------------------------------------------------------------------------------- */

/* A plane a layer, of 8 bytes a block: as copies of the host's pools have it. */
static void layout_make(struct sim *sim, uint32_t m)
{
	struct sim_gpus *gpus = sim->gpus;
	struct model_layout *layout = &gpus->layouts[m];
	const struct engine_model_config *config = &sim->models[m].config;
	uint32_t row = 0;

	*layout = (struct model_layout){ .n_parts = config->n_parts, .rows = gpus->rows[m], .row_offset = gpus->offsets[m] };
	for (uint32_t p = 0; p < config->n_parts; p++) {
		const struct engine_part_config *part = &config->parts[p];

		layout->parts[p] = (struct model_part){
			.group = part->group, .shard = part->shard, .layers = part->layers, .first_row = row,
			.n_rows = part->layers, .blocks = part->blocks, .payload_bytes = part->payload_bytes,
			.image_bytes = part->image_bytes,
		};
		for (uint32_t layer = 0; layer < part->layers; layer++, row++) {
			gpus->rows[m][row] = (struct model_wire_row){ .group = part->group, .shard = part->shard,
								      .layer = (uint16_t)layer, .bytes = 8 };
			gpus->offsets[m][row] = (uint64_t)layer * part->blocks * 8;
		}
	}
}

/* ---- life ------------------------------------------------------------------------------------- */

static struct sim *closing_for;		/* the backend's way to close descriptors has no other word of it */

static void close_for(uid_t uid, int fd)
{
	(void)uid;
	kernel_close(closing_for, fd);
}

void gpus_make(struct sim *sim)
{
	struct sim_gpus *gpus = calloc(1, sizeof(*gpus));

	sim->gpus = gpus;
	closing_for = sim;
	for (uint32_t m = 0; m < sim->n_models; m++)
		layout_make(sim, m);
	for (uint32_t i = 0; i < SIM_GPUS; i++) {
		gpus->gpu[i].sim = sim;
		gpus->gpu[i].number = i + 1;
		mood_make(sim, &gpus->gpu[i].mood);
	}
	gpus->core.fd = kernel_open(sim, FD_EVENT);
	for (uint32_t c = 0; c < SIM_CLIENTS; c++)
		for (uint32_t p = 0; p < SIM_MODELS * SIM_PARTS; p++)
			gpus->places[c][p].fence = -1;
}

/* The backend, at the first region of a device; NULL: it could not be started. */
static struct sim_gpu *gpu_named(struct sim *sim, uint32_t number)
{
	struct sim_gpu *gpu = gpu_of(sim, number);
	struct device_gpu config = {
		.streams_load = 2, .streams_store = 2, .hang_ms = HANG_MS, .idle_ns = IDLE_NS, .program = "/simulated",
		.extent_bytes = sim->config.extent_bytes, .io_lock_fd = sim->gpus->core.fd,
	};
	const struct device_host host = {
		.arena = sim->arena, .arena_bytes = sim->config.extents * sim->config.extent_bytes,
		.arena_fd = sim->gpus->core.fd, .bell = &sim->gpus->core, .copies = SIM_CLIENTS * SIM_SLOTS, .gpu = &config,
		.close_fd = close_for,
	};

	if (gpu->device)
		return gpu;
	memset(config.uuid, (int)number, sizeof(config.uuid));
	kernel_enter(gpu);
	if (GPU.start(&host, &gpu->device) < 0) {
		gpu->device = NULL;
		return NULL;
	}
	gpu->next_ns = 0;
	for (uint32_t i = 0; i < sim->config.extents; i++)
		if (sim->extent_added[i])
			GPU.extent(gpu->device, i);
	return gpu;
}

void gpus_extent(struct sim *sim, uint32_t extent)
{
	for (uint32_t i = 0; i < SIM_GPUS && sim->gpus; i++) {
		kernel_enter(&sim->gpus->gpu[i]);
		if (sim->gpus->gpu[i].device)
			GPU.extent(sim->gpus->gpu[i].device, extent);
	}
}

static void fence_close(struct sim *sim, struct sim_place *place)
{
	if (place->fence >= 0)
		kernel_close(sim, place->fence);
	place->fence = -1;
}

/* The broker is gone, by its own will or not: no process and no descriptor of it stays. */
void gpus_stop(struct sim *sim)
{
	struct sim_gpus *gpus = sim->gpus;

	for (uint32_t i = 0; i < SIM_GPUS; i++) {
		struct sim_gpu *gpu = &gpus->gpu[i];

		kernel_enter(gpu);
		if (gpu->device)
			GPU.stop(gpu->device);
		gpu->device = NULL;
		if (gpu->copier.state != COPIER_NONE)
			sim_fail(sim, "GPU %u: the broker has stopped, but its copier has not", gpu->number);
		copier_free(gpu);
	}
	for (uint32_t c = 0; c < SIM_CLIENTS; c++)
		for (uint32_t p = 0; p < SIM_MODELS * SIM_PARTS; p++) {
			fence_close(sim, &gpus->places[c][p]);
			gpus->places[c][p] = (struct sim_place){ .fence = -1 };
			gpus->pools[c][p] = NULL;
		}
	memset(gpus->asks, 0, sizeof(gpus->asks));
	gpus->n_asks = 0;
	if (gpus->n_fds != 1)
		sim_fail(sim, "the broker has stopped, but %u descriptors are open", gpus->n_fds - 1);
}

/* For good; after a fault that was found nothing is looked at any more. */
void gpus_free(struct sim *sim)
{
	for (uint32_t i = 0; i < SIM_GPUS && sim->gpus; i++)
		copier_free(&sim->gpus->gpu[i]);
	free(sim->gpus);
	sim->gpus = NULL;
}

/* ---- asking ----------------------------------------------------------------------------------- */

static uint64_t ask(struct sim *sim, uint32_t client, uint32_t pool, uint64_t birth, int what)
{
	for (uint32_t i = 0; i < SIM_ASKS; i++) {
		if (sim->gpus->asks[i].used)
			continue;
		sim->gpus->asks[i] = (struct sim_ask){ .used = true, .client = client, .pool = pool, .birth = birth,
						       .what = what };
		sim->gpus->n_asks++;
		return i + 1;
	}
	sim_fail(sim, "more than %u answers of devices are awaited", SIM_ASKS);
}

static void unask(struct sim *sim, uint64_t token)
{
	sim->gpus->asks[token - 1].used = false;
	sim->gpus->n_asks--;
}

struct sim_pool *gpu_memory(struct sim *sim, const struct sim_import *import)
{
	const struct sim_place *place;

	if (import->client >= SIM_CLIENTS || import->pool >= SIM_MODELS * SIM_PARTS)
		return NULL;
	place = &sim->gpus->places[import->client][import->pool];
	return place->state != PLACE_NONE && place->birth == import->birth ?
	       &sim->clients[import->client].pools[import->pool] : NULL;
}

static void refused(struct sim *sim, uint32_t client, uint32_t pool)
{
	struct sim_place *place = &sim->gpus->places[client][pool];

	if (sim->roomy)
		sim_fail(sim, "pool %u of client %u is refused in a world without faults", pool, client);
	fence_close(sim, place);
	*place = (struct sim_place){ .fence = -1 };
	sim->clients[client].pools[pool].opening = false;
}

/* A worker registers the memory of a pool: by handle, or as descriptors. */
void gpus_pool_add(struct sim *sim, uint32_t client, uint32_t pool, uint32_t device)
{
	struct sim_place *place = &sim->gpus->places[client][pool];
	struct message_region_add_cuda message = { .bytes = sizeof(sim->clients[0].pools[0].word) };
	const uint64_t birth = ++sim->gpus->births;
	const uint64_t handle[3] = { client, pool, birth };
	const bool vmm = sim_chance(&sim->random, 400);
	uint64_t bytes[SIM_VMM_FDS];
	int fds[SIM_VMM_FDS];
	struct device_memory memory = { .cuda = &message, .fd_bytes = bytes, .fds = fds, .n_fds = vmm ? SIM_VMM_FDS : 0 };
	char why[MESSAGE_REASON];

	if (place->state != PLACE_NONE)
		return;			/* what was there before is not closed yet */
	*place = (struct sim_place){ .state = PLACE_REGION, .birth = birth, .fence = kernel_open(sim, FD_FENCE),
				     .gpu = gpu_named(sim, device) };
	sim->clients[client].pools[pool].opening = true;
	if (!place->gpu) {
		refused(sim, client, pool);
		return;
	}
	message.kind = vmm ? MESSAGE_CUDA_VMM : MESSAGE_CUDA_IPC;
	memcpy(message.handle, handle, sizeof(handle));
	for (uint32_t i = 0; i < memory.n_fds; i++) {
		fds[i] = kernel_open(sim, FD_ALLOCATION);
		bytes[i] = message.bytes;
	}
	memory.fence = place->fence;
	memory.token = ask(sim, client, pool, birth, ASK_REGION);
	kernel_enter(place->gpu);
	if (GPU.region_add(place->gpu->device, &memory, why, &place->region) != DEVICE_LATER) {
		unask(sim, memory.token);
		refused(sim, client, pool);
		return;
	}
	place->gpu->next_ns = 0;
}

static void region_let_go(struct sim_place *place, uint64_t token)
{
	struct sim_gpu *gpu = place->gpu;

	kernel_enter(gpu);
	(void)GPU.region_close(place->region, token);
	gpu->next_ns = 0;
}

/* Its region is open: now the view of it. */
static void pool_open_at(struct sim *sim, uint32_t client, uint32_t pool)
{
	struct sim_place *place = &sim->gpus->places[client][pool];
	const uint32_t model = pool / SIM_PARTS, part = pool % SIM_PARTS;
	const uint32_t layers = sim->models[model].config.parts[part].layers;
	struct message_plane planes[SIM_LAYERS];
	const uint64_t token = ask(sim, client, pool, place->birth, ASK_POOL);
	char why[MESSAGE_REASON];
	int r;

	for (uint32_t i = 0; i < layers; i++)
		planes[i] = (struct message_plane){ .layer = (uint16_t)i, .offset = (uint64_t)i * SIM_BLOCKS * 8,
						    .block_stride = 8, .bytes = 8, .rows = 1 };
	kernel_enter(place->gpu);
	r = GPU.pool_add(place->gpu->device, token, client, pool, &sim->gpus->layouts[model], part, SIM_BLOCKS, planes,
			 layers, &place->region, 1, why, &place->view);
	place->gpu->next_ns = 0;
	if (r == DEVICE_LATER) {
		place->state = PLACE_POOL;
		return;
	}
	/* Its copier ended over something else, and could not import it again. */
	if (r != -EFAULT)
		sim_fail(sim, "pool %u of client %u is refused: %s", pool, client, why);
	unask(sim, token);
	region_let_go(place, 0);
	refused(sim, client, pool);
}

static void made_known(struct sim *sim, uint32_t client, uint32_t pool)
{
	struct sim_place *place = &sim->gpus->places[client][pool];

	place->state = PLACE_KNOWN;
	place->ends = place->gpu->ends;
	sim->gpus->pools[client][pool] = place->view;
	sim->clients[client].pools[pool].opening = false;
	pools_known(sim, client, pool);
}

/* ---- answers ---------------------------------------------------------------------------------- */

static void closed(struct sim *sim, uint32_t client, uint32_t pool)
{
	struct sim_place *place = &sim->gpus->places[client][pool];

	if (copier_imports(place->gpu, client, pool, place->birth))
		sim_fail(sim, "pool %u of client %u is said to be closed, but the copier still imports it", pool, client);
	*place = (struct sim_place){ .fence = -1 };
}

void gpu_take_answer(struct sim *sim, const struct device_answer *answer)
{
	struct sim_ask *at = answer->token >= 1 && answer->token <= SIM_ASKS ? &sim->gpus->asks[answer->token - 1] : NULL;
	struct sim_ask is;
	struct sim_place *place;

	if (!at || !at->used)
		sim_fail(sim, "a device answers what nobody asked, or for the second time");
	is = *at;
	unask(sim, answer->token);
	place = &sim->gpus->places[is.client][is.pool];
	if (place->birth != is.birth || !sim->clients[is.client].attached || sim->clients[is.client].leaving) {
		sim_reach(sim, SIM_REACH_GPU_NOBODY);
		return;		/* what there is of it is closed when the core lets its client go */
	}
	sim_note(sim, answer->token, (uint64_t)(int64_t)answer->result);
	if (is.what == ASK_CLOSE) {
		closed(sim, is.client, is.pool);
	} else if (answer->result == 0 && is.what == ASK_REGION) {
		pool_open_at(sim, is.client, is.pool);
	} else if (answer->result == 0) {
		made_known(sim, is.client, is.pool);
	} else {
		if (place->gpu->refusals == 0 && place->gpu->ends == 0 && place->gpu->mood.call == 0)
			sim_fail(sim, "pool %u of client %u is refused, and nothing happened to its GPU: %s", is.pool,
				 is.client, answer->why);
		kernel_enter(place->gpu);
		if (is.what == ASK_POOL)
			GPU.pool_close(place->view);
		region_let_go(place, 0);
		refused(sim, is.client, is.pool);
	}
}

/* ---- closing ---------------------------------------------------------------------------------- */

static void view_close(struct sim *sim, uint32_t client, uint32_t pool)
{
	struct sim_place *place = &sim->gpus->places[client][pool];

	sim->gpus->pools[client][pool] = NULL;
	kernel_enter(place->gpu);
	if (place->state == PLACE_POOL || place->state == PLACE_KNOWN)
		GPU.pool_close(place->view);
}

void gpus_pool_dropped(struct sim *sim, uint32_t client, uint32_t pool)
{
	struct sim_place *place = &sim->gpus->places[client][pool];

	if (place->state != PLACE_KNOWN)
		return;
	view_close(sim, client, pool);
	place->state = PLACE_CLOSING;
	fence_close(sim, place);
	region_let_go(place, ask(sim, client, pool, place->birth, ASK_CLOSE));
}

/* All that it had is closed, and nobody waits for that. */
void gpus_client_gone(struct sim *sim, uint32_t client)
{
	for (uint32_t pool = 0; pool < SIM_MODELS * SIM_PARTS; pool++) {
		struct sim_place *place = &sim->gpus->places[client][pool];

		if (place->state == PLACE_NONE)
			continue;
		view_close(sim, client, pool);
		if (place->state != PLACE_CLOSING)
			region_let_go(place, 0);
		fence_close(sim, place);
		*place = (struct sim_place){ .fence = -1 };
		sim->clients[client].pools[pool].opening = false;
	}
}

