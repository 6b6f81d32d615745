/*
 * Clients: they come, and when they leave or die everything of theirs ends: jobs (drained if a copy
 * runs), leases, holds, pools. Nothing is published to a client that is leaving; when nothing of it is
 * left its number is given back. Leases can be many: they are of no use to anybody at once, and are
 * ended a few a turn.
 */
#include "src/engine/internal.h"

#define LEASES_A_TURN 64u

void engine_client_in(struct engine *e, uint32_t number, const struct engine_client_config *config)
{
	struct client *client = &e->clients[number];

	ENGINE_ASSERT(number < e->config.clients && client->state == CLIENT_FREE);
	ENGINE_ASSERT(config->slots <= e->config.slots && config->tenant < e->config.tenants);
	*client = (struct client){
		.state = CLIENT_LIVE, .tenant = config->tenant, .slots_small = config->slots_small,
		.slots = config->slots, .leases = NONE, .holds = NONE, .pools = NONE,
	};
	bound_client_in(e, client, config->user);
	e->clients_live++;
}

void client_job_over(struct engine *e, uint32_t number)
{
	struct client *client = &e->clients[number];

	if (client->state != CLIENT_LEAVING || client->jobs > 0 || client->leases != NONE || client->chunks > 0)
		return;
	ENGINE_ASSERT(client->holds == NONE && client->pools == NONE);
	client->state = CLIENT_FREE;
	bound_client_gone(e, client);
	e->clients_live--;
	e->clients_leaving--;
	e->ports.client_gone(e->ports.shell, number);
}

/*
 * Some leases of clients that are leaving; returns whether there may be more of them. Whose pins are still
 * being given back (chunks_drop_some) is looked at again in the next turn.
 */
bool clients_leave_some(struct engine *e)
{
	uint32_t left = LEASES_A_TURN;

	for (uint32_t i = 0; i < e->config.clients && e->clients_leaving > 0; i++) {
		struct client *client = &e->clients[i];

		if (client->state != CLIENT_LEAVING)
			continue;
		for (; client->leases != NONE && left > 0; left--)
			lease_end(e, client->leases);
		if (client->leases != NONE)
			return true;
		/* Also if its last lease was ended by others, the clock say: then nobody else tells it. */
		client_job_over(e, i);
	}
	return false;
}

void engine_client_out(struct engine *e, uint32_t number)
{
	struct client *client = &e->clients[number];
	struct job *jobs = &e->jobs[number * e->config.slots];

	ENGINE_ASSERT(number < e->config.clients && client->state == CLIENT_LIVE);
	client->state = CLIENT_LEAVING;
	e->clients_leaving++;
	client->jobs++;		/* it is not gone before all of this is done */
	for (uint32_t i = 0; i < client->slots; i++)
		if (jobs[i].phase != PHASE_FREE)
			job_stop(e, &jobs[i], STOKER_STATUS_CANCELLED);
	for (uint32_t i = 0; i < LEASES_A_TURN && client->leases != NONE; i++)
		lease_end(e, client->leases);
	while (client->holds != NONE)
		hold_end(e, client->holds);
	pools_leave(e, number);
	client->jobs--;
	client_job_over(e, number);
}
