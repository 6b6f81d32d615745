/* See order.h. */
#include "src/broker/order.h"

#include <errno.h>

#define LINK_CAPACITY 1024u

int link_init(struct link *link, struct bell *core_bell)
{
	*link = (struct link){ .core_bell = core_bell };
	link->waiting_end = &link->waiting;
	link->core_waiting_end = &link->core_waiting;
	const int r = bell_init(&link->bell);
	if (r < 0)
		return r;
	link->to_core = queue_new(LINK_CAPACITY);
	link->from_core = queue_new(LINK_CAPACITY);
	if (link->to_core && link->from_core)
		return 0;
	link_fini(link);
	return -ENOMEM;
}

void link_fini(struct link *link)
{
	queue_free(link->to_core);
	queue_free(link->from_core);
	bell_fini(&link->bell);
	link->to_core = link->from_core = NULL;
}

/* Send what waited for room, oldest first. */
static void list_send(struct queue *queue, struct order **list, struct order ***end)
{
	while (*list) {
		struct order *first = *list;
		struct order *second = first->next;	/* once it is put, it is the other side's */

		if (!queue_put(queue, first))
			return;
		*list = second;
	}
	*end = list;
}

static void list_add(struct order *order, struct order ***end)
{
	order->next = NULL;
	**end = order;
	*end = &order->next;
}

void link_order(struct link *link, struct order *order)
{
	list_add(order, &link->waiting_end);
	list_send(link->to_core, &link->waiting, &link->waiting_end);
	bell_ring(link->core_bell);
}

struct order *link_answer(struct link *link)
{
	if (link->waiting) {
		list_send(link->to_core, &link->waiting, &link->waiting_end);
		bell_ring(link->core_bell);
	}
	return queue_get(link->from_core);
}

struct order *link_take(struct link *link)
{
	if (link->core_waiting) {
		list_send(link->from_core, &link->core_waiting, &link->core_waiting_end);
		bell_ring(&link->bell);
	}
	return queue_get(link->to_core);
}

void link_tell(struct link *link, struct order *order)
{
	list_add(order, &link->core_waiting_end);
	list_send(link->from_core, &link->core_waiting, &link->core_waiting_end);
	bell_ring(&link->bell);
}

bool link_is_idle(struct link *link)
{
	return !link->core_waiting && queue_is_empty(link->to_core);
}
