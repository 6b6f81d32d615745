/* The parts of engine_audit(). */
#ifndef STOKER_ENGINE_AUDIT_H
#define STOKER_ENGINE_AUDIT_H

#include "src/engine/internal.h"

const char *lists_audit(struct engine *engine);	/* jobs, leases, clients, pools and their lists */
const char *bounds_audit(struct engine *engine);	/* what clients and tenants are said to have */
const char *accounts_audit(struct engine *engine);	/* ... and their accounts */
uint64_t audit_weight(uint32_t number);			/* drawn for it: sums of them tell sets apart */

#endif
