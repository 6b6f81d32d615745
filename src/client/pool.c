/*
 * Pools: which bytes of which regions are block b of (group, shard), plane by plane.
 *
 * The planes are put into the order of the model's rows and compared with them here, so that a
 * caller hears which field differs without asking the broker, who checks it all again.
 */
#include <stdlib.h>
#include <string.h>

#include "src/client/client.h"

int pool_send(struct stoker_pool *pool, int sock, uint32_t ordinal, uint64_t deadline_ns)
{
	struct stoker *c = pool->object.c;
	struct message_pool_add *add = (struct message_pool_add *)c->message;
	struct message_plane *planes = (struct message_plane *)(add + 1);

	if (pool->model->object.ordinal != ordinal)
		return client_fail(c, -EINVAL, "the pool's model is not open at this broker");
	memset(add, 0, sizeof(*add));
	add->header.type = MESSAGE_POOL_ADD;
	add->model = pool->model->object.number;
	add->group = pool->group;
	add->shard = pool->shard;
	add->n_blocks = pool->n_blocks;
	add->n_planes = pool->n_planes;
	for (uint32_t i = 0; i < pool->n_planes; i++) {
		const struct stoker_plane *plane = &pool->planes[i];

		if (plane->region->object.ordinal != ordinal)
			return client_fail(c, -EINVAL, "a region of the pool is not registered with this broker");
		planes[i] = (struct message_plane){
			.region = plane->region->object.number,
			.layer = plane->layer,
			.plane = plane->plane,
			.offset = plane->offset,
			.block_stride = plane->block_stride,
			.bytes = plane->bytes,
			.rows = plane->rows ? plane->rows : 1,
			.row_stride = plane->row_stride,
		};
	}
	return object_send(&pool->object, QUESTION_OPEN, sock, add, sizeof(*add) + pool->n_planes * sizeof(*planes),
			   NULL, 0, deadline_ns);
}

/* The one of @planes that @row describes, or NULL. */
static const struct stoker_plane *plane_of(const struct model_wire_row *row, const struct stoker_plane *planes,
					   uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		if (planes[i].layer == row->layer && planes[i].plane == row->plane)
			return &planes[i];
	}
	return NULL;
}

static int planes_take(struct stoker *c, struct stoker_pool *pool, const struct model_part *part,
		       const struct stoker_plane *planes, uint32_t n)
{
	for (uint32_t i = 0; i < part->n_rows; i++) {
		const struct model_wire_row *row = &pool->model->layout->rows[part->first_row + i];
		const struct stoker_plane *plane = plane_of(row, planes, n);
		const uint32_t rows = plane && plane->rows ? plane->rows : 1;

		if (!plane)
			return client_fail(c, -EINVAL, "the pool lacks layer %u plane %u, which the model has", row->layer,
					   row->plane);
		if (!plane->region || plane->region->object.c != c)
			return client_fail(c, -EINVAL, "layer %u plane %u names no region of this handle", row->layer,
					   row->plane);
		if ((uint64_t)rows * plane->bytes != row->bytes)
			return client_fail(c, -EINVAL, "layer %u plane %u has %u rows of %u bytes, the model says %u bytes",
					   row->layer, row->plane, rows, plane->bytes, row->bytes);
		pool->planes[i] = *plane;
	}
	return 0;
}

static void pool_count_users(struct stoker_pool *pool)
{
	pool->model->object.users++;
	for (uint32_t i = 0; i < pool->n_planes; i++)
		pool->planes[i].region->object.users++;
}

static void pool_discount_users(struct stoker_pool *pool)
{
	for (uint32_t i = 0; i < pool->n_planes; i++)
		pool->planes[i].region->object.users--;
	model_put(pool->model);
}

/* A model by digest may have been described since it was opened: ask once more. */
static int need_layout(struct stoker *c, struct stoker_model *model)
{
	int r = 0;

	if (!model->layout)
		r = object_open(&model->object);
	if (r == 0 && !model->layout)
		r = client_fail(c, -EINVAL, "the model is known by digest alone: open it by description, or when a "
				"worker has");
	return r;
}

static int pool_make(struct stoker *c, struct stoker_model *model, uint32_t group, uint32_t shard, uint32_t n_blocks,
		     const struct stoker_plane *planes, uint32_t n_planes, struct stoker_pool **ret)
{
	const int part = model_part_find(model->layout, group, shard);
	const struct model_part *p;
	struct stoker_pool *pool;
	int r;

	if (part < 0)
		return client_fail(c, -EINVAL, "the model has no bytes for group %u shard %u", group, shard);
	p = &model->layout->parts[part];
	if (n_planes != p->n_rows || n_planes > MESSAGE_PLANES_MAX || n_blocks == 0)
		return client_fail(c, -EINVAL, "group %u shard %u has %u planes (%u were given), and at least one block",
				   group, shard, p->n_rows, n_planes);
	pool = calloc(1, sizeof(*pool) + n_planes * sizeof(pool->planes[0]));
	if (!pool)
		return client_fail(c, -ENOMEM, "could not add the pool: out of memory");
	pool->model = model;
	pool->group = (uint16_t)group;
	pool->shard = (uint16_t)shard;
	pool->blocks = p->blocks;
	pool->n_blocks = n_blocks;
	pool->n_planes = n_planes;
	r = planes_take(c, pool, p, planes, n_planes);
	if (r < 0) {
		free(pool);
		return r;
	}
	*ret = pool;
	return 0;
}

static int pool_add(struct stoker *c, struct stoker_model *model, uint32_t group, uint32_t shard, uint32_t n_blocks,
		    const struct stoker_plane *planes, uint32_t n_planes, struct stoker_pool **ret)
{
	struct stoker_pool *pool = NULL;
	int r = client_need_broker(c);

	if (!planes || !ret)
		return client_fail(c, -EINVAL, "there are no planes, or no place for the pool");
	if (r < 0)
		return client_fail(c, r, "there is no broker \"%s\" to add a pool to", c->name);
	r = object_need(&model->object, "model");
	if (r == 0)
		r = need_layout(c, model);
	if (r == 0)
		r = pool_make(c, model, group, shard, n_blocks, planes, n_planes, &pool);
	if (r < 0)
		return r;
	object_add(c, &pool->object, OBJECT_POOL);
	r = object_open(&pool->object);
	if (r < 0) {
		object_forget(&pool->object);
		free(pool);
		return r;
	}
	pool_count_users(pool);
	*ret = pool;
	return 0;
}

int stoker_pool_add(struct stoker_model *model, uint32_t group, uint32_t shard, uint32_t n_blocks,
		    const struct stoker_plane *planes, uint32_t n_planes, struct stoker_pool **ret)
{
	struct stoker *c = model ? model->object.c : NULL;
	const int r = client_enter(c);

	return r < 0 ? r : client_leave(c, pool_add(c, model, group, shard, n_blocks, planes, n_planes, ret));
}

int stoker_pool_drop(struct stoker_pool *pool)
{
	struct stoker *c = pool ? pool->object.c : NULL;
	int r = client_enter(c);

	if (r < 0)
		return r;
	r = object_drop(&pool->object);
	if (r == 0) {
		object_forget(&pool->object);
		pool_discount_users(pool);
		free(pool);
	}
	return client_leave(c, r);
}
