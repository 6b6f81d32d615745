/* stokerctl ping: the way to the core thread and back, through the socket and the control thread. */
#include <stdio.h>

#include "src/ctl/ctl.h"

#define PATIENCE_MS 5000u

enum ctl_exit ctl_ping(const struct ctl *ctl, char **arguments)
{
	uint64_t ns = 0;
	struct message_answer answer;
	const enum ctl_exit e = ctl_ask(ctl, ADMIN_VERB_PING, 0, PATIENCE_MS, &answer, &ns);
	char text[32];
	json_t *object;

	(void)arguments;
	if (e != CTL_DONE)
		return e;
	if (!ctl->json) {
		printf("%s answered within %s\n", ctl->name, ctl_duration(ns, text));
		return CTL_DONE;
	}
	object = ctl_object(ctl);
	ctl_set(object, "round_trip_ns", ns);
	return ctl_print(object);
}
