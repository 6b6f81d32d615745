/*
 * What answers must be. The oracle knows the content of every key, what has ever been stored in
 * which epoch, and which blocks nobody may touch.
 */
#include "tests/simulation/sim.h"

uint64_t oracle_word(const struct sim *sim, uint32_t model, uint32_t epoch, uint32_t key, uint32_t part,
		     uint32_t layer, uint32_t block)
{
	if (block >= oracle_blocks(sim, model, part, key))
		return 0;	/* a short chunk: nothing was there to store */
	return sim_mix(sim_mix((uint64_t)model << 32 | epoch) ^ sim_mix((uint64_t)key << 32 | part) ^
		       ((uint64_t)layer << 32 | block)) | 1;
}

/* A short leaf has the tokens of half a chunk; groups whose objects hold one block always have it. */
uint32_t oracle_blocks(const struct sim *sim, uint32_t model, uint32_t part, uint32_t key)
{
	const uint32_t blocks = sim->models[model].config.parts[part].blocks;

	return sim->keys[key].is_short && blocks > 1 ? blocks / 2 : blocks;
}

static uint32_t part_groups(const struct sim *sim, uint32_t model, uint32_t part)
{
	return 1u << sim->models[model].config.parts[part].group;
}

/* Is length @n usable, by a table of what exists? The definition, word by word. */
static bool usable(const struct sim *sim, const struct sim_slot *slot,
		   const uint64_t table[SIM_KEYS][SIM_PARTS], uint32_t n)
{
	const struct engine_model_config *config = &sim->models[slot->model].config;
	const uint32_t groups = slot->request.line.lookup.groups ? slot->request.line.lookup.groups : 0xff;

	for (uint32_t part = 0; part < config->n_parts; part++) {
		const uint32_t g = config->parts[part].group;
		uint32_t first = 0;

		if (!(groups & part_groups(sim, slot->model, part)))
			continue;
		if (config->groups[g].window != 0)
			first = n > config->groups[g].window ? n - config->groups[g].window : 0;
		else
			first = slot->request.line.lookup.have;
		for (uint32_t i = first; i < n; i++)
			if (i < slot->junk || !(table[slot->keys[i - slot->junk]][part] & sim_epoch_bit(slot->epoch)))
				return false;
	}
	return true;
}

static bool exists(const struct sim *sim, const struct sim_slot *slot, uint32_t key)
{
	const struct engine_model_config *config = &sim->models[slot->model].config;
	const uint32_t groups = slot->request.line.lookup.groups ? slot->request.line.lookup.groups : 0xff;

	for (uint32_t part = 0; part < config->n_parts; part++)
		if ((groups & part_groups(sim, slot->model, part)) &&
		    !(sim->models[slot->model].may[key][part] & sim_epoch_bit(slot->epoch)))
			return false;
	return true;
}

static bool bit_of(const struct engine_answer *answer, uint32_t i)
{
	return answer->bitmap[i / 64] >> i % 64 & 1;
}

/* Some neighbouring chunks of it. */
static void lease_of_wide(struct sim *sim, const struct sim_slot *slot, const struct engine_answer *answer,
			  struct sim_lease *lease)
{
	uint32_t exist = 0;

	for (uint32_t i = 0; i < answer->bitmap_words; i++) {
		exist += (uint32_t)__builtin_popcountll(answer->bitmap[i]);
		if (answer->bitmap[i])
			lease->end = 64 * i + 64 - (uint32_t)__builtin_clzll(answer->bitmap[i]);
	}
	lease->vague = answer->n != exist;
	lease->length = slot->n;
	lease->base = sim_below(&sim->random, slot->n - SIM_DEPTH + 1);
	lease->exists = 0;
	for (uint32_t i = 0; i < SIM_DEPTH; i++) {
		lease->keys[i] = (slot->keys[0] + lease->base + i) % SIM_KEYS;
		lease->exists |= (uint32_t)bit_of(answer, lease->base + i) << i;
	}
}

