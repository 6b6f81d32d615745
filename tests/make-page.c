/*
 * make-page NAME [dead|rude|names SOCKET|answers SOCKET|greets SOCKET]: a control page as a broker would make it,
 * with known figures, for tests of what reads pages; a rude one has texts that a terminal would obey. It names
 * no socket, unless told so. With "answers" it stays, listens there, and refuses every verb with a rude reason; with
 * "greets" every greeting. Removing page and socket is the test's business.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "shm/control.h"
#include "shm/message.h"

static struct control_page *page_new(const char *name)
{
	const int fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0644);
	void *page;

	if (fd < 0 || ftruncate(fd, sizeof(struct control_page)) < 0)
		return NULL;
	page = mmap(NULL, sizeof(struct control_page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	return page == MAP_FAILED ? NULL : page;
}

static void figures(struct control_page *page)
{
	const struct control_tier tier = { .state = STOKER_TIER_SERVING, .name = "disk0", .path = "/var/tmp/tier",
					   .bytes = 1000, .used_bytes = 400, .objects = 4, .read_errors = 1,
					   .write_errors = 2, .checksum_errors = 3 };
	const struct control_client client = { .used = 1, .name = "worker 0", .uid = 1000, .pid = 4711, .jobs = 1,
					       .leases = 2, .holds = 3, .pools = 4, .lookups = 5, .retrieves = 6,
					       .stores = 7 };
	const struct control_gpu gpu = { .state = STOKER_GPU_ENDING, .name = "GPU-00000000-0000-0000-0000-0123456789ab",
					 .why = "it fell off the bus", .restarts = 21, .registered_bytes = 22,
					 .imported_bytes = 23, .bounced_bytes = 24, .load_bytes = 25, .store_bytes = 26,
					 .regions = 27, .pools = 28 };

	page->gauges[STOKER_GAUGE_ARENA_BYTES] = 1 << 30;
	page->gauges[STOKER_GAUGE_ARENA_POPULATED] = 1 << 29;
	page->gauges[STOKER_GAUGE_ARENA_USED] = 1 << 20;
	page->gauges[STOKER_GAUGE_ARENA_PINNED] = 1 << 12;
	page->gauges[STOKER_GAUGE_ARENA_OBJECTS] = 17;
	page->gauges[STOKER_GAUGE_CLIENTS] = 1;
	page->gauges[STOKER_GAUGE_LEASES] = 2;
	/* Counters of two threads are summed. */
	block_add(&page->blocks[0], STOKER_COUNTER_HITS_L1, 30);
	block_add(&page->blocks[1], STOKER_COUNTER_HITS_L1, 12);
	block_add(&page->blocks[0], STOKER_COUNTER_MISSES, 8);
	for (int i = 0; i < 100; i++)
		block_record(&page->blocks[0], STOKER_HISTOGRAM_LOOKUP_NS, 1000);
	control_write_tier(page, 0, &tier);
	control_write_client(page, 2, &client);
	control_write_gpu(page, CONTROL_GPUS - 1, &gpu);
}

static void be_rude(struct control_page *page)
{
	const struct control_tier tier = { .state = STOKER_TIER_SERVING, .name = "\033[2Jdisk",
					   .path = "/\xc2\x9b" "2J\n\xc3\xa4" };
	const struct control_client client = { .used = 1, .name = "\xff\x9b" "2J\033]0;worker\a" };
	const struct control_gpu gpu = { .state = 77, .name = "GPU\033c", .why = "\033[2Jgone\n" };

	snprintf(page->version, sizeof(page->version), "\033[2J1.2.3");
	control_write_tier(page, 0, &tier);
	control_write_client(page, 2, &client);
	control_write_gpu(page, CONTROL_GPUS - 1, &gpu);
}

#define RUDE_REASON "\033[2Jnot \xc2\x9bnow\r"

static bool answer(int sock, bool greets)
{
	char in[4096];
	struct message_header header;
	struct message_welcome welcome = { .header = { MESSAGE_WELCOME, sizeof(welcome), 1 }, .abi = STOKER_ABI,
					   .status = greets ? STOKER_STATUS_REFUSED : STOKER_STATUS_OK,
					   .reason = RUDE_REASON };
	struct message_answer refusal = { .header = { MESSAGE_ANSWER, sizeof(refusal), 0 },
					  .status = STOKER_STATUS_REFUSED, .reason = RUDE_REASON };
	const ssize_t n = recv(sock, in, sizeof(in), 0);

	if (n < (ssize_t)sizeof(header))
		return false;
	memcpy(&header, in, sizeof(header));
	refusal.header.request = header.request;
	if (header.type == MESSAGE_HELLO)
		return send(sock, &welcome, sizeof(welcome), MSG_NOSIGNAL) > 0;
	return send(sock, &refusal, sizeof(refusal), MSG_NOSIGNAL) > 0;
}

/* One after the other, until somebody kills it. */
static int serve(const char *path, bool greets)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const int listener = socket(AF_UNIX, SOCK_SEQPACKET, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	if (bind(listener, (const struct sockaddr *)&address, sizeof(address)) < 0 || listen(listener, 8) < 0)
		return 1;
	puts("listens");
	fflush(stdout);
	for (;;) {
		const int sock = accept(listener, NULL, NULL);

		while (sock >= 0 && answer(sock, greets))
			;
		close(sock);
	}
}

int main(int argc, char **argv)
{
	struct control_page *page = argc >= 2 ? page_new(argv[1]) : NULL;
	struct timespec now;

	if (!page) {
		fputs("make-page: could not make the page\n", stderr);
		return 1;
	}
	clock_gettime(CLOCK_BOOTTIME, &now);
	page->abi = STOKER_ABI;
	page->bytes = sizeof(*page);
	page->boot_id[0] = 0xab;
	page->started_ns = (uint64_t)now.tv_sec * 1000000000u - 1000000000u;
	page->pid = 4242;
	snprintf(page->name, sizeof(page->name), "%s", argv[1]);
	snprintf(page->version, sizeof(page->version), "1.2.3");
	atomic_store(&page->state, STOKER_STATE_DEGRADED);
	figures(page);
	if (argc > 2 && strcmp(argv[2], "rude") == 0)
		be_rude(page);
	atomic_store(&page->dead, argc > 2 && strcmp(argv[2], "dead") == 0);
	if (argc > 3)
		snprintf(page->socket, sizeof(page->socket), "%s", argv[3]);
	page->magic = CONTROL_MAGIC;
	return argc > 3 && strcmp(argv[2], "names") != 0 ? serve(argv[3], strcmp(argv[2], "greets") == 0) : 0;
}
