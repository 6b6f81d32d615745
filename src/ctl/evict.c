/* stokerctl evict SIZE: free at least so much of the arena; a percentage is of the arena. */
#include <errno.h>
#include <stdio.h>

#include "src/common/size.h"
#include "src/ctl/ctl.h"

enum ctl_exit ctl_evict(const struct ctl *ctl, char **arguments)
{
	const struct control_page *page;
	struct message_answer answer;
	uint64_t whole, bytes;
	char text[16];
	json_t *object;
	enum ctl_exit e;

	/* A size that is none is said before the broker is looked for; what 100% is does not matter then. */
	if (size_parse(arguments[0], 1ull << 40, &bytes) < 0)
		return ctl_fail(CTL_USAGE, "\"%s\" is no size: say 4096, 64K, 2G, 1T or 10%%", arguments[0]);
	e = ctl_page(ctl, &page);
	if (e != CTL_DONE)
		return e;
	whole = ctl_gauge(page, STOKER_GAUGE_ARENA_BYTES);
	control_unmap(page);
	if (size_parse(arguments[0], whole, &bytes) < 0 || bytes == 0 || bytes > whole)
		return ctl_fail(CTL_USAGE, "\"%s\" is not between 1 byte and the arena's %s", arguments[0],
				size_text(whole, text));
	e = ctl_ask(ctl, ADMIN_VERB_EVICT, bytes, 0, &answer, NULL);
	if (e != CTL_DONE)
		return e;
	if (!ctl->json) {
		printf("%s freed\n", size_text(answer.value, text));
		return CTL_DONE;
	}
	object = ctl_object(ctl);
	ctl_set(object, "freed_bytes", answer.value);
	return ctl_print(object);
}
