/*
 * The slab table of a tier: which object lies where, as an append-only log.
 *
 * `stoker-slabs` is a header page and entries of 128 bytes, one for every image that has become
 * complete (ADD) and one for every place that is given up (REMOVE), each with a checksum seeded
 * by the log's own random id, so that entries of an older log are none of this one. The last entry
 * that touches a unit of the tier tells what is there: so the log is read backwards, an ADD counts
 * if nothing newer has claimed any of its units, and everything read claims its units. The order of
 * the log decides, not the objects' sequence, because an old object may be written anew.
 *
 * What may be lost and why that is harmless: entries that a crash of the machine or a bad block
 * takes with it are an ADD (the object is forgotten: a miss) or a REMOVE (an older ADD seems to
 * count, and its place may hold other bytes by now). The latter is kept rare: nobody writes to a place
 * before the REMOVE of it is durable (slabs_needs(), tier-io.c). And it is never wrong even so:
 * the image's own header decides at the read (tier uuid, model, key, sequence), the checksum of
 * the payload before it is served. So wrong bytes are never served on the word of this log.
 *
 * Compaction: when the log is more than twice what lives, it is read backwards a chunk a step into
 * a new file, what was appended meanwhile follows, and the new file is renamed over the old one.
 *
 * On a block device the log has two areas of fixed size and no name. The area whose good header has the higher
 * generation is the log; a compaction writes into the other one, and its header last. How long the
 * log is follows from its entries: those of this log alone check, so it is read on until none has for a while. An
 * area that is full forgets what is stored until a compaction has made room, as a full disk does.
 *
 * Threads: open and recover before the tier's thread, all else by that thread alone.
 */
#ifndef STOKER_BROKER_SLABS_H
#define STOKER_BROKER_SLABS_H

#include <stdbool.h>

#include "src/broker/superblock.h"

#define SLABS_MAGIC	0x7362616c73656b73ull	/* "skeslabs" */
#define SLABS_FORMAT	1u
#define SLABS_HEADER	4096u
#define SLABS_BATCH	4096u	/* entries appended at once at most */
#define SLABS_CHUNK	8192u	/* entries read at once: 1 MiB */

enum slab_op { SLAB_ADD = 1, SLAB_REMOVE = 2 };

struct slab_entry {
	struct stoker_wire_key key, parent;
	uint64_t account, sequence, first_token, checksum;
	uint32_t unit, units;		/* of 4,096 bytes in the tier */
	uint32_t epoch, tokens;
	uint16_t model;			/* row of the superblock */
	uint8_t group, shard;
	uint8_t op;			/* enum slab_op */
	uint8_t reserved[3];
	uint64_t check;			/* XXH3-64 of all before, seeded by the log's id */
};
static_assert(sizeof(struct slab_entry) == 128, "the layout on disk is a format");
static_assert(offsetof(struct slab_entry, check) == 120, "the layout on disk is a format");

struct slabs_header {
	uint64_t magic;
	uint32_t format, entry_bytes;
	uint8_t uuid[16];		/* of the tier */
	uint64_t id;			/* random: seed of the entries' checksums */
	uint64_t check;			/* XXH3-64 of all before */
	uint64_t generation;		/* on a device: the higher of two counts, from 1; in a file 0 */
	uint64_t generation_check;	/* XXH3-64 of `generation`, seeded by `check` */
};

struct slabs;

/*
 * Open the log of the tier @uuid in directory @dir, or make it; @path names the directory in
 * reasons. @units: of the tier. A damaged header, or a log that is missing beside a tier that is not
 * @fresh, is a log line and an empty table. Returns 0; -errno with the reason in @why if the file is
 * not ours, which leaves it as it is.
 */
int slabs_open(int dir, const char *path, const uint8_t uuid[16], uint64_t units, bool fresh, char *why,
	       struct slabs **ret);
/*
 * The same on the block device @fd (which stays the caller's), @path in reasons: two areas of @bytes each,
 * from @at on. What is there and is no log of the tier @uuid is overwritten: the superblock says whose it is.
 */
int slabs_open_device(int fd, const char *path, uint64_t at, uint64_t bytes, const uint8_t uuid[16], uint64_t units,
		      bool fresh, char *why, struct slabs **ret);
void slabs_close(struct slabs *slabs);		/* appends what waits; NULL is fine */

/* Every entry that counts, newest first, until @each says false. Also learns how many live. */
int slabs_recover(struct slabs *slabs, bool (*each)(void *arg, const struct slab_entry *entry), void *arg);

bool slabs_is_full(const struct slabs *slabs);	/* a batch is waiting: slabs_write() before more is added */
void slabs_append(struct slabs *slabs, const struct slab_entry *entry);	/* the check is filled in */
int slabs_write(struct slabs *slabs);		/* to the page cache; on -errno the batch waits on */
void slabs_drop_batch(struct slabs *slabs);	/* it could not be written: what it said is lost */

/*
 * Durability. Positions count the entries ever appended. What is to be durable before a place is
 * written anew is slabs_needs(), asked when the write comes in; slabs_position() as it was when an
 * fdatasync(slabs_fd()) began, after slabs_write(), is durable when it has ended.
 */
uint64_t slabs_position(const struct slabs *slabs);
uint64_t slabs_needs(const struct slabs *slabs);	/* the position after the last REMOVE */
int slabs_fd(const struct slabs *slabs);

/*
 * Compaction. Wanted says that it is worth it or under way; a step does about 1 MiB of it, returns 1
 * while there is more, 0 when the new log has its name (slabs_fd() has changed), -errno when it was
 * given up and the old log stays. @live counts, per row of the superblock, the entries kept.
 */
bool slabs_compact_wanted(const struct slabs *slabs);
int slabs_compact_step(struct slabs *slabs, bool force, uint32_t live[SUPERBLOCK_MODELS]);

#endif
