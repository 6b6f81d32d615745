/*
 * The state directory: what must outlive the broker but belongs to no tier. One file a model,
 * models/DIGEST (hex of the digest with tenant): tenant name, epoch, tag, description. Written to a
 * temporary name, fsynced, renamed. A file that cannot be read is left alone and said once.
 */
#ifndef STOKER_BROKER_STATE_H
#define STOKER_BROKER_STATE_H

#include "shm/model.h"

struct state_model {
	uint8_t digest[MODEL_DIGEST_BYTES];	/* with tenant */
	char tenant[64];
	uint32_t epoch;
	uint64_t tag;
	struct model_layout *layout;		/* owned by who got it */
};

int state_open(const char *path, char *why);	/* make the directories, 0700 */
int state_load_models(const char *path, int (*each)(void *arg, struct state_model *model), void *arg);
int state_save_model(const char *path, const struct state_model *model);	/* durable on return */

#endif
