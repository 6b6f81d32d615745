/*
 * The copier process of a simulated GPU: what is at the other end of the wire, and what can become of it.
 *
 * It believes what the wire says and nothing else: memory is found by imports and views that it was told of, words are
 * moved by the rows, items and ids that came along. Each step does one small thing, any of those that it could do,
 * so that loads and stores pass each other, answers come late, and an end comes between any two of them.
 *
 * It stops the run when something is moved for a copy that the broker has called DONE, or when a pool or region is
 * closed that a copy still uses.
 */
#include <errno.h>
#include <signal.h>

#include "tests/simulation/gpu.h"

#define EXITED		256	/* in `status`: not by a signal */

/* ---- mail ------------------------------------------------------------------------------------- */

static void mail_put(struct sim_mail *mail, const void *data, uint32_t bytes)
{
	struct sim_message *message = malloc(sizeof(*message) + bytes);

	message->next = NULL;
	message->bytes = bytes;
	memcpy(message->data, data, bytes);
	if (mail->last)
		mail->last->next = message;
	else
		mail->first = message;
	mail->last = message;
	mail->n++;
}

static struct sim_message *mail_get(struct sim_mail *mail)
{
	struct sim_message *message = mail->first;

	if (!message)
		return NULL;
	mail->first = message->next;
	if (!mail->first)
		mail->last = NULL;
	mail->n--;
	return message;
}

static void mail_free(struct sim_mail *mail)
{
	struct sim_message *message;

	while ((message = mail_get(mail)))
		free(message);
}

static void say(struct sim_gpu *gpu, const void *message, uint32_t bytes)
{
	mail_put(&gpu->copier.out, message, bytes);
	gpu->stirred = true;
}

static void answer(struct sim_gpu *gpu, enum wire_type to, uint32_t number, int result)
{
	struct wire_answer message = { .header = { WIRE_ANSWER, sizeof(message) }, .to = to, .number = number,
				       .result = result };

	if (result < 0) {
		snprintf(message.why, sizeof(message.why), "the simulated driver says %d", result);
		gpu->refusals++;
	}
	say(gpu, &message, sizeof(message));
}

void copier_take(struct sim_gpu *gpu, const void *message)
{
	mail_put(&gpu->copier.in, message, ((const struct wire_header *)message)->bytes);
	gpu->copier.asleep = false;
}

/* What it had said before its end is read before the end is. */
int copier_say(struct sim_gpu *gpu, void *message, size_t room)
{
	struct sim_message *first = mail_get(&gpu->copier.out);
	int bytes;

	if (!first)
		return gpu->copier.closed ? -EPIPE : -EAGAIN;
	bytes = (int)first->bytes;
	if (first->bytes > room)
		sim_fail(gpu->sim, "a message of %d bytes does not fit", bytes);
	memcpy(message, first->data, first->bytes);
	free(first);
	return bytes;
}

/* ---- life ------------------------------------------------------------------------------------- */

static void forget_all(struct sim_copier *copier)
{
	for (uint32_t i = 0; i < SIM_RUNS; i++)
		run_free(&copier->runs[i]);
	mail_free(&copier->in);
	mail_free(&copier->out);
	memset(copier->imports, 0, sizeof(copier->imports));
	memset(copier->views, 0, sizeof(copier->views));
}

void copier_spawn(struct sim_gpu *gpu)
{
	struct sim_copier *copier = &gpu->copier;

	if (copier->state != COPIER_NONE)
		sim_fail(gpu->sim, "GPU %u: a copier is started while another one lives", gpu->number);
	forget_all(copier);
	copier->state = COPIER_STARTING;
	copier->pid = ++gpu->sim->gpus->last_pid;
	copier->closed = copier->alone = copier->hangs = copier->asleep = false;
	copier->stuck_ns = 0;
	copier->extents = 0;
	copier->hangs = gpu_draws(gpu, gpu->mood.hang);
}

bool copier_has_runs(const struct sim_gpu *gpu)
{
	for (uint32_t i = 0; i < SIM_RUNS; i++)
		if (gpu->copier.runs[i].used && !gpu->copier.runs[i].over)
			return true;
	return false;
}

/* No program runs from here on. Its descriptors are closed in some order, the pair's before or after the device's. */
void copier_die(struct sim_gpu *gpu, int status)
{
	struct sim_copier *copier = &gpu->copier;

	if (copier->state == COPIER_STARTING && copier->hangs)
		sim_reach(gpu->sim, SIM_REACH_GPU_NEVER_UP);
	if (copier->hangs && copier_has_runs(gpu))
		sim_reach(gpu->sim, SIM_REACH_GPU_HUNG);
	copier->state = COPIER_DYING;
	copier->status = status;
	copier->stuck_ns = 0;
	gpu->ends++;
	for (uint32_t i = 0; i < SIM_GPUS; i++)
		if (&gpu->sim->gpus->gpu[i] != gpu && gpu->sim->gpus->gpu[i].copier.state == COPIER_DYING)
			sim_reach(gpu->sim, SIM_REACH_GPU_BOTH);
}

