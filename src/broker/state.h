/*
 * The state directory: what must outlive the broker but belongs to no tier. One file a model,
 * models/DIGEST (hex of the digest with tenant): tenant name, epoch, tag, description. Written to a
 * temporary name, fsynced, renamed. A file that cannot be read is left alone and said once. Its time of
 * change is when the model was last used.
 *
 * A model that is forgotten has no file. The highest epoch of any such is kept in one file, `epochs`: a
 * model that is described later begins in it, so that what a tier that was away may bring back of an
 * older epoch stays dead.
 */
#ifndef STOKER_BROKER_STATE_H
#define STOKER_BROKER_STATE_H

#include "shm/model.h"

struct state_model {
	uint8_t digest[MODEL_DIGEST_BYTES];	/* with tenant */
	char tenant[64];
	uint32_t epoch;
	uint64_t tag, used_ns;
	struct model_layout *layout;		/* owned by who got it */
};

int state_open(const char *path, char *why);	/* make the directories, 0700 */
/* Those that were used last come first. */
int state_load_models(const char *path, int (*each)(void *arg, struct state_model *model), void *arg);
int state_save_model(const char *path, const struct state_model *model);	/* durable on return */
void state_touch_model(const char *path, const uint8_t digest[MODEL_DIGEST_BYTES]);	/* it is used now */
uint64_t state_now_ns(void);		/* as struct state_model.used_ns */

int state_load_floor(const char *path, uint32_t *ret);	/* the highest epoch of those forgotten; 0: none */
/* First *floor, if @epoch is above it, then the model's file; durable on return. */
int state_forget_model(const char *path, const uint8_t digest[MODEL_DIGEST_BYTES], uint32_t epoch, uint32_t *floor);

#endif
