/* A disk tier where it cannot do as it would: directories it refuses, disks that fail, machines that allow less. */
#include "tests/tier-ways.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "src/broker/slabs.h"

/* --- what is refused --- */

static uint64_t sum_of(const char *name)
{
	char path[128];
	uint64_t sum = 14695981039346656037u;
	FILE *file = fopen(bench_file(&bench, name, path), "r");
	int byte;

	if (!file)
		return 0;
	while ((byte = getc(file)) != EOF)
		sum = (sum ^ (uint64_t)byte) * 1099511628211u;
	fclose(file);
	return sum;
}

static void refused(const char *because)
{
	const uint64_t tier = sum_of("stoker-tier"), slabs = sum_of("stoker-slabs");

	ck_assert_int_lt(bench_try(&bench.config, bench.why, &bench.tier), 0);
	ck_assert_ptr_null(bench.tier);
	ck_assert_msg(strstr(bench.why, because), "\"%s\" says nothing of \"%s\"", bench.why, because);
	ck_assert_uint_eq(sum_of("stoker-tier"), tier);
	ck_assert_uint_eq(sum_of("stoker-slabs"), slabs);
}

static void make_and_stop(void)
{
	bench.config.bytes = 2 * MIB;
	bench_start(&bench);
	bench_stop(&bench);
}

START_TEST(a_foreign_file_is_refused_and_stays_as_it_is)
{
	static char text[300000];

	memset(text, 'T', sizeof(text));
	bench_poke(&bench, "stoker-tier", 0, text, sizeof(text));
	refused("is no tier of stoker's");
}
END_TEST

START_TEST(a_short_foreign_file_is_refused_and_stays_as_it_is)
{
	bench_poke(&bench, "stoker-tier", 0, "a diary", 7);
	refused("is no tier of stoker's");
}
END_TEST

START_TEST(a_foreign_slab_table_refuses_the_directory)
{
	char path[128];

	if (_i == 1)
		make_and_stop();
	bench_poke(&bench, "stoker-slabs", 0, "another diary", 13);
	refused("is no slab table of stoker's");
	if (_i == 0)	/* and nothing was left behind */
		ck_assert_int_ne(access(bench_file(&bench, "stoker-tier", path), F_OK), 0);
}
END_TEST

START_TEST(the_slab_table_of_another_tier_is_refused)
{
	char path[128];

	make_and_stop();
	ck_assert_int_eq(unlink(bench_file(&bench, "stoker-tier", path)), 0);
	refused("belongs to another tier");
}
END_TEST

START_TEST(another_format_is_refused)
{
	const uint32_t format = 77;

	make_and_stop();
	bench_poke(&bench, "stoker-tier", SUPERBLOCK_BYTES + offsetof(struct superblock, format), &format, 4);
	refused("has format 77");
}
END_TEST

START_TEST(another_size_of_extents_is_refused)
{
	make_and_stop();
	bench.config.extent_bytes *= 2;
	refused("has extents of 1048576 bytes");
}
END_TEST

START_TEST(a_superblock_with_both_copies_damaged_is_refused)
{
	make_and_stop();
	bench_poke(&bench, "stoker-tier", SUPERBLOCK_BYTES + 5000, "xx", 2);
	refused("both superblocks");
}
END_TEST

START_TEST(the_tier_of_another_machine_is_refused)
{
	struct superblock *superblock;
	char path[128];
	int fd;

	make_and_stop();
	fd = open(bench_file(&bench, "stoker-tier", path), O_RDWR);
	superblock = superblock_new(BENCH_EXTENT);
	ck_assert_int_eq(superblock_read(fd, "x", "remove it", BENCH_EXTENT, bench.why, superblock), 0);
	superblock->machine[3] ^= 1;
	ck_assert_int_eq(superblock_write(fd, superblock), 0);
	free(superblock);
	close(fd);
	refused("was made on another machine");
}
END_TEST

START_TEST(a_directory_that_others_can_write_is_refused)
{
	ck_assert_int_eq(chmod(bench.path, 0777), 0);
	refused("can be written by others");
	ck_assert_int_eq(chmod(bench.path, 0700), 0);
	if (geteuid() == 0) {
		ck_assert_int_eq(chown(bench.path, 12345, 12345), 0);
		refused("belongs to uid 12345");
	} else {
		printf("# skipped in part: only root can make a directory of another uid\n");
	}
}
END_TEST

