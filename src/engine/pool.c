/*
 * Pools: views of clients' memory, by the number that the client knows. Found by (client, number) in
 * buckets. A pool that is to be dropped takes no new job; it goes, and its drop is answered, when no
 * job uses it any more.
 */
#include "src/engine/internal.h"

static uint32_t *bucket_of(struct engine *e, uint32_t client, uint32_t number)
{
	const uint64_t mixed = ((uint64_t)client << 32 | number) * 0x9e3779b97f4a7c15ull;

	return &e->pool_buckets[(uint32_t)(mixed >> 32) & e->pool_mask];
}

uint32_t pool_find(struct engine *e, uint32_t client, uint32_t number)
{
	uint32_t pool = *bucket_of(e, client, number);

	while (pool != NONE && (e->pools[pool].client != client || e->pools[pool].number != number))
		pool = e->pools[pool].next;
	return pool;
}

int engine_pool_added(struct engine *e, uint32_t client, uint32_t number, uint32_t model, uint32_t part,
		      uint32_t n_blocks, uint32_t device)
{
	struct client *owner = &e->clients[client];
	const uint32_t pool = e->free_pool;
	uint32_t *bucket = bucket_of(e, client, number);

	ENGINE_ASSERT(client < e->config.clients && owner->state == CLIENT_LIVE);
	if (model >= e->models_max || !e->models[model].open || part >= e->models[model].n_parts ||
	    e->models[model].tenant != owner->tenant || pool_find(e, client, number) != NONE)
		return -EINVAL;
	if (pool == NONE)
		return -ENOMEM;
	e->free_pool = e->pools[pool].next;
	e->pools[pool] = (struct pool){
		.used = true, .client = client, .number = number, .model = model, .part = part,
		.n_blocks = n_blocks, .device = device, .next = *bucket, .of_client = { .next = owner->pools, .prev = NONE },
	};
	*bucket = pool;
	if (owner->pools != NONE)
		e->pools[owner->pools].of_client.prev = pool;
	owner->pools = pool;
	owner->figures.pools++;
	e->pools_used++;
	return 0;
}

/* Nobody uses it: the number is free, and who asked for that is told. */
void pool_free(struct engine *e, uint32_t number)
{
	struct pool *pool = &e->pools[number];
	struct client *owner = &e->clients[pool->client];
	uint32_t *at = bucket_of(e, pool->client, pool->number);
	const struct pool was = *pool;

	while (*at != number)
		at = &e->pools[*at].next;
	*at = pool->next;
	if (pool->of_client.prev == NONE)
		owner->pools = pool->of_client.next;
	else
		e->pools[pool->of_client.prev].of_client.next = pool->of_client.next;
	if (pool->of_client.next != NONE)
		e->pools[pool->of_client.next].of_client.prev = pool->of_client.prev;
	owner->figures.pools--;
	e->pools_used--;
	*pool = (struct pool){ .next = e->free_pool };
	e->free_pool = number;
	if (was.dropping && !was.told)
		e->ports.control(e->ports.shell, was.token, STOKER_STATUS_OK, 0);
}

void pool_use(struct engine *e, uint32_t pool)
{
	e->pools[pool].users++;
}

void pool_unuse(struct engine *e, uint32_t pool)
{
	ENGINE_ASSERT(e->pools[pool].users > 0);
	if (--e->pools[pool].users == 0 && e->pools[pool].dropping)
		pool_free(e, pool);
}

static bool uses(const struct job *job, uint32_t pool)
{
	const struct transfer *t = &job->transfer;

	if (job->phase == PHASE_FREE || (job->op != STOKER_OP_RETRIEVE && job->op != STOKER_OP_STORE) ||
	    !t->in_use)
		return false;
	for (uint32_t i = 0; i < job->n_segments; i++)
		if (t->pools[i] == pool)
			return true;
	return false;
}

/* Jobs that use it and have no copy under way end; the others end with their copy. */
static void jobs_stop(struct engine *e, uint32_t number, enum stoker_status status)
{
	const uint32_t client = e->pools[number].client;
	struct job *jobs = &e->jobs[client * e->config.slots];

	for (uint32_t i = 0; i < e->clients[client].slots && e->pools[number].users > 0; i++) {
		if (!uses(&jobs[i], number))
			continue;
		if (jobs[i].phase == PHASE_COPY) {
			jobs[i].transfer.pool_dropped = true;
			jobs[i].transfer.pool_dead |= status == STOKER_STATUS_FAULT;
		} else {
			job_stop(e, &jobs[i], status);
		}
	}
}

void engine_pool_drop(struct engine *e, uint32_t client, uint32_t number, engine_token token)
{
	const uint32_t pool = pool_find(e, client, number);

	if (pool == NONE || e->pools[pool].dropping) {
		e->ports.control(e->ports.shell, token, STOKER_STATUS_NOT_FOUND, 0);
		return;
	}
	e->pools[pool].users++;		/* it stays while its jobs are looked through */
	e->pools[pool].dropping = true;
	e->pools[pool].token = token;
	jobs_stop(e, pool, STOKER_STATUS_CANCELLED);
	pool_unuse(e, pool);
}

void engine_pool_dead(struct engine *e, uint32_t client, uint32_t number)
{
	const uint32_t pool = pool_find(e, client, number);

	if (pool == NONE || e->pools[pool].dead)
		return;
	e->pools[pool].dead = true;
	count(e, STOKER_COUNTER_POOL_FAULTS, 1);
	e->pools[pool].users++;
	jobs_stop(e, pool, STOKER_STATUS_FAULT);
	pool_unuse(e, pool);
}

void pools_leave(struct engine *e, uint32_t client)
{
	uint32_t next;

	for (uint32_t pool = e->clients[client].pools; pool != NONE; pool = next) {
		next = e->pools[pool].of_client.next;
		if (!e->pools[pool].dropping) {
			e->pools[pool].dropping = true;
			e->pools[pool].told = true;
		}
		if (e->pools[pool].users == 0)
			pool_free(e, pool);
	}
}
