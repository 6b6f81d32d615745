/* stokerctl clear: forget everything that nobody uses, in the arena and on disk. */
#include <stdio.h>

#include "src/common/size.h"
#include "src/ctl/ctl.h"

enum ctl_exit ctl_clear(const struct ctl *ctl, char **arguments)
{
	struct message_answer answer;
	const enum ctl_exit e = ctl_ask(ctl, ADMIN_VERB_CLEAR, 0, 0, &answer, NULL);
	char text[16];
	json_t *object;

	(void)arguments;
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