static void remember_lease(struct sim *sim, uint32_t client, const struct sim_slot *slot,
			   const struct engine_answer *answer)
{
	const uint32_t at = sim->n_leases < SIM_LEASES ? sim->n_leases++ : sim_below(&sim->random, SIM_LEASES);
	struct sim_lease *lease = &sim->leases[at];
	const uint64_t readers = slot->request.line.lookup.readers;

	*lease = (struct sim_lease){
		.token = { answer->lease[0], answer->lease[1] }, .model = slot->model, .epoch = slot->epoch,
		.n = answer->n, .length = answer->n, .have = slot->request.line.lookup.have, .owner = client,
		.groups = slot->request.line.lookup.groups ? slot->request.line.lookup.groups : 0xff,
		.readers = readers ? readers : 1, .session = slot->request.head.session,
		.expires_ns = sim->turned_ns + answer->lease_ms * 1000000ull,
		.any = slot->request.head.flags & STOKER_F_ANY,
		.exists = answer->bitmap_words ? (uint32_t)answer->bitmap[0] : 0,
	};
	lease->vague = lease->any && answer->n != (uint32_t)__builtin_popcount(lease->exists);
	memcpy(lease->keys, slot->keys, sizeof(lease->keys));
	if (slot->wide)
		lease_of_wide(sim, slot, answer, lease);
	else if (lease->any)
		lease->length = slot->n;
	if (lease->any)		/* it may have ended with the last one that exists, if pins ran out */
		lease->n = lease->exists ? 32 - (uint32_t)__builtin_clz(lease->exists) : 0;
	if (slot->junk > 0) {
		lease->base = slot->junk;
		lease->n = answer->n > slot->junk ? answer->n - slot->junk : 0;
		lease->have = lease->have > slot->junk ? lease->have - slot->junk : 0;
	}
}

/* A lease that was renewed lives on, over what this lookup found if that is more. */
static void renew_lease(struct sim *sim, const struct sim_slot *slot, const struct engine_answer *answer)
{
	struct sim_lease *lease = NULL;

	if (memcmp(answer->lease, slot->lease.token, sizeof(answer->lease)) != 0)
		sim_fail(sim, "a renewal answers another lease than it names");
	if (!slot->lease.any && answer->n < slot->lease.base + slot->lease.n)
		sim_fail(sim, "a renewal cuts a lease of %u chunks to %u", slot->lease.base + slot->lease.n, answer->n);
	for (uint32_t i = 0; i < sim->n_leases; i++)
		if (memcmp(sim->leases[i].token, answer->lease, sizeof(answer->lease)) == 0)
			lease = &sim->leases[i];
	if (lease == NULL)
		return;
	lease->expires_ns = sim->turned_ns + answer->lease_ms * 1000000ull;
	lease->readers |= slot->request.line.lookup.readers;
	lease->returned &= ~slot->request.line.lookup.readers;
	lease->renewed = true;
	if (lease->any || answer->n <= lease->base + lease->n)
		return;
	if (lease->base == 0 && lease->n > lease->have && lease->keys[lease->n - 1] != slot->keys[lease->n - 1])
		sim_fail(sim, "a lease of %u chunks is extended to %u of another chain", lease->n, answer->n);
	lease->n = lease->length = answer->n;
	lease->base = 0;
	lease->have = slot->request.line.lookup.have;
	lease->groups = 0xff;
	memcpy(lease->keys, slot->keys, sizeof(lease->keys));
}

/* Each bit of the bitmap, which begins with length (key) @shift + 1, claims something. */
static void bitmap_claims(struct sim *sim, const struct sim_slot *slot, const struct engine_answer *answer,
			  uint32_t total, uint32_t shift)
{
	const bool any = slot->request.head.flags & STOKER_F_ANY;

	for (uint32_t i = 0; i < answer->bitmap_words * 64; i++) {
		const uint32_t at = i + shift;
		bool fair;

		if (!bit_of(answer, i))
			continue;
		if (at >= total)
			sim_fail(sim, "a lookup's bitmap has bits beyond its %u keys", total);
		if (any)
			fair = exists(sim, slot, slot->wide ? (slot->keys[0] + at) % SIM_KEYS : slot->keys[at]);
		else
			fair = at >= slot->junk && usable(sim, slot, sim->models[slot->model].may, at + 1);
		if (!fair)
			sim_fail(sim, "a lookup of model %u says that %s %u is usable, but it was never stored",
				 slot->model, any ? "key" : "length", at + 1);
	}
}

