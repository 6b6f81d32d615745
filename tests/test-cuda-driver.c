/* CUDA's driver as src/device/cuda/driver.c opens it: versions, what is missing, what is told. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fake-cuda/rig.h"
#include "tests/suite.h"

static char why[CUDA_WHY];

static int open_with(const char *variable, const char *value, const struct cuda_driver **ret)
{
	setenv(variable, value, 1);
	return cuda_driver_open(rig_library(), why, ret);
}

static void expect_said(const char *words)
{
	ck_assert_msg(strstr(why, words) != NULL, "\"%s\" is not in \"%s\"", words, why);
}

START_TEST(the_driver_is_opened_once_and_is_the_same_for_all_of_the_process)
{
	const struct cuda_driver *first, *second;

	ck_assert_int_eq(cuda_driver_open(rig_library(), why, &first), 0);
	ck_assert_int_eq(cuda_driver_open(rig_library(), why, &second), 0);
	ck_assert_ptr_eq(first, second);
	ck_assert_uint_eq(atomic_load(&rig_control->calls[FAKE_CALL_init]), 1);
}
END_TEST

START_TEST(another_library_than_the_one_that_is_open_is_refused)
{
	const struct cuda_driver *cuda, *other = NULL;

	ck_assert_int_eq(cuda_driver_open(rig_library(), why, &cuda), 0);
	ck_assert_int_eq(cuda_driver_open("libanother.so", why, &other), -EBUSY);
	expect_said("libanother.so");
	expect_said(rig_library());
	ck_assert_ptr_null(other);
}
END_TEST

START_TEST(where_there_is_no_driver_the_text_names_the_library_and_what_to_install)
{
	const struct cuda_driver *cuda = NULL;

	ck_assert_int_eq(cuda_driver_open("/nowhere/libcuda.so.1", why, &cuda), -ENOENT);
	expect_said("/nowhere/libcuda.so.1");
	expect_said("install NVIDIA's driver");
	ck_assert_ptr_null(cuda);
}
END_TEST

START_TEST(after_a_failure_the_next_call_tries_anew)
{
	const struct cuda_driver *cuda = NULL;

	ck_assert_int_eq(cuda_driver_open("/nowhere/libcuda.so.1", why, &cuda), -ENOENT);
	ck_assert_int_eq(cuda_driver_open(rig_library(), why, &cuda), 0);
	ck_assert_int_eq(cuda->version, 13000);
}
END_TEST

START_TEST(a_library_that_is_no_driver_is_told_from_one)
{
	const struct cuda_driver *cuda = NULL;

	ck_assert_int_eq(cuda_driver_open("libm.so.6", why, &cuda), -ENOSYS);
	expect_said("libm.so.6 is not the library of NVIDIA's driver");
}
END_TEST

START_TEST(a_driver_that_is_too_old_is_refused_with_both_versions)
{
	const struct cuda_driver *cuda = NULL;

	ck_assert_int_eq(open_with("FAKE_CUDA_VERSION", "11030", &cuda), -ENOSYS);
	expect_said("CUDA 11.3");
	expect_said("11.4 is needed");
}
END_TEST

static const struct {
	const char *version;
	bool values, batch_12, batch_13;
} versions[] = {
	{ "11040", false, false, false },	/* by the library's own symbols */
	{ "11070", true, false, false },
	{ "12000", true, false, false },	/* by cuGetProcAddress from here on */
	{ "12080", true, true, false },
	{ "12090", true, true, false },
	{ "13000", true, true, true },
	{ "13010", true, true, true },
};

START_TEST(what_a_driver_is_too_old_for_is_absent_and_nothing_else)
{
	const struct cuda_driver *cuda = NULL;

	ck_assert_int_eq(open_with("FAKE_CUDA_VERSION", versions[_i].version, &cuda), 0);
	ck_assert_int_eq(cuda->version, atoi(versions[_i].version));
	ck_assert_int_eq(cuda->stream_write_value32 != NULL, versions[_i].values);
	ck_assert_int_eq(cuda->stream_wait_value32 != NULL, versions[_i].values);
	ck_assert_int_eq(cuda->copy_batch_12 != NULL, versions[_i].batch_12);
	ck_assert_int_eq(cuda->copy_batch_13 != NULL, versions[_i].batch_13);
	ck_assert(!cuda->copy_batch_13 || (void *)cuda->copy_batch_13 != (void *)cuda->copy_batch_12);
	ck_assert_ptr_nonnull(cuda->mem_alloc);
	ck_assert_ptr_nonnull(cuda->event_synchronize);
}
END_TEST

START_TEST(an_optional_entry_may_be_missing)
{
	const struct cuda_driver *cuda = NULL;

	ck_assert_int_eq(open_with("FAKE_CUDA_MISSING", "cuMemcpyBatchAsync,cuStreamWriteValue32", &cuda), 0);
	ck_assert_ptr_null(cuda->copy_batch_12);
	ck_assert_ptr_null(cuda->copy_batch_13);
	ck_assert_ptr_null(cuda->stream_write_value32);
	ck_assert_ptr_nonnull(cuda->stream_wait_value32);
}
END_TEST