void copier_reap(struct sim_gpu *gpu)
{
	gpu->ends++;
	gpu->copier.closed = true;
	if (gpu->copier.state == COPIER_ZOMBIE)
		gpu->copier.state = COPIER_NONE;
}

void copier_free(struct sim_gpu *gpu)
{
	forget_all(&gpu->copier);
	gpu->copier.state = COPIER_NONE;
}

static void end_by_fault(struct sim_gpu *gpu, const char *why)
{
	struct wire_fatal fatal = { .header = { WIRE_FATAL, sizeof(fatal) } };

	snprintf(fatal.why, sizeof(fatal.why), "%s", why);
	if (gpu->copier.out.n < 32)
		say(gpu, &fatal, sizeof(fatal));
	copier_die(gpu, EXITED + 1);
}

/* ---- what it is told -------------------------------------------------------------------------- */

struct sim_import *copier_import_find(struct sim_copier *copier, uint32_t number)
{
	for (uint32_t i = 0; i < SIM_IMPORTS; i++)
		if (copier->imports[i].used && copier->imports[i].number == number)
			return &copier->imports[i];
	return NULL;
}

struct sim_view *copier_view_find(struct sim_copier *copier, uint32_t number)
{
	for (uint32_t i = 0; i < SIM_IMPORTS; i++)
		if (copier->views[i].used && copier->views[i].number == number)
			return &copier->views[i];
	return NULL;
}

bool copier_imports(const struct sim_gpu *gpu, uint32_t client, uint32_t pool, uint64_t birth)
{
	for (uint32_t i = 0; i < SIM_IMPORTS; i++) {
		const struct sim_import *import = &gpu->copier.imports[i];

		if (import->used && import->client == client && import->pool == pool && import->birth == birth)
			return true;
	}
	return false;
}

uint32_t copier_import_count(const struct sim_gpu *gpu)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < SIM_IMPORTS; i++)
		n += gpu->copier.imports[i].used;
	return n;
}

/* The handle says whose memory it is, see gpu.c. Who has gone has taken it along. */
static void open_region(struct sim_gpu *gpu, const struct wire_region *message)
{
	struct sim_import *import = NULL;
	uint64_t handle[3];
	int result = 0;

	memcpy(handle, message->handle, sizeof(handle));
	for (uint32_t i = 0; i < SIM_IMPORTS && !import; i++)
		import = gpu->copier.imports[i].used ? NULL : &gpu->copier.imports[i];
	if (!import || copier_import_find(&gpu->copier, message->region))
		sim_fail(gpu->sim, "GPU %u: region %u is one too many, or imported twice", gpu->number, message->region);
	*import = (struct sim_import){ .used = true, .number = message->region, .client = (uint32_t)handle[0],
				       .pool = (uint32_t)handle[1], .birth = handle[2] };
	if (gpu_draws(gpu, gpu->mood.import)) {
		result = sim_chance(&gpu->sim->random, 300) ? -ENOMEM : -EINVAL;
		sim_reach(gpu->sim, result == -ENOMEM ? SIM_REACH_GPU_NO_MEMORY : SIM_REACH_GPU_NO_IMPORT);
	} else if (!gpu_memory(gpu->sim, import)) {
		result = -ENOENT;
	}
	if (result < 0)
		import->used = false;
	answer(gpu, WIRE_REGION, message->region, result);
}

static void open_pool(struct sim_gpu *gpu, const struct wire_pool *message)
{
	const struct wire_row *rows = (const struct wire_row *)(message + 1);
	struct sim_view *view = NULL;
	int result = 0;

	for (uint32_t i = 0; i < SIM_IMPORTS && !view; i++)
		view = gpu->copier.views[i].used ? NULL : &gpu->copier.views[i];
	if (!view || copier_view_find(&gpu->copier, message->pool) || message->n_rows > SIM_LAYERS)
		sim_fail(gpu->sim, "GPU %u: pool %u is one too many, or opened twice", gpu->number, message->pool);
	*view = (struct sim_view){ .used = true, .number = message->pool, .blocks = message->blocks,
				   .n_rows = message->n_rows };
	memcpy(view->rows, rows, message->n_rows * sizeof(*rows));
	for (uint32_t i = 0; i < view->n_rows; i++)
		if (!copier_import_find(&gpu->copier, view->rows[i].region))
			sim_fail(gpu->sim, "GPU %u: pool %u names region %u, which is not imported", gpu->number,
				 message->pool, view->rows[i].region);
	if (gpu_draws(gpu, gpu->mood.view))
		result = -ENOMEM;
	view->used = result == 0;
	answer(gpu, WIRE_POOL, message->pool, result);
}