/* Each chunk of the answer was found in the arena or on a tier, and was counted once. */
static void check_counts(struct sim *sim, const struct sim_slot *slot, const struct engine_answer *answer)
{
	const uint32_t have = slot->request.line.lookup.have;
	const uint64_t hits = (uint64_t)answer->counts[0] + answer->counts[1];

	if (answer->expected_us == UINT32_MAX)
		sim_fail(sim, "a lookup is said to take for ever");
	if (answer->found_l1 > answer->found)
		sim_fail(sim, "a lookup finds %u chunks, %u of them in the arena", answer->found, answer->found_l1);
	if (!slot->renews && !(slot->request.head.flags & STOKER_F_PROBE) && hits != (answer->n > have ? answer->n - have : 0))
		sim_fail(sim, "a lookup of %u chunks beyond %u counts %u and %u hits", answer->n, have, answer->counts[0],
			 answer->counts[1]);
}

static void lookup_claims(struct sim *sim, const struct sim_slot *slot, const struct engine_answer *answer)
{
	const bool any = slot->request.head.flags & STOKER_F_ANY;
	const uint32_t total = slot->junk + slot->n;
	const uint32_t shift = total > STOKER_LARGE_KEYS ? total - STOKER_LARGE_KEYS : 0;

	if (shift > 0 && slot->cut)
		return;		/* not all pieces may have been counted, so nobody knows where it begins */
	if (answer->bitmap_words < 1 && slot->n > 0)
		sim_fail(sim, "a lookup is DONE without a bitmap");
	bitmap_claims(sim, slot, answer, total, shift);
	if (!any && !slot->renews && answer->n > shift && answer->n > slot->request.line.lookup.have &&
	    !bit_of(answer, answer->n - 1 - shift))
		sim_fail(sim, "a lookup answers %u chunks, a length that its bitmap does not have", answer->n);
}

/* Where there is room for all, only who has its share of the leases gets none. */
static void check_no_memory(struct sim *sim, uint32_t client)
{
	const uint32_t tenant = client_tenant(sim, client);
	const uint64_t share = world_share(sim, sim->quotas[tenant].leases, sim->config.leases);
	struct engine_client_figures figures;
	uint64_t own = 0, all = 0;

	for (uint32_t c = 0; c < SIM_CLIENTS; c++) {
		if (!sim->clients[c].attached || client_tenant(sim, c) != tenant)
			continue;
		engine_client_figures(sim->engine, c, &figures);
		all += figures.leases;
		own += client_user(c) == client_user(client) ? figures.leases : 0;
	}
	if (own + all < share)
		sim_fail(sim, "client %u of tenant %u is refused a lease: its user has %llu, all %llu of %llu", client,
			 tenant, (unsigned long long)own, (unsigned long long)all, (unsigned long long)share);
}

static void lookup_done(struct sim *sim, uint32_t client, struct sim_slot *slot, const struct engine_answer *answer)
{
	const struct sim_model *model = &sim->models[slot->model];
	const bool lease = answer->lease[0] || answer->lease[1];

	sim->figures[SIM_FIG_LOOKUPS]++;
	if (answer->status != STOKER_STATUS_OK) {
		if (answer->n != 0 || lease)
			sim_fail(sim, "a lookup ends with status %u, %u chunks and %s lease", answer->status,
				 answer->n, lease ? "a" : "no");
		if (sim->roomy && answer->status == STOKER_STATUS_NO_MEMORY)
			check_no_memory(sim, client);
		return;
	}
	if (answer->n > slot->junk + slot->n && !slot->renews)
		sim_fail(sim, "a lookup of %u keys answers %u chunks", slot->junk + slot->n, answer->n);
	if (slot->epoch != model->epoch)
		return;
	lookup_claims(sim, slot, answer);
	check_counts(sim, slot, answer);
	if (lease && (slot->request.head.flags & STOKER_F_PROBE))
		sim_fail(sim, "a probe is given a lease");
	if (slot->renews)
		renew_lease(sim, slot, answer);
	else if (lease)
		remember_lease(sim, client, slot, answer);
	sim->figures[SIM_FIG_HITS] += answer->n;
	if (sim->roomy && !slot->cut && answer->n < slot->owed)
		sim_fail(sim, "a lookup of %u keys in a roomy world answers %u chunks, but %u were stored",
			 slot->n, answer->n, slot->owed);
}

