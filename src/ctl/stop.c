/*
 * stokerctl stop: drain and stop. The answer says that the broker has begun; its end of the socket
 * closes when it is gone, and only then does this return, so that its name is free again.
 */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "src/client/talk.h"
#include "src/ctl/ctl.h"

static void wait_until_gone(int sock)
{
	char message[sizeof(struct message_answer)];

	while (talk_wait(sock, UINT64_MAX) == 0) {
		const ssize_t n = talk_receive(sock, message, sizeof(message), NULL, 0);

		if (n < 0 && n != -EAGAIN)
			return;
	}
}

enum ctl_exit ctl_stop(const struct ctl *ctl, char **arguments)
{
	struct message_answer answer;
	int sock;
	enum ctl_exit e = ctl_open(ctl, &sock);

	(void)arguments;
	if (e != CTL_DONE)
		return e;
	e = ctl_question(ctl, sock, ADMIN_VERB_STOP, 0, 0, &answer, sizeof(answer));
	if (e == CTL_DONE)
		wait_until_gone(sock);
	close(sock);
	if (e != CTL_DONE)
		return e;
	if (ctl->json)
		return ctl_print(ctl_object(ctl));
	printf("%s has stopped\n", ctl->name);
	return CTL_DONE;
}