static void close_pool(struct sim_gpu *gpu, uint32_t number)
{
	struct sim_view *view = copier_view_find(&gpu->copier, number);

	if (!view)
		sim_fail(gpu->sim, "GPU %u: pool %u is closed, but it is not open", gpu->number, number);
	for (uint32_t r = 0; r < SIM_RUNS; r++) {
		const struct sim_run *run = &gpu->copier.runs[r];

		for (uint32_t i = 0; run->used && !run->over && i < run->command.n_items; i++)
			if (((const struct wire_item *)(run->items + run->at[i]))->pool == number)
				sim_fail(gpu->sim, "GPU %u: pool %u is closed while a copy uses it", gpu->number, number);
	}
	view->used = false;
	answer(gpu, WIRE_POOL_CLOSE, number, 0);
}

static void close_region(struct sim_gpu *gpu, uint32_t number)
{
	struct sim_import *import = copier_import_find(&gpu->copier, number);

	if (!import)
		sim_fail(gpu->sim, "GPU %u: region %u is closed, but it is not imported", gpu->number, number);
	for (uint32_t i = 0; i < SIM_IMPORTS; i++)
		for (uint32_t r = 0; r < gpu->copier.views[i].n_rows; r++)
			if (gpu->copier.views[i].used && gpu->copier.views[i].rows[r].region == number)
				sim_fail(gpu->sim, "GPU %u: region %u is closed while a pool uses it", gpu->number, number);
	import->used = sim_is_planted(gpu->sim, "kept-import");
	answer(gpu, WIRE_REGION_CLOSE, number, 0);
}

static void take_message(struct sim_gpu *gpu)
{
	struct sim_message *message = mail_get(&gpu->copier.in);
	const struct wire_number *number = (const struct wire_number *)(const void *)message->data;

	switch ((enum wire_type)number->header.type) {
	case WIRE_REGION:
		if (!((const struct wire_region *)(const void *)message->data)->more)
			open_region(gpu, (const struct wire_region *)(const void *)message->data);
		break;
	case WIRE_REGION_CLOSE:
		close_region(gpu, number->number);
		break;
	case WIRE_POOL:
		open_pool(gpu, (const struct wire_pool *)(const void *)message->data);
		break;
	case WIRE_POOL_CLOSE:
		close_pool(gpu, number->number);
		break;
	case WIRE_EXTENT:
		gpu->copier.extents++;
		break;
	default:
		sim_fail(gpu->sim, "GPU %u: a message of type %u", gpu->number, number->header.type);
	}
	free(message);
	gpu->stirred = true;	/* there is room in the socket again */
}

/* ---- steps ------------------------------------------------------------------------------------ */

/* UP, or why not; then it may be spoken to. */
static void start_step(struct sim_gpu *gpu)
{
	struct wire_up up = { .header = { WIRE_UP, sizeof(up) } };

	if (!sim_chance(&gpu->sim->random, 200))
		return;
	if (gpu_draws(gpu, gpu->mood.start)) {
		up.result = sim_chance(&gpu->sim->random, 500) ? -ENOMEM : -ENODEV;
		snprintf(up.why, sizeof(up.why), "the simulated driver does not open: %d", up.result);
		sim_reach(gpu->sim, SIM_REACH_GPU_NEVER_UP);
		gpu->refusals++;
		say(gpu, &up, sizeof(up));
		copier_die(gpu, EXITED + 1);
		return;
	}
	gpu->copier.state = COPIER_UP;
	say(gpu, &up, sizeof(up));
}

/* Its context goes down: what was on the way to memory may still come. */
static void dying_step(struct sim_gpu *gpu)
{
	struct sim_copier *copier = &gpu->copier;
	struct sim *sim = gpu->sim;

	if (!copier->closed && sim_chance(&sim->random, 300)) {
		copier->closed = true;
		gpu->stirred = true;
		if (copier_has_runs(gpu))
			sim_reach(sim, SIM_REACH_GPU_END_OF_FILE);
	}
	for (uint32_t r = 0; r < SIM_RUNS; r++) {
		struct sim_run *run = &copier->runs[r];
		const struct wire_item *item;

		if (!run->used || run->over || run->cancelled || run->layer >= run->command.layer_end ||
		    !sim_chance(&sim->random, 400))
			continue;
		item = (const struct wire_item *)(run->items + run->at[run->item]);
		if (item->pool != WIRE_NO_POOL)
			run_move(gpu, run, run->item, run->layer, true);
		sim_reach(sim, SIM_REACH_GPU_LATE_DMA);
	}
	if (sim_chance(&sim->random, 600))
		return;
	for (uint32_t r = 0; r < SIM_RUNS; r++)
		run_free(&copier->runs[r]);
	memset(copier->imports, 0, sizeof(copier->imports));
	memset(copier->views, 0, sizeof(copier->views));
	copier->closed = true;
	copier->state = COPIER_ZOMBIE;
	gpu->stirred = true;
}

