/*
 * The life of a disk tier, seen from outside the broker: a slow or hanging open, disk I/O of a dead broker
 * that does not end, directories that cannot be had, limits that are too small. Each is one clear
 * line and a smaller or absent tier, and never costs anybody more than hits.
 */
#include <fcntl.h>
#include <linux/loop.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/broker/files.h"
#include "src/broker/slabs.h"
#include "tests/suite.h"
#include "tests/whole-rig.h"
#include "tests/worker-rig.h"

static void setup(void)
{
	whole_make();
	whole.tier = true;
}

static char *path_in(char ret[192], const char *what)
{
	snprintf(ret, 192, "%s/%s", whole.directory, what);
	return ret;
}

static bool is_there(const char *what)
{
	char path[192];

	return access(path_in(path, what), F_OK) == 0;
}

static uint32_t tier_state(void)
{
	struct control_tier row;

	ck_assert(control_read_tier(whole_page(), 0, &row));
	return row.state;
}

static int lock_hold(const char *what)
{
	char path[192];
	const int fd = open(path_in(path, what), O_RDWR | O_CLOEXEC);

	ck_assert_msg(fd >= 0, "%s: %m", path);
	ck_assert_int_eq(flock(fd, LOCK_EX | LOCK_NB), 0);
	return fd;
}

/* The I/O lock that goes with the broker's name, as a ring of a dead one would hold it. */
static int io_lock_hold(void)
{
	char what[96];

	snprintf(what, sizeof(what), "run/private%s.io", whole.name);
	return lock_hold(what);
}

/* ---- I/O of a dead broker that does not end --------------------------------------------------------- */

/* Something in arena and tier, and its broker is gone. */
static void store_and_end(uint32_t first)
{
	struct worker w;

	whole_start();
	worker_start(&w);
	worker_stores(&w, first, 16);
	worker_end(&w);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
}

START_TEST(where_old_io_hangs_in_a_tier_this_boot_has_files_of_its_own_and_the_next_the_old_ones)
{
	struct worker w;

	store_and_end(0);
	const int io = io_lock_hold(), tier = lock_hold("tier/stoker-lock");
	whole_launch();
	whole_await_state(STOKER_STATE_DEGRADED);
	ck_assert_uint_eq(tier_state(), STOKER_TIER_SERVING);
	ck_assert_uint_eq(whole_logged("this boot makes a fresh arena, and new files for the tiers that it touches"), 1);
	ck_assert_uint_eq(whole_logged("this boot makes files of its own in "), 1);
	expect(is_there("tier/stoker-1/stoker-tier"));
	worker_start(&w);
	worker_gets(&w, 0, 16, 0);
	worker_stores(&w, 1000, 16);
	ck_assert_int_eq(whole_ctl("drain"), 0);
	ck_assert_int_eq(whole_ctl("evict 100%"), 0);
	ck_assert_uint_eq(worker_gets(&w, 1000, 16, 16).counts[1], 16);
	worker_end(&w);
	ck_assert_int_eq(whole_end(SIGTERM), 0);

	/* It still hangs: what the boot before has made is used again. */
	whole_launch();
	whole_await_state(STOKER_STATE_DEGRADED);
	worker_start(&w);
	ck_assert_uint_eq(worker_gets(&w, 1000, 16, 16).counts[1], 16);
	worker_end(&w);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
	expect(!is_there("tier/stoker-2"));

	close(io);
	close(tier);
	whole_start();
	ck_assert_uint_eq(tier_state(), STOKER_TIER_SERVING);
	expect(!is_there("tier/stoker-1"));
	worker_start(&w);
	ck_assert_uint_eq(worker_gets(&w, 0, 16, 16).counts[1], 16);
	ck_assert_uint_eq(worker_gets(&w, 1000, 16, 16).counts[0], 16);	/* nothing hung in the arena of that boot */
	worker_end(&w);
}
END_TEST

