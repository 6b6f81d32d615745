/*
 * disk: cold prefetch from a tier. Objects are stored, written back, and the broker is started again
 * without its shared memory, as after a reboot: what a lookup then finds has to come from the tier,
 * and the tier's own counter of bytes read says that it did. Some lookups are under way at once, so
 * that the tier always has its fill of reads.
 *
 * fio reads a file of its own in the same directory, by the same interface, in pieces of the same size,
 * with as many bytes under way; in turns with ours where it is installed. Its memory is to be as good as the
 * broker's, huge pages: into small ones it reads at a third to a half of that rate on some machines.
 */
#include "config.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/bench/bench.h"
#include "src/bench/chain.h"
#include "src/bench/machine.h"
#include "src/bench/own-broker.h"

#define FLIGHT	  4u		/* lookups under way */
#define ROUNDS	  5u
#define WRITE_MS  120000u

static struct {
	uint64_t object_size, data, depth;
} options = { .object_size = 1u << 20, .data = 1ull << 30, .depth = 32u << 20 };

static const struct option_row option_rows[] = {
	{ "object-size", OPTION_SIZE, &options.object_size, 64, 1ull << 30, "S", "bytes of an object" },
	{ "data", OPTION_SIZE, &options.data, 1u << 20, 0, "S", "bytes to store and to read again" },
	{ "depth", OPTION_SIZE, &options.depth, 1u << 20, 1ull << 34, "S", "bytes of reads under way (disk.depth)" },
	{ 0 },
};

struct disk {
	struct own_broker broker;
	struct mover mover;
	uint32_t n, chains;		/* objects of a chain; chains */
	uint64_t read_bytes, read_objects, found, wrong;
	double rates[ROUNDS], fio_rates[ROUNDS];
	char fio_reason[160];
};

/* ---- ours -------------------------------------------------------------------------------------- */

static int open_mover(struct disk *disk)
{
	const struct mover_config config = {
		.broker = disk->broker.name,
		.model = "disk",
		.object_bytes = options.object_size,
		.blocks = 1,
		.window = disk->n,
	};

	return mover_open(&config, &disk->mover);
}

static int store_all(struct disk *disk)
{
	int r = open_mover(disk);

	for (uint32_t i = 0; r == 0 && i < disk->chains; i++)
		r = chain_store(&disk->mover, i, disk->n, NULL);
	if (r == 0 && !own_broker_settled(&disk->broker, WRITE_MS))
		r = mover_fail(&disk->mover, -ETIMEDOUT, "not all was written to disk within %u s", WRITE_MS / 1000);
	return r;
}

/* Shared memory is lost, the tier stays. */
static int reboot(struct disk *disk)
{
	mover_close(&disk->mover);
	own_broker_kill(&disk->broker, true);
	if (own_broker_again(&disk->broker) < 0 || !own_broker_serving(&disk->broker))
		return mover_fail(&disk->mover, -EIO, "the broker did not come back");
	return open_mover(disk);
}

static int submit(struct disk *disk, uint32_t chain, struct stoker_job *ret)
{
	const struct stoker_lookup_options lookup = { .size = sizeof(lookup), .deadline_ms = 60000 };
	struct stoker_key keys[CHAIN_MAX];
	int r;

	chain_keys(chain, disk->n, keys);
	r = stoker_lookup(disk->mover.stoker, disk->mover.model, keys, disk->n, &lookup, ret);
	return r < 0 ? mover_fail(&disk->mover, r, "could not submit a lookup: %s", stoker_error(disk->mover.stoker)) : 0;
}

static int read_all(struct disk *disk, uint32_t round)
{
	const uint64_t before = own_broker_counter(&disk->broker, STOKER_COUNTER_DISK_READ_BYTES);
	const uint64_t objects = own_broker_counter(&disk->broker, STOKER_COUNTER_DISK_READS);
	struct stoker_job jobs[FLIGHT];
	struct stoker_result result;
	uint64_t start = now_ns(), took, bytes;
	uint32_t asked = 0, done = 0;
	int r = 0;

	while (r == 0 && done < disk->chains) {
		while (r == 0 && asked < disk->chains && asked < done + FLIGHT) {
			r = submit(disk, asked, &jobs[asked % FLIGHT]);
			asked++;
		}
		if (r == 0)
			r = mover_finish(&disk->mover, "lookup", jobs[done % FLIGHT], &result, NULL, 0);
		if (r == 0) {
			disk->found += result.n;
			stoker_release(disk->mover.stoker, &result.lease, 0);
			done++;
		}
	}
	took = now_ns() - start;
	usleep(300 * 1000);	/* the page of counters is refreshed a few times a second */
	bytes = own_broker_counter(&disk->broker, STOKER_COUNTER_DISK_READ_BYTES) - before;
	disk->read_bytes += bytes;
	disk->read_objects += own_broker_counter(&disk->broker, STOKER_COUNTER_DISK_READS) - objects;
	disk->rates[round] = (double)bytes * 1e9 / (double)took;
	return r;
}

/* A sample of what came from disk is looked at byte by byte. */
static int check_some(struct disk *disk)
{
	struct stoker_result found;
	int r = chain_lookup(&disk->mover, disk->chains - 1, disk->n, &found, NULL);

	return r < 0 ? r : chain_retrieve(&disk->mover, disk->chains - 1, disk->n, &found.lease, NULL, &disk->wrong);
}

/* ---- fio --------------------------------------------------------------------------------------- */

