/*
 * Closing what strangers handed over.
 *
 * close(2) of an open file that a peer made takes as long as that peer likes: a socket that lingers, a
 * file system that the peer serves (FUSE). So does the end of a message that carries such a file and was
 * never taken, and so the close of a socket that holds one. The control thread therefore closes neither:
 * it gives them to a thread of their owner's uid, made when there is something to close and gone when
 * there is nothing left. A uid waits for its own files alone (unless those of 64 others hang).
 *
 * However many wait, each is closed in the end. A uid that has thousands of them, or an eighth of all that may be open,
 * is not listened to meanwhile, as each message could bring more, and descriptors are what everybody needs; if one of
 * them hangs it is let go.
 *
 * What F_GET_SEALS answers for (tmpfs, memfd, hugetlbfs) is the kernel's alone, and waits for nobody. But
 * whoever lets go of such memory last frees it, which takes a tenth of a second a GiB: that is left to the
 * same threads.
 */
#ifndef STOKER_BROKER_CLOSER_H
#define STOKER_BROKER_CLOSER_H

#include <stdbool.h>
#include <sys/types.h>

/* May closing it, or asking its file system, wait for somebody? */
bool closer_must(int fd);
/* Close @fd, which came from @uid, soon. */
void closer_take(uid_t uid, int fd);
/* Close @fd, which came from @uid, soon; or now, where it waits for nobody and much is to be closed. */
void closer_close(uid_t uid, int fd);
/* Call @run with @arg, which lets go of memory of @uid's: soon, or now where much is to be let go of. */
void closer_run(uid_t uid, void (*run)(void *arg), void *arg);
/* As closer_take() for the socket of a connection: the peer sees its end at once, and can send no more. */
void closer_take_socket(uid_t uid, int fd);
/*
 * May more be taken from that uid? BUSY: so many of its files wait that it should wait too, as it does when a GPU's
 * region of thousands of allocations is dropped; HANGS: and the one that is being closed has not ended for a second.
 */
enum closer_room { CLOSER_ROOM, CLOSER_BUSY, CLOSER_HANGS };
enum closer_room closer_room(uid_t uid);

#endif