uint32_t oracle_owed(const struct sim *sim, const struct sim_slot *slot)
{
	const uint32_t flags = slot->request.head.flags;

	if (!sim->roomy || !sim->serving || (flags & STOKER_F_ANY) || slot->renews ||
	    slot->request.line.lookup.tiers || !(flags & (STOKER_F_PREFETCH | STOKER_F_PROBE)))
		return 0;
	for (uint32_t n = slot->junk + slot->n; n > slot->junk && n > slot->request.line.lookup.have; n--)
		if (usable(sim, slot, sim->models[slot->model].must, n))
			return n;
	return 0;
}

/* The blocks of a job are the client's again: what must be there now? */
static void settle_block(struct sim *sim, struct sim_slot *slot, struct sim_pool *pool, uint32_t part,
			 uint32_t chunk, uint32_t b, bool retrieved)
{
	const uint32_t id = slot->blocks[part][chunk][b];
	const uint32_t first = slot->request.line.retrieve.layer_first;
	const uint32_t count = slot->request.line.retrieve.layer_count;
	const uint32_t layers = sim->models[slot->model].config.parts[part].layers;

	if (id == STOKER_NO_BLOCK)
		return;
	for (uint32_t layer = 0; layer < SIM_LAYERS; layer++) {
		const bool copied = layer < layers && layer >= first && (count == 0 || layer < first + count);

		if (retrieved && copied)
			pool->shadow[layer][id] = oracle_word(sim, slot->model, slot->epoch,
							      slot->lease.keys[chunk], part, layer, b);
		else if (copied)
			pool->shadow[layer][id] = pool->word[layer][id];
	}
}

/* Does the request name chunk @c of what its client knows of the lease? */
static bool is_asked(const struct sim_slot *slot, uint32_t c)
{
	for (uint32_t i = 0; i < slot->request.head.n_segments; i++)
		if (slot->lease.base + c >= slot->request.segments[i].first &&
		    slot->lease.base + c - slot->request.segments[i].first < slot->request.segments[i].chunks)
			return true;
	return false;
}

/* Its lease lived and nothing went wrong: each chunk that it names is there. */
static void retrieve_whole(struct sim *sim, uint32_t client, const struct sim_slot *slot,
			   const struct engine_answer *answer, uint32_t base)
{
	if (answer->status != STOKER_STATUS_OK)
		sim_fail(sim, "a retrieve of client %u ends with status %u, but its lease is alive", client,
			 answer->status);
	for (uint32_t c = 0; c < slot->lease.n; c++)
		if (is_asked(slot, c) && !(slot->loose >> c & 1) &&
		    answer->chunks[slot->lease.base + c - base] != STOKER_CHUNK_RETRIEVED)
			sim_fail(sim, "chunk %u of client %u's lease is not retrieved: %u", slot->lease.base + c,
				 client, answer->chunks[slot->lease.base + c - base]);
}

/* Nobody has brought anything into the blocks of a chunk that was not to be had. */
static void check_outside(struct sim *sim, uint32_t client, const struct sim_slot *slot, uint32_t c, bool retrieved)
{
	if (retrieved)
		sim_fail(sim, "client %u retrieved chunk %u, which its lease has not", client, slot->lease.base + c);
	for (uint32_t part = 0; part < SIM_PARTS; part++)
		for (uint32_t b = 0; slot->part_pool[part] != ENGINE_NONE && b < 8; b++) {
			const struct sim_pool *pool = &sim->clients[client].pools[slot->part_pool[part]];
			const uint32_t id = slot->blocks[part][c][b];

			for (uint32_t layer = 0; id != STOKER_NO_BLOCK && layer < SIM_LAYERS; layer++)
				if (pool->word[layer][id] != pool->shadow[layer][id])
					sim_fail(sim, "client %u, block %u of chunk %u, which its lease has not, was touched",
						 client, id, slot->lease.base + c);
		}
	sim_reach(sim, SIM_REACH_OUTSIDE);
}

