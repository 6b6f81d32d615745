/*
 * Models: opened by description or by digest, begun anew by RESET, remembered over restarts.
 *
 * A model that several clients open at once is made known to the engine once: whoever comes while
 * that is under way sends a PING after it, whose answer cannot overtake the engine's.
 *
 * RESET is durable before anything else: the core asks for SAVE_EPOCH, the state directory is written
 * here, the tiers write theirs, and only then do the older objects die.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "src/broker/session.h"
#include "src/broker/clock.h"
#include "src/broker/state.h"
#include "src/common/log.h"

/* ---- a client's view --------------------------------------------------------------------------- */

struct model *describe_find(struct session *session, uint32_t number)
{
	const uint64_t opened = session->channel ?
		atomic_load_explicit(&session->channel->models, memory_order_relaxed) : 0;

	return number < MODELS_MAX && opened & 1ull << number ? session->broker->models.model[number] : NULL;
}

static void opened_add(struct session *session, struct model *model)
{
	const uint64_t bit = 1ull << model->number;

	if (atomic_fetch_or_explicit(&session->channel->models, bit, memory_order_release) & bit)
		return;
	model->clients++;
}

/* For the choice of what to forget, in this life and the next. */
static void used(const struct broker *broker, struct model *model)
{
	model->used_ns = state_now_ns();
	if (model->state == MODEL_OPEN)
		state_touch_model(broker->config.broker.state_directory, model->identity);
}

void describe_close(struct session *session)
{
	struct models *models = &session->broker->models;
	const uint64_t opened = atomic_exchange_explicit(&session->channel->models, 0, memory_order_relaxed);

	for (uint32_t i = 0; i < MODELS_MAX; i++) {
		if (!(opened & 1ull << i))
			continue;
		if (--models->model[i]->clients == 0)
			used(session->broker, models->model[i]);
		models_put(models, models->model[i]);
	}
}

/* ---- answers ----------------------------------------------------------------------------------- */

/* The description as it travels: header, groups, rows without gaps. NULL: no memory. */
static uint8_t *description_make(const struct model_layout *layout, size_t *ret_bytes)
{
	const size_t groups = layout->wire.n_groups * sizeof(layout->groups[0]);
	const size_t rows = layout->wire.n_rows * sizeof(layout->rows[0]);
	uint8_t *bytes = malloc(sizeof(layout->wire) + groups + rows);

	if (!bytes)
		return NULL;
	memcpy(bytes, &layout->wire, sizeof(layout->wire));
	memcpy(bytes + sizeof(layout->wire), layout->groups, groups);
	memcpy(bytes + sizeof(layout->wire) + groups, layout->rows, rows);
	*ret_bytes = sizeof(layout->wire) + groups + rows;
	return bytes;
}

static void answer_open(struct session *session, uint64_t request, struct model *model, bool by_digest)
{
	struct message_answer answer = { .number = model->number, .layout_known = model->state == MODEL_OPEN };
	uint8_t *description = NULL;
	size_t bytes = 0;

	if (session->state == SESSION_LEAVING)
		return;
	opened_add(session, model);
	if (by_digest && answer.layout_known)
		description = description_make(model->layout, &bytes);
	answer.described_bytes = (uint32_t)bytes;
	session_answer_more(session, request, &answer, description, bytes, attach_arena(session, &answer.value));
	free(description);
}

/* The longest chunk of this model that this arena takes, for a refusal. */
static uint64_t longest_chunk(const struct broker *broker, const struct model_layout *layout)
{
	const uint64_t quarter = broker->arena_bytes / 4;
	const uint64_t most = quarter < MODEL_OBJECT_MAX ? quarter : MODEL_OBJECT_MAX;
	uint64_t largest = 1, tokens, step = 1;

	for (uint32_t i = 0; i < layout->n_parts; i++) {
		if (layout->parts[i].payload_bytes > largest)
			largest = layout->parts[i].payload_bytes;
	}
	for (uint32_t i = 0; i < layout->wire.n_groups; i++) {
		if (layout->groups[i].kind != MODEL_GROUP_STATE && layout->groups[i].block_tokens > step)
			step = layout->groups[i].block_tokens;
	}
	tokens = most > MODEL_IMAGE_HEADER ?
		 (most - MODEL_IMAGE_HEADER) / (largest / layout->wire.chunk_tokens + 1) : 0;
	return tokens / step * step;
}

