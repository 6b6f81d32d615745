/* What the tests written in C have in common. */
#ifndef STOKER_TESTS_SUITE_H
#define STOKER_TESTS_SUITE_H

#include <check.h>

/* Check notes every ck_assert() in a file, passed ones too; this one costs nothing while it holds. */
#define expect(condition) \
	do { \
		if (!(condition)) \
			ck_abort_msg("not so: %s", #condition); \
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
