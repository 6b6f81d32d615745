/*
 * What fork() does to handles: nothing of them may be used in the child. Mappings are not inherited
 * (MADV_DONTFORK at their making); here the child closes its copies of the descriptors, before
 * fork() returns in it, and marks each handle, so that every call answers -EOWNERDEAD.
 *
 * The list of handles of the process is under a lock, taken around fork() so that the child finds
 * it whole. A child made without the C library's fork() (a bare clone system call) sees none of
 * this; its first access to a handle's mapping ends it.
 */
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "src/client/client.h"

static pthread_mutex_t handles_lock = PTHREAD_MUTEX_INITIALIZER;
static struct stoker *handles;
static pthread_once_t hooked = PTHREAD_ONCE_INIT;

static void before_fork(void)
{
	pthread_mutex_lock(&handles_lock);
}

static void after_fork_in_parent(void)
{
	pthread_mutex_unlock(&handles_lock);
}

static void close_in_child(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void handle_in_child(struct stoker *c)
{
	c->forked = true;
	c->n_slots = 0;		/* stoker_poll() takes its rare way, and finds the mark */
	for (struct attachment *at = c->attachments; at; at = at->next) {
		attachment_hang_up(at);
		close_in_child(&at->fence);
	}
	for (struct object *object = c->objects; object; object = object->next) {
		struct stoker_region *region = (struct stoker_region *)object;

		if (object->kind != OBJECT_REGION)
			continue;
		for (uint32_t i = 0; i < region->n; i++)
			close_in_child(&region->fd[i]);
	}
	close_in_child(&c->epoll);
	close_in_child(&c->coming);
}

static void after_fork_in_child(void)
{
	for (struct stoker *c = handles; c; c = c->next_handle)
		handle_in_child(c);
	pthread_mutex_unlock(&handles_lock);
}

static void hook(void)
{
	pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

void fork_watch(struct stoker *c)
{
	pthread_once(&hooked, hook);
	pthread_mutex_lock(&handles_lock);
	c->next_handle = handles;
	handles = c;
	pthread_mutex_unlock(&handles_lock);
}

void fork_forget(struct stoker *c)
{
	struct stoker **link = &handles;

	pthread_mutex_lock(&handles_lock);
	while (*link && *link != c)
		link = &(*link)->next_handle;
	if (*link)
		*link = c->next_handle;
	pthread_mutex_unlock(&handles_lock);
}
