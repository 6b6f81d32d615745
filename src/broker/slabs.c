/* The slab table of a tier; slabs.h says what it promises and why. */
#include "src/broker/slabs.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "src/broker/files.h"
#include "src/broker/places.h"
#include "src/common/log.h"

#define LOG_NAME	"stoker-slabs"
#define NEW_NAME	"stoker-slabs.new"
#define WORTH_IT	8192u	/* dead entries that are not worth a compaction */
#define QUIET		(8 * SLABS_CHUNK)	/* entries that do not check: the end of a log on a device */

/* A file, or an area of a device, that is read or written as a log. */
struct log_file {
	int fd;
	uint64_t id;		/* seed of its checksums */
	uint64_t generation;
	uint64_t at;		/* where it begins */
	uint64_t entries;	/* in it */
	uint64_t room;		/* for entries */
};

struct compaction {
	struct log_file file;	/* the new log; fd -1: none under way */
	uint64_t *places;
	uint64_t back;		/* entries of the old log still to be read backwards */
	uint64_t forward;	/* next of the old log to follow, appended since it began */
	uint64_t live;		/* ADDs kept that no REMOVE has followed */
};

struct slabs {
	int dir;		/* -1: on a device */
	int device;		/* -1: in a directory */
	uint64_t area[2], area_bytes;
	char *path;
	uint8_t uuid[16];
	uint64_t units;
	struct log_file file;
	uint64_t live;		/* ADDs that count, about */
	uint64_t position, needs;
	uint32_t n_batch;
	struct slab_entry batch[SLABS_BATCH];
	struct slab_entry chunk[SLABS_CHUNK];	/* of who reads */
	struct compaction compaction;
};

static uint64_t entry_check(const struct slab_entry *entry, uint64_t id)
{
	return XXH3_64bits_withSeed(entry, offsetof(struct slab_entry, check), id);
}

static uint64_t entry_offset(const struct log_file *file, uint64_t i)
{
	return file->at + SLABS_HEADER + i * sizeof(struct slab_entry);
}

/* Whole entries at the end of @file: 0, or -errno. */
static int entries_write(struct log_file *file, const struct slab_entry *entries, uint32_t n)
{
	int r;

	if (n > file->room - file->entries)
		return -ENOSPC;
	r = files_write(file->fd, entries, n * sizeof(*entries), entry_offset(file, file->entries));
	if (r == 0)
		file->entries += n;
	return r;
}

/* Good in itself and within the tier, so that nobody behind has to doubt it. */
static bool entry_is_good(const struct slabs *slabs, const struct slab_entry *entry, uint64_t id)
{
	return entry->check == entry_check(entry, id) && (entry->op == SLAB_ADD || entry->op == SLAB_REMOVE) &&
	       entry->model < SUPERBLOCK_MODELS && entry->units > 0 && entry->unit < slabs->units &&
	       entry->units <= slabs->units - entry->unit;
}

/* --- files --- */

static uint64_t generation_check(const struct slabs_header *header)
{
	return XXH3_64bits_withSeed(&header->generation, sizeof(header->generation), header->check);
}

static int header_write(const struct log_file *file, const uint8_t uuid[16])
{
	struct slabs_header header = { .magic = SLABS_MAGIC, .format = SLABS_FORMAT,
				       .entry_bytes = sizeof(struct slab_entry), .id = file->id,
				       .generation = file->generation };

	memcpy(header.uuid, uuid, sizeof(header.uuid));
	header.check = XXH3_64bits(&header, offsetof(struct slabs_header, check));
	header.generation_check = file->generation ? generation_check(&header) : 0;
	return files_write(file->fd, &header, sizeof(header), file->at);
}

