/*
 * The registry of models: every description, or bare digest, that a client has opened or that the
 * state directory remembers. A model is known by digest and tenant; its number is its place here, and
 * what its clients call it.
 *
 * A described model stays when no client has it open any more, so that what is cached of it serves the
 * next one. When its place is needed it is forgotten (forget.c): the least recently used first, and
 * what has no objects left before all others. One that is known by digest alone lives as long as a
 * client has it open: a scheduler may come before the first worker.
 *
 * Owned by the control thread; the fields below the line are the core's.
 */
#ifndef STOKER_BROKER_MODELS_H
#define STOKER_BROKER_MODELS_H

#include "shm/model.h"
#include "src/broker/config.h"
#include "src/broker/order.h"

#define MODELS_MAX	64u

/* CLOSING: the engine was asked to forget it, and nobody opens it before it has answered. */
enum model_state { MODEL_BARE, MODEL_OPENING, MODEL_OPEN, MODEL_CLOSING };

struct model {
	uint32_t number;
	uint32_t tenant;
	uint8_t digest[MODEL_DIGEST_BYTES];	/* of the description */
	uint8_t identity[MODEL_DIGEST_BYTES];	/* of description and tenant */
	uint32_t clients;			/* that have it open, or wait for it */
	enum model_state state;
	struct model_layout *layout;		/* NULL: known by digest alone */
	uint32_t epoch;
	uint64_t tag;
	bool resetting;
	uint64_t used_ns;	/* CLOCK_REALTIME, as its file has it: when a client last had it open */
	struct engine_model_config config;
	struct order open_order, close_order;
	uint32_t engine;	/* the engine's number, once it is open */

	/* The core's: */
	alignas(64) uint32_t saves_awaited;	/* tiers and state directory that are still to save an epoch */
	bool save_failed;
	uint32_t epoch_named;	/* highest in which a table names an object of it */
	struct order save_order;
};

struct models {
	struct model *model[MODELS_MAX];
	uint32_t max;
};

void models_init(struct models *models, uint32_t max);
void models_fini(struct models *models);

/* Why there is no place: the tenant's share is used up, all are, or what is missing is no place. */
enum models_lack { MODELS_LACK_SHARE, MODELS_LACK_PLACE, MODELS_LACK_OTHER };

/*
 * The model of that digest and tenant, made if it is new. NULL: no room; the reason is in @why. A
 * bare one is never made while more than a quarter of the tenant's places are bare, so that digests
 * nobody describes cannot keep models out.
 */
struct model *models_get(struct models *models, const struct config *config, uint32_t tenant,
			 const uint8_t digest[MODEL_DIGEST_BYTES], bool described, enum models_lack *lack, char *why);

/*
 * The least recently used model that no client has open, of those that could make room for one of
 * @tenant: its own, and with @any everybody's. @but: mask of numbers that are not wanted. NULL: none.
 */
struct model *models_coldest(const struct models *models, uint32_t tenant, bool any, uint64_t but);
/* Is one of them being forgotten already? */
bool models_is_closing(const struct models *models, uint32_t tenant, bool any);

/* Give it its layout (owned by it from now on) and fill in what the engine is told of it. */
void model_describe(struct model *model, struct model_layout *layout);

/* A client closed it, or failed to open it: a bare one that nobody has open is forgotten. */
void models_put(struct models *models, struct model *model);
/* The engine has forgotten it: so does the registry. */
void models_drop(struct models *models, struct model *model);

#endif