START_TEST(a_tier_that_old_io_does_not_touch_serves_as_it_is)
{
	struct worker w;

	store_and_end(0);
	const int io = io_lock_hold();
	whole_launch();
	whole_await_state(STOKER_STATE_DEGRADED);
	ck_assert_uint_eq(whole_logged("this boot makes files of its own in "), 0);
	worker_start(&w);
	ck_assert_uint_eq(worker_gets(&w, 0, 16, 16).counts[1], 16);
	worker_end(&w);
	expect(!is_there("tier/stoker-1"));
	close(io);
}
END_TEST

START_TEST(a_tier_that_a_broker_of_another_name_has_is_refused_also_while_old_io_hangs)
{
	char path[192];

	store_and_end(0);
	const int io = io_lock_hold(), tier = lock_hold("tier/stoker-lock");
	const int fd = open(path_in(path, "tier/stoker-lock"), O_WRONLY | O_TRUNC | O_CLOEXEC);
	ck_assert_int_gt(dprintf(fd, "4711\n/somewhere/else/stoker\n"), 0);
	close(fd);
	whole_launch();
	whole_await_state(STOKER_STATE_DEGRADED);
	ck_assert_uint_eq(tier_state(), STOKER_TIER_FAILED);
	ck_assert_uint_eq(whole_logged("is in use by another broker (pid 4711); stop it or name another directory"), 1);
	expect(!is_there("tier/stoker-1"));
	close(io);
	close(tier);
}
END_TEST

START_TEST(a_client_that_attached_while_old_io_was_waited_for_can_map_what_it_stored)
{
	struct stoker_mapping mapping = { .size = sizeof(mapping) };
	struct stoker_result result;
	struct control_client row;
	struct worker w;
	int status;

	store_and_end(0);
	const int io = io_lock_hold();
	whole_launch();
	ck_assert_uint_eq(atomic_load(&whole_page()->state), STOKER_STATE_STARTING);
	const pid_t holder = whole_fork();	/* the lock is free when the client has attached */
	if (holder == 0) {
		await(control_read_client(whole_page(), 0, &row) && row.used);
		_exit(atomic_load(&whole_page()->state) != STOKER_STATE_STARTING);
	}
	close(io);
	worker_start(&w);
	ck_assert_int_eq(waitpid(holder, &status, 0), holder);
	ck_assert_int_eq(status, 0);
	worker_stores(&w, 2000, 4);
	result = worker_looks_up(&w, 2000, 4);
	ck_assert_uint_eq(result.n, 4);
	ck_assert_int_eq(stoker_map(w.c, &result.lease, 0, 0, 0, &mapping), 0);
	expect(mapping.data && mapping.bytes == WORKER_ROWS * WORKER_BLOCKS * WORKER_BYTES);
	ck_assert_int_eq(stoker_unmap(w.c, &mapping), 0);
	worker_end(&w);
}
END_TEST

/* ---- a tier that takes its time ------------------------------------------------------------------------ */

START_TEST(while_a_tier_is_being_opened_clients_attach_and_are_answered)
{
	struct stoker *early[4];
	struct stoker_job job;
	struct worker w;

	store_and_end(0);
	const int tier = lock_hold("tier/stoker-lock");	/* it is tried for a second */
	whole_launch();
	for (int i = 0; i < 4; i++) {
		ck_assert_int_eq(stoker_attach(whole.name, NULL, &early[i]), 0);
		ck_assert_int_eq(stoker_ping(early[i], &job), 0);
		ck_assert_int_eq(stoker_wait(early[i], job, 60000000), 0);
		ck_assert_int_eq(stoker_finish(early[i], job, NULL, NULL, 0, NULL, 0), 0);
	}
	ck_assert_uint_eq(tier_state(), STOKER_TIER_STARTING);
	ck_assert_uint_eq(atomic_load(&whole_page()->state), STOKER_STATE_STARTING);
	whole_await_state(STOKER_STATE_DEGRADED);
	ck_assert_uint_eq(tier_state(), STOKER_TIER_FAILED);
	ck_assert_uint_eq(whole_logged("tier disk0 is out of service: "), 1);
	for (int i = 0; i < 4; i++)
		stoker_close(early[i]);
	worker_start(&w);
	worker_gets(&w, 0, 16, 16);
	worker_end(&w);
	close(tier);
}
END_TEST

