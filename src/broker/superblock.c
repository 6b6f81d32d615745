/* The superblock of a tier; see superblock.h. */
#include "src/broker/superblock.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>
#include <xxhash.h>

#include "src/broker/files.h"

static uint64_t check_of(struct superblock *superblock)
{
	const uint64_t said = superblock->check;
	uint64_t check;

	superblock->check = 0;
	check = XXH3_64bits(superblock, sizeof(*superblock));
	superblock->check = said;
	return check;
}

/*
 * Of this machine, so that a disk that was moved is noticed: what another machine stored may be
 * of other models' bytes under the same names. All zero where the machine has no id.
 */
static void machine_hash(uint8_t ret[16])
{
	static const char *const paths[] = { "/etc/machine-id", "/var/lib/dbus/machine-id" };
	char text[64];

	memset(ret, 0, 16);
	for (size_t i = 0; i < 2; i++) {
		FILE *file = fopen(paths[i], "re");
		const size_t n = file ? fread(text, 1, sizeof(text), file) : 0;

		if (file)
			fclose(file);
		if (n > 16) {
			const XXH128_hash_t hash = XXH3_128bits(text, n);

			memcpy(ret, &hash, 16);
			return;
		}
	}
}

struct superblock *superblock_new(uint64_t extent_bytes)
{
	struct superblock *superblock = aligned_alloc(4096, sizeof(*superblock));

	if (!superblock)
		return NULL;
	memset(superblock, 0, sizeof(*superblock));
	superblock->magic = SUPERBLOCK_MAGIC;
	superblock->format = SUPERBLOCK_FORMAT;
	superblock->extent_bytes = extent_bytes;
	machine_hash(superblock->machine);
	if (getrandom(superblock->uuid, sizeof(superblock->uuid), 0) != sizeof(superblock->uuid)) {
		free(superblock);
		return NULL;
	}
	return superblock;
}

/* The copy that counts into @ret, or what keeps both from counting: 0, -EBADMSG, -EPROTONOSUPPORT, -EUCLEAN. */
static int newest_copy(int fd, struct superblock *spare, struct superblock *ret, uint32_t *format)
{
	bool good = false, ours = false;

	for (uint64_t i = 0; i < 2; i++) {
		if (files_read(fd, spare, sizeof(*spare), i * SUPERBLOCK_BYTES) < 0 ||
		    spare->magic != SUPERBLOCK_MAGIC)
			continue;
		ours = true;
		if (spare->format != SUPERBLOCK_FORMAT) {
			*format = spare->format;
			return -EPROTONOSUPPORT;
		}
		if (spare->check != check_of(spare) || (good && spare->generation <= ret->generation))
			continue;
		memcpy(ret, spare, sizeof(*ret));
		good = true;
	}
	return good ? 0 : ours ? -EUCLEAN : -EBADMSG;
}

int superblock_read(int fd, const char *name, const char *anew, uint64_t extent_bytes, char *why,
		    struct superblock *ret)
{
	struct superblock *spare = aligned_alloc(4096, sizeof(*spare));
	uint32_t format = 0;
	uint8_t machine[16];
	int r;

	if (!spare)
		return files_why(ENOMEM, why, "no memory to read %.120s", name);
	r = newest_copy(fd, spare, ret, &format);
	free(spare);
	machine_hash(machine);
	if (r == -EBADMSG)
		return files_why(EBADMSG, why, "%.120s is no tier of stoker's; move it away or name another directory", name);
	if (r == -EPROTONOSUPPORT)
		return files_why(-r, why, "%.120s has format %" PRIu32 " and this broker writes %u; %.60s to begin anew, "
				 "or run the release that made it", name, format, SUPERBLOCK_FORMAT, anew);
	if (r < 0)
		return files_why(-r, why, "both superblocks of %.120s are damaged; %.60s to begin anew", name, anew);
	if (memcmp(ret->machine, machine, sizeof(machine)) != 0)
		return files_why(EXDEV, why, "%.120s was made on another machine; %.60s to begin anew", name, anew);
	if (ret->extent_bytes != extent_bytes)
		return files_why(EINVAL, why, "%.120s has extents of %" PRIu64 " bytes and the broker of %" PRIu64
				 "; set them alike, or %.60s to begin anew", name, ret->extent_bytes, extent_bytes, anew);
	return 0;
}

int superblock_write(int fd, struct superblock *superblock)
{
	int r;

	superblock->generation++;
	superblock->check = check_of(superblock);
	r = files_write(fd, superblock, sizeof(*superblock), superblock->generation % 2 * SUPERBLOCK_BYTES);
	if (r == 0 && fdatasync(fd) < 0)
		r = -errno;
	if (r < 0)
		superblock->generation--;	/* so that the next try does not touch the good copy */
	return r;
}

int superblock_model(struct superblock *superblock, const uint8_t digest[MODEL_DIGEST_BYTES], bool make)
{
	int unused = -1;

	for (int i = 0; i < (int)SUPERBLOCK_MODELS; i++) {
		const struct superblock_model *model = &superblock->models[i];

		if (model->used && memcmp(model->digest, digest, MODEL_DIGEST_BYTES) == 0)
			return i;
		if (!model->used && unused < 0)
			unused = i;
	}
	if (make && unused >= 0) {
		struct superblock_model *model = &superblock->models[unused];

		*model = (struct superblock_model){ .used = 1 };
		memcpy(model->digest, digest, MODEL_DIGEST_BYTES);
		return unused;
	}
	return -1;
}