/* Layers that are told to be there, of every block that was asked for, while the rest still comes. */
static void check_layers(struct sim *sim, uint32_t client, const struct sim_slot *slot, uint32_t layers)
{
	const struct sim_model *model = &sim->models[slot->model];
	const uint32_t first = slot->request.line.retrieve.layer_first;

	if (!slot->certain || slot->harmed || slot->lies || model->epoch != slot->epoch)
		return;
	for (uint32_t part = 0; part < model->config.n_parts; part++)
		for (uint32_t i = 0; slot->part_pool[part] != ENGINE_NONE && i < SIM_DEPTH * 8; i++) {
			const struct sim_pool *pool = &sim->clients[client].pools[slot->part_pool[part]];
			const uint32_t c = i / 8, b = i % 8, id = slot->blocks[part][c][b];

			for (uint32_t layer = first; id != STOKER_NO_BLOCK && layer < first + layers &&
			     layer < model->config.parts[part].layers; layer++)
				if (pool->word[layer][id] != oracle_word(sim, slot->model, slot->epoch,
									 slot->lease.keys[c], part, layer, b))
					sim_fail(sim, "client %u, slot %u is told of %u layers, but layer %u of "
						 "chunk %u is not there", client, slot->request.head.slot,
						 layers, layer, c);
		}
}

static void retrieve_done(struct sim *sim, uint32_t client, struct sim_slot *slot, const struct engine_answer *answer)
{
	const struct sim_model *model = &sim->models[slot->model];
	uint32_t retrieved = 0, failed = 0, base = UINT32_MAX;

	for (uint32_t i = 0; i < slot->request.head.n_segments; i++)	/* statuses begin at the first chunk named */
		if (slot->request.segments[i].first < base)
			base = slot->request.segments[i].first;
	if (slot->certain && answer->status == STOKER_STATUS_EXPIRED && model->epoch == slot->epoch)
		sim_fail(sim, "a retrieve of client %u ends as expired, but its lease is alive", client);
	for (uint32_t i = 0; i < answer->n_chunks; i++) {
		retrieved += answer->chunks[i] == STOKER_CHUNK_RETRIEVED;
		failed += answer->chunks[i] == STOKER_CHUNK_FAILED;
	}
	if (retrieved && slot->lies)
		sim_fail(sim, "a retrieve that lies got %u chunks", retrieved);
	for (uint32_t c = 0; c < slot->lease.n && c < SIM_DEPTH; c++) {
		const uint32_t at = slot->lease.base + c - base;
		const bool is = slot->lease.base + c >= base && at < answer->n_chunks &&
				answer->chunks[at] == STOKER_CHUNK_RETRIEVED;
		const bool sure = is && model->epoch == slot->epoch;

		if (slot->outside >> c & 1 && !slot->lies)
			check_outside(sim, client, slot, c, is);
		if (is && slot->lease.base)
			sim_reach(sim, slot->lease.any ? SIM_REACH_WIDE : SIM_REACH_CHAINED);
		for (uint32_t part = 0; part < model->config.n_parts; part++)
			for (uint32_t b = 0; slot->part_pool[part] != ENGINE_NONE && b < 8; b++)
				settle_block(sim, slot, &sim->clients[client].pools[slot->part_pool[part]], part,
					     c, b, sure);
	}
	if (slot->certain && !slot->cut && !slot->harmed && !slot->lies && model->epoch == slot->epoch)
		retrieve_whole(sim, client, slot, answer, base);
	if (slot->bulk && retrieved > 0 && slot->lease.end * model->config.n_parts > 1024)
		sim_reach(sim, SIM_REACH_BULK_RETRIEVE);
	if (failed != answer->counts[0])
		sim_fail(sim, "a retrieve says that %u chunks failed, and %u in its bytes", answer->counts[0], failed);
	if (retrieved != answer->n)
		sim_fail(sim, "a retrieve says %u chunks, and %u of them in its bytes", answer->n, retrieved);
	sim->figures[SIM_FIG_RETRIEVED] += retrieved;
}