START_TEST(a_broker_that_is_stopped_while_a_tier_is_being_opened_ends_at_once)
{
	store_and_end(0);
	const int tier = lock_hold("tier/stoker-lock");
	whole_launch();
	ck_assert_uint_eq(tier_state(), STOKER_TIER_STARTING);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
	ck_assert_uint_eq(whole_logged("out of service"), 0);
	close(tier);
}
END_TEST

/* ---- a state directory that is gone ------------------------------------------------------------------------ */

START_TEST(objects_of_forgotten_models_are_told_of_with_cause_and_remedy_and_come_back_from_disk)
{
	char command[192];
	struct worker w;

	store_and_end(0);
	snprintf(command, sizeof(command), "rm -rf '%s/state'", whole.directory);
	ck_assert_int_eq(system(command), 0);
	whole_start();
	ck_assert_uint_eq(whole_counter(STOKER_COUNTER_RECOVERY_DROPPED), 32);
	ck_assert_uint_eq(whole_logged(" has 16 objects of models that the state directory does not remember (was it deleted, or "
				       "another broker.state_directory named?): they are not served"), 2);
	ck_assert_uint_eq(whole_logged("comes back at the start after a worker has opened its model again"), 1);
	worker_start(&w);
	worker_gets(&w, 0, 16, 0);
	worker_end(&w);
	ck_assert_int_eq(whole_end(SIGTERM), 0);

	whole_start();
	worker_start(&w);
	ck_assert_uint_eq(worker_gets(&w, 0, 16, 16).counts[1], 16);
	worker_end(&w);
	ck_assert_uint_eq(whole_logged(" does not remember"), 2);
}
END_TEST

/* ---- what cannot be had ---------------------------------------------------------------------------------- */

/* It serves from memory, more than that holds, and says once why there is no tier. */
static void serves_without(const char *why)
{
	struct worker w;

	whole_launch();
	whole_await_state(STOKER_STATE_DEGRADED);
	whole_await_gauge(STOKER_GAUGE_ARENA_POPULATED, whole_gauge(STOKER_GAUGE_ARENA_BYTES));
	ck_assert_uint_eq(tier_state(), STOKER_TIER_FAILED);
	ck_assert_uint_eq(whole_logged("tier disk0 is out of service: "), 1);
	ck_assert_msg(whole_logged(why) == 1, "no line with: %s", why);
	worker_start(&w);
	for (uint32_t chain = 0; chain < 16; chain++)
		worker_stores(&w, chain * 1000, 64);
	worker_gets(&w, 15000, 64, 64);
	worker_end(&w);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
	ck_assert_uint_eq(whole_logged("not everything could be written back"), 0);
}

START_TEST(a_limit_of_file_sizes_costs_the_tier_and_names_the_remedy)
{
	const struct rlimit limit = { 32 << 20, 32 << 20 };	/* arena and log fit */

	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	serves_without("stoker-tier its size: File too large; raise the limit of file sizes (LimitFSIZE=infinity, ulimit -f)");
	expect(!is_there("tier/stoker-tier") && !is_there("tier/stoker-slabs"));
}
END_TEST

START_TEST(a_directory_that_others_can_write_is_refused)
{
	char path[192];

	ck_assert_int_eq(mkdir(path_in(path, "tier"), 0700), 0);
	ck_assert_int_eq(chmod(path, 0777), 0);
	serves_without("can be written by others (mode 0777); chmod 0700 it");
}
END_TEST

START_TEST(a_directory_that_cannot_be_made_is_refused)
{
	char path[192];

	ck_assert_int_eq(symlink("nowhere/at/all", path_in(path, "tier")), 0);
	serves_without("cannot open the directory ");
}
END_TEST

