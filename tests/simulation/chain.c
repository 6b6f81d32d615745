/*
 * What takes more than one request, or another's: lookups whose keys come in pieces, renewals and
 * extensions of leases, thefts of leases across tenants, heads that no honest library sends.
 *
 * A chained lookup's head lies in the large slot; its pieces take any free slots, later, with other
 * requests between. Some never come: the head then ends at its deadline. Some come wrong (another number,
 * generation or slot) and must be refused without hurting the head.
 */
#include "tests/simulation/sim.h"

static struct sim_slot *head_of(struct sim *sim, uint32_t client)
{
	return &sim->clients[client].slots[SIM_SLOTS - 1];
}

/* Where the pieces begin: each has a key at least. */
static void split_keys(struct sim *sim, struct sim_slot *slot)
{
	const uint32_t parts = slot->pieces + 1;

	slot->split[0] = 0;
	for (uint32_t i = 1; i < parts; i++) {
		const uint32_t room = slot->n - slot->split[i - 1] - (parts - i);

		slot->split[i] = slot->split[i - 1] + 1 + sim_below(&sim->random, room);
	}
	slot->split[parts] = slot->n;
}

/* The keys, behind others that nobody ever stored. */
static void put_junk(struct sim_slot *slot)
{
	struct stoker_wire_key *keys = (struct stoker_wire_key *)slot->big;

	for (uint32_t i = 0; i < slot->junk; i++)
		keys[i] = (struct stoker_wire_key){ .word = { 1000000 + i, sim_mix(i), i, i } };
	memcpy(keys + slot->junk, slot->request.keys, slot->request.head.n_keys * sizeof(*keys));
	slot->request.keys = keys;
	slot->request.head.n_keys += slot->junk;
}

void chain_ask(struct sim *sim, uint32_t client, bool long_one)
{
	struct sim_slot *slot = head_of(sim, client);
	uint32_t keys[SIM_DEPTH];
	const uint32_t n = client_chain(sim, sim_below(&sim->random, SIM_KEYS), keys);

	if (slot->state != SIM_FREE || n < 2)
		return;
	slot = client_begin(sim, client, SIM_SLOTS - 1, STOKER_OP_LOOKUP, client_model(sim, client));
	slot->n = n;
	memcpy(slot->keys, keys, sizeof(keys));
	slot->pieces = 1 + sim_below(&sim->random, n - 1 < SIM_PIECES ? n - 1 : SIM_PIECES);
	split_keys(sim, slot);
	slot->request.head.flags = STOKER_F_PREFETCH | STOKER_F_PARTIAL;
	if (sim_chance(&sim->random, 100))
		slot->request.head.flags = STOKER_F_PROBE;
	slot->request.line.lookup.pieces = slot->pieces;
	if (long_one || sim_chance(&sim->random, 300))
		slot->junk = long_one || sim_chance(&sim->random, 200) ? STOKER_LARGE_KEYS - slot->split[1]
							   : 1 + sim_below(&sim->random, 600);
	if (slot->junk || sim_chance(&sim->random, 200))	/* what comes first is in the asker's own hands */
		slot->request.line.lookup.have = slot->junk + sim_below(&sim->random, n + 1);
	if (!sim->roomy && sim_chance(&sim->random, 200)) {	/* the rest will never come */
		slot->sent = slot->pieces;
		slot->cut = true;
		slot->request.head.deadline_us = 1 + sim_below(&sim->random, 20000);
	}
	client_put_keys(sim, slot, 0, slot->split[1]);
	if (slot->junk)
		put_junk(slot);
	client_ask(sim, client, slot);
}

void chain_wide(struct sim *sim, uint32_t client)
{
	struct sim_slot *slot = head_of(sim, client);
	struct stoker_wire_key *keys;

	if (slot->state != SIM_FREE)
		return;
	slot = client_begin(sim, client, SIM_SLOTS - 1, STOKER_OP_LOOKUP, client_model(sim, client));
	slot->wide = true;
	slot->n = sim_chance(&sim->random, 500) ? SIM_KEYS - sim_below(&sim->random, 64) :
						  25 + sim_below(&sim->random, SIM_KEYS - 25);
	slot->keys[0] = sim_below(&sim->random, SIM_KEYS);
	keys = (struct stoker_wire_key *)slot->input;
	for (uint32_t i = 0; i < slot->n; i++)
		keys[i] = sim->keys[(slot->keys[0] + i) % SIM_KEYS].key;
	slot->request.keys = keys;
	slot->request.head.n_keys = slot->n;
	slot->request.head.flags = STOKER_F_ANY | STOKER_F_PARTIAL;
	if (sim_chance(&sim->random, 500))
		slot->request.head.flags |= STOKER_F_PREFETCH;
	slot->request.line.lookup.lease_ms = 1 + sim_below(&sim->random, 500);
	client_ask(sim, client, slot);
}

