/*
 * ENGINE_ASSERT: a condition that only our own mistake can break, one each. assert() would need a
 * symbol that writes and aborts; the engine needs nothing, so it traps. It stays in every build: what
 * is checked is cheap, and a broker that goes on with broken books would serve wrong bytes.
 */
#ifndef STOKER_ENGINE_CHECK_H
#define STOKER_ENGINE_CHECK_H

#define ENGINE_ASSERT(condition)                           \
	do {                                               \
		if (__builtin_expect(!(condition), 0))     \
			__builtin_trap();                  \
	} while (0)

#endif