static uint32_t sizes_of_objects(const struct model_layout *layout)
{
	uint32_t sizes = 0;

	for (uint32_t i = 0; i < layout->n_parts; i++) {
		uint32_t same = 0;

		while (layout->parts[same].image_bytes != layout->parts[i].image_bytes)
			same++;
		sizes += same == i;
	}
	return sizes;
}

static void refuse_open(struct session *session, uint64_t request, const struct model *model, int error)
{
	char fits[64] = "no chunk fits";
	uint64_t longest;

	if (error == -ENOSPC) {
		session_refuse(session, request, STOKER_STATUS_TOO_LARGE, "the objects of a chunk of this model have %u sizes, "
			       "and each takes whole extents of the arena: %" PRIu64 " of %" PRIu64 " bytes are too few for that; "
			       "lower arena.extent, or raise arena.size", sizes_of_objects(model->layout),
			       session->broker->arena_bytes / session->broker->config.arena.extent,
			       session->broker->config.arena.extent);
		return;
	}
	if (error != -E2BIG) {
		session_refuse(session, request, STOKER_STATUS_NO_MEMORY, "the engine has no room for another model: %s",
			       strerror(-error));
		return;
	}
	longest = longest_chunk(session->broker, model->layout);
	if (longest > 0)
		snprintf(fits, sizeof(fits), "the longest chunk that fits is %" PRIu64 " tokens", longest);
	session_refuse(session, request, STOKER_STATUS_TOO_LARGE, "an object of this model is larger than a quarter of the "
		       "arena (%" PRIu64 " bytes) or than 1 GiB: %s; %sraise arena.size",
		       session->broker->arena_bytes / 4, fits, longest > 0 ? "describe shorter ones, or " : "");
}

static int epoch_save(struct broker *broker, const struct model *model, uint32_t epoch, uint64_t tag)
{
	struct state_model state = { .epoch = epoch, .tag = tag, .layout = model->layout };

	memcpy(state.digest, model->identity, sizeof(state.digest));
	snprintf(state.tenant, sizeof(state.tenant), "%s", broker->config.tenants[model->tenant].name);
	const int r = state_save_model(broker->config.broker.state_directory, &state);
	static struct log_limit limit;
	uint32_t unsaid;

	if (r < 0 && log_may(&limit, clock_kernel_ns(), &unsaid))
		log_error("a model could not be remembered in %s: %s; after a restart its objects will be lost",
			  broker->config.broker.state_directory, strerror(-r));
	return r;
}

/* ---- MODEL_OPEN -------------------------------------------------------------------------------- */

/* Somebody else's description is with the engine: be told when that is over. */
static void open_after(struct session *session, uint64_t request, struct model *model)
{
	struct order *order = session_order(session, request, ORDER_PING);

	if (!order)
		return;
	model->clients++;	/* or a refusal would take it from under the order */
	order->model.model = model;
	link_order(session->broker->link, order);
}

static void opened_after(struct order *order)
{
	struct session *session = order->owner;
	struct model *model = order->model.model;

	model->clients--;
	if (session->state != SESSION_LEAVING && model->state == MODEL_OPEN)
		answer_open(session, order->request, model, false);
	else if (session->state != SESSION_LEAVING)
		session_refuse(session, order->request, STOKER_STATUS_NO_MEMORY, "the engine refused this model: "
			       "open it again to be told why");
	models_put(&session->broker->models, model);
}

/*
 * A model that begins in a later epoch than the first has a past that was forgotten, and its tag with it. It is
 * not to bear the tag of the first epoch, by which what was stored then may still be named somewhere.
 */
static uint64_t first_tag(const struct model *model)
{
	uint64_t tag = 0;

	if (model->epoch > 0 && getrandom(&tag, sizeof(tag), 0) != sizeof(tag))
		tag = state_now_ns();
	return tag;
}

/* A description of what nobody has described yet: the engine is to know of it. */
static void open_described(const struct opening *opening, struct model *model)
{
	struct session *session = opening->session;
	struct broker *broker = session->broker;
	struct order *order = session_order(session, opening->request, ORDER_MODEL_OPEN);

	if (!order) {
		model_layout_free(opening->layout);
		models_put(&broker->models, model);
		return;
	}
	model->epoch = describe_epoch(broker, model);
	model->tag = first_tag(model);
	model_describe(model, opening->layout);
	order->model.model = model;
	order->model.config = &model->config;
	link_order(broker->link, order);
}

