/* stokerctl status: from the control page alone, so that it works on a broker that hangs. */
#include <inttypes.h>
#include <stdio.h>

#include "src/common/size.h"
#include "src/ctl/ctl.h"

static const char *row_name(const struct stoker_row *row)
{
	return row ? row->name : "unknown";
}

static const char *state_name(const struct control_page *page)
{
	return row_name(stoker_state_row((int)atomic_load_explicit(&page->state, memory_order_relaxed)));
}

static json_t *json_tiers(const struct control_page *page)
{
	json_t *list = json_array();
	struct control_tier tier;

	for (uint32_t i = 0; i < CONTROL_TIERS; i++) {
		json_t *row;

		if (!control_read_tier(page, i, &tier) || tier.state == STOKER_TIER_ABSENT)
			continue;
		row = json_object();
		ctl_set_text(row, "name", tier.name);
		ctl_set_text(row, "path", tier.path);
		ctl_set_text(row, "state", row_name(stoker_tier_state_row((int)tier.state)));
		ctl_set(row, "bytes", tier.bytes);
		ctl_set(row, "used_bytes", tier.used_bytes);
		ctl_set(row, "objects", tier.objects);
		ctl_set(row, "read_errors", tier.read_errors);
		ctl_set(row, "write_errors", tier.write_errors);
		ctl_set(row, "checksum_errors", tier.checksum_errors);
		json_array_append_new(list, row);
	}
	return list;
}

static json_t *json_gpus(const struct control_page *page)
{
	json_t *list = json_array();
	struct control_gpu gpu;

	for (uint32_t i = 0; i < CONTROL_GPUS; i++) {
		json_t *row;

		if (!control_read_gpu(page, i, &gpu) || gpu.state == STOKER_GPU_ABSENT)
			continue;
		row = json_object();
		ctl_set_text(row, "name", gpu.name);
		ctl_set_text(row, "state", row_name(stoker_gpu_state_row((int)gpu.state)));
		ctl_set(row, "restarts", gpu.restarts);
		ctl_set(row, "registered_bytes", gpu.registered_bytes);
		ctl_set(row, "imported_bytes", gpu.imported_bytes);
		ctl_set(row, "bounced_bytes", gpu.bounced_bytes);
		ctl_set(row, "load_bytes", gpu.load_bytes);
		ctl_set(row, "store_bytes", gpu.store_bytes);
		ctl_set(row, "regions", gpu.regions);
		ctl_set(row, "pools", gpu.pools);
		ctl_set_text(row, "why", gpu.why);
		json_array_append_new(list, row);
	}
	return list;
}

static json_t *json_arena(const struct control_page *page)
{
	json_t *arena = json_object();

	ctl_set(arena, "bytes", ctl_gauge(page, STOKER_GAUGE_ARENA_BYTES));
	ctl_set(arena, "populated_bytes", ctl_gauge(page, STOKER_GAUGE_ARENA_POPULATED));
	ctl_set(arena, "used_bytes", ctl_gauge(page, STOKER_GAUGE_ARENA_USED));
	ctl_set(arena, "pinned_bytes", ctl_gauge(page, STOKER_GAUGE_ARENA_PINNED));
	ctl_set(arena, "objects", ctl_gauge(page, STOKER_GAUGE_ARENA_OBJECTS));
	return arena;
}

static json_t *json_counters(const struct control_page *page)
{
	json_t *counters = json_object();

	for (int i = 0; i < STOKER_COUNTER_END; i++)
		ctl_set(counters, stoker_counter_row(i)->name, control_counter(page, (enum stoker_counter)i));
	return counters;
}

static enum ctl_exit print_json(const struct ctl *ctl, const struct control_page *page)
{
	json_t *object = ctl_object(ctl);
	char boot_id[2 * sizeof(page->boot_id) + 1];

	for (size_t i = 0; i < sizeof(page->boot_id); i++)
		snprintf(boot_id + 2 * i, 3, "%02x", page->boot_id[i]);
	ctl_set_text(object, "version", page->version);
	ctl_set(object, "abi", page->abi);
	ctl_set_text(object, "boot_id", boot_id);
	ctl_set(object, "pid", page->pid);
	ctl_set_text(object, "state", state_name(page));
	ctl_set(object, "uptime_ns", ctl_uptime_ns(page->started_ns));
	json_object_set_new(object, "arena", json_arena(page));
	json_object_set_new(object, "tiers", json_tiers(page));
	json_object_set_new(object, "gpus", json_gpus(page));
	ctl_set(object, "clients", ctl_gauge(page, STOKER_GAUGE_CLIENTS));
	ctl_set(object, "models", ctl_gauge(page, STOKER_GAUGE_MODELS));
	ctl_set(object, "pools", ctl_gauge(page, STOKER_GAUGE_POOLS));
	ctl_set(object, "jobs", ctl_gauge(page, STOKER_GAUGE_JOBS));
	ctl_set(object, "leases", ctl_gauge(page, STOKER_GAUGE_LEASES));
	ctl_set(object, "hits_l1", control_counter(page, STOKER_COUNTER_HITS_L1));
	ctl_set(object, "hits_disk", control_counter(page, STOKER_COUNTER_HITS_DISK));
	ctl_set(object, "misses", control_counter(page, STOKER_COUNTER_MISSES));
	json_object_set_new(object, "counters", json_counters(page));
	return ctl_print(object);
}

