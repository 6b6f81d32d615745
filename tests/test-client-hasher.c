/*
 * Keys from tokens. The expected keys were made by another implementation (Python's hashlib):
 *
 *	root(ct, seed) = sha256(b"stoker key chain 1\0" + pack("<I", ct) + seed)
 *	extras(list)   = sha256(b"".join(pack("<Q", len(e)) + e for e in list)), or bytes(32) for none
 *	key(parent, tokens, list) = sha256(parent + b"".join(pack("<I", t) for t in tokens) +
 *					   pack("<II", len(tokens), len(list)) + extras(list))
 *
 * with chunks of 4 tokens and the seed b"salt".
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <stoker/stoker.h>

#include "tests/suite.h"

static const char key_0[] = 
	"f4b00119aa8593c58ad20e3ae4fa73a0363b3a25fd83991c12cd9387b308589c";	/* tokens 1 2 3 4 */
static const char key_1[] = 
	"21ec1a402ada615ffc92d18621302ca3dea3fc2f5f0a13d3af43113e6c3ed450";	/* then 5 6 7 0xffffffff */
static const char key_1_extras[] = 
	"222a5e30b1943a0f4146f962ad6daabc581bacca4280413351eb3db8305d1c96";	/* the same with extras b"image" and b"" */
static const char key_tail[] = 
	"83da885a499c85b51de98c33627d9d186a03995cef5eb53a8f0c47b724ca8c08";	/* after key_1: 9 10 */
static const char key_unseeded[] = 
	"59da4f0bd57c0dff5ae08c357a2e4a26c977bca4929101977ccd4fea612f5e67";	/* 1 2 3 4, no seed */

static const uint32_t tokens[10] = { 1, 2, 3, 4, 5, 6, 7, 0xffffffff, 9, 10 };
static struct stoker_hasher *hasher;

static void begin(void)
{
	ck_assert_int_eq(stoker_hasher_new(4, "salt", 4, &hasher), 0);
}

static void end(void)
{
	stoker_hasher_free(hasher);
}

static void is_key(const struct stoker_key *key, const char *expected)
{
	char hex[65];

	for (int i = 0; i < 32; i++)
		snprintf(hex + 2 * i, 3, "%02x", key->bytes[i]);
	ck_assert_str_eq(hex, expected);
}

START_TEST(keys_are_what_another_implementation_makes)
{
	struct stoker_key keys[2], tail;
	uint32_t n;

	ck_assert_int_eq(stoker_hasher_tokens(hasher, tokens, 10, keys, 2), 2);
	is_key(&keys[0], key_0);
	is_key(&keys[1], key_1);
	ck_assert_int_eq(stoker_hasher_tail(hasher, &tail, &n), 0);
	ck_assert_uint_eq(n, 2);
	is_key(&tail, key_tail);
}
END_TEST

START_TEST(it_does_not_matter_in_which_portions_tokens_come)
{
	for (int first = 0; first <= 10; first++) {
		for (int second = first; second <= 10; second++) {
			struct stoker_key keys[2];
			int n = stoker_hasher_tokens(hasher, tokens, (size_t)first, keys, 2);

			n += stoker_hasher_tokens(hasher, tokens + first, (size_t)(second - first), keys + n, (size_t)(2 - n));
			n += stoker_hasher_tokens(hasher, tokens + second, (size_t)(10 - second), keys + n, (size_t)(2 - n));
			ck_assert_int_eq(n, 2);
			is_key(&keys[0], key_0);
			is_key(&keys[1], key_1);
			stoker_hasher_restart(hasher);
		}
	}
}
END_TEST

START_TEST(asking_for_the_tail_changes_nothing)
{
	struct stoker_key keys[2], tail;
	uint32_t n;

	for (int i = 0; i < 10; i++) {
		ck_assert_int_ge(stoker_hasher_tokens(hasher, tokens + i, 1, &keys[i / 4 < 2 ? i / 4 : 1], 1), 0);
		ck_assert_int_eq(stoker_hasher_tail(hasher, &tail, &n), 0);
		ck_assert_uint_eq(n, ((uint32_t)i + 1) % 4);
	}
	is_key(&keys[0], key_0);
	is_key(&keys[1], key_1);
	is_key(&tail, key_tail);
}
END_TEST

START_TEST(extras_belong_to_their_chunk_wherever_in_it_they_are_given)
{
	for (size_t where = 4; where < 8; where++) {
		struct stoker_key keys[2];

		ck_assert_int_ge(stoker_hasher_tokens(hasher, tokens, where, keys, 2), 1);
		ck_assert_int_eq(stoker_hasher_extra(hasher, "image", 5), 0);
		ck_assert_int_eq(stoker_hasher_extra(hasher, "", 0), 0);
		ck_assert_int_eq(stoker_hasher_tokens(hasher, tokens + where, 8 - where, &keys[1], 1), 1);
		is_key(&keys[0], key_0);
		is_key(&keys[1], key_1_extras);
		stoker_hasher_restart(hasher);
	}
	struct stoker_key keys[2];

	ck_assert_int_eq(stoker_hasher_tokens(hasher, tokens, 8, keys, 2), 2);
	is_key(&keys[1], key_1);	/* a restart forgets extras too */
}
END_TEST

START_TEST(another_seed_makes_other_keys)
{
	struct stoker_hasher *other;
	struct stoker_key key;

	ck_assert_int_eq(stoker_hasher_new(4, NULL, 0, &other), 0);
	ck_assert_int_eq(stoker_hasher_tokens(other, tokens, 4, &key, 1), 1);
	is_key(&key, key_unseeded);
	stoker_hasher_free(other);
}
END_TEST

START_TEST(too_little_room_takes_nothing)
{
	struct stoker_key keys[2];

	ck_assert_int_eq(stoker_hasher_tokens(hasher, tokens, 10, keys, 1), -ENOSPC);
	ck_assert_int_eq(stoker_hasher_tokens(hasher, tokens, 8, keys, 2), 2);
	is_key(&keys[1], key_1);
	ck_assert_int_eq(stoker_hasher_new(0, NULL, 0, &hasher), -EINVAL);
	ck_assert_int_eq(stoker_hasher_tokens(hasher, tokens, 8, NULL, 2), -EINVAL);
	stoker_hasher_restart(NULL);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("client-hasher");
	TCase *tests = tcase_create("hasher");

	tcase_add_checked_fixture(tests, begin, end);
	tcase_add_test(tests, keys_are_what_another_implementation_makes);
	tcase_add_test(tests, it_does_not_matter_in_which_portions_tokens_come);
	tcase_add_test(tests, asking_for_the_tail_changes_nothing);
	tcase_add_test(tests, extras_belong_to_their_chunk_wherever_in_it_they_are_given);
	tcase_add_test(tests, another_seed_makes_other_keys);
	tcase_add_test(tests, too_little_room_takes_nothing);
	suite_add_tcase(suite, tests);
	return suite_run(suite);
}
