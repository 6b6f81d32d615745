/*
 * stokerctl accounts: what each account has. The broker tells some rows of its accounting table at a time, and goes
 * on serving in between: what moves meanwhile may be seen as it was or as it is, each row by itself is right.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "src/common/size.h"
#include "src/ctl/ctl.h"

#define PATIENCE_MS	5000u

struct accounts {
	struct message_account *rows;
	size_t n;
};

struct told {
	struct message_answer answer;
	struct message_account rows[MESSAGE_ACCOUNTS_MAX];
};

/* What the broker has told, with clean texts, at the end of @all. */
static enum ctl_exit append(const struct ctl *ctl, struct accounts *all, const struct told *told)
{
	const uint32_t n = told->answer.number;
	struct message_account *rows;

	if (n > MESSAGE_ACCOUNTS_MAX || told->answer.header.bytes != sizeof(told->answer) + n * sizeof(told->rows[0]))
		return ctl_fail(CTL_FAILED, "the broker \"%s\" told accounts that make no sense", ctl->name);
	rows = realloc(all->rows, (all->n + n + 1) * sizeof(*rows));
	if (!rows)
		return ctl_fail(CTL_FAILED, "out of memory");
	all->rows = rows;
	for (uint32_t i = 0; i < n; i++) {
		rows[all->n] = told->rows[i];
		ctl_clean(rows[all->n].tenant, sizeof(rows[all->n].tenant));
		all->n++;
	}
	return CTL_DONE;
}

static enum ctl_exit ask_all(const struct ctl *ctl, int sock, struct accounts *all)
{
	struct told told;
	uint64_t next = 0;
	enum ctl_exit e;

	do {
		const uint64_t from = next;

		e = ctl_question(ctl, sock, ADMIN_VERB_ACCOUNTS, from, PATIENCE_MS, &told.answer, sizeof(told));
		if (e == CTL_DONE)
			e = append(ctl, all, &told);
		next = told.answer.value;
		if (e == CTL_DONE && next != 0 && next <= from)
			e = ctl_fail(CTL_FAILED, "the broker \"%s\" tells the same accounts again", ctl->name);
	} while (e == CTL_DONE && next != 0);
	return e;
}

/* A label has 64 bits, more than a number of JSON can be trusted with: it is text. */
static json_t *json_account(const struct message_account *account)
{
	json_t *row = json_object();
	char label[24];

	snprintf(label, sizeof(label), "%" PRIu64, account->account);
	ctl_set_text(row, "tenant", account->tenant);
	json_object_set_new(row, "account", account->others ? json_null() : json_string(label));
	ctl_set(row, "chunks", account->chunks);
	ctl_set(row, "arena_bytes", account->arena_bytes);
	ctl_set(row, "disk_bytes", account->disk_bytes);
	ctl_set(row, "arena_quota", account->arena_quota);
	ctl_set(row, "disk_quota", account->disk_quota);
	return row;
}

static char *quota_text(uint64_t bytes, char ret[16])
{
	if (bytes == 0)
		snprintf(ret, 16, "none");
	else
		size_text(bytes, ret);
	return ret;
}

static void print_account(const struct message_account *account)
{
	char label[24], a[16], b[16], c[16], d[16];

	if (account->others)
		snprintf(label, sizeof(label), "(others)");
	else
		snprintf(label, sizeof(label), "%" PRIu64, account->account);
	printf("%-16s %20s %10" PRIu32 " %10s %10s %10s %10s\n", account->tenant, label, account->chunks,
	       size_text(account->arena_bytes, a), quota_text(account->arena_quota, b), size_text(account->disk_bytes, c),
	       quota_text(account->disk_quota, d));
}

static enum ctl_exit print(const struct ctl *ctl, const struct accounts *all)
{
	json_t *object, *list;

	if (!ctl->json) {
		printf("%-16s %20s %10s %10s %10s %10s %10s\n", "tenant", "account", "chunks", "arena", "quota", "disk", "quota");
		for (size_t i = 0; i < all->n; i++)
			print_account(&all->rows[i]);
		return CTL_DONE;
	}
	object = ctl_object(ctl);
	list = json_array();
	for (size_t i = 0; i < all->n; i++)
		json_array_append_new(list, json_account(&all->rows[i]));
	json_object_set_new(object, "accounts", list);
	return ctl_print(object);
}

enum ctl_exit ctl_accounts(const struct ctl *ctl, char **arguments)
{
	struct accounts all = { 0 };
	int sock;
	enum ctl_exit e = ctl_open(ctl, &sock);

	(void)arguments;
	if (e != CTL_DONE)
		return e;
	e = ask_all(ctl, sock, &all);
	close(sock);
	if (e == CTL_DONE)
		e = print(ctl, &all);
	free(all.rows);
	return e;
}