static void store_done(struct sim *sim, struct sim_slot *slot, const struct engine_answer *answer)
{
	struct sim_model *model = &sim->models[slot->model];
	uint32_t stored = 0, counts[STOKER_CHUNK_END] = { 0 };

	for (uint32_t c = 0; c < answer->n_chunks; c++)
		counts[answer->chunks[c]]++;
	if (answer->counts[0] != counts[STOKER_CHUNK_PRESENT] || answer->counts[1] != counts[STOKER_CHUNK_ELSEWHERE] ||
	    answer->counts[2] != counts[STOKER_CHUNK_REFUSED] + counts[STOKER_CHUNK_INCOMPLETE])
		sim_fail(sim, "a store's counts are not those of its bytes");
	for (uint32_t c = 0; c < answer->n_chunks && slot->bulk; c++)	/* those that were given no blocks */
		if (c - slot->base >= slot->n && answer->chunks[c] == STOKER_CHUNK_STORED)
			sim_fail(sim, "a store has stored chunk %u, which had no blocks", c);
	if (slot->asked_blocks > 4096 && answer->n > 0)
		sim_reach(sim, SIM_REACH_BULK_STORE);
	for (uint32_t c = 0; c < slot->n; c++) {
		const uint32_t at = slot->base + c;
		const uint32_t what = at < answer->n_chunks ? answer->chunks[at] : STOKER_CHUNK_NONE;

		stored += what == STOKER_CHUNK_STORED;
		if (sim->roomy && !slot->lies && what != STOKER_CHUNK_STORED && what != STOKER_CHUNK_PRESENT &&
		    what != STOKER_CHUNK_ELSEWHERE)
			sim_fail(sim, "a store in a roomy world does not take chunk %u: %u", c, what);
		if (what == STOKER_CHUNK_STORED && slot->lies)
			sim_fail(sim, "a store that lies stored chunk %u", c);
		if ((what != STOKER_CHUNK_STORED && what != STOKER_CHUNK_PRESENT) || slot->epoch != model->epoch)
			continue;
		for (uint32_t part = 0; part < model->config.n_parts; part++)
			if (slot->asked >> part & 1)
				model->must[slot->keys[c]][part] |= sim_epoch_bit(slot->epoch);
	}
	if (stored != answer->n)
		sim_fail(sim, "a store says %u chunks, and %u of them in its bytes", answer->n, stored);
	sim->figures[SIM_FIG_STORED] += stored;
}

/* What it held is over: nobody may use it from here on. */
static void session_done(struct sim *sim, uint32_t client, const struct sim_slot *slot,
			 const struct engine_answer *answer)
{
	if (answer->status != STOKER_STATUS_OK)
		return;
	for (uint32_t i = 0; i < sim->n_leases; i++)
		if (sim->leases[i].owner == client && sim->leases[i].session == slot->request.head.session)
			sim->leases[i].over = true;
}

static void check_mapped(struct sim *sim, const struct sim_hold *hold, const char *when)
{
	const struct engine_part_config *part = &sim->models[hold->model].config.parts[hold->part];
	const uint64_t *payload = (const uint64_t *)(sim->arena + hold->offset);

	for (uint32_t layer = 0; layer < part->layers; layer++)
		for (uint32_t b = 0; b < part->blocks; b++)
			if (payload[layer * part->blocks + b] !=
			    oracle_word(sim, hold->model, hold->epoch, hold->key, hold->part, layer, b))
				sim_fail(sim, "a mapped object (key %u, part %u) is wrong at %s", hold->key,
					 hold->part, when);
}