static void print_tiers(const struct control_page *page)
{
	struct control_tier tier;
	char a[16], b[16];

	for (uint32_t i = 0; i < CONTROL_TIERS; i++) {
		if (!control_read_tier(page, i, &tier) || tier.state == STOKER_TIER_ABSENT)
			continue;
		printf("tier %-8s %s, %s of %s used, %" PRIu64 " objects, in %s\n", tier.name,
		       row_name(stoker_tier_state_row((int)tier.state)), size_text(tier.used_bytes, a),
		       size_text(tier.bytes, b), tier.objects, tier.path);
		if (tier.read_errors | tier.write_errors | tier.checksum_errors)
			printf("              errors: %" PRIu64 " reads, %" PRIu64 " writes, %" PRIu64 " checksums\n",
			       tier.read_errors, tier.write_errors, tier.checksum_errors);
	}
}

static void print_gpus(const struct control_page *page)
{
	struct control_gpu gpu;
	char a[16], b[16], c[16];

	for (uint32_t i = 0; i < CONTROL_GPUS; i++) {
		if (!control_read_gpu(page, i, &gpu) || gpu.state == STOKER_GPU_ABSENT)
			continue;
		printf("gpu           %s, %s, %" PRIu64 " regions, %" PRIu64 " pools, %s imported, %s of the arena registered\n",
		       gpu.name, row_name(stoker_gpu_state_row((int)gpu.state)), gpu.regions, gpu.pools,
		       size_text(gpu.imported_bytes, a), size_text(gpu.registered_bytes, b));
		printf("              %s loaded, %s stored, %s of both bounced, %" PRIu64 " restarts\n",
		       size_text(gpu.load_bytes, a), size_text(gpu.store_bytes, b), size_text(gpu.bounced_bytes, c),
		       gpu.restarts);
		if (gpu.why[0])
			printf("              last fault: %s\n", gpu.why);
	}
}

static void print_text(const struct ctl *ctl, const struct control_page *page)
{
	const uint64_t l1 = control_counter(page, STOKER_COUNTER_HITS_L1);
	const uint64_t disk = control_counter(page, STOKER_COUNTER_HITS_DISK);
	const uint64_t misses = control_counter(page, STOKER_COUNTER_MISSES);
	char a[16], b[16], c[16], d[16], up[32];

	printf("%s        %s, up %s, pid %" PRIu32 ", version %s\n", ctl->name, state_name(page),
	       ctl_duration(ctl_uptime_ns(page->started_ns), up), page->pid, page->version);
	printf("arena         %s of %s used, %s pinned, %s populated, %" PRIu64 " objects\n",
	       size_text(ctl_gauge(page, STOKER_GAUGE_ARENA_USED), a),
	       size_text(ctl_gauge(page, STOKER_GAUGE_ARENA_BYTES), b),
	       size_text(ctl_gauge(page, STOKER_GAUGE_ARENA_PINNED), c),
	       size_text(ctl_gauge(page, STOKER_GAUGE_ARENA_POPULATED), d),
	       ctl_gauge(page, STOKER_GAUGE_ARENA_OBJECTS));
	print_tiers(page);
	print_gpus(page);
	printf("now           %" PRIu64 " clients, %" PRIu64 " models, %" PRIu64 " pools, %" PRIu64 " jobs, %" PRIu64
	       " leases\n",
	       ctl_gauge(page, STOKER_GAUGE_CLIENTS), ctl_gauge(page, STOKER_GAUGE_MODELS),
	       ctl_gauge(page, STOKER_GAUGE_POOLS), ctl_gauge(page, STOKER_GAUGE_JOBS),
	       ctl_gauge(page, STOKER_GAUGE_LEASES));
	printf("chunks        %" PRIu64 " hit in the arena, %" PRIu64 " on disk, %" PRIu64 " missed", l1, disk, misses);
	if (l1 + disk + misses > 0)
		printf(" (%.1f %% hit)", 100.0 * (double)(l1 + disk) / (double)(l1 + disk + misses));
	putchar('\n');
}

enum ctl_exit ctl_status(const struct ctl *ctl, char **arguments)
{
	const struct control_page *page;
	enum ctl_exit e = ctl_page(ctl, &page);

	(void)arguments;
	if (e != CTL_DONE)
		return e;
	if (ctl->json)
		e = print_json(ctl, page);
	else
		print_text(ctl, page);
	control_unmap(page);
	return e;
}