static double fio_rate(const json_t *output)
{
	const json_t *job = json_array_get(json_object_get(output, "jobs"), 0);

	return json_number_value(json_object_get(json_object_get(job, "read"), "bw_bytes"));
}

static bool fio_is_there(void)
{
	return system("command -v fio >/dev/null 2>&1") == 0;
}

/* Bytes per second, or 0 with the reason. */
static double run_fio(struct disk *disk)
{
	const uint64_t piece = (options.object_size + 4096 + 4095) & ~4095ull;
	const uint64_t depth = options.depth / piece ? options.depth / piece : 1;
	char command[1024];
	json_error_t error;
	json_t *output;
	double rate;
	FILE *pipe;

	snprintf(command, sizeof(command),
		 "GLIBC_TUNABLES=glibc.malloc.hugetlb=1 exec fio --name=stoker-bench --filename='%s/fio' --ioengine=io_uring --direct=1 --rw=read --bs=%llu "
		 "--iodepth=%llu --size=%llu --output-format=json 2>/dev/null", disk->broker.tier,
		 (unsigned long long)piece, (unsigned long long)depth,
		 (unsigned long long)(options.data / piece * piece));
	pipe = popen(command, "re");
	output = pipe ? json_loadf(pipe, JSON_DISABLE_EOF_CHECK, &error) : NULL;
	if (pipe && pclose(pipe) != 0) {
		json_decref(output);
		output = NULL;
	}
	rate = output ? fio_rate(output) : 0;
	json_decref(output);
	if (rate == 0)
		snprintf(disk->fio_reason, sizeof(disk->fio_reason), "fio failed on the tier's file system");
	return rate;
}

/* ---- the command ------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static double median(double *values)
{
	qsort(values, ROUNDS, sizeof(*values), by_value);
	return values[ROUNDS / 2];
}

static int measure(struct disk *disk)
{
	const bool fio = fio_is_there();
	int r = store_all(disk);

	if (!fio)
		snprintf(disk->fio_reason, sizeof(disk->fio_reason), "fio is not installed");
	for (uint32_t round = 0; r == 0 && round < ROUNDS; round++) {
		/* In turns first: devices that are throttled are faster after a rest. */
		const bool fio_first = round % 2;

		if (fio_first && fio && disk->fio_reason[0] == '\0')
			disk->fio_rates[round] = run_fio(disk);
		r = reboot(disk);
		if (r == 0)
			r = read_all(disk, round);
		if (r == 0 && !fio_first && fio && disk->fio_reason[0] == '\0')
			disk->fio_rates[round] = run_fio(disk);
	}
	return r < 0 ? r : check_some(disk);
}

static void fill_report(struct report *report, struct disk *disk)
{
	const uint64_t expected = (uint64_t)ROUNDS * disk->chains * disk->n;

	report_rate(report, "read_bytes_per_s", median(disk->rates), disk->found > 0 && disk->read_objects > 0,
		    "the tier's counter says that nothing was read");
	report_rate(report, "fio_bytes_per_s", median(disk->fio_rates), disk->fio_reason[0] == '\0', disk->fio_reason);
	report_count(report, "objects", expected);
	report_count(report, "found_objects", disk->found);
	report_count(report, "disk_reads", disk->read_objects);
	report_count(report, "disk_read_bytes", disk->read_bytes);
	report_count(report, "wrong_bytes", disk->wrong);
}

static bool prepare(struct disk *disk)
{
	struct own_broker_config config = { 0 };
	const uint64_t image = (options.object_size + 4096 + 4095) & ~4095ull;
	uint64_t total;

	/* Chains of about 64 MiB, so that a lookup is long enough and four fit the arena twice. */
	disk->n = (uint32_t)((64u << 20) / image);
	disk->n = disk->n < 1 ? 1 : disk->n > CHAIN_MAX ? CHAIN_MAX : disk->n;
	disk->chains = (uint32_t)(options.data / (disk->n * options.object_size));
	disk->chains = disk->chains ? disk->chains : 1;
	total = disk->chains * disk->n * image;
	config.memory = 16 * disk->n * image;
	config.memory = config.memory < (512u << 20) ? 512u << 20 : config.memory;
	config.disk = total + total / 4 + (512u << 20);
	own_broker_set(&config, "disk.depth=%llu", (unsigned long long)options.depth);
	own_broker_set(&config, "arena.entries=%llu",
		       (unsigned long long)(2 * ((config.memory + config.disk) / image) + 65536));
	return own_broker_start(&config, &disk->broker) == 0 && own_broker_serving(&disk->broker);
}

static int run(struct report *report)
{
	static struct disk disk;
	bool ok;

	if (mover_check(options.object_size, 1) < 0)
		return BENCH_USAGE;
	if (bench_common.attach) {
		bench_say("disk starts its broker again to make it cold: it takes no --attach");
		return BENCH_USAGE;
	}
	ok = prepare(&disk);
	if (ok && measure(&disk) < 0) {
		bench_say("%s", disk.mover.why);
		ok = false;
	}
	if (ok)
		fill_report(report, &disk);
	if (disk.wrong)
		bench_say("%llu bytes were wrong", (unsigned long long)disk.wrong);
	mover_close(&disk.mover);
	ok = own_broker_stop(&disk.broker) && ok;
	return ok && disk.wrong == 0 ? BENCH_OK : BENCH_FAILED;
}

const struct bench_command bench_disk = {
	.name = "disk",
	.meaning = "cold prefetch from a disk tier, beside fio",
	.options = option_rows,
	.broker = true,
	.run = run,
};