/* What a client holds stays within its part of the arena. */
static void check_quota(struct sim *sim, uint32_t client)
{
	const uint64_t arena = (uint64_t)sim->config.extents * sim->config.extent_bytes;
	uint64_t held = 0;

	for (uint32_t i = 0; i < SIM_HOLDS; i++) {
		const struct sim_hold *hold = &sim->clients[client].holds[i];

		if (hold->used)
			held += sim->models[hold->model].config.parts[hold->part].payload_bytes;
	}
	if (held > arena / 1000 * sim->config.held_bytes_permille)
		sim_fail(sim, "client %u holds %llu bytes, which is over its quota", client, (unsigned long long)held);
}

static void map_done(struct sim *sim, uint32_t client, struct sim_slot *slot, const struct engine_answer *answer)
{
	if (answer->status != STOKER_STATUS_OK)
		return;
	if (answer->mapped == NULL)
		sim_fail(sim, "a map is OK and says nothing");
	for (uint32_t i = 0; i < SIM_HOLDS; i++) {
		struct sim_hold *hold = &sim->clients[client].holds[i];

		if (hold->used)
			continue;
		*hold = (struct sim_hold){
			.token = { answer->lease[0], answer->lease[1] }, .offset = answer->mapped->offset,
			.key = slot->lease.keys[slot->request.line.map.chunk - slot->lease.base], .model = slot->model,
			.epoch = slot->epoch, .part = slot->map_part, .used = true,
		};
		check_mapped(sim, hold, "map");
		check_quota(sim, client);
		return;
	}
}

static void unmap_done(struct sim *sim, uint32_t client, struct sim_slot *slot, const struct engine_answer *answer)
{
	struct sim_hold *hold;

	if (slot->lies)
		return;
	hold = &sim->clients[client].holds[slot->hold];
	if (answer->status == STOKER_STATUS_OK && answer->mapped && answer->mapped->held)
		check_mapped(sim, hold, "unmap");
	hold->used = false;
}

void oracle_pool(struct sim *sim, uint32_t client, uint32_t pool)
{
	const struct sim_pool *p = &sim->clients[client].pools[pool];

	for (uint32_t layer = 0; layer < SIM_LAYERS; layer++)
		for (uint32_t b = 0; b < SIM_BLOCKS; b++)
			if (!p->busy[b] && p->word[layer][b] != p->shadow[layer][b])
				sim_fail(sim, "client %u, pool %u, layer %u, block %u holds %016llx, must hold %016llx",
					 client, pool, layer, b, (unsigned long long)p->word[layer][b],
					 (unsigned long long)p->shadow[layer][b]);
}

/*
 * The engine has had a turn at `turned_ns`: who has a copy under way beyond its deadline, which counts from the first
 * turn and is rounded up to a millisecond, must have been told.
 */
void oracle_deadlines(struct sim *sim)
{
	for (uint32_t i = 0; i < SIM_CLIENTS * SIM_SLOTS; i++) {
		struct sim_slot *slot = &sim->clients[i / SIM_SLOTS].slots[i % SIM_SLOTS];

		if (slot->asked_ns == 0)
			slot->asked_ns = sim->turned_ns;
	}
	for (uint32_t i = 0; i < sim->n_pending; i++) {
		const struct sim_pending *p = &sim->pending[i];
		const struct sim_slot *slot;

		if (p->kind != SIM_COPY || sim->clients[p->copy.client].leaving)
			continue;
		slot = &sim->clients[p->copy.client].slots[p->slot];
		if (slot->request.head.deadline_us && slot->stage != STOKER_STAGE_ENDING &&
		    sim->turned_ns > slot->asked_ns + slot->request.head.deadline_us * 1000ull + 2000000)
			sim_fail(sim, "client %u, slot %u: its deadline has passed, a copy of it runs, and it is not ENDING",
				 p->copy.client, p->slot);
	}
}

