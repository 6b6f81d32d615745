/*
 * The state directory: a file a model under models/, named by the hex of its digest with tenant.
 *
 * A file is a header (magic, format, lengths, epoch, tag, tenant), the description as it travels, and a
 * checksum of both. It is written to another name, made durable and renamed, so a name stands for a
 * whole file. One that is not (another release's, a bad block, somebody's notes) is left alone and said
 * once: its model begins without a past, and the epochs that tiers know still keep old objects dead.
 * Reading is by the order of use, so that more files than there are places cost the oldest ones theirs.
 */
#include "src/broker/state.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#include "src/broker/files.h"
#include "src/common/log.h"

#define STATE_MAGIC	0x6c65646f6d656b73ull	/* "skemodel" */
#define STATE_FORMAT	1u
#define NAME_BYTES	(2 * MODEL_DIGEST_BYTES)
#define DESCRIPTION_MAX	(sizeof(struct model_wire) + STOKER_GROUPS_MAX * sizeof(struct model_wire_group) + \
			 MODEL_ROWS_MAX * sizeof(struct model_wire_row))

struct state_header {
	uint64_t magic;
	uint32_t format;
	uint32_t description_bytes;
	uint8_t digest[MODEL_DIGEST_BYTES];	/* with tenant */
	char tenant[64];
	uint64_t tag;
	uint32_t epoch;
	uint32_t reserved;
	uint64_t check;		/* XXH3-64 of all before, and, seeded by that, of the description */
};
static_assert(sizeof(struct state_header) == 136, "the layout on disk is a format");

static uint64_t header_check(const struct state_header *header, const void *description)
{
	return XXH3_64bits_withSeed(description, header->description_bytes,
				    XXH3_64bits(header, offsetof(struct state_header, check)));
}

static void name_make(const uint8_t *digest, char ret[NAME_BYTES + 1])
{
	for (size_t i = 0; i < MODEL_DIGEST_BYTES; i++)
		snprintf(ret + 2 * i, 3, "%02x", digest[i]);
}

/*
 * Whoever never ran a program that keeps state has no ~/.local/state yet, and the default is below it.
 * What cannot be made here is told of the directory itself.
 */
static void parents_make(const char *path)
{
	char parent[4096];

	for (const char *end = strchr(path, '/'); end && end - path < (int)sizeof(parent); end = strchr(end + 1, '/')) {
		snprintf(parent, sizeof(parent), "%.*s", (int)(end - path), path);
		(void)!mkdir(parent, 0700);
	}
}

int state_open(const char *path, char *why)
{
	char models[4096];
	int dir;

	parents_make(path);
	dir = files_directory(path, why);
	if (dir < 0)
		return dir;
	close(dir);
	if (snprintf(models, sizeof(models), "%s/models", path) >= (int)sizeof(models))
		return files_why(ENAMETOOLONG, why, "the path of the state directory is too long");
	dir = files_directory(models, why);
	if (dir < 0)
		return dir;
	close(dir);
	return 0;
}

/* A descriptor of models/, or -errno. */
static int models_open(const char *path)
{
	char models[4096];
	int dir;

	if (snprintf(models, sizeof(models), "%s/models", path) >= (int)sizeof(models))
		return -ENAMETOOLONG;
	dir = open(models, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return dir < 0 ? -errno : dir;
}

/* --- loading --- */

/* Header and description of an open file; what is wrong with it, or NULL. */
static const char *file_read(int fd, const char *name, struct state_header *header, uint8_t *description)
{
	char expected[NAME_BYTES + 1];
	struct stat st;

	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_uid != geteuid())
		return "it is no file of the broker's";
	if (files_read(fd, header, sizeof(*header), 0) < 0)
		return "it is too short or cannot be read";
	if (header->magic != STATE_MAGIC)
		return "it is no model of stoker's";
	if (header->format != STATE_FORMAT)
		return "it is of another release";
	if (header->description_bytes > DESCRIPTION_MAX ||
	    files_read(fd, description, header->description_bytes, sizeof(*header)) < 0 ||
	    header->check != header_check(header, description))
		return "it is damaged";
	name_make(header->digest, expected);
	if (strcmp(name, expected) != 0 || !memchr(header->tenant, '\0', sizeof(header->tenant)))
		return "it is another model's";
	return NULL;
}

