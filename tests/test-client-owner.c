/*
 * Whose broker is believed: control page and socket belong to one uid, which is root's, the client's
 * own, or the one that it names. Needs root, to make a page that belongs to somebody else.
 */
#include <fcntl.h>
#include <sys/stat.h>

#include "tests/client-rig.h"

#define SOMEBODY 12345u

static void page_of_somebody(struct rig *rig)
{
	int fd;

	rig_name(rig, "owner");
	rig->fake = fake_start(rig->name, NULL);
	fd = shm_open(rig->name, O_RDONLY, 0);
	expect(fd >= 0 && fchown(fd, SOMEBODY, (gid_t)-1) == 0);
	close(fd);
}

START_TEST(a_page_of_somebody_is_not_believed)
{
	struct rig rig = { 0 };

	page_of_somebody(&rig);
	ck_assert_int_eq(stoker_attach(rig.name, NULL, &rig.c), -EACCES);
	expect(strstr(stoker_attach_error(), "control page belongs to uid 12345"));
	fake_free(rig.fake);
}
END_TEST

START_TEST(a_page_and_a_socket_of_two_people_are_no_broker)
{
	const struct stoker_options options = { .size = sizeof(options), .broker_uid = SOMEBODY };
	struct rig rig = { 0 };

	page_of_somebody(&rig);
	ck_assert_int_eq(stoker_attach(rig.name, &options, &rig.c), -EACCES);
	expect(strstr(stoker_attach_error(), "uid 12345 and its socket to uid 0"));
	/* The socket alone is root's; but the page that comes with the welcome is somebody's. */
	ck_assert_int_eq(stoker_attach(fake_socket(rig.fake), &options, &rig.c), -EACCES);
	expect(strstr(stoker_attach_error(), "not the broker's own"));
	fake_free(rig.fake);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("client-owner");
	TCase *tests = tcase_create("owner");

	if (geteuid() != 0) {
		puts("1..0 # SKIP only root can make a control page that belongs to another user");
		return 0;
	}
	tcase_add_test(tests, a_page_of_somebody_is_not_believed);
	tcase_add_test(tests, a_page_and_a_socket_of_two_people_are_no_broker);
	suite_add_tcase(suite, tests);
	return suite_run(suite);
}