/* What may befall it at any instant. True: something has. */
static bool fate(struct sim_gpu *gpu)
{
	struct sim *sim = gpu->sim;

	if (gpu_draws(gpu, gpu->mood.kill)) {
		if (copier_has_runs(gpu))
			sim_reach(sim, SIM_REACH_GPU_KILLED);
		if (gpu->copier.in.n > 0)
			gpu->refusals++;
		copier_die(gpu, SIGKILL);
	} else if (gpu_draws(gpu, gpu->mood.fatal)) {
		if (copier_has_runs(gpu))
			sim_reach(sim, SIM_REACH_GPU_STICKY);
		end_by_fault(gpu, "the device's context was lost");
	} else if (gpu_draws(gpu, gpu->mood.hang * (1 + 16 * gpu->copier.in.n))) {	/* most of all in what it is told to do */
		gpu->copier.hangs = true;
	} else if (gpu->copier.stuck_ns == 0 && copier_has_runs(gpu) && gpu_draws(gpu, gpu->mood.stick)) {
		gpu->copier.stuck_ns = sim->now_ns;
	} else {
		return false;
	}
	return true;
}

/* The broker's end is closed: streams are awaited, then it ends. */
static void alone_step(struct sim_gpu *gpu)
{
	if (gpu->copier.stuck_ns || !runs_go_on(gpu))
		copier_die(gpu, EXITED);
}

static void up_step(struct sim_gpu *gpu)
{
	struct sim_copier *copier = &gpu->copier;
	bool any = false;

	if (fate(gpu))
		return;
	if (copier->stuck_ns && gpu->sim->now_ns - copier->stuck_ns > copier->start.hang_ms * 1000000ull) {
		sim_reach(gpu->sim, SIM_REACH_GPU_STUCK);
		end_by_fault(gpu, "the device hangs");
		return;
	}
	if (copier->asleep)
		return;
	atomic_fetch_add(&lane_of(gpu)->segment->beats, 1);
	if (copier->in.n > 0 && sim_chance(&gpu->sim->random, 600)) {
		take_message(gpu);
		any = true;
	}
	if (sim_chance(&gpu->sim->random, 600))
		any |= runs_take_command(gpu);
	if (!copier->stuck_ns && sim_chance(&gpu->sim->random, 800))
		any |= runs_go_on(gpu);
	if (sim_chance(&gpu->sim->random, 600))
		any |= runs_tell(gpu);
	if (any || copier->in.n > 0)
		return;
	for (uint32_t i = 0; i < SIM_RUNS; i++)
		if (copier->runs[i].used)
			return;
	shared_bell_arm(&lane_of(gpu)->segment->copier_bell);
	copier->asleep = shared_queue_is_empty(lane_of(gpu)->commands);
}

void copier_step(struct sim_gpu *gpu)
{
	struct sim_copier *copier = &gpu->copier;

	if (copier->state == COPIER_DYING)
		dying_step(gpu);
	else if (copier->hangs || copier->state == COPIER_NONE || copier->state == COPIER_ZOMBIE)
		return;
	else if (copier->alone)
		alone_step(gpu);
	else if (copier->state == COPIER_STARTING)
		start_step(gpu);
	else
		up_step(gpu);
}

bool copier_can_step(const struct sim_gpu *gpu)
{
	const struct sim_copier *copier = &gpu->copier;

	if (copier->state == COPIER_DYING)
		return true;
	if (copier->hangs || copier->state == COPIER_NONE || copier->state == COPIER_ZOMBIE)
		return false;
	if (copier->alone || copier->state == COPIER_STARTING || copier->in.n > 0)
		return true;
	if (copier->stuck_ns) {
		if (gpu->sim->now_ns - copier->stuck_ns > copier->start.hang_ms * 1000000ull)
			return true;
		for (uint32_t i = 0; i < SIM_RUNS; i++)
			if (copier->runs[i].used && run_has_news(&copier->runs[i]))
				return true;
		return !shared_queue_is_empty(lane_of(gpu)->commands);
	}
	return !copier->asleep;
}

uint64_t copier_due(const struct sim_gpu *gpu)
{
	const struct sim_copier *copier = &gpu->copier;

	return copier->state == COPIER_UP && copier->stuck_ns && !copier->hangs ?
	       copier->stuck_ns + copier->start.hang_ms * 1000000ull + 1 : UINT64_MAX;
}