/* The model in @name, or what is wrong with it. */
static const char *model_read(int dir, const char *name, uint8_t *description, char *why, struct state_model *ret)
{
	const int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	const char *wrong = "it cannot be opened";
	uint8_t digest[MODEL_DIGEST_BYTES];
	struct state_header header;

	if (fd >= 0) {
		wrong = file_read(fd, name, &header, description);
		close(fd);
	}
	if (wrong)
		return wrong;
	if (model_layout_make(description, header.description_bytes, why, &ret->layout) < 0)
		return why;
	model_digest_with_tenant(ret->layout->digest, header.tenant, digest);
	if (memcmp(digest, header.digest, sizeof(digest)) != 0) {
		model_layout_free(ret->layout);
		return "its digest is not that of its description";
	}
	memcpy(ret->digest, header.digest, sizeof(ret->digest));
	memcpy(ret->tenant, header.tenant, sizeof(ret->tenant));
	ret->epoch = header.epoch;
	ret->tag = header.tag;
	return NULL;
}

/** struct file - of the directory: its name, and when the model was last used. */
struct file { char name[256]; uint64_t used_ns; };

static int used_later(const void *a, const void *b)
{
	const uint64_t first = ((const struct file *)a)->used_ns, second = ((const struct file *)b)->used_ns;

	return (first < second) - (first > second);
}

