/*
 * Pools from POOL messages. The broker has compared the planes with the model and computed every range; what
 * is looked at once more here is that rows lie in their regions, because the cost of a mistake is the context.
 */
#include "src/device/cuda/view.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "src/device/refuse.h"

typedef unsigned __int128 u128;

static int bind_row(struct imports *imports, const struct wire_pool *message, const struct wire_row *from, char *why,
		    struct pool_row *ret)
{
	struct device_region *region = import_find(imports, from->region);
	const u128 end = (u128)from->offset + (u128)(message->n_blocks - 1) * from->block_stride +
			 (u128)(from->runs - 1) * from->run_stride + from->run_bytes;

	if (!region)
		return refuse(why, -ENOENT, "cannot add pool %u: region %u is not imported", message->pool, from->region);
	if (!from->runs || !from->run_bytes || from->block_bytes != (uint64_t)from->runs * from->run_bytes ||
	    end > region->bytes)
		return refuse(why, -ERANGE, "cannot add pool %u: a row of layer %u does not lie in the %llu bytes of region "
			      "%u", message->pool, from->layer, (unsigned long long)region->bytes, from->region);
	*ret = (struct pool_row){
		.payload = from->payload,
		.block_bytes = from->block_bytes,
		.base = (uint8_t *)(uintptr_t)(region->base + from->offset),
		.block_stride = from->block_stride,
		.run_stride = from->run_stride,
		.runs = from->runs,
		.run_bytes = from->run_bytes,
		.region = region,
	};
	pool_row_join(ret);
	return 0;
}

/* Rows one behind the other in the payload, layers one behind the other in the rows. */
static int bind_rows(struct view *view, struct imports *imports, const struct wire_pool *message, char *why)
{
	const struct wire_row *rows = (const struct wire_row *)(message + 1);
	struct device_pool *pool = &view->pool;
	uint64_t payload = 0;
	uint32_t layers = 0;

	view->least_run = UINT64_MAX;
	for (uint32_t i = 0; i < message->n_rows; i++) {
		struct pool_row *row = &pool->rows[i];
		const int r = bind_row(imports, message, &rows[i], why, row);

		if (r < 0)
			return r;
		if (i == 0 || rows[i].layer != rows[i - 1].layer)
			pool->layers[layers++] = (struct pool_layer){ row->payload, i };
		if (row->payload != payload || rows[i].layer != layers - 1)
			return refuse(why, -EINVAL, "cannot add pool %u: row %u is out of order", message->pool, i);
		payload += message->blocks * row->block_bytes;
		view->least_run = row->run_bytes < view->least_run ? row->run_bytes : view->least_run;
	}
	if (layers != message->n_layers || payload != message->payload_bytes)
		return refuse(why, -EINVAL, "cannot add pool %u: %u layers and %llu bytes of payload where %u and %llu are "
			      "told", message->pool, layers, (unsigned long long)payload, message->n_layers,
			      (unsigned long long)message->payload_bytes);
	pool->layers[layers] = (struct pool_layer){ payload, message->n_rows };
	return 0;
}

static void free_view(struct view *view)
{
	if (view) {
		free(view->pool.rows);
		free(view->pool.layers);
	}
	free(view);
}

static struct view *new_view(const struct wire_pool *message)
{
	struct view *view = calloc(1, sizeof(*view));

	if (!view)
		return NULL;
	view->pool = (struct device_pool){ .number = message->pool, .part = message->part, .blocks = message->blocks,
					   .n_blocks = message->n_blocks, .n_rows = message->n_rows,
					   .n_layers = message->n_layers };
	view->payload_bytes = message->payload_bytes;
	view->pool.rows = calloc(message->n_rows, sizeof(*view->pool.rows));
	view->pool.layers = calloc((size_t)message->n_rows + 1, sizeof(*view->pool.layers));
	if (view->pool.rows && view->pool.layers)
		return view;
	free_view(view);
	return NULL;
}

int view_open(struct views *views, struct imports *imports, const struct wire_pool *message, char *why)
{
	struct view **head = &views->hash[message->pool % VIEWS_HASH], *view;
	int r;

	assert(message->header.bytes == sizeof(*message) + message->n_rows * sizeof(struct wire_row));
	assert(message->n_rows > 0 && message->blocks > 0 && message->n_blocks > 0);
	assert(!view_find(views, message->pool));
	view = new_view(message);
	if (!view)
		return refuse(why, -ENOMEM, "could not add pool %u: the copier is out of memory", message->pool);
	r = bind_rows(view, imports, message, why);
	if (r < 0) {
		free_view(view);
		return r;
	}
	for (uint32_t i = 0; i < view->pool.n_rows; i++)
		view->pool.rows[i].region->pools++;
	view->next = *head;
	*head = view;
	return 0;
}

struct view *view_find(const struct views *views, uint32_t number)
{
	struct view *view = views->hash[number % VIEWS_HASH];

	while (view && view->pool.number != number)
		view = view->next;
	return view;
}

void view_close(struct views *views, struct view *view)
{
	struct view **at = &views->hash[view->pool.number % VIEWS_HASH];

	assert(view->copies == 0);
	while (*at != view)
		at = &(*at)->next;
	*at = view->next;
	for (uint32_t i = 0; i < view->pool.n_rows; i++)
		view->pool.rows[i].region->pools--;
	free_view(view);
}
