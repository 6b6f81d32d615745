/*
 * Who is next: run queues, and the lists of jobs that wait.
 *
 * A run queue has a level for each priority. A level is a ring of the clients that have jobs there,
 * each with its jobs in order: pop takes one job of the client whose turn it is and passes the
 * turn on, so clients share whatever their number of jobs. A job has two links: the main one (a run
 * queue, a fill that it waits for, random bits, or room) and the one by which a load stands in line
 * to ask for its next place (or, for lack of it, for room).
 */
#include "src/engine/internal.h"

static struct link *link_of(struct engine *e, uint32_t job, bool issue)
{
	return issue ? &e->jobs[job].issue : &e->jobs[job].link;
}

/* ---- run queues ------------------------------------------------------------------------------ */

static struct run_node *node_of(struct engine *e, uint32_t run, uint32_t priority, uint32_t client)
{
	return &e->runs[run].nodes[priority * e->config.clients + client];
}

/* The client has a job again: it goes to the end of the ring. */
static void ring_add(struct engine *e, uint32_t run, uint32_t priority, uint32_t client)
{
	struct run_queue *queue = &e->runs[run];
	struct run_node *node = node_of(e, run, priority, client);

	if (!(queue->levels & 1u << priority)) {
		queue->levels |= 1u << priority;
		queue->first[priority] = client;
		node->ring = (struct link){ client, client };
		return;
	}
	const uint32_t first = queue->first[priority];
	const uint32_t last = node_of(e, run, priority, first)->ring.prev;

	node->ring = (struct link){ .next = first, .prev = last };
	node_of(e, run, priority, last)->ring.next = client;
	node_of(e, run, priority, first)->ring.prev = client;
}

static void ring_remove(struct engine *e, uint32_t run, uint32_t priority, uint32_t client)
{
	struct run_queue *queue = &e->runs[run];
	const struct link ring = node_of(e, run, priority, client)->ring;

	if (ring.next == client) {
		queue->levels &= ~(1u << priority);
		return;
	}
	node_of(e, run, priority, ring.prev)->ring.next = ring.next;
	node_of(e, run, priority, ring.next)->ring.prev = ring.prev;
	if (queue->first[priority] == client)
		queue->first[priority] = ring.next;
}

static void push(struct engine *e, struct job *job, uint32_t run, bool issue)
{
	struct run_node *node = node_of(e, run, job->priority, job->client);
	const uint32_t number = job_number(e, job);

	/* Nodes hold job number + 1, so that zeroed memory is an empty node. */
	if (node->first == 0) {
		ring_add(e, run, job->priority, job->client);
		*link_of(e, number, issue) = (struct link){ NONE, NONE };
		node->first = node->last = number + 1;
		return;
	}
	*link_of(e, number, issue) = (struct link){ .next = NONE, .prev = node->last - 1 };
	link_of(e, node->last - 1, issue)->next = number;
	node->last = number + 1;
}

static void pull(struct engine *e, struct job *job, uint32_t run, bool issue)
{
	struct run_node *node = node_of(e, run, job->priority, job->client);
	const uint32_t number = job_number(e, job);
	const struct link link = *link_of(e, number, issue);

	if (link.prev == NONE)
		node->first = link.next + 1;	/* NONE + 1 is 0: empty */
	else
		link_of(e, link.prev, issue)->next = link.next;
	if (link.next == NONE)
		node->last = link.prev + 1;
	else
		link_of(e, link.next, issue)->prev = link.prev;
	if (node->first == 0)
		ring_remove(e, run, job->priority, job->client);
}

void run_push(struct engine *e, struct job *job, enum run run)
{
	ENGINE_ASSERT(job->where == WHERE_NOWHERE);
	job->where = WHERE_RUN;
	job->run = (uint8_t)run;
	push(e, job, run, false);
}

void run_push_issue(struct engine *e, struct job *job, uint32_t tier_bit)
{
	ENGINE_ASSERT(job->issuing == WHERE_NOWHERE);
	job->issuing = WHERE_RUN;
	job->issue_run = (uint8_t)(RUN_ISSUE + tier_bit);
	push(e, job, job->issue_run, true);
}

struct job *run_pop(struct engine *e, enum run run)
{
	struct run_queue *queue = &e->runs[run];
	const bool issue = run >= RUN_ISSUE;
	uint32_t priority, client;
	struct job *job;

	if (!queue->levels)
		return NULL;
	priority = (uint32_t)__builtin_ctz(queue->levels);
	client = queue->first[priority];
	job = &e->jobs[node_of(e, run, priority, client)->first - 1];
	queue->first[priority] = node_of(e, run, priority, client)->ring.next;
	if (issue)
		job_leave_issue(e, job);
	else
		job_leave(e, job);
	return job;
}