void describe_open_go(const struct opening *opening)
{
	struct session *session = opening->session;
	struct broker *broker = session->broker;
	char why[MESSAGE_REASON];
	enum models_lack lack;
	struct model *model = models_get(&broker->models, &broker->config, (uint32_t)session->tenant, opening->digest,
					 opening->layout != NULL, &lack, why);

	if (model && model->state == MODEL_CLOSING) {
		forget_wait(opening);
		return;
	}
	if (!model && forget_one_for(opening, lack))
		return;
	if (opening->layout && model && model->state == MODEL_BARE) {
		open_described(opening, model);
		return;
	}
	model_layout_free(opening->layout);
	if (!model)
		session_refuse(session, opening->request, STOKER_STATUS_NO_MEMORY, "%s", why);
	else if (!opening->layout || model->state == MODEL_OPEN)
		answer_open(session, opening->request, model, !opening->layout);
	else if (model->state == MODEL_OPENING)
		open_after(session, opening->request, model);
}

void describe_open(struct session *session, const struct incoming *in)
{
	const struct message_model_open *message = (const void *)in->data;
	static const uint8_t none[MODEL_DIGEST_BYTES];
	struct opening opening = { .session = session, .request = message->header.request };
	char why[MESSAGE_REASON];

	if (message->flags & ~MESSAGE_MODEL_BY_DIGEST ||
	    (message->flags & MESSAGE_MODEL_BY_DIGEST && message->description_bytes > 0)) {
		broker_count(session->broker, STOKER_COUNTER_BAD_MESSAGES);
		session_expel(session, "it opened a model with impossible flags");
		return;
	}
	if (message->flags & MESSAGE_MODEL_BY_DIGEST) {
		memcpy(opening.digest, message->digest, sizeof(opening.digest));
		describe_open_go(&opening);
		return;
	}
	const int r = model_layout_make(message + 1, message->description_bytes, why, &opening.layout);
	if (r < 0) {
		session_refuse(session, message->header.request,
			       r == -ENOMEM ? STOKER_STATUS_NO_MEMORY : r == -E2BIG ? STOKER_STATUS_TOO_LARGE :
			       STOKER_STATUS_BAD_REQUEST, "%s", r == -ENOMEM ? "the broker has no memory" : why);
		return;
	}
	if (memcmp(message->digest, none, sizeof(none)) != 0 &&
	    memcmp(message->digest, opening.layout->digest, sizeof(message->digest)) != 0) {
		model_layout_free(opening.layout);
		session_refuse(session, message->header.request, STOKER_STATUS_BAD_REQUEST,
			       "the digest is not that of the description");
		return;
	}
	memcpy(opening.digest, opening.layout->digest, sizeof(opening.digest));
	describe_open_go(&opening);
}

/* The engine has spoken. The session may have left meanwhile; the model stays all the same. */
static void opened(struct broker *broker, struct order *order)
{
	struct session *session = order->owner;
	struct model *model = order->model.model;
	struct model_layout *layout = model->layout;

	if (order->result == 0) {
		model->state = MODEL_OPEN;
		if (session) {
			epoch_save(broker, model, model->epoch, model->tag);
			answer_open(session, order->request, model, false);
		}
		return;
	}
	if (session && session->state != SESSION_LEAVING)
		refuse_open(session, order->request, model, order->result);
	else if (!session)
		log_warning("a remembered model (chunks of %u tokens) cannot be opened: %s; its objects are dropped",
			    layout->wire.chunk_tokens, strerror(-order->result));
	model->state = MODEL_BARE;
	model->layout = NULL;
	model_layout_free(layout);
	models_put(&broker->models, model);
}

/* ---- RESET ------------------------------------------------------------------------------------- */

void describe_reset(struct session *session, const struct incoming *in)
{
	const struct message_reset *message = (const void *)in->data;
	const uint64_t request = message->header.request;
	struct model *model = describe_find(session, message->model);
	struct order *order;
	uint64_t tag = message->tag;

	if (!model || model->state != MODEL_OPEN) {
		session_refuse(session, request, model ? STOKER_STATUS_NO_LAYOUT : STOKER_STATUS_BAD_REQUEST,
			       "model %u is not open here by its description", message->model);
		return;
	}
	if (model->resetting || model->epoch == UINT32_MAX) {
		session_refuse(session, request, STOKER_STATUS_REFUSED, "a reset of this model is under way: wait for it");
		return;
	}
	if (!message->has_tag && getrandom(&tag, sizeof(tag), 0) != sizeof(tag)) {
		session_refuse(session, request, STOKER_STATUS_REFUSED, "the machine gives no random numbers");
		return;
	}
	order = session_order(session, request, ORDER_RESET);
	if (!order)
		return;
	model->resetting = true;
	order->model.model = model;
	order->model.epoch = model->epoch + 1;
	order->model.tag = tag;
	link_order(session->broker->link, order);
}