START_TEST(a_link_or_a_fifo_under_the_name_is_refused)
{
	char path[128];

	bench_file(&bench, "stoker-tier", path);
	ck_assert_int_eq(symlink("/dev/null", path), 0);
	refused("cannot open");
	ck_assert_int_eq(unlink(path), 0);
	ck_assert_int_eq(mkfifo(path, 0600), 0);
	ck_assert_int_lt(bench_try(&bench.config, bench.why, &bench.tier), 0);
	ck_assert_ptr_nonnull(strstr(bench.why, "is no regular file"));
}
END_TEST

START_TEST(a_tier_larger_than_its_disk_is_refused)
{
	bench.config.bytes = 1ull << 45;
	refused("no room for the tier");
	ck_assert_ptr_nonnull(strstr(bench.why, "make it smaller"));
}
END_TEST

START_TEST(a_tier_in_use_is_refused_to_a_second_broker_and_free_after_the_first)
{
	char pid[16];
	struct tier *second = NULL;

	start_way(_i);
	ck_assert_int_eq(bench_try(&bench.config, bench.why, &second), -EBUSY);
	snprintf(pid, sizeof(pid), "pid %d", getpid());
	ck_assert_msg(strstr(bench.why, pid), "%s", bench.why);
	bench_stop(&bench);
	bench_start(&bench);
}
END_TEST

/* --- errors --- */

START_TEST(a_file_at_its_limit_fails_writes_and_still_serves_reads)
{
	struct rlimit limit = { SUPERBLOCK_DATA + 4 * MIB, RLIM_INFINITY };
	struct engine_object object, more;

	signal(SIGXFSZ, SIG_IGN);
	start_way(_i);
	object = bench_store(&bench, 1, 0, 0, MIB);
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	for (uint32_t i = 0; i < TIER_ERRORS_MAX + 4; i++) {
		more = bench_image(&bench, 2 + i, 0, MIB);
		const struct engine_io io = bench_io(2, MIB, 0, (8 + i) * UNITS, &more);

		ck_assert_int_eq(bench_move(&bench, true, &io), ENGINE_FAILED);
		if (i % 5 == 0)		/* a success in between: not in a row */
			ck_assert_int_eq(bench_load(&bench, &object, 0, 0, MIB), ENGINE_OK);
	}
	ck_assert_uint_eq(bench.n_failed, 0);
}
END_TEST

START_TEST(a_full_disk_fails_writes_and_does_not_take_the_tier_out)
{
	static char fill[MIB];
	struct engine_object object, more;
	char path[128];
	int fd;

	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("none", bench.path, "tmpfs", 0, "size=34M,mode=0700") < 0) {
		printf("# skipped: only root can mount a small tmpfs of its own\n");
		return;
	}
	start_way(_i);
	object = bench_store(&bench, 1, 0, 0, MIB);
	fd = open(bench_file(&bench, "somebody-else", path), O_WRONLY | O_CREAT, 0600);
	while (write(fd, fill, sizeof(fill)) > 0)
		;
	close(fd);
	for (uint32_t i = 0; i < TIER_ERRORS_MAX + 4; i++) {
		more = bench_image(&bench, 2 + i, 0, MIB);
		const struct engine_io io = bench_io(2, MIB, 0, (1 + i) * UNITS, &more);

		ck_assert_int_eq(bench_move(&bench, true, &io), ENGINE_FAILED);
	}
	ck_assert_int_eq(bench_load(&bench, &object, 0, 0, MIB), ENGINE_OK);
	ck_assert_uint_eq(bench.n_failed, 0);
	/* As soon as there is room again, it is used. */
	ck_assert_int_eq(unlink(path), 0);
	more = bench_store(&bench, 9, 0, UNITS, MIB);
	ck_assert_int_eq(bench_load(&bench, &more, 0, UNITS, MIB), ENGINE_OK);
	bench_stop(&bench);
	ck_assert_int_eq(umount2(bench.path, MNT_DETACH), 0);
}
END_TEST

