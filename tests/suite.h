/* What the tests written in C have in common. */
#ifndef STOKER_TESTS_SUITE_H
#define STOKER_TESTS_SUITE_H

#include <check.h>

/*
 * Check notes every ck_assert() in a file, passed ones too. These cost nothing while they hold, and a process that is
 * killed in the middle of one leaves no half of a note, which Check could not read: what is killed uses these alone.
 */
#define expect_msg(condition, ...) \
	do { \
		if (!(condition)) \
			ck_abort_msg(__VA_ARGS__); \
	} while (0)

#define expect(condition) expect_msg(condition, "not so: %s", #condition)

#define expect_eq(a, b) \
	do { \
		const long long a_ = (long long)(a), b_ = (long long)(b); \
		expect_msg(a_ == b_, "%s is %lld, not %s, which is %lld", #a, a_, #b, b_); \
	} while (0)

/* Run it as Check's environment says, and give what main() has to return. */
static inline int suite_run(Suite *suite)
{
	SRunner *runner = srunner_create(suite);
	int failed;

	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? 0 : 1;
}

#endif
