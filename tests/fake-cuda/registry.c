/* The directory of the fake: files that are held, counted and swept. See registry.h. */
#include "tests/fake-cuda/registry.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/fake-cuda/fake-cuda.h"

#define PATH_BYTES 4096u

static void path_of(const char *directory, const char *name, char *path)
{
	if (snprintf(path, PATH_BYTES, "%s/%s", directory, name) >= (int)PATH_BYTES)
		abort();
}

static struct flock lock_of(enum registry_lock lock)
{
	return (struct flock){
		.l_type = lock == REGISTRY_OWNER ? F_WRLCK : F_RDLCK,
		.l_whence = SEEK_SET,
		.l_start = lock == REGISTRY_OWNER ? 0 : 1,
		.l_len = 1,
	};
}

static int hold(int fd, enum registry_lock which)
{
	struct flock lock = lock_of(which);

	return fcntl(fd, F_OFD_SETLK, &lock) == 0 ? fd : -errno;
}

bool registry_is_held(int fd, enum registry_lock which)
{
	struct flock lock = lock_of(which);

	lock.l_type = F_WRLCK;
	return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

int registry_create(const char *directory, const char *kind, unsigned device, uint64_t bytes, char *name)
{
	static _Atomic unsigned number;
	const unsigned mine = atomic_fetch_add(&number, 1);
	char from[PATH_BYTES], to[PATH_BYTES], fresh[REGISTRY_NAME + 8];
	int fd, r;

	snprintf(name, REGISTRY_NAME, "%s-%u-%d-%u", kind, device, (int)getpid(), mine);
	snprintf(fresh, sizeof(fresh), "new-%s", name);
	path_of(directory, fresh, from);
	path_of(directory, name, to);
	fd = open(from, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	/* Locked before it can be seen under its name: who looks would sweep it otherwise. */
	r = ftruncate(fd, (off_t)bytes) == 0 ? hold(fd, REGISTRY_OWNER) : -errno;
	if (r >= 0 && rename(from, to) < 0)
		r = -errno;
	if (r < 0) {
		unlink(from);
		close(fd);
	}
	return r;
}

int registry_join(const char *directory, const char *name)
{
	char path[PATH_BYTES];
	int fd, r;

	path_of(directory, name, path);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = hold(fd, REGISTRY_GUEST);
	if (r >= 0 && !registry_is_held(fd, REGISTRY_OWNER))
		r = -ENOENT;		/* its owner freed it, or died */
	if (r < 0)
		close(fd);
	return r;
}

int registry_reopen(int fd)
{
	char path[64];
	int copy, r;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	copy = open(path, O_RDWR | O_CLOEXEC);
	if (copy < 0)
		return -errno;
	r = hold(copy, REGISTRY_GUEST);
	if (r < 0)
		close(copy);
	return r;
}

void registry_unlink(const char *directory, const char *name)
{
	char path[PATH_BYTES];

	path_of(directory, name, path);
	unlink(path);
}

void registry_abort(const char *directory, const char *message)
{
	char path[PATH_BYTES], name[32];
	int fd;

	snprintf(name, sizeof(name), "abort-%d", (int)getpid());
	path_of(directory, name, path);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd >= 0) {
		if (write(fd, message, strlen(message)) < 0)
			perror(path);
		close(fd);
	}
}

/* --- what tests ask --------------------------------------------------------------------------------------------- */

struct fake_cuda_control *fake_cuda_open(const char *directory)
{
	char path[PATH_BYTES];
	void *control = MAP_FAILED;
	int fd;

	path_of(directory, "control", path);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return NULL;
	if (ftruncate(fd, sizeof(struct fake_cuda_control)) == 0)
		control = mmap(NULL, sizeof(struct fake_cuda_control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	return control == MAP_FAILED ? NULL : control;
}

void fake_cuda_close(struct fake_cuda_control *control)
{
	if (control)
		munmap(control, sizeof(*control));
}

void fake_cuda_fail(struct fake_cuda_control *control, enum fake_call call, int32_t n, enum cuda_result with)
{
	atomic_store(&control->fail_with[call], with);
	atomic_store(&control->fail_in[call], n);
}

/* Calls @visit for every file of the kinds that @prefix begins; those that nobody holds are swept before. */
static void visit_all(const char *directory, const char *prefix,
		      void (*visit)(const char *name, const struct stat *file, void *data), void *data)
{
	DIR *files = opendir(directory);
	const struct dirent *entry;

	while (files && (entry = readdir(files))) {
		char path[PATH_BYTES];
		struct stat file;
		bool held;
		int fd;

		if (strncmp(entry->d_name, prefix, strlen(prefix)) != 0)
			continue;
		path_of(directory, entry->d_name, path);
		fd = open(path, O_RDWR | O_CLOEXEC);
		if (fd < 0)
			continue;	/* swept by somebody else */
		held = registry_is_held(fd, REGISTRY_OWNER) || registry_is_held(fd, REGISTRY_GUEST);
		if (!held)
			unlink(path);
		else if (fstat(fd, &file) == 0)
			visit(entry->d_name, &file, data);
		close(fd);
	}
	if (files)
		closedir(files);
}

static void add_size(const char *name, const struct stat *file, void *data)
{
	uint64_t *sum = data;

	(void)name;
	*sum += (uint64_t)file->st_size;
}

uint64_t fake_cuda_memory(const char *directory, unsigned device)
{
	char prefix[32];
	uint64_t sum = 0;

	snprintf(prefix, sizeof(prefix), "memory-%u-", device);
	visit_all(directory, prefix, add_size, &sum);
	return sum;
}

struct count {
	pid_t pid;
	unsigned n;
};

static void count_import(const char *name, const struct stat *file, void *data)
{
	struct count *count = data;
	int pid = 0;

	(void)file;
	if (sscanf(name, "import-%*u-%d-", &pid) == 1 && (count->pid == 0 || count->pid == pid))
		count->n++;
}

unsigned fake_cuda_imports(const char *directory, pid_t pid)
{
	struct count count = { .pid = pid };

	visit_all(directory, "import-", count_import, &count);
	return count.n;
}

unsigned fake_cuda_aborts(const char *directory, char *text, size_t bytes)
{
	DIR *files = opendir(directory);
	const struct dirent *entry;
	unsigned n = 0;

	while (files && (entry = readdir(files))) {
		char path[PATH_BYTES];
		FILE *file;

		if (strncmp(entry->d_name, "abort-", 6) != 0)
			continue;
		n++;
		path_of(directory, entry->d_name, path);
		file = text ? fopen(path, "re") : NULL;
		if (file) {
			text[fread(text, 1, bytes - 1, file)] = '\0';
			fclose(file);
		}
	}
	if (files)
		closedir(files);
	return n;
}

void fake_cuda_uuid(unsigned device, struct cuda_uuid *ret)
{
	static const char pattern[] = { 'f', 'a', 'k', 'e', '-', 'c', 'u', 'd', 'a', '-', 'g', 'p', 'u', '-', 0, 0 };

	static_assert(sizeof(pattern) == sizeof(ret->bytes), "a UUID has 16 bytes");
	memcpy(ret->bytes, pattern, sizeof(pattern));
	ret->bytes[15] = (char)(device + 1);
}

void fake_cuda_remove(const char *directory)
{
	DIR *files = opendir(directory);
	const struct dirent *entry;

	while (files && (entry = readdir(files)))
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			registry_unlink(directory, entry->d_name);
	if (files)
		closedir(files);
	rmdir(directory);
}