/* A piece that names what is not next. */
static void spoil(struct sim *sim, struct sim_slot *slot)
{
	switch (sim_below(&sim->random, 5)) {
	case 0: slot->request.line.more.piece += 1 + sim_below(&sim->random, 3); break;
	case 1: slot->request.line.more.piece = 0; break;
	case 2: slot->request.line.more.head_generation++; break;
	case 3: slot->request.line.more.head_slot = slot->request.head.slot; break;
	case 4: slot->request.line.more.head_slot = SIM_SLOTS + sim_below(&sim->random, 99); break;
	}
	slot->lies = true;
	slot->must = STOKER_STATUS_BAD_REQUEST;
}

bool chain_send(struct sim *sim, uint32_t client, bool honest)
{
	struct sim_slot *head = head_of(sim, client), *slot;
	const uint32_t start = sim_below(&sim->random, SIM_SLOTS - 1);
	uint32_t s = SIM_SLOTS, piece = head->sent;

	if (head->state != SIM_ASKED || head->request.head.op != STOKER_OP_LOOKUP || head->sent >= head->pieces)
		return false;
	for (uint32_t i = 0; i < SIM_SLOTS - 1; i++)
		if (sim->clients[client].slots[(start + i) % (SIM_SLOTS - 1)].state == SIM_FREE)
			s = (start + i) % (SIM_SLOTS - 1);
	if (s == SIM_SLOTS)
		return false;
	slot = client_begin(sim, client, s, STOKER_OP_LOOKUP_MORE, head->model);
	slot->n = head->n;
	memcpy(slot->keys, head->keys, sizeof(head->keys));
	client_put_keys(sim, slot, head->split[piece + 1], head->split[piece + 2]);
	slot->request.line.more.head_slot = SIM_SLOTS - 1;
	slot->request.line.more.head_generation = head->generation;
	slot->request.line.more.piece = piece + 1;
	if (honest)
		head->sent++;
	else
		spoil(sim, slot);
	client_ask(sim, client, slot);
	return true;
}

/* ---- renewals ------------------------------------------------------------------------------------ */

/* A key that the lease's chain leads to, or its own last one. */
static uint32_t longer(struct sim *sim, const struct sim_lease *lease)
{
	uint32_t keys[SIM_DEPTH];

	for (uint32_t tries = 0; tries < 32; tries++) {
		const uint32_t tip = sim_below(&sim->random, SIM_KEYS), n = client_chain(sim, tip, keys);

		if (lease->base == 0 && n >= lease->n && keys[lease->n - 1] == lease->keys[lease->n - 1])
			return tip;
	}
	return lease->keys[lease->n - 1];
}

void chain_renew(struct sim *sim, uint32_t client, uint32_t s)
{
	const struct sim_lease *lease = client_lease(sim);
	const bool stolen = sim->n_leases && model_tenant(sim, lease->model) != client_tenant(sim, client);
	const uint32_t what = sim_below(&sim->random, 1000);
	struct sim_slot *slot;
	uint32_t model = lease->model;

	if (sim->n_leases == 0 || lease->n == 0)
		return;
	if (stolen || what < 100)
		model = client_model(sim, client);
	slot = client_begin(sim, client, s, STOKER_OP_LOOKUP, model);
	slot->lease = *lease;
	slot->renews = true;
	slot->lies = model != lease->model;
	if (stolen)
		slot->must = STOKER_STATUS_EXPIRED;
	slot->request.head.flags = STOKER_F_RENEW | STOKER_F_PARTIAL;
	if (sim_chance(&sim->random, 800))
		slot->request.head.flags |= STOKER_F_PREFETCH;
	memcpy(slot->request.head.lease, lease->token, sizeof(lease->token));
	if (what < 100 || (!lease->any && lease->base == 0 && what < 700))
		slot->n = client_chain(sim, what < 100 ? sim_below(&sim->random, SIM_KEYS) : longer(sim, lease),
				       slot->keys);
	if (slot->n > 0 && sim_chance(&sim->random, 500))
		slot->request.line.lookup.have = lease->have < slot->n ? lease->have : slot->n;
	if (sim_chance(&sim->random, 300))
		slot->request.line.lookup.readers = 1 + sim_below(&sim->random, 15);
	if (sim_chance(&sim->random, 500))
		slot->request.line.lookup.lease_ms = 1 + sim_below(&sim->random, 2000);
	client_put_keys(sim, slot, 0, slot->n);
	client_ask(sim, client, slot);
}

/*
 * The same in pieces. Now and then what follows the first piece is of another chain, whose asker says to have what
 * the lease has: it must not be extended by that.
 */