static void check_stage(struct sim *sim, uint32_t client, uint32_t number, struct sim_slot *slot,
			uint32_t generation, const struct engine_answer *answer)
{
	if (!sim->clients[client].attached || sim->clients[client].leaving)
		sim_fail(sim, "an answer to client %u, which is gone", client);
	if (slot->state != SIM_ASKED || slot->generation != generation)
		sim_fail(sim, "an answer (stage %u) to client %u, slot %u, generation %u, which does not wait",
			 answer->stage, client, number, generation);
	if (answer->stage < slot->stage || (answer->stage == slot->stage && answer->stage != STOKER_STAGE_LOADING))
		sim_fail(sim, "client %u, slot %u goes from stage %u to %u", client, number, slot->stage, answer->stage);
	if (answer->stage == STOKER_STAGE_LOADING && (answer->ready < slot->ready || answer->layers < slot->layers))
		sim_fail(sim, "progress of client %u, slot %u falls", client, number);
	if (answer->stage == STOKER_STAGE_DONE && slot->stage == STOKER_STAGE_ENDING && answer->status != (uint32_t)slot->ending)
		sim_fail(sim, "client %u, slot %u was ENDING with status %u, and is DONE with %u", client, number,
			 (uint32_t)slot->ending, answer->status);
	if (answer->stage == STOKER_STAGE_DONE && slot->stage != STOKER_STAGE_ENDING && slot->copying &&
	    answer->status == STOKER_STATUS_DEADLINE)
		sim_fail(sim, "client %u, slot %u: its deadline passed while a copy ran, and it was never ENDING", client,
			 number);
	if (answer->stage == STOKER_STAGE_DONE && slot->ending == STOKER_STATUS_DEADLINE)
		sim_reach(sim, SIM_REACH_ENDING);
	slot->stage = answer->stage;
	if (answer->stage == STOKER_STAGE_ENDING)
		slot->ending = answer->status;
	if (answer->stage == STOKER_STAGE_LOADING) {
		slot->ready = answer->ready;
		slot->layers = answer->layers;
		if (slot->request.head.op == STOKER_OP_RETRIEVE)
			check_layers(sim, client, slot, answer->layers);
	}
}

void oracle_publish(void *shell, uint32_t client, uint32_t number, uint32_t generation,
		    const struct engine_answer *answer)
{
	struct sim *sim = shell;
	struct sim_slot *slot = &sim->clients[client].slots[number];

	sim_note(sim, (uint64_t)client << 32 | number, (uint64_t)answer->stage << 32 | answer->status);
	sim_note(sim, answer->n, answer->ready);
	check_stage(sim, client, number, slot, generation, answer);
	if (answer->stage != STOKER_STAGE_DONE)
		return;
	if (sim_is_planted(sim, "lost-done") && slot->request.head.op == STOKER_OP_RETRIEVE)
		return;
	if (slot->watched)
		sim_fail(sim, "client %u, slot %u is DONE, but its ready word is still watched", client, number);
	if (ports_copy_runs(sim, client, number))
		sim_fail(sim, "client %u, slot %u is DONE, but a copy still touches its blocks", client, number);
	if (slot->must != STOKER_STATUS_OK && answer->status != (uint32_t)slot->must && sim->serving)
		sim_fail(sim, "client %u lied in slot %u and was told status %u, not %u", client, number,
			 answer->status, (uint32_t)slot->must);
	if (slot->lies && answer->status == STOKER_STATUS_OK)
		sim_fail(sim, "client %u lied in slot %u and was told OK", client, number);
	switch (slot->request.head.op) {
	case STOKER_OP_LOOKUP:   lookup_done(sim, client, slot, answer); break;
	case STOKER_OP_RETRIEVE: retrieve_done(sim, client, slot, answer); break;
	case STOKER_OP_STORE:    store_done(sim, slot, answer); break;
	case STOKER_OP_MAP:      map_done(sim, client, slot, answer); break;
	case STOKER_OP_END_SESSION: session_done(sim, client, slot, answer); break;
	case STOKER_OP_UNMAP:    unmap_done(sim, client, slot, answer); break;
	default: break;
	}
	client_slot_over(sim, client, number);
	for (uint32_t pool = 0; pool < SIM_MODELS * SIM_PARTS; pool++)
		oracle_pool(sim, client, pool);
}
