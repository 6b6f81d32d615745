/*
 * From WELCOME and its descriptors to an attachment, and back to nothing.
 *
 * The broker's uid is believed (talk_connect() has looked at it), and yet everything that a later
 * access relies upon is checked here once: owner, seals and size of the channel, so that no access
 * to it can fault; the geometry, from which this side works out all places for itself; that pipes
 * are pipes. Mappings do not cross a fork and are in no core dump.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/client/client.h"

/* Places of the descriptors that come with WELCOME. */
enum { FD_PAGE, FD_CHANNEL, FD_DOORBELL, FD_COMPLETION, FD_FENCE, FD_ARENA };

/* Forgotten first: a child that is forked meanwhile closes what is remembered, whoever's the number is by then. */
void attachment_close(int *fd)
{
	const int number = *fd;

	*fd = -1;
	if (number >= 0)
		close(number);
}

static int greet_fail(struct stoker *c, int r, const char *what)
{
	return client_fail(c, r, "cannot attach to \"%s\": %s; broker and library do not belong together, or the "
			   "broker is broken: restart it", c->name, what);
}

static int pipe_take(struct stoker *c, int fd, int *ret)
{
	struct stat st;
	int flags;

	if (fstat(fd, &st) < 0 || !S_ISFIFO(st.st_mode))
		return greet_fail(c, -EPROTO, "one of the descriptors that came with the welcome is no pipe");
	/* An end of a pipe has a file description of its own: nobody else sees this flag. */
	flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return greet_fail(c, -errno, "a pipe could not be made non-blocking");
	*ret = fd;
	return 0;
}

static int page_take(struct stoker *c, struct attachment *at, int fd, uid_t uid)
{
	struct stat st;
	int r = fstat(fd, &st) < 0 ? -errno : 0;

	if (r == 0 && st.st_uid != uid)
		return greet_fail(c, -EACCES, "the control page that came with the welcome is not the broker's own");
	if (r == 0)
		r = control_map_fd(fd, &at->page);
	if (r < 0)
		return greet_fail(c, r, "the control page that came with the welcome is none");
	madvise((void *)at->page, sizeof(*at->page), MADV_DONTFORK);
	return 0;
}

static int channel_header_check(struct stoker *c, const struct attachment *at)
{
	const struct channel_header *header = (const struct channel_header *)at->channel;

	if (header->magic != STOKER_CHANNEL_MAGIC || header->abi != STOKER_ABI)
		return greet_fail(c, -EPROTO, "its channel does not begin as a channel does");
	if (memcmp(&header->geometry, &at->plan.geometry, sizeof(header->geometry)) != 0 ||
	    (uint64_t)header->bytes_pages * STOKER_PAGE != at->plan.bytes)
		return greet_fail(c, -EPROTO, "its channel and its welcome differ in their geometry");
	return 0;
}

static int channel_take(struct stoker *c, struct attachment *at, int fd, uid_t uid)
{
	const int seals = fcntl(fd, F_GET_SEALS);
	struct stat st;
	void *map;

	if (seals < 0 || (seals & (F_SEAL_SHRINK | F_SEAL_GROW)) != (F_SEAL_SHRINK | F_SEAL_GROW))
		return greet_fail(c, -EPROTO, "its channel is not sealed against shrinking");
	if (fstat(fd, &st) < 0 || st.st_uid != uid || (uint64_t)st.st_size != at->plan.bytes)
		return greet_fail(c, -EPROTO, "its channel has another size or owner than was said");
	map = mmap(NULL, at->plan.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return client_fail(c, -errno, "could not map the channel of \"%s\": %s", c->name, strerror(errno));
	at->channel = map;
	madvise(map, at->plan.bytes, MADV_DONTFORK);
	return channel_header_check(c, at);
}

int greet_arena(struct stoker *c, struct attachment *at, int fd, uint64_t bytes)
{
	struct stat st;
	void *map;

	if (c->flags & STOKER_OPTION_NO_ARENA || at->arena)
		return 0;
	if (fstat(fd, &st) < 0 || st.st_uid != at->uid || bytes == 0 || (uint64_t)st.st_size < bytes)
		return greet_fail(c, -EPROTO, "its arena has another size or owner than was said");
	map = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return client_fail(c, -errno, "could not map the arena of \"%s\" (%llu bytes): %s; raise the limit of "
				   "address space or attach with STOKER_OPTION_NO_ARENA", c->name,
				   (unsigned long long)bytes, strerror(errno));
	at->arena = map;
	at->arena_bytes = bytes;
	madvise(map, bytes, MADV_DONTFORK);
	madvise(map, bytes, MADV_DONTDUMP);
	return 0;
}

/*
 * The ready words are mapped once more, by themselves: callers (and their devices) keep the address
 * of that mapping, so a later attachment puts its words there, with the values reached so far.
 */
static int ready_take(struct stoker *c, struct attachment *at, int channel_fd)
{
	const uint32_t n = at->plan.geometry.ready_words;
	uint32_t *words = mmap(NULL, n * sizeof(uint32_t), PROT_READ | PROT_WRITE, MAP_SHARED, channel_fd,
			       (off_t)at->plan.ready_offset);

	if (words == MAP_FAILED)
		return client_fail(c, -errno, "could not map the ready words of \"%s\": %s", c->name, strerror(errno));
	madvise(words, n * sizeof(uint32_t), MADV_DONTFORK);
	for (uint32_t i = 0; i < n && i < c->n_ready; i++)
		words[i] = c->ready[i];
	if (c->ready && c->n_ready == n) {
		if (mremap(words, n * sizeof(uint32_t), n * sizeof(uint32_t), MREMAP_MAYMOVE | MREMAP_FIXED,
			   (void *)c->ready) == MAP_FAILED) {
			const int r = -errno;

			munmap(words, n * sizeof(uint32_t));
			return client_fail(c, r, "could not put the ready words of \"%s\" in place: %s", c->name,
					   strerror(-r));
		}
		return 0;
	}
	if (c->ready)
		munmap((void *)c->ready, c->n_ready * sizeof(uint32_t));
	c->ready = words;
	c->n_ready = n;
	return 0;
}

static int watch_fd(struct stoker *c, int fd, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.fd = fd };

	if (epoll_ctl(c->epoll, EPOLL_CTL_ADD, fd, &event) < 0)
		return client_fail(c, -errno, "could not watch the broker \"%s\": %s", c->name, strerror(errno));
	return 0;
}