/* All files of the directory, those used last first. Returns how many, or -errno. */
static int files_list(DIR *dir, struct file **ret)
{
	const struct dirent *entry;
	struct file *files = NULL;
	int n = 0;

	while ((entry = readdir(dir))) {
		struct file *more = n % 64 ? files : realloc(files, (size_t)(n + 64) * sizeof(*files));
		struct stat st;

		if (!more) {
			free(files);
			return -ENOMEM;
		}
		files = more;
		if (entry->d_name[0] == '.' ||	/* what a crash left half written among them */
		    fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		snprintf(files[n].name, sizeof(files[n].name), "%s", entry->d_name);
		files[n++].used_ns = (uint64_t)st.st_mtim.tv_sec * 1000000000u + (uint64_t)st.st_mtim.tv_nsec;
	}
	if (n > 0)
		qsort(files, (size_t)n, sizeof(*files), used_later);
	*ret = files;
	return n;
}

static int load_from(DIR *dir, const char *path, int (*each)(void *arg, struct state_model *model), void *arg)
{
	uint8_t *description = malloc(DESCRIPTION_MAX);
	struct file *files = NULL;
	char why[FILES_WHY];
	int n = description ? files_list(dir, &files) : -ENOMEM, r = n < 0 ? n : 0;

	for (int i = 0; i < n && r >= 0; i++) {
		struct state_model model = { .used_ns = files[i].used_ns };
		const char *wrong = model_read(dirfd(dir), files[i].name, description, why, &model);

		if (wrong)
			log_warning("the model in %s/models/%.80s is not known any more: %s; the file is left as it is", path,
				    files[i].name, wrong);
		else
			r = each(arg, &model);
	}
	free(files);
	free(description);
	return r < 0 ? r : 0;
}

int state_load_models(const char *path, int (*each)(void *arg, struct state_model *model), void *arg)
{
	const int fd = models_open(path);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;

	if (!dir) {
		if (fd >= 0)
			close(fd);
		return fd < 0 ? fd : -ENOMEM;
	}
	const int r = load_from(dir, path, each, arg);
	closedir(dir);
	return r;
}

/* --- saving --- */

/* The description as it travels: the head, its groups, its rows. */
static size_t description_make(const struct model_layout *layout, uint8_t *to)
{
	const size_t groups = layout->wire.n_groups * sizeof(layout->groups[0]);
	const size_t rows = layout->wire.n_rows * sizeof(layout->rows[0]);

	memcpy(to, &layout->wire, sizeof(layout->wire));
	memcpy(to + sizeof(layout->wire), layout->groups, groups);
	memcpy(to + sizeof(layout->wire) + groups, layout->rows, rows);
	return sizeof(layout->wire) + groups + rows;
}

static int file_write(int dir, const char *name, const void *bytes, size_t n)
{
	char temporary[NAME_BYTES + 8];
	int fd, r;

	snprintf(temporary, sizeof(temporary), ".%s.new", name);
	unlinkat(dir, temporary, 0);
	fd = openat(dir, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	r = files_write(fd, bytes, n, 0);
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	close(fd);
	if (r == 0)
		r = files_rename(dir, temporary, name);
	if (r < 0)
		unlinkat(dir, temporary, 0);
	return r;
}

int state_save_model(const char *path, const struct state_model *model)
{
	struct state_header *file = calloc(1, sizeof(*file) + DESCRIPTION_MAX);
	uint8_t *description = (uint8_t *)(file + 1);
	const int dir = models_open(path);
	char name[NAME_BYTES + 1];
	int r = dir < 0 ? dir : file ? 0 : -ENOMEM;

	if (r == 0) {
		file->magic = STATE_MAGIC;
		file->format = STATE_FORMAT;
		memcpy(file->digest, model->digest, sizeof(file->digest));
		memcpy(file->tenant, model->tenant, strnlen(model->tenant, sizeof(file->tenant) - 1));
		file->tag = model->tag;
		file->epoch = model->epoch;
		file->description_bytes = (uint32_t)description_make(model->layout, description);
		file->check = header_check(file, description);
		name_make(model->digest, name);
		r = file_write(dir, name, file, sizeof(*file) + file->description_bytes);
	}
	if (dir >= 0)
		close(dir);
	free(file);
	return r;
}

void state_touch_model(const char *path, const uint8_t digest[MODEL_DIGEST_BYTES])
{
	const int dir = models_open(path);
	char name[NAME_BYTES + 1];

	name_make(digest, name);
	if (dir < 0)
		return;
	utimensat(dir, name, NULL, AT_SYMLINK_NOFOLLOW);	/* if it fails, the model only counts as older */
	close(dir);
}

uint64_t state_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* --- forgetting --- */

#define FLOOR_NAME	"epochs"
#define FLOOR_MAGIC	0x6873706f656b73ull	/* "skepohs" */

struct floor_file {
	uint64_t magic;
	uint32_t format;
	uint32_t epoch;
	uint64_t check;		/* XXH3-64 of all before */
};
static_assert(sizeof(struct floor_file) == 24, "the layout on disk is a format");

int state_load_floor(const char *path, uint32_t *ret)
{
	const int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct floor_file file;
	char why[FILES_WHY];
	int fd, r;

	*ret = 0;
	if (dir < 0)
		return -errno;
	fd = files_open(dir, path, FLOOR_NAME, O_RDONLY, why);
	close(dir);
	if (fd < 0)
		return fd == -ENOENT ? 0 : fd;
	r = files_read(fd, &file, sizeof(file), 0);
	close(fd);
	if (r == 0 && (file.magic != FLOOR_MAGIC || file.format != STATE_FORMAT ||
		       file.check != XXH3_64bits(&file, offsetof(struct floor_file, check))))
		r = -EBADMSG;
	if (r == 0)
		*ret = file.epoch;
	return r;
}

static int floor_save(const char *path, uint32_t epoch)
{
	struct floor_file file = { .magic = FLOOR_MAGIC, .format = STATE_FORMAT, .epoch = epoch };
	const int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r = dir < 0 ? -errno : 0;

	file.check = XXH3_64bits(&file, offsetof(struct floor_file, check));
	if (r == 0)
		r = file_write(dir, FLOOR_NAME, &file, sizeof(file));
	if (dir >= 0)
		close(dir);
	return r;
}

int state_forget_model(const char *path, const uint8_t digest[MODEL_DIGEST_BYTES], uint32_t epoch, uint32_t *floor)
{
	char name[NAME_BYTES + 1];
	int dir, r = 0;

	if (epoch > *floor)
		r = floor_save(path, epoch);
	if (r < 0)
		return r;
	*floor = epoch > *floor ? epoch : *floor;
	dir = models_open(path);
	if (dir < 0)
		return dir;
	name_make(digest, name);
	if ((unlinkat(dir, name, 0) < 0 && errno != ENOENT) || fsync(dir) < 0)
		r = -errno;
	close(dir);
	return r;
}
