/* sd_notify(READY=1) without a library: one datagram to $NOTIFY_SOCKET, if it is set. */
#ifndef STOKER_BROKER_NOTIFY_H
#define STOKER_BROKER_NOTIFY_H

void notify_ready(void);

#endif
