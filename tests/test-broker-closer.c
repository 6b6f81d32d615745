/*
 * What strangers handed over is closed, and their memory let go of, by threads of their own: nobody else
 * waits for it, and neither for the other. What takes its time here takes as long as the test wants.
 */
#include <fcntl.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "src/broker/closer.h"
#include "tests/suite.h"

enum { SLOW = 1001, OTHER = 1002, MANY = 40 };

static sem_t begun, go_on, over;
static _Atomic uint32_t ran;

static void setup(void)
{
	sem_init(&begun, 0, 0);
	sem_init(&go_on, 0, 0);
	sem_init(&over, 0, 0);
	atomic_store(&ran, 0);
}

static void slowly(void *arg)
{
	(void)arg;
	sem_post(&begun);
	sem_wait(&go_on);
	sem_post(&over);
}

static void quickly(void *arg)
{
	(void)arg;
	atomic_fetch_add(&ran, 1);
	sem_post(&over);
}

START_TEST(who_lets_go_of_much_memory_keeps_nobody_waiting)
{
	closer_run(SLOW, slowly, NULL);		/* returns */
	sem_wait(&begun);
	closer_run(OTHER, quickly, NULL);
	sem_wait(&over);
	ck_assert_uint_eq(atomic_load(&ran), 1);
	sem_post(&go_on);
	sem_wait(&over);
}
END_TEST

START_TEST(a_descriptor_is_closed_while_memory_is_still_being_let_go_of)
{
	const int fd = memfd_create("given", MFD_CLOEXEC);
	int ends[2];
	char byte;

	expect(fd >= 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
	closer_run(SLOW, slowly, NULL);
	sem_wait(&begun);
	closer_take(SLOW, ends[0]);
	ck_assert_int_eq(read(ends[1], &byte, 1), 0);
	closer_close(SLOW, fd);
	while (fcntl(fd, F_GETFD) >= 0)
		usleep(1000);
	sem_post(&go_on);
	sem_wait(&over);
	close(ends[1]);
}
END_TEST

START_TEST(of_all_that_is_to_be_let_go_of_nothing_is_forgotten)
{
	closer_run(SLOW, slowly, NULL);
	sem_wait(&begun);
	for (uint32_t i = 0; i < MANY; i++)
		closer_run(SLOW, quickly, NULL);	/* those that are too many at once by their caller */
	expect(atomic_load(&ran) < MANY);
	sem_post(&go_on);
	for (uint32_t i = 0; i <= MANY; i++)
		sem_wait(&over);
	ck_assert_uint_eq(atomic_load(&ran), MANY);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("broker-closer");
	TCase *tests = tcase_create("closer");

	tcase_add_checked_fixture(tests, setup, NULL);
	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, who_lets_go_of_much_memory_keeps_nobody_waiting);
	tcase_add_test(tests, a_descriptor_is_closed_while_memory_is_still_being_let_go_of);
	tcase_add_test(tests, of_all_that_is_to_be_let_go_of_nothing_is_forgotten);
	suite_add_tcase(suite, tests);
	return suite_run(suite);
}