/* A new, empty log under @name, whatever was there. */
static int file_make(int dir, const char *name, const uint8_t uuid[16], struct log_file *ret)
{
	int r = 0;

	unlinkat(dir, name, 0);
	*ret = (struct log_file){ .room = UINT64_MAX };
	ret->fd = openat(dir, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (ret->fd < 0)
		return -errno;
	if (getrandom(&ret->id, sizeof(ret->id), 0) != sizeof(ret->id))
		r = -EIO;
	if (r == 0)
		r = header_write(ret, uuid);
	if (r == 0 && ftruncate(ret->fd, SLABS_HEADER) < 0)
		r = -errno;
	if (r < 0) {
		close(ret->fd);
		ret->fd = -1;
		unlinkat(dir, name, 0);
	}
	return r;
}

/* 0: the log of this tier; 1: ours, but worth nothing any more; -errno: not ours, reason in @why. */
static int file_look(const struct slabs *slabs, struct log_file *file, char *why)
{
	struct slabs_header header = { 0 };
	struct stat st;
	int r;

	if (fstat(file->fd, &st) < 0)
		return files_why(errno, why, "cannot look at %.120s/" LOG_NAME ": %m", slabs->path);
	if (st.st_size == 0)
		return 1;
	r = files_read(file->fd, &header, sizeof(header), 0);
	if (r == -EIO)
		return 1;
	if (header.magic != SLABS_MAGIC)
		return files_why(EBADMSG, why, "%.120s/" LOG_NAME " is no slab table of stoker's; move it away or name "
				 "another directory", slabs->path);
	if (r < 0 || header.check != XXH3_64bits(&header, offsetof(struct slabs_header, check)))
		return 1;
	if (header.format != SLABS_FORMAT || header.entry_bytes != sizeof(struct slab_entry))
		return files_why(EPROTONOSUPPORT, why, "%.120s/" LOG_NAME " has format %u and this broker writes %u; remove it "
				 "to begin anew, or run the release that made it", slabs->path, header.format, SLABS_FORMAT);
	if (memcmp(header.uuid, slabs->uuid, sizeof(header.uuid)) != 0)
		return files_why(EXDEV, why, "%.100s/" LOG_NAME " belongs to another tier than the stoker-tier beside it; "
				 "remove it to begin anew", slabs->path);
	file->id = header.id;
	file->room = UINT64_MAX;
	/* A torn entry at the end is overwritten by the next one. */
	file->entries = (uint64_t)st.st_size < SLABS_HEADER ? 0 :
			((uint64_t)st.st_size - SLABS_HEADER) / sizeof(struct slab_entry);
	return 0;
}

static int file_open(struct slabs *slabs, bool fresh, char *why)
{
	int r, fd = files_open(slabs->dir, slabs->path, LOG_NAME, O_RDWR, why);

	if (fd < 0 && fd != -ENOENT)
		return fd;
	slabs->file.fd = fd < 0 ? -1 : fd;
	r = fd < 0 ? 1 : file_look(slabs, &slabs->file, why);
	if (r <= 0)
		return r;
	if (!fresh)
		log_warning("the slab table %s/" LOG_NAME " is %s: what was on that tier is forgotten", slabs->path,
			    fd < 0 ? "missing" : "damaged at its start");
	if (fd >= 0)
		close(fd);
	r = file_make(slabs->dir, NEW_NAME, slabs->uuid, &slabs->file);
	if (r == 0 && fsync(slabs->file.fd) < 0)
		r = -errno;
	if (r == 0)
		r = files_rename(slabs->dir, NEW_NAME, LOG_NAME);
	if (r < 0) {
		errno = -r;
		files_why(-r, why, "cannot make %.120s/" LOG_NAME ": %m", slabs->path);
	}
	return r;
}

static struct slabs *slabs_new(const char *path, const uint8_t uuid[16], uint64_t units)
{
	struct slabs *slabs = calloc(1, sizeof(*slabs));

	if (!slabs)
		return NULL;
	slabs->dir = slabs->device = slabs->file.fd = slabs->compaction.file.fd = -1;
	slabs->units = units;
	memcpy(slabs->uuid, uuid, sizeof(slabs->uuid));
	slabs->path = strdup(path);
	return slabs;
}

static int slabs_made(struct slabs *slabs, int r, struct slabs **ret)
{
	if (r < 0) {
		slabs_close(slabs);
		return r;
	}
	slabs->position = slabs->file.entries;
	*ret = slabs;
	return 0;
}

int slabs_open(int dir, const char *path, const uint8_t uuid[16], uint64_t units, bool fresh, char *why,
	       struct slabs **ret)
{
	struct slabs *slabs = slabs_new(path, uuid, units);
	int r;

	if (slabs && slabs->path) {
		slabs->dir = dir;
		r = file_open(slabs, fresh, why);
	} else {
		r = files_why(ENOMEM, why, "no memory for the slab table of %.120s", path);
	}
	return slabs_made(slabs, r, ret);
}

static void compaction_end(struct slabs *slabs)
{
	struct compaction *c = &slabs->compaction;

	if (c->file.fd >= 0) {
		close(c->file.fd);
		if (slabs->dir >= 0)
			unlinkat(slabs->dir, NEW_NAME, 0);
	}
	free(c->places);
	*c = (struct compaction){ .file.fd = -1 };
}

void slabs_close(struct slabs *slabs)
{
	if (!slabs)
		return;
	compaction_end(slabs);
	if (slabs->file.fd >= 0) {
		slabs_write(slabs);
		close(slabs->file.fd);
	}
	free(slabs->path);
	free(slabs);
}

/* --- reading --- */

/* Entries [first, first + n) into slabs->chunk. Pages that cannot be read come as zeros, which check as nothing. */
static void chunk_read(struct slabs *slabs, const struct log_file *file, uint64_t first, uint32_t n)
{
	uint8_t *bytes = (uint8_t *)slabs->chunk;
	const size_t total = (size_t)n * sizeof(struct slab_entry);

	if (files_read(file->fd, bytes, total, entry_offset(file, first)) == 0)
		return;
	for (size_t at = 0; at < total;) {
		const size_t page = total - at < 4096 ? total - at : 4096;

		if (files_read(file->fd, bytes + at, page, entry_offset(file, first) + at) < 0)
			memset(bytes + at, 0, page);
		at += page;
	}
}

/*
 * The chunk that ends at *back, backwards: every good entry claims its units, every ADD that had
 * them all to itself is given to @each. Moves *back. False if @each has had enough.
 */
static bool chunk_backwards(struct slabs *slabs, uint64_t *places, uint64_t *back,
			    bool (*each)(void *arg, const struct slab_entry *entry), void *arg)
{
	const uint32_t n = *back < SLABS_CHUNK ? (uint32_t)*back : SLABS_CHUNK;

	*back -= n;
	chunk_read(slabs, &slabs->file, *back, n);
	for (uint32_t i = n; i-- > 0;) {
		const struct slab_entry *entry = &slabs->chunk[i];

		if (!entry_is_good(slabs, entry, slabs->file.id))
			continue;
		if (places_claim(places, entry->unit, entry->units) && entry->op == SLAB_ADD && !each(arg, entry))
			return false;
	}
	return true;
}

struct recovery {
	struct slabs *slabs;
	bool (*each)(void *arg, const struct slab_entry *entry);
	void *arg;
};

static bool recover_one(void *arg, const struct slab_entry *entry)
{
	struct recovery *recovery = arg;

	recovery->slabs->live++;
	return recovery->each(recovery->arg, entry);
}

int slabs_recover(struct slabs *slabs, bool (*each)(void *arg, const struct slab_entry *entry), void *arg)
{
	struct recovery recovery = { slabs, each, arg };
	uint64_t back = slabs->file.entries, *places = places_new(slabs->units);

	if (!places)
		return -ENOMEM;
	slabs->live = 0;
	while (back > 0 && chunk_backwards(slabs, places, &back, recover_one, &recovery))
		;
	free(places);
	return 0;
}

/* --- appending --- */

bool slabs_is_full(const struct slabs *slabs)
{
	return slabs->n_batch == SLABS_BATCH;
}

void slabs_append(struct slabs *slabs, const struct slab_entry *entry)
{
	struct slab_entry *to = &slabs->batch[slabs->n_batch];

	assert(!slabs_is_full(slabs));
	*to = *entry;
	to->check = entry_check(to, slabs->file.id);
	slabs->n_batch++;
	slabs->position++;
	if (entry->op == SLAB_REMOVE) {
		slabs->needs = slabs->position;
		slabs->live -= slabs->live > 0;
	} else {
		slabs->live++;
	}
}

int slabs_write(struct slabs *slabs)
{
	const int r = slabs->n_batch == 0 ? 0 : entries_write(&slabs->file, slabs->batch, slabs->n_batch);

	if (r == 0)
		slabs->n_batch = 0;
	return r;
}

void slabs_drop_batch(struct slabs *slabs)
{
	slabs->n_batch = 0;
}

uint64_t slabs_position(const struct slabs *slabs)
{
	return slabs->position;
}

uint64_t slabs_needs(const struct slabs *slabs)
{
	return slabs->needs;
}

int slabs_fd(const struct slabs *slabs)
{
	return slabs->file.fd;
}

/* --- on a device --- */

/* An empty log in area @which, whose header is written when it is to count. */
static int area_make(const struct slabs *slabs, uint32_t which, struct log_file *ret)
{
	*ret = (struct log_file){
		.fd = fcntl(slabs->device, F_DUPFD_CLOEXEC, 0), .at = slabs->area[which],
		.generation = slabs->file.generation + 1,
		.room = (slabs->area_bytes - SLABS_HEADER) / sizeof(struct slab_entry),
	};
	if (ret->fd < 0)
		return -errno;
	if (getrandom(&ret->id, sizeof(ret->id), 0) == sizeof(ret->id))
		return 0;
	close(ret->fd);
	ret->fd = -1;
	return -EIO;
}

/* Does a log of this tier begin at area @which? Then its @ret_id, and its generation, which is above 0. */
static uint64_t area_look(const struct slabs *slabs, uint32_t which, uint64_t *ret_id)
{
	struct slabs_header header;

	if (files_read(slabs->device, &header, sizeof(header), slabs->area[which]) < 0 ||
	    header.magic != SLABS_MAGIC || header.format != SLABS_FORMAT ||
	    header.check != XXH3_64bits(&header, offsetof(struct slabs_header, check)) ||
	    header.generation_check != generation_check(&header) ||
	    memcmp(header.uuid, slabs->uuid, sizeof(header.uuid)) != 0)
		return 0;
	*ret_id = header.id;
	return header.generation;
}

/* How long the log is: up to the last entry that checks before a stretch where none does. */
static void area_measure(struct slabs *slabs)
{
	struct log_file *file = &slabs->file;

	for (uint64_t at = 0; at < file->room && at < file->entries + QUIET; at += SLABS_CHUNK) {
		const uint64_t left = file->room - at;
		const uint32_t n = left < SLABS_CHUNK ? (uint32_t)left : SLABS_CHUNK;

		chunk_read(slabs, file, at, n);
		for (uint32_t i = 0; i < n; i++)
			if (slabs->chunk[i].check == entry_check(&slabs->chunk[i], file->id))
				file->entries = at + i + 1;
	}
}

static int area_open(struct slabs *slabs, bool fresh, char *why)
{
	uint64_t id[2] = { 0 };
	const uint64_t generation[2] = { area_look(slabs, 0, &id[0]), area_look(slabs, 1, &id[1]) };
	const uint32_t which = generation[1] > generation[0];
	int r = area_make(slabs, which, &slabs->file);

	if (r == 0 && generation[which] > 0) {
		slabs->file.id = id[which];
		slabs->file.generation = generation[which];
		area_measure(slabs);
		return 0;
	}
	if (r == 0 && !fresh)
		log_warning("the slab table of %s is damaged at its start: what was on that tier is forgotten", slabs->path);
	if (r == 0)
		r = header_write(&slabs->file, slabs->uuid);
	if (r == 0 && fdatasync(slabs->file.fd) < 0)
		r = -errno;
	if (r < 0) {
		errno = -r;
		files_why(-r, why, "cannot make the slab table of %.120s: %m", slabs->path);
	}
	return r;
}

int slabs_open_device(int fd, const char *path, uint64_t at, uint64_t bytes, const uint8_t uuid[16], uint64_t units,
		      bool fresh, char *why, struct slabs **ret)
{
	struct slabs *slabs = slabs_new(path, uuid, units);
	int r;

	if (slabs && slabs->path) {
		slabs->device = fd;
		slabs->area[0] = at;
		slabs->area[1] = at + bytes;
		slabs->area_bytes = bytes;
		r = area_open(slabs, fresh, why);
	} else {
		r = files_why(ENOMEM, why, "no memory for the slab table of %.120s", path);
	}
	return slabs_made(slabs, r, ret);
}

/* --- compaction --- */

bool slabs_compact_wanted(const struct slabs *slabs)
{
	const struct log_file *file = &slabs->file;
	const uint64_t little = file->room / 8 < WORTH_IT ? file->room / 8 : WORTH_IT;

	return slabs->compaction.file.fd >= 0 || file->entries > 2 * slabs->live + little ||
	       (file->entries > file->room / 4 * 3 && file->entries > slabs->live + little);
}

static int compaction_begin(struct slabs *slabs, uint32_t *live)
{
	struct compaction *c = &slabs->compaction;
	int r;

	memset(live, 0, SUPERBLOCK_MODELS * sizeof(*live));
	c->places = places_new(slabs->units);
	if (!c->places)
		return -ENOMEM;
	r = slabs->dir >= 0 ? file_make(slabs->dir, NEW_NAME, slabs->uuid, &c->file) :
			      area_make(slabs, slabs->file.at == slabs->area[0], &c->file);
	c->back = c->forward = slabs->file.entries;
	return r;
}

/* What is to be kept of a chunk, sealed for the new log, in the order in which it was read. */
struct kept {
	struct compaction *c;
	uint32_t *live;		/* by row of the superblock */
	uint32_t n;
	struct slab_entry entries[SLABS_CHUNK];
};

static bool keep_one(void *arg, const struct slab_entry *entry)
{
	struct kept *kept = arg;
	struct slab_entry *to = &kept->entries[kept->n++];

	*to = *entry;
	to->check = entry_check(to, kept->c->file.id);
	if (to->op == SLAB_ADD) {
		kept->live[to->model]++;
		kept->c->live++;
	} else {
		kept->c->live -= kept->c->live > 0;
	}
	return true;
}

/* What was appended since the compaction began is followed as it is. */
static void keep_forward(struct slabs *slabs, struct compaction *c, struct kept *kept)
{
	const uint64_t left = slabs->file.entries - c->forward;
	const uint32_t n = left < SLABS_CHUNK ? (uint32_t)left : SLABS_CHUNK;

	chunk_read(slabs, &slabs->file, c->forward, n);
	for (uint32_t i = 0; i < n; i++)
		if (entry_is_good(slabs, &slabs->chunk[i], slabs->file.id))
			keep_one(kept, &slabs->chunk[i]);
	c->forward += n;
}

/* The new log is whole: give it its name, or its header. */
static int compaction_finish(struct slabs *slabs)
{
	struct compaction *c = &slabs->compaction;
	int r = 0;

	if (fdatasync(c->file.fd) < 0)
		return -errno;
	if (slabs->dir < 0)
		r = header_write(&c->file, slabs->uuid);
	else if (renameat(slabs->dir, NEW_NAME, slabs->dir, LOG_NAME) < 0)
		r = -errno;
	if (r < 0)
		return r;
	/* From here on the new log is the log, even if making that durable fails: then a crash brings
	 * back the old one, and what it misses is lost like any newest entry. */
	r = fsync(slabs->dir >= 0 ? slabs->dir : c->file.fd) < 0 ? -errno : 0;
	close(slabs->file.fd);
	slabs->file = c->file;
	slabs->live = c->live;
	c->file.fd = -1;
	for (uint32_t i = 0; i < slabs->n_batch; i++) {
		slabs->batch[i].check = entry_check(&slabs->batch[i], slabs->file.id);
		if (slabs->batch[i].op == SLAB_ADD)
			slabs->live++;
		else
			slabs->live -= slabs->live > 0;
	}
	compaction_end(slabs);
	return r;
}

int slabs_compact_step(struct slabs *slabs, bool force, uint32_t live[SUPERBLOCK_MODELS])
{
	struct compaction *c = &slabs->compaction;
	struct kept *kept;
	int r = 0;

	if (c->file.fd < 0 && (force || slabs_compact_wanted(slabs)))
		r = compaction_begin(slabs, live);
	kept = r < 0 ? NULL : malloc(sizeof(*kept));
	if (r == 0 && !kept)
		r = -ENOMEM;
	if (r == 0) {
		kept->c = c;
		kept->live = live;
		kept->n = 0;
		if (c->back > 0)
			chunk_backwards(slabs, c->places, &c->back, keep_one, kept);
		else
			keep_forward(slabs, c, kept);
		r = entries_write(&c->file, kept->entries, kept->n);
		/* Begin to write back now, so that the one fdatasync() at the end has little left to do. */
		sync_file_range(c->file.fd, 0, 0, SYNC_FILE_RANGE_WRITE);
	}
	free(kept);
	if (r == 0 && (c->back > 0 || c->forward < slabs->file.entries))
		return 1;
	if (r == 0)
		r = compaction_finish(slabs);
	else
		compaction_end(slabs);
	return r;
}