void chain_renew_long(struct sim *sim, uint32_t client)
{
	const struct sim_lease *lease = client_lease(sim);
	struct sim_slot *slot = head_of(sim, client);
	uint32_t other[SIM_DEPTH], n = 0;

	if (slot->state != SIM_FREE || sim->n_leases == 0 || lease->n < 2 || lease->any || lease->base != 0 ||
	    model_tenant(sim, lease->model) != client_tenant(sim, client))
		return;
	slot = client_begin(sim, client, SIM_SLOTS - 1, STOKER_OP_LOOKUP, lease->model);
	slot->lease = *lease;
	slot->renews = true;
	slot->n = client_chain(sim, longer(sim, lease), slot->keys);
	if (slot->n < lease->n) {
		slot->n = lease->n;
		memcpy(slot->keys, lease->keys, lease->n * sizeof(slot->keys[0]));
	}
	slot->pieces = 1;
	slot->split[0] = 0;
	slot->split[1] = 1 + sim_below(&sim->random, lease->n - 1);
	if (sim_chance(&sim->random, 500))
		n = client_chain(sim, sim_below(&sim->random, SIM_KEYS), other);
	if (n > slot->split[1]) {
		slot->n = n;
		memcpy(slot->keys + slot->split[1], other + slot->split[1], (n - slot->split[1]) * sizeof(other[0]));
	}
	slot->split[2] = slot->n;
	slot->request.head.flags = STOKER_F_RENEW | STOKER_F_PARTIAL | STOKER_F_PREFETCH;
	slot->request.line.lookup.pieces = 1;
	slot->request.line.lookup.have = sim_chance(&sim->random, 700) ? sim_below(&sim->random, slot->n + 1) : 0;
	memcpy(slot->request.head.lease, lease->token, sizeof(lease->token));
	client_put_keys(sim, slot, 0, slot->split[1]);
	client_ask(sim, client, slot);
}

/* ---- thefts ---------------------------------------------------------------------------------------- */

/* A lease of another tenant's, with a model and a pool of one's own: there is no such lease. */
void chain_steal(struct sim *sim, uint32_t client, uint32_t s)
{
	const struct sim_lease *lease = client_lease(sim);
	const uint32_t model = client_model(sim, client);
	const bool map = sim_chance(&sim->random, 500);
	const uint32_t blocks = sim->models[model].config.parts[0].blocks;
	struct stoker_segment *segment;
	struct sim_slot *slot;

	if (sim->n_leases == 0 || model_tenant(sim, lease->model) == client_tenant(sim, client))
		return;
	slot = client_begin(sim, client, s, map ? STOKER_OP_MAP : STOKER_OP_RETRIEVE, model);
	slot->lies = true;
	slot->must = STOKER_STATUS_EXPIRED;
	memcpy(slot->request.head.lease, lease->token, sizeof(lease->token));
	if (sim_chance(&sim->random, 300) && sim->models[lease->model].life != SIM_CLOSED) {	/* with its own model */
		slot->request.model = sim->models[lease->model].number;
		slot->must = STOKER_STATUS_BAD_REQUEST;
	}
	if (!map) {
		segment = (struct stoker_segment *)slot->input;
		*segment = (struct stoker_segment){ .pool = model * SIM_PARTS, .chunks = 1, .n_ids = blocks };
		slot->request.segments = segment;
		slot->request.ids = (uint32_t *)(segment + 1);
		memset(segment + 1, 0xff, blocks * sizeof(uint32_t));
		slot->request.head.n_segments = 1;
		slot->request.head.n_ids = blocks;
	}
	client_ask(sim, client, slot);
}

/* A hold of somebody else's, a reader, an operation, a session that cannot be. */
void chain_nonsense(struct sim *sim, uint32_t client, uint32_t s)
{
	static const uint8_t ops[] = { STOKER_OP_UNMAP, STOKER_OP_RELEASE, STOKER_OP_END_SESSION, 200 };
	const uint32_t what = sim_below(&sim->random, 4);
	const uint32_t other = (client + 1 + sim_below(&sim->random, SIM_CLIENTS - 1)) % SIM_CLIENTS;
	const struct sim_hold *hold = &sim->clients[other].holds[sim_below(&sim->random, SIM_HOLDS)];
	struct sim_slot *slot = client_begin(sim, client, s, ops[what], client_model(sim, client));

	slot->lies = true;
	slot->must = what == 0 ? STOKER_STATUS_EXPIRED : STOKER_STATUS_BAD_REQUEST;
	slot->hold = SIM_HOLDS;		/* none of one's own */
	memcpy(slot->request.head.lease, hold->token, sizeof(hold->token));
	slot->request.head.session = 0;
	if (what == 1)
		slot->request.line.release.reader = 64 + sim_below(&sim->random, 1000);
	client_ask(sim, client, slot);
}

/* ---- heads ------------------------------------------------------------------------------------------- */

void chain_bend(struct sim *sim, struct sim_slot *slot)
{
	struct stoker_request_head *head = &slot->request.head;

	switch (sim_below(&sim->random, 4)) {
	case 0: head->priority = (uint8_t)(8 + sim_below(&sim->random, 248)); break;
	case 1: head->flags |= 0x100u << sim_below(&sim->random, 24); break;
	case 2: slot->request.model = SIM_MODELS + sim_below(&sim->random, 1000); break;
	case 3: slot->request.model = ENGINE_NONE; break;
	}
	slot->lies = true;
	slot->certain = false;
	slot->must = STOKER_STATUS_OK;
}
