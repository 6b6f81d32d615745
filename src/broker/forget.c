/*
 * Making room for a model by forgetting another.
 *
 * A model that no client has open keeps its place while nobody needs it. When one does, the engine is asked
 * to forget the least recently used: first of those that have no objects left (it alone knows which: it
 * is asked for one after the other, and refuses), then one that is emptied for it. Only models of
 * the same tenant are emptied; those without objects may be anybody's, if it is the whole table that is full.
 *
 * Whoever wants a model meanwhile waits in a list, and everybody there tries again when the engine
 * has answered. At most one model is forgotten at a time for a tenant's share, so that two who wait
 * for one place do not cost two models.
 *
 * What a model leaves behind is its epoch: see state.h. Its rows in the tiers' superblocks are theirs to
 * take back, as of any model without objects.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "src/broker/session.h"
#include "src/broker/clock.h"
#include "src/broker/state.h"
#include "src/common/log.h"

void forget_file(struct broker *broker, const uint8_t identity[MODEL_DIGEST_BYTES], uint32_t epoch)
{
	const char *path = broker->config.broker.state_directory;
	const int r = state_forget_model(path, identity, epoch, &broker->epoch_floor);
	static struct log_limit limit;
	uint32_t unsaid;

	if (r < 0 && log_may(&limit, clock_kernel_ns(), &unsaid))
		log_warning("a forgotten model's file could not be removed from %s: %s; the next start will know the model "
			    "again", path, strerror(-r));
}

/* ---- who waits ---------------------------------------------------------------------------------- */

void forget_wait(const struct opening *opening)
{
	struct session *session = opening->session;
	struct opening **end = &session->broker->openings;
	struct opening *waiting = session->orders < SESSION_ORDERS_MAX ? malloc(sizeof(*waiting)) : NULL;

	if (!waiting) {
		model_layout_free(opening->layout);
		session_refuse(session, opening->request, STOKER_STATUS_REFUSED,
			       "%u requests of this client are unanswered: wait for answers first", session->orders);
		return;
	}
	*waiting = *opening;
	waiting->next = NULL;
	session->orders++;
	while (*end)
		end = &(*end)->next;
	*end = waiting;
}

void forget_leave(struct session *session)
{
	struct opening **at = &session->broker->openings;

	while (*at) {
		struct opening *opening = *at;

		if (opening->session != session) {
			at = &opening->next;
			continue;
		}
		*at = opening->next;
		model_layout_free(opening->layout);
		free(opening);
		session->orders--;
	}
}

/*
 * Everybody who waits tries again; who finds no place waits again, behind the others. They are counted, because whoever
 * turns out to be dead takes others of its own out of the list meanwhile, the last one maybe.
 */
static void openings_go(struct broker *broker)
{
	uint32_t n = 0;

	for (const struct opening *opening = broker->openings; opening; opening = opening->next)
		n++;
	for (; n > 0 && broker->openings; n--) {
		struct opening *opening = broker->openings;
		const struct opening again = *opening;

		broker->openings = opening->next;
		free(opening);
		again.session->orders--;
		describe_open_go(&again);
	}
}

/* ---- what is forgotten ---------------------------------------------------------------------------- */

bool forget_one_for(const struct opening *opening, enum models_lack lack)
{
	const struct session *session = opening->session;
	const struct models *models = &session->broker->models;
	const uint32_t tenant = (uint32_t)session->tenant;
	const bool any = lack == MODELS_LACK_PLACE;
	struct model *model;
	bool evict = false;

	if (lack == MODELS_LACK_OTHER)
		return false;
	if (!models_is_closing(models, tenant, any)) {
		model = models_coldest(models, tenant, any, opening->tried);
		if (!model) {
			model = models_coldest(models, tenant, false, opening->emptied);
			evict = true;
		}
		if (!model)
			return false;
		model->state = MODEL_CLOSING;
		model->close_order = (struct order){ .type = ORDER_MODEL_CLOSE,
						     .model = { .model = model, .evict = evict } };
		link_order(session->broker->link, &model->close_order);
	}
	forget_wait(opening);
	return true;
}

/* It has objects, or cannot be emptied now: who waits is to try another one. */
static void kept(struct broker *broker, struct model *model, bool evict)
{
	const uint64_t bit = 1ull << model->number;

	model->state = MODEL_OPEN;
	for (struct opening *opening = broker->openings; opening; opening = opening->next) {
		opening->tried |= bit;
		opening->emptied |= evict ? bit : 0;
	}
}

/* Who opens one model after the other has one forgotten each time. */
static void say_forgotten(const struct broker *broker, const struct model *model, bool evicted)
{
	static struct log_limit limit;
	uint32_t unsaid;

	if (!log_may(&limit, clock_kernel_ns(), &unsaid))
		return;
	if (unsaid)
		log_info("%u more models were forgotten", unsaid);
	log_info("a model of tenant %s (chunks of %u tokens) is forgotten%s: its place is needed, and no client had "
		 "it open", broker->config.tenants[model->tenant].name, model->layout->wire.chunk_tokens,
		 evicted ? ", with all that was cached of it" : "");
}

void forget_answer(struct broker *broker, struct order *order)
{
	struct model *model = order->model.model;

	if (order->status == STOKER_STATUS_OK) {
		say_forgotten(broker, model, order->model.evict);
		broker_count(broker, STOKER_COUNTER_MODELS_FORGOTTEN);
		forget_file(broker, model->identity, model->epoch);
		models_drop(&broker->models, model);
	} else {
		kept(broker, model, order->model.evict);
	}
	openings_go(broker);
}