static void reset_over(struct order *order)
{
	struct session *session = order->owner;
	struct model *model = order->model.model;
	struct message_answer answer = { .status = order->status, .number = model->number,
					 .value = order->model.epoch };

	model->resetting = false;
	if (order->status == STOKER_STATUS_STARTING) {
		session_refuse(session, order->request, order->status, "the epoch is not begun: the broker drains, and has not "
			       "read yet what an earlier one left; ask again once it serves");
		return;
	}
	/* An epoch that was begun is never used again, even if it could not be saved everywhere. */
	model->epoch = order->model.epoch;
	model->tag = order->model.tag;
	if (order->status != STOKER_STATUS_OK)
		snprintf(answer.reason, sizeof(answer.reason), "the new epoch could not be made durable; see the broker's "
			 "log");
	session_answer(session, order->request, &answer);
}

/* ---- what the core says ------------------------------------------------------------------------ */

void models_answer(struct broker *broker, struct order *order)
{
	struct session *session = order->owner;
	struct model *model = order->model.model;

	switch (order->type) {
	case ORDER_SAVE_EPOCH:
		order->result = epoch_save(broker, model, order->model.epoch, order->model.tag);
		order->type = ORDER_EPOCH_SAVED;
		link_order(broker->link, order);
		return;
	case ORDER_MODEL_OPEN:
		opened(broker, order);
		break;
	case ORDER_PING:
		opened_after(order);
		break;
	default:
		reset_over(order);
		break;
	}
	if (session) {
		free(order);
		session_release(session);
	}
}

/* ---- what the state directory remembers -------------------------------------------------------- */

static uint32_t epoch_of_tiers(const struct broker *broker, const struct model *model)
{
	uint32_t epoch = 0;

	for (uint32_t i = 0; i < broker->config.n_tiers; i++) {
		const uint32_t known = broker->tiers[i] ? tier_epoch(broker->tiers[i], model->identity) : 0;

		epoch = known > epoch ? known : epoch;
	}
	return epoch;
}

uint32_t describe_epoch(const struct broker *broker, const struct model *model)
{
	const uint32_t epoch = epoch_of_tiers(broker, model);

	return epoch > broker->epoch_floor ? epoch : broker->epoch_floor;
}

/* There are more files than places (a limit was lowered): those used last come first, the rest goes. */
static void not_remembered(struct broker *broker, struct state_model *state, bool full, const char *why)
{
	log_info("a model of tenant %s is %s: %s", state->tenant, full ? "forgotten" : "not opened", why);
	if (full)
		forget_file(broker, state->digest, state->epoch);
	model_layout_free(state->layout);
}

static int remembered(void *arg, struct state_model *state)
{
	struct broker *broker = arg;
	struct model *model = NULL;
	enum models_lack lack = MODELS_LACK_OTHER;
	char why[MESSAGE_REASON] = "its tenant is not configured any more";

	for (uint32_t i = 0; i < broker->config.n_tenants && !model; i++) {
		if (strcmp(broker->config.tenants[i].name, state->tenant) == 0)
			model = models_get(&broker->models, &broker->config, i, state->layout->digest, true, &lack, why);
	}
	if (!model || model->state != MODEL_BARE) {
		not_remembered(broker, state, !model && lack != MODELS_LACK_OTHER, model ? "it is there twice" : why);
		return 0;
	}
	const uint32_t epoch = epoch_of_tiers(broker, model);
	model->epoch = epoch > state->epoch ? epoch : state->epoch;
	model->tag = state->tag;
	model->used_ns = state->used_ns;
	model_describe(model, state->layout);
	model->open_order = (struct order){ .type = ORDER_MODEL_OPEN, .model = { .model = model,
										   .config = &model->config } };
	broker->models_awaited++;
	link_order(broker->link, &model->open_order);
	return 0;
}

void models_remember(struct broker *broker)
{
	const char *path = broker->config.broker.state_directory;
	int r = state_load_floor(path, &broker->epoch_floor);

	if (r < 0)
		log_warning("the epochs of forgotten models could not be read from %s: %s; reset a model before it is used "
			    "with a tier that was away", path, strerror(-r));
	r = state_load_models(path, remembered, broker);
	if (r < 0)
		log_warning("models could not be read from %s: %s; what the tiers hold of them is lost", path,
			    strerror(-r));
}