START_TEST(a_needed_entry_that_is_missing_is_named)
{
	const struct cuda_driver *cuda = NULL;

	ck_assert_int_eq(open_with("FAKE_CUDA_MISSING", "cuMemAddressReserve", &cuda), -ENOSYS);
	expect_said("has no cuMemAddressReserve");
}
END_TEST

START_TEST(a_driver_without_a_gpu_for_us_says_where_to_look)
{
	const struct cuda_driver *cuda = NULL;

	ck_assert_int_eq(open_with("CUDA_VISIBLE_DEVICES", "", &cuda), -ENODEV);
	expect_said("CUDA_VISIBLE_DEVICES");
}
END_TEST

START_TEST(a_driver_that_does_not_start_is_told_with_its_own_error_and_may_start_later)
{
	const struct cuda_driver *cuda = NULL;

	ck_assert_int_eq(open_with("FAKE_CUDA_FAIL", "cuInit:1:802", &cuda), -EIO);
	expect_said("CUDA_ERROR_SYSTEM_NOT_READY, 802");
	ck_assert_int_eq(cuda_driver_open(rig_library(), why, &cuda), 0);
}
END_TEST

START_TEST(a_stub_library_is_no_driver)
{
	const struct cuda_driver *cuda = NULL;

	ck_assert_int_eq(open_with("FAKE_CUDA_FAIL", _i == 0 ? "cuInit:1:34" : "cuDriverGetVersion:1:34", &cuda), -ENOENT);
	expect_said("stub");
}
END_TEST

START_TEST(an_error_is_told_in_words_by_name_and_by_number)
{
	const struct cuda_driver *cuda = rig_open();
	char text[CUDA_TEXT];

	ck_assert_str_eq(cuda_error_text(cuda, CUDA_RESULT_OUT_OF_MEMORY, text),
			 "out of memory (CUDA_ERROR_OUT_OF_MEMORY, 2)");
	ck_assert_str_eq(cuda_error_text(NULL, CUDA_RESULT_OUT_OF_MEMORY, text), "CUDA_ERROR_OUT_OF_MEMORY (2)");
	ck_assert_str_eq(cuda_error_text(cuda, (enum cuda_result)12345, text), "an error without a name (12345)");
}
END_TEST

START_TEST(only_errors_that_kill_the_context_are_fatal)
{
	ck_assert(!cuda_result_is_fatal(CUDA_OK));
	ck_assert(!cuda_result_is_fatal(CUDA_RESULT_OUT_OF_MEMORY));
	ck_assert(!cuda_result_is_fatal(CUDA_RESULT_NOT_READY));
	ck_assert(!cuda_result_is_fatal((enum cuda_result)12345));
	ck_assert(cuda_result_is_fatal(CUDA_RESULT_ILLEGAL_ADDRESS));
	ck_assert(cuda_result_is_fatal(CUDA_RESULT_ECC_UNCORRECTABLE));
	ck_assert(cuda_result_is_fatal(CUDA_RESULT_LAUNCH_FAILED));
	ck_assert(cuda_result_is_fatal((enum cuda_result)226));
	ck_assert(cuda_result_is_fatal((enum cuda_result)911));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("cuda driver");
	TCase *opening = tcase_create("opening"), *errors = tcase_create("errors");

	if (!rig_library()) {
		printf("1..0 # SKIP this build has no shared libraries (--disable-shared), so no fake driver\n");
		return 0;
	}
	tcase_add_checked_fixture(opening, rig_setup, rig_teardown);
	tcase_add_test(opening, the_driver_is_opened_once_and_is_the_same_for_all_of_the_process);
	tcase_add_test(opening, another_library_than_the_one_that_is_open_is_refused);
	tcase_add_test(opening, where_there_is_no_driver_the_text_names_the_library_and_what_to_install);
	tcase_add_test(opening, after_a_failure_the_next_call_tries_anew);
	tcase_add_test(opening, a_library_that_is_no_driver_is_told_from_one);
	tcase_add_test(opening, a_driver_that_is_too_old_is_refused_with_both_versions);
	tcase_add_loop_test(opening, what_a_driver_is_too_old_for_is_absent_and_nothing_else, 0,
			    (int)(sizeof(versions) / sizeof(versions[0])));
	tcase_add_test(opening, an_optional_entry_may_be_missing);
	tcase_add_test(opening, a_needed_entry_that_is_missing_is_named);
	tcase_add_test(opening, a_driver_without_a_gpu_for_us_says_where_to_look);
	tcase_add_test(opening, a_driver_that_does_not_start_is_told_with_its_own_error_and_may_start_later);
	tcase_add_loop_test(opening, a_stub_library_is_no_driver, 0, 2);
	tcase_add_checked_fixture(errors, rig_setup, rig_teardown);
	tcase_add_test(errors, an_error_is_told_in_words_by_name_and_by_number);
	tcase_add_test(errors, only_errors_that_kill_the_context_are_fatal);
	suite_add_tcase(suite, opening);
	suite_add_tcase(suite, errors);
	return suite_run(suite);
}
