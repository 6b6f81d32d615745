/* stokerctl clients: who is attached and what they hold, from the control page. */
#include <inttypes.h>
#include <stdio.h>

#include "src/ctl/ctl.h"

static json_t *json_client(const struct control_client *client)
{
	json_t *row = json_object();

	ctl_set_text(row, "name", client->name);
	ctl_set(row, "uid", client->uid);
	ctl_set(row, "pid", client->pid);
	ctl_set(row, "attached_ns", ctl_uptime_ns(client->attached_ns));
	ctl_set(row, "jobs", client->jobs);
	ctl_set(row, "leases", client->leases);
	ctl_set(row, "holds", client->holds);
	ctl_set(row, "pools", client->pools);
	ctl_set(row, "lookups", client->lookups);
	ctl_set(row, "retrieves", client->retrieves);
	ctl_set(row, "stores", client->stores);
	return row;
}

static void print_client(const struct control_client *client)
{
	char since[32];

	printf("%-24s %7" PRIu32 " %7" PRIu32 " %10s %6" PRIu64 " %6" PRIu64 " %6" PRIu64 " %6" PRIu64 " %10" PRIu64
	       " %10" PRIu64 " %10" PRIu64 "\n",
	       client->name, client->uid, client->pid, ctl_duration(ctl_uptime_ns(client->attached_ns), since),
	       client->jobs, client->leases, client->holds, client->pools, client->lookups, client->retrieves,
	       client->stores);
}

enum ctl_exit ctl_clients(const struct ctl *ctl, char **arguments)
{
	const struct control_page *page;
	struct control_client client;
	const enum ctl_exit e = ctl_page(ctl, &page);
	json_t *object, *list;

	(void)arguments;
	if (e != CTL_DONE)
		return e;
	object = ctl_object(ctl);
	list = json_array();
	if (!ctl->json)
		printf("%-24s %7s %7s %10s %6s %6s %6s %6s %10s %10s %10s\n", "name", "uid", "pid", "attached", "jobs",
		       "leases", "holds", "pools", "lookups", "retrieves", "stores");
	for (uint32_t i = 0; i < CONTROL_CLIENTS; i++) {
		if (!control_read_client(page, i, &client) || !client.used)
			continue;
		if (ctl->json)
			json_array_append_new(list, json_client(&client));
		else
			print_client(&client);
	}
	control_unmap(page);
	json_object_set_new(object, "clients", list);
	if (ctl->json)
		return ctl_print(object);
	json_decref(object);
	return CTL_DONE;
}
