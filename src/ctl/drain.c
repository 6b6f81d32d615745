/* stokerctl drain: no more stores, everything written back; returns when that is so. */
#include <stdio.h>

#include "src/ctl/ctl.h"

enum ctl_exit ctl_drain(const struct ctl *ctl, char **arguments)
{
	struct message_answer answer;
	const enum ctl_exit e = ctl_ask(ctl, ADMIN_VERB_DRAIN, 0, 0, &answer, NULL);

	(void)arguments;
	if (e != CTL_DONE)
		return e;
	if (ctl->json)
		return ctl_print(ctl_object(ctl));
	printf("%s is drained\n", ctl->name);
	return CTL_DONE;
}