/* Until it is the present one, nobody who sleeps would take what comes: it would be ready for ever. */
int attachment_watch(struct stoker *c, const struct attachment *at)
{
	const int r = watch_fd(c, at->completion, EPOLLIN);

	return r < 0 ? r : watch_fd(c, at->sock, EPOLLIN | EPOLLRDHUP);
}

void attachment_unwatch(struct stoker *c, const struct attachment *at)
{
	epoll_ctl(c->epoll, EPOLL_CTL_DEL, at->completion, NULL);
	epoll_ctl(c->epoll, EPOLL_CTL_DEL, at->sock, NULL);
}

static int attachment_fill(struct stoker *c, struct attachment *at, const struct message_welcome *welcome,
			   struct talk_fds *fds, uid_t uid)
{
	const uint32_t expected = welcome->flags & MESSAGE_WELCOME_ARENA ? FD_ARENA + 1 : FD_ARENA;
	int r;

	if (fds->n != expected)
		return greet_fail(c, -EPROTO, "its welcome came with a wrong number of descriptors");
	if (channel_plan_make(&welcome->geometry, &at->plan) < 0)
		return greet_fail(c, -EPROTO, "its welcome names an impossible geometry");
	r = page_take(c, at, fds->fd[FD_PAGE], uid);
	if (r == 0)
		r = channel_take(c, at, fds->fd[FD_CHANNEL], uid);
	if (r == 0)
		r = pipe_take(c, fds->fd[FD_DOORBELL], &at->doorbell);
	if (r == 0)
		fds->fd[FD_DOORBELL] = -1;
	if (r == 0)
		r = pipe_take(c, fds->fd[FD_COMPLETION], &at->completion);
	if (r == 0)
		fds->fd[FD_COMPLETION] = -1;
	if (r == 0)
		r = pipe_take(c, fds->fd[FD_FENCE], &at->fence);
	if (r == 0)
		fds->fd[FD_FENCE] = -1;
	if (r == 0 && expected > FD_ARENA)
		r = greet_arena(c, at, fds->fd[FD_ARENA], welcome->arena_bytes);
	if (r == 0)
		r = ready_take(c, at, fds->fd[FD_CHANNEL]);
	return r;
}

/* @fds are taken in any case; c->coming becomes the attachment's socket on success only. */
int greet_take(struct stoker *c, const struct message_welcome *welcome, struct talk_fds *fds, uid_t uid,
	       struct attachment **ret)
{
	struct attachment *at = calloc(1, sizeof(*at));
	int r;

	if (!at) {
		talk_fds_close(fds);
		return client_fail(c, -ENOMEM, "could not attach to \"%s\": out of memory", c->name);
	}
	at->references = 1;
	at->ordinal = ++c->ordinal;
	at->uid = uid;
	at->sock = c->coming;
	at->doorbell = at->completion = at->fence = -1;
	at->next = c->attachments;
	c->attachments = at;
	r = attachment_fill(c, at, welcome, fds, uid);
	talk_fds_close(fds);
	if (r < 0) {
		at->sock = -1;
		attachment_put(c, at);
		return r;
	}
	*ret = at;
	return 0;
}

struct attachment *attachment_get(struct attachment *at)
{
	at->references++;
	return at;
}

void attachment_hang_up(struct attachment *at)
{
	attachment_close(&at->sock);
	attachment_close(&at->doorbell);
	attachment_close(&at->completion);
}

static void attachment_unmap(struct attachment *at)
{
	control_unmap(at->page);
	if (at->channel)
		munmap(at->channel, at->plan.bytes);
	if (at->arena)
		munmap((void *)at->arena, at->arena_bytes);
}

void attachment_put(struct stoker *c, struct attachment *at)
{
	struct attachment **link = &c->attachments;

	assert(at->references > 0);
	if (--at->references > 0)
		return;
	while (*link != at)
		link = &(*link)->next;
	*link = at->next;
	attachment_hang_up(at);
	attachment_close(&at->fence);
	if (!c->forked)		/* in a child they were never there, and something else may be by now */
		attachment_unmap(at);
	free(at);
}

bool attachment_is_quiet(struct attachment *at)
{
	struct pollfd set = { .fd = at->fence, .events = POLLIN };

	if (!at->quiet && poll(&set, 1, 0) > 0 && (set.revents & (POLLHUP | POLLERR | POLLNVAL)))
		at->quiet = true;
	return at->quiet;
}