bool run_is_empty(const struct engine *e, enum run run)
{
	return e->runs[run].levels == 0;
}

/* ---- plain lists --------------------------------------------------------------------------------- */

static void list_push(struct engine *e, struct list *list, uint32_t job, bool issue)
{
	*link_of(e, job, issue) = (struct link){ .next = NONE, .prev = list->last };
	if (list->last == NONE)
		list->first = job;
	else
		link_of(e, list->last, issue)->next = job;
	list->last = job;
	list->n++;
}

static void list_remove(struct engine *e, struct list *list, uint32_t job, bool issue)
{
	const struct link link = *link_of(e, job, issue);

	if (link.prev == NONE)
		list->first = link.next;
	else
		link_of(e, link.prev, issue)->next = link.next;
	if (link.next == NONE)
		list->last = link.prev;
	else
		link_of(e, link.next, issue)->prev = link.prev;
	list->n--;
}

/* Jobs that wait for one entry: a stack by the main link, its head (job + 1) in e->waiters. */
void job_wait_entry(struct engine *e, struct job *job, uint32_t entry)
{
	const uint32_t head = e->waiters[entry];

	ENGINE_ASSERT(job->where == WHERE_NOWHERE);
	job->where = WHERE_ENTRY;
	job->entry = entry;
	job->link = (struct link){ .next = head ? head - 1 : NONE, .prev = NONE };
	if (head)
		e->jobs[head - 1].link.prev = job_number(e, job);
	e->waiters[entry] = job_number(e, job) + 1;
}

static void entry_unwait(struct engine *e, struct job *job)
{
	if (job->link.prev == NONE)
		e->waiters[job->entry] = job->link.next + 1;	/* NONE + 1 is 0: none */
	else
		e->jobs[job->link.prev].link.next = job->link.next;
	if (job->link.next != NONE)
		e->jobs[job->link.next].link.prev = job->link.prev;
}

static enum run run_of(const struct job *job)
{
	if (job->op == STOKER_OP_RETRIEVE)
		return RUN_RETRIEVE;
	return job->op == STOKER_OP_STORE ? RUN_STORE : RUN_LOOKUP;
}

void entry_wake(struct engine *e, uint32_t entry)
{
	while (e->waiters[entry]) {
		struct job *job = &e->jobs[e->waiters[entry] - 1];

		job_leave(e, job);
		run_push(e, job, run_of(job));
	}
}

/* Room is waited for by stores with the main link, and by loads with the other: a list for each. */
void job_wait_room(struct engine *e, struct job *job, bool issue)
{
	if (issue) {
		ENGINE_ASSERT(job->issuing == WHERE_NOWHERE);
		job->issuing = WHERE_ROOM;
		list_push(e, &e->room_loads, job_number(e, job), true);
	} else {
		ENGINE_ASSERT(job->where == WHERE_NOWHERE);
		job->where = WHERE_ROOM;
		list_push(e, &e->room_waiters, job_number(e, job), false);
	}
}

void room_wake(struct engine *e)
{
	e->room_changed = false;
	while (e->room_loads.n > 0) {
		struct job *job = &e->jobs[e->room_loads.first];

		job_leave_issue(e, job);
		run_push_issue(e, job, 0);	/* load_issue() finds the queue that it belongs to */
	}
	while (e->room_waiters.n > 0) {
		struct job *job = &e->jobs[e->room_waiters.first];

		job_leave(e, job);
		run_push(e, job, RUN_STORE);
	}
}

void job_wait_random(struct engine *e, struct job *job)
{
	ENGINE_ASSERT(job->where == WHERE_NOWHERE);
	job->where = WHERE_RANDOM;
	list_push(e, &e->random_waiters, job_number(e, job), false);
}

void random_wake(struct engine *e)
{
	while (e->random_waiters.n > 0) {
		struct job *job = &e->jobs[e->random_waiters.first];

		job_leave(e, job);
		run_push(e, job, run_of(job));
	}
}

void job_leave(struct engine *e, struct job *job)
{
	const uint32_t number = job_number(e, job);
	const uint8_t where = job->where;

	job->where = WHERE_NOWHERE;
	if (where == WHERE_RUN)
		pull(e, job, job->run, false);
	else if (where == WHERE_ENTRY)
		entry_unwait(e, job);
	else if (where == WHERE_ROOM)
		list_remove(e, &e->room_waiters, number, false);
	else if (where == WHERE_RANDOM)
		list_remove(e, &e->random_waiters, number, false);
}

void job_leave_issue(struct engine *e, struct job *job)
{
	const uint8_t issuing = job->issuing;

	job->issuing = WHERE_NOWHERE;
	if (issuing == WHERE_RUN)
		pull(e, job, job->issue_run, true);
	else if (issuing == WHERE_ROOM)
		list_remove(e, &e->room_loads, job_number(e, job), true);
}
