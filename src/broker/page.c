/* See page.h. Nothing here reads a page's contents but for its magic: an old page may hold anything. */
#include "src/broker/page.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#ifdef HAVE_CONFIG_H
#include <config.h>
#endif
#ifndef PACKAGE_VERSION
#define PACKAGE_VERSION "0.1.0"
#endif

#define WHY 512u

/* Where glibc keeps POSIX shared memory; shm_open() has no rename. */
#define SHM_DIRECTORY "/dev/shm"

/* Whoever mapped the old page learns that its broker is gone. It was ours, or we leave it alone. */
static void old_page_mark_dead(const char *path)
{
	struct stat is;
	const int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

	if (fd < 0)
		return;
	if (fstat(fd, &is) == 0 && S_ISREG(is.st_mode) && is.st_uid == geteuid() &&
	    (size_t)is.st_size >= sizeof(struct control_page)) {
		struct control_page *old = mmap(NULL, sizeof(*old), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

		if (old != MAP_FAILED) {
			if (old->magic == CONTROL_MAGIC)
				atomic_store_explicit(&old->dead, 1, memory_order_seq_cst);
			munmap(old, sizeof(*old));
		}
	}
	close(fd);
}

static void page_fill(struct control_page *page, const char *name, const char *socket)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	page->abi = STOKER_ABI;
	page->bytes = sizeof(*page);
	page->started_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
	page->uid = geteuid();
	page->pid = (uint32_t)getpid();
	snprintf(page->name, sizeof(page->name), "%s", name);
	snprintf(page->version, sizeof(page->version), "%s", PACKAGE_VERSION);
	snprintf(page->socket, sizeof(page->socket), "%s", socket);
	page->magic = CONTROL_MAGIC;
}

static int page_make(const char *temporary, struct page *page, char *why)
{
	const int fd = open(temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
	int r;

	if (fd < 0) {
		r = -errno;
		snprintf(why, WHY, "control page %s could not be made: %m; is /dev/shm mounted and writable?", temporary);
		return r;
	}
	/* Reserved whole, so that a full /dev/shm is said here and is no SIGBUS later. */
	r = fchmod(fd, 0644) < 0 ? -errno : -posix_fallocate(fd, 0, sizeof(struct control_page));
	if (r == 0) {
		void *at = mmap(NULL, sizeof(struct control_page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

		page->control = at == MAP_FAILED ? NULL : at;
		page->reader_fd = open(temporary, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
		r = !page->control || page->reader_fd < 0 ? -errno : 0;
	}
	close(fd);
	if (r < 0)
		snprintf(why, WHY, "control page %s of %zu bytes could not be made: %s; make room in /dev/shm", temporary,
			 sizeof(struct control_page), strerror(-r));
	return r;
}

static void page_free(struct page *page)
{
	if (page->control)
		munmap(page->control, sizeof(*page->control));
	if (page->reader_fd >= 0)
		close(page->reader_fd);
}

int page_open(const char *name, const char *socket, char *why, struct page *ret)
{
	struct page page = { .reader_fd = -1 };
	char temporary[160];

	snprintf(page.path, sizeof(page.path), SHM_DIRECTORY "%s", name);
	snprintf(temporary, sizeof(temporary), "%s.new", page.path);
	unlink(temporary);	/* of a broker that was killed here; NAME.lock says that it is gone */
	int r = page_make(temporary, &page, why);
	if (r == 0 && getrandom(page.control->boot_id, sizeof(page.control->boot_id), 0) !=
	    sizeof(page.control->boot_id))
		r = -EIO;
	if (r == 0) {
		page_fill(page.control, name, socket);
		old_page_mark_dead(page.path);
		if (rename(temporary, page.path) < 0) {
			r = errno == EPERM || errno == EACCES ? -EBUSY : -errno;
			snprintf(why, WHY, "control page %s could not be put in place: %m; another user has that name: "
				 "choose another --name, or have the file removed", page.path);
		}
	}
	if (r < 0) {
		unlink(temporary);
		page_free(&page);
		return r;
	}
	*ret = page;
	return 0;
}

void page_mark_dead(struct page *page)
{
	if (page->control)
		atomic_store_explicit(&page->control->dead, 1, memory_order_seq_cst);
}

void page_close(struct page *page)
{
	struct stat here, ours;

	page_mark_dead(page);
	if (page->reader_fd >= 0 && fstat(page->reader_fd, &ours) == 0 && lstat(page->path, &here) == 0 &&
	    here.st_dev == ours.st_dev && here.st_ino == ours.st_ino)
		unlink(page->path);
	page_free(page);
	page->control = NULL;
	page->reader_fd = -1;
}