START_TEST(a_file_in_the_place_of_a_directory_is_a_mistake_of_the_configuration)
{
	char path[192];
	const int fd = open(path_in(path, "tier"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	ck_assert_int_ge(fd, 0);
	close(fd);
	ck_assert_int_eq(whole_try(), 2);
	ck_assert_uint_eq(whole_logged(" is neither a directory nor a block device: name one, or a directory to be made"), 1);
}
END_TEST

/* The file system cannot be written, as it is after an error; where the kernel lets us mount one. */
START_TEST(a_file_system_that_is_read_only_costs_the_tier_and_names_it)
{
	char path[192];

	path_in(path, "tier");
	ck_assert_int_eq(mkdir(path, 0700), 0);
	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("none", path, "tmpfs", MS_RDONLY, "mode=0700") < 0) {
		printf("# skipped: no file system can be mounted here: %m\n");
		return;
	}
	serves_without("stoker-lock: Read-only file system");
	umount2(path, MNT_DETACH);
}
END_TEST

/* ---- less than was asked for ------------------------------------------------------------------------------- */

START_TEST(a_disk_that_fills_up_keeps_what_fits_and_holds_up_nobody)
{
	struct control_tier row;
	struct worker w;
	uint32_t kept = 0;

	whole.forbidden = "io_uring,beyond_16m";
	whole_start();
	worker_start(&w);
	for (uint32_t chain = 0; chain < 30; chain++)	/* 60 MiB through an arena of 24 */
		worker_stores(&w, chain * 1000, 64);
	ck_assert_int_eq(whole_ctl("drain"), 0);
	ck_assert_uint_eq(whole_logged("No space left on device; what does not fit is not kept, free some space"), 1);
	expect(control_read_tier(whole_page(), 0, &row));
	ck_assert_uint_eq(row.state, STOKER_TIER_SERVING);
	await(control_read_tier(whole_page(), 0, &row) && row.write_errors > 0);
	ck_assert_int_eq(whole_ctl("evict 100%"), 0);
	for (uint32_t chain = 0; chain < 30; chain++)
		kept += worker_looks_up(&w, chain * 1000, 64).n;
	ck_assert_uint_gt(kept, 0);
	worker_end(&w);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
}
END_TEST

START_TEST(a_memlock_limit_that_is_too_small_costs_registered_buffers_and_names_the_remedy)
{
	const struct rlimit limit = { 1 << 20, 1 << 20 };
	struct worker w;

	ck_assert_int_eq(setrlimit(RLIMIT_MEMLOCK, &limit), 0);
	if (geteuid() == 0) {
		/* The limit is for those without CAP_IPC_LOCK. */
		ck_assert_int_eq(chmod(whole.directory, 0700), 0);
		ck_assert_int_eq(chown(whole.directory, 65530, 65530), 0);
		if (setresgid(65530, 65530, 65530) < 0 || setresuid(65530, 65530, 65530) < 0) {
			printf("# skipped: no other uid can be had here: %m\n");
			return;
		}
	}
	whole_start();
	worker_start(&w);
	worker_stores(&w, 0, 64);
	ck_assert_int_eq(whole_ctl("drain"), 0);
	ck_assert_int_eq(whole_ctl("evict 100%"), 0);
	ck_assert_uint_eq(worker_gets(&w, 0, 64, 64).counts[1], 64);
	worker_end(&w);
	ck_assert_uint_eq(whole_logged("the memlock limit of 1024 KiB is too small for 24 MiB, so its reads and writes cost more "
				       "CPU; raise it (LimitMEMLOCK=infinity, ulimit -l)"), 1);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
}
END_TEST

/* ---- epochs ----------------------------------------------------------------------------------------------------- */

static bool entry_keep(void *arg, const struct slab_entry *entry)
{
	*(struct slab_entry *)arg = *entry;
	return false;
}

/* The slab table gets one more entry: of an epoch that nobody has ever made durable. */
static void entry_of_next_epoch(void)
{
	char path[192], why[FILES_WHY];
	const int dir = open(path_in(path, "tier"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	const int file = files_open(dir, path, "stoker-tier", O_RDWR, why);
	struct superblock *superblock = superblock_new(64 << 20);
	struct slab_entry entry = { 0 };
	struct slabs *slabs;

	ck_assert_int_ge(file, 0);
	ck_assert_int_eq(files_read(file, superblock, sizeof(*superblock), 0), 0);
	ck_assert_int_eq(slabs_open(dir, path, superblock->uuid, (64 << 20) / 4096, false, why, &slabs), 0);
	slabs_recover(slabs, entry_keep, &entry);
	ck_assert_uint_eq(entry.op, SLAB_ADD);
	entry.epoch++;
	slabs_append(slabs, &entry);
	slabs_close(slabs);
	free(superblock);
	close(file);
	close(dir);
}

START_TEST(an_epoch_that_a_crash_kept_from_being_durable_is_never_used_again)
{
	struct worker w;

	whole_start();
	worker_start(&w);
	worker_stores(&w, 0, 8);
	ck_assert_int_eq(whole_ctl("drain"), 0);
	worker_end(&w);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
	whole_clean_objects();
	entry_of_next_epoch();

	whole_start();
	ck_assert_uint_eq(whole_counter(STOKER_COUNTER_RECOVERED_DISK), 7);
	worker_start(&w);
	ck_assert_msg(stoker_reset(w.c, w.model, NULL, 30000) == 0, "%s", stoker_error(w.c));
	worker_end(&w);
	ck_assert_int_eq(whole_end(SIGKILL), 1000 + SIGKILL);
	whole_clean_objects();

	whole_start();
	ck_assert_uint_eq(whole_counter(STOKER_COUNTER_RECOVERED_DISK), 0);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
}
END_TEST

/* ---- drain ------------------------------------------------------------------------------------------------------ */

START_TEST(what_was_drained_is_found_after_a_kill_that_follows_at_once)
{
	struct worker w;

	whole_start();
	worker_start(&w);
	for (uint32_t chain = 0; chain < 4; chain++)
		worker_stores(&w, chain * 1000, 64);
	ck_assert_int_eq(whole_ctl("drain"), 0);
	ck_assert_int_eq(whole_end(SIGKILL), 1000 + SIGKILL);
	worker_end(&w);
	whole_clean_objects();
	whole_start();
	worker_start(&w);
	for (uint32_t chain = 0; chain < 4; chain++)
		ck_assert_uint_eq(worker_gets(&w, chain * 1000, 64, 64).counts[1], 64);
	worker_end(&w);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
}
END_TEST

/* ---- a block device -------------------------------------------------------------------------------------------- */

/* A loop device over a file of 64 MiB in the directory, which goes with its last user; -1: not here. */
static int loop_make(char option[64])
{
	const int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	char path[192], device[32];
	int loop = -1;

	const int file = open(path_in(path, "disk"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ck_assert_int_ge(file, 0);
	ck_assert_int_eq(ftruncate(file, 64 << 20), 0);
	for (int i = 0; i < 100 && control >= 0 && loop < 0; i++) {	/* another process may be as quick */
		snprintf(device, sizeof(device), "/dev/loop%d", ioctl(control, LOOP_CTL_GET_FREE));
		loop = open(device, O_RDWR | O_CLOEXEC);
		if (loop >= 0 && ioctl(loop, LOOP_CONFIGURE, &(struct loop_config){
				.fd = (uint32_t)file, .info.lo_flags = LO_FLAGS_AUTOCLEAR }) < 0) {
			close(loop);
			loop = -1;
		}
	}
	if (control >= 0)
		close(control);
	close(file);
	snprintf(option, 64, "--tier=%s:90%%", device);
	return loop;
}

START_TEST(a_tier_on_a_block_device_comes_back_after_kills_and_a_device_in_use_is_refused)
{
	char option[64], device[32];
	struct worker w;
	const int loop = loop_make(option);

	if (loop < 0) {
		printf("# skipped: no loop device can be made here: %m\n");
		return;
	}
	whole.tier = false;
	whole.options[0] = option;
	whole_start();
	worker_start(&w);
	worker_stores(&w, 0, 64);
	worker_end(&w);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
	for (int i = 0; i < 3; i++) {
		whole_clean_objects();
		whole_start();
		ck_assert_uint_eq(tier_state(), STOKER_TIER_SERVING);
		worker_start(&w);
		ck_assert_uint_eq(worker_gets(&w, 0, 64, 64).counts[1], 64);
		worker_end(&w);
		ck_assert_int_eq(whole_end(SIGKILL), 1000 + SIGKILL);
	}

	/* As mount and mkfs would hold it. */
	snprintf(device, sizeof(device), "%.*s", (int)(strrchr(option, ':') - option - 7), option + 7);
	int user = -1;
	await((user = open(device, O_RDWR | O_EXCL | O_CLOEXEC)) >= 0);	/* when the killed one's ring is gone */
	whole_clean_objects();
	serves_without(" is in use: it is mounted, part of another device or another broker's");
	close(user);

	/* And with something at its end it is nobody's to take. */
	static const uint8_t zeros[4 << 20];
	ck_assert_int_eq(pwrite(loop, zeros, sizeof(zeros), 0), (ssize_t)sizeof(zeros));
	ck_assert_int_eq(pwrite(loop, "EFI PART", 8, (64 << 20) - 512), 8);
	ck_assert_int_eq(fsync(loop), 0);
	whole_launch();
	whole_await_state(STOKER_STATE_DEGRADED);
	ck_assert_uint_eq(whole_logged(" is not empty: there is something in its last 4 MiB"), 1);
	ck_assert_int_eq(whole_end(SIGTERM), 0);
	close(loop);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("tier-life");
	TCase *old = tcase_create("old");

	tcase_add_checked_fixture(old, setup, whole_clean);
	tcase_set_timeout(old, 180);
	tcase_add_test(old, where_old_io_hangs_in_a_tier_this_boot_has_files_of_its_own_and_the_next_the_old_ones);
	tcase_add_test(old, a_tier_that_old_io_does_not_touch_serves_as_it_is);
	tcase_add_test(old, a_tier_that_a_broker_of_another_name_has_is_refused_also_while_old_io_hangs);
	tcase_add_test(old, a_client_that_attached_while_old_io_was_waited_for_can_map_what_it_stored);
	suite_add_tcase(suite, old);
	TCase *slow = tcase_create("slow");
	tcase_add_checked_fixture(slow, setup, whole_clean);
	tcase_set_timeout(slow, 180);
	tcase_add_test(slow, while_a_tier_is_being_opened_clients_attach_and_are_answered);
	tcase_add_test(slow, a_broker_that_is_stopped_while_a_tier_is_being_opened_ends_at_once);
	tcase_add_test(slow, objects_of_forgotten_models_are_told_of_with_cause_and_remedy_and_come_back_from_disk);
	tcase_add_test(slow, an_epoch_that_a_crash_kept_from_being_durable_is_never_used_again);
	tcase_add_test(slow, what_was_drained_is_found_after_a_kill_that_follows_at_once);
	suite_add_tcase(suite, slow);
	TCase *less = tcase_create("less");
	tcase_add_checked_fixture(less, setup, whole_clean);
	tcase_set_timeout(less, 180);
	tcase_add_test(less, a_limit_of_file_sizes_costs_the_tier_and_names_the_remedy);
	tcase_add_test(less, a_directory_that_others_can_write_is_refused);
	tcase_add_test(less, a_directory_that_cannot_be_made_is_refused);
	tcase_add_test(less, a_file_in_the_place_of_a_directory_is_a_mistake_of_the_configuration);
	tcase_add_test(less, a_file_system_that_is_read_only_costs_the_tier_and_names_it);
	tcase_add_test(less, a_disk_that_fills_up_keeps_what_fits_and_holds_up_nobody);
	tcase_add_test(less, a_memlock_limit_that_is_too_small_costs_registered_buffers_and_names_the_remedy);
	suite_add_tcase(suite, less);
	TCase *device = tcase_create("device");
	tcase_add_checked_fixture(device, setup, whole_clean);
	tcase_set_timeout(device, 180);
	tcase_add_test(device, a_tier_on_a_block_device_comes_back_after_kills_and_a_device_in_use_is_refused);
	suite_add_tcase(suite, device);
	return suite_run(suite);
}
