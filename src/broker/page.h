/*
 * The broker's end of the control page. Each boot makes a page of its own under a temporary name and
 * renames it into place, so that a reader sees a whole page or none; the old one, if a dead broker
 * left it, is marked dead first, so that whoever still maps it learns of it.
 */
#ifndef STOKER_BROKER_PAGE_H
#define STOKER_BROKER_PAGE_H

#include "shm/control.h"

struct page {
	struct control_page *control;	/* mapped read-write */
	int reader_fd;			/* opened read-only: what clients are given */
	char path[128];			/* under /dev/shm */
};

/* 0, or -errno with the reason and remedy in @why (512 bytes). -EBUSY: another user has that name. */
int page_open(const char *name, const char *socket, char *why, struct page *ret);

/* Mark it dead: attached clients and readers learn of the broker's end. */
void page_mark_dead(struct page *page);
void page_close(struct page *page);	/* unlinks it, if it is still ours */

#endif