START_TEST(a_file_cut_short_fails_reads_and_then_takes_the_tier_out_once)
{
	struct engine_object object;
	char path[128];

	start_way(_i);
	object = bench_store(&bench, 1, 0, 10 * UNITS, MIB);
	ck_assert_int_eq(truncate(bench_file(&bench, "stoker-tier", path), SUPERBLOCK_DATA + 10 * MIB + 4096), 0);
	for (uint32_t i = 0; i < TIER_ERRORS_MAX; i++) {
		ck_assert_uint_eq(bench.n_failed, 0);
		ck_assert_int_eq(bench_load(&bench, &object, 0, 10 * UNITS, MIB), ENGINE_FAILED);
	}
	while (bench.n_failed == 0)
		bench_reap(&bench);
	/* Out of service: everything is answered, nothing is tried, nothing is told twice. */
	for (uint32_t i = 0; i < 4; i++) {
		const struct engine_io io = bench_io(2, 4096 * 2, 0, 0, &object);

		ck_assert_int_eq(bench_move(&bench, i % 2, &io), ENGINE_FAILED);
	}
	ck_assert_uint_eq(bench.n_failed, 1);
}
END_TEST

/* --- machines that allow less --- */

/* Store and load in a process that may less than we, made so by @lessen; its exit status. */
static int child_of(void (*lessen)(void))
{
	const pid_t child = fork();
	int status = -1;

	if (child == 0) {
		lessen();
		bench_open(&bench);
		bench_run(&bench);
		for (uint32_t i = 0; i < 20; i++) {
			const struct engine_object object = bench_store(&bench, i, i * 64, i * 100, 300 * 4096);

			if (bench_load(&bench, &object, 1000, i * 100, 300 * 4096) != ENGINE_OK)
				_exit(1);
		}
		status = !!strstr(tier_method(bench.tier), "io_uring");
		bench_stop(&bench);
		_exit(status ? 10 : 20);
	}
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void lessen_memlock(void)
{
	const struct rlimit limit = { 65536, 65536 };

	if (setrlimit(RLIMIT_MEMLOCK, &limit) < 0 || (geteuid() == 0 && (setgid(65534) < 0 || setuid(65534) < 0)))
		_exit(2);
}

START_TEST(a_memlock_limit_that_is_too_small_costs_speed_only)
{
	int status;

	if (geteuid() == 0)
		ck_assert_int_eq(chown(bench.path, 65534, 65534), 0);
	status = child_of(lessen_memlock);
	ck_assert_msg(status == 10 || status == 20, "exit status %d", status);
}
END_TEST

static void lessen_uring(void)
{
	const struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	const struct sock_fprog program = { sizeof(code) / sizeof(code[0]), (struct sock_filter *)code };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
		_exit(2);
}

START_TEST(where_io_uring_is_forbidden_a_slower_way_works)
{
	ck_assert_int_eq(child_of(lessen_uring), 20);
}
END_TEST

int main(void)
{
	TCase *no = tcase_create("refusals"), *errors = tcase_create("errors"), *less = tcase_create("less");
	TCase *all[] = { no, errors, less };
	Suite *suite = suite_of("broker-tier-limits", all, sizeof(all) / sizeof(all[0]));

	tcase_add_test(no, a_foreign_file_is_refused_and_stays_as_it_is);
	tcase_add_test(no, a_short_foreign_file_is_refused_and_stays_as_it_is);
	tcase_add_loop_test(no, a_foreign_slab_table_refuses_the_directory, 0, 2);
	tcase_add_test(no, the_slab_table_of_another_tier_is_refused);
	tcase_add_test(no, another_format_is_refused);
	tcase_add_test(no, another_size_of_extents_is_refused);
	tcase_add_test(no, a_superblock_with_both_copies_damaged_is_refused);
	tcase_add_test(no, the_tier_of_another_machine_is_refused);
	tcase_add_test(no, a_directory_that_others_can_write_is_refused);
	tcase_add_test(no, a_link_or_a_fifo_under_the_name_is_refused);
	tcase_add_test(no, a_tier_larger_than_its_disk_is_refused);
	tcase_add_loop_test(no, a_tier_in_use_is_refused_to_a_second_broker_and_free_after_the_first, 0, WAYS);
	tcase_add_loop_test(errors, a_file_at_its_limit_fails_writes_and_still_serves_reads, 0, WAYS);
	tcase_add_loop_test(errors, a_full_disk_fails_writes_and_does_not_take_the_tier_out, 0, WAYS);
	tcase_add_loop_test(errors, a_file_cut_short_fails_reads_and_then_takes_the_tier_out_once, 0, WAYS);
	tcase_add_test(less, a_memlock_limit_that_is_too_small_costs_speed_only);
	tcase_add_test(less, where_io_uring_is_forbidden_a_slower_way_works);
	return suite_run(suite);
}
