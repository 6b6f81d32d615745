/*
 * The starter: a thread that makes a broker whole after it has let its first clients in. It reads the
 * tables that the broker before left (arena table, slab tables), hands what it finds to the core in
 * batches, says when recovery is over, and populates the arena extent by extent. The core takes all
 * of that as orders between two rounds, so that clients do not notice.
 *
 * Order: extents of a warm arena, its table, each tier's table, SERVE, then the rest of the extents, which
 * the filler populates (filler.h). A cold arena gets its first extents before SERVE, so that the first
 * stores find room.
 */
#ifndef STOKER_BROKER_POPULATE_H
#define STOKER_BROKER_POPULATE_H

#include "src/broker/arena.h"
#include "src/broker/order.h"
#include "src/broker/tier.h"

struct starter;

/** struct starter_model - what tells objects of a model in tables; valid for the starter's life. */
struct starter_model {
	uint8_t identity[MODEL_DIGEST_BYTES];
	const struct model_layout *layout;
	uint32_t engine, epoch;
};

struct starter_config {
	struct link *link;		/* to the core */
	struct arena *arena;
	bool populate;			/* false: extents are reported as they are (the bench's null arena) */
	uint32_t n_tiers;
	struct tier *tiers[ENGINE_TIERS_MAX];	/* NULL: this one is out of service */
	uint32_t n_models;
	const struct starter_model *models;	/* copied */
};

int starter_start(const struct starter_config *config, struct starter **ret);	/* 0 or -errno */
void starter_stop(struct starter *starter);	/* ends it early if it runs; NULL is fine */
void starter_free(struct starter *starter);	/* when the core has ended too: it may hold orders */

#endif
