/*
 * Opens libcuda and fills the table of driver.h: once for the process, when somebody first needs it.
 *
 * Drivers of 12.0 and later are asked by cuGetProcAddress, with the version that brought each signature:
 * that alone tells the two signatures of one name apart. For older ones the library's own symbols bear
 * the version in their names. An entry newer than the driver is not looked for at all: a driver refuses
 * versions above its own. Nothing is kept of a failure, and nothing is ever closed: threads of the
 * driver may already run in its code.
 */
#include "src/device/cuda/driver.h"

#include <assert.h>
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define GET_PROC_ADDRESS_SINCE	12000	/* cuGetProcAddress in its second form */

typedef enum cuda_result (*get_proc_address)(const char *symbol, void **ret, int version, uint64_t flags,
					     int *status);

enum need { OPTIONAL, NEEDED };
static const struct entry {
	const char *symbol, *exported;
	int since;
	enum need need;
	size_t offset;			/* of its field */
} entries[] = {
#define CUDA_ENTRY_AS_ROW(field, symbol, exported, since, need, parameters) \
	{ #symbol, #exported, since, need, offsetof(struct cuda_driver, field) },
	CUDA_ENTRIES(CUDA_ENTRY_AS_ROW)
};
static_assert(sizeof(void *) == sizeof(enum cuda_result (*)(void)), "dlsym() gives functions as pointers");

static struct {
	pthread_mutex_t mutex;
	bool open;
	char library[4096];
	struct cuda_driver driver;
} process = { .mutex = PTHREAD_MUTEX_INITIALIZER };

__attribute__((format(printf, 3, 4)))
static int refuse_driver(char *why, int error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(why, CUDA_WHY, format, args);
	va_end(args);
	return error;
}

/* What @result of a call that comes before all others means for the machine. */
static int refuse_result(char *why, const char *name, const struct cuda_driver *driver, enum cuda_result result)
{
	char text[CUDA_TEXT];

	switch (result) {
	case CUDA_RESULT_NO_DEVICE:
		return refuse_driver(why, -ENODEV, "%s finds no GPU that this process may use; see nvidia-smi, "
				     "CUDA_VISIBLE_DEVICES, and what the container was given", name);
	case CUDA_RESULT_STUB_LIBRARY:
		return refuse_driver(why, -ENOENT, "%s is the toolkit's stub, not a driver; have the driver's "
				     "library found before it", name);
	default:
		return refuse_driver(why, -EIO, "the driver behind %s would not start: %s; see whether nvidia-smi "
				     "works", name, cuda_error_text(driver, result, text));
	}
}

static void *look_up(void *library, get_proc_address ask, const struct entry *entry)
{
	void *function = NULL;
	int status = 0;

	if (!ask)
		return dlsym(library, entry->exported);
	if (ask(entry->symbol, &function, entry->since, CUDA_GET_PROC_ADDRESS_LEGACY_STREAM, &status) != CUDA_OK)
		return NULL;
	return function;
}

static int read_version(void *library, const char *name, char *why, int *ret)
{
	enum cuda_result (*get_version)(int *) = NULL;
	void *function = dlsym(library, "cuDriverGetVersion");
	enum cuda_result result;

	if (!function)
		return refuse_driver(why, -ENOSYS, "%s is not the library of NVIDIA's driver: it has no "
				     "cuDriverGetVersion; name the right file", name);
	memcpy(&get_version, &function, sizeof(function));
	result = get_version(ret);
	if (result != CUDA_OK)
		return refuse_result(why, name, NULL, result);
	if (*ret < CUDA_DRIVER_MIN)
		return refuse_driver(why, -ENOSYS, "the driver behind %s speaks CUDA %d.%d, and %d.%d is needed at "
				     "least; install a newer driver", name, *ret / 1000, *ret % 1000 / 10,
				     CUDA_DRIVER_MIN / 1000, CUDA_DRIVER_MIN % 1000 / 10);
	return 0;
}

/* Fill @driver from @library; entries that a driver need not have stay NULL where it has not. */
static int look_up_all(void *library, const char *name, char *why, struct cuda_driver *driver)
{
	get_proc_address ask = NULL;

	if (driver->version >= GET_PROC_ADDRESS_SINCE) {
		void *function = dlsym(library, "cuGetProcAddress_v2");

		memcpy(&ask, &function, sizeof(function));
	}
	for (size_t i = 0; i < sizeof(entries) / sizeof(entries[0]); i++) {
		const struct entry *entry = &entries[i];
		void *function = NULL;

		if (entry->since <= driver->version)
			function = look_up(library, ask, entry);
		if (!function && entry->need == NEEDED)
			return refuse_driver(why, -ENOSYS, "%s (CUDA %d.%d) has no %s, which is needed; install "
					     "NVIDIA's own driver of CUDA %d.%d or later", name,
					     driver->version / 1000, driver->version % 1000 / 10, entry->symbol,
					     CUDA_DRIVER_MIN / 1000, CUDA_DRIVER_MIN % 1000 / 10);
		memcpy((char *)driver + entry->offset, &function, sizeof(function));
	}
	return 0;
}

static int open_library(const char *name, char *why, struct cuda_driver *ret)
{
	struct cuda_driver driver = { 0 };
	void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
	enum cuda_result result;
	int r;

	if (!library) {
		const char *error = dlerror();

		return refuse_driver(why, -ENOENT, "could not open %s: %s; install NVIDIA's driver, or have the "
				     "container given the host's", name, error ? error : "no reason told");
	}
	r = read_version(library, name, why, &driver.version);
	if (r == 0)
		r = look_up_all(library, name, why, &driver);
	if (r < 0)
		return r;
	result = driver.init(0);
	if (result != CUDA_OK)
		return refuse_result(why, name, &driver, result);
	*ret = driver;
	return 0;
}

int cuda_driver_open(const char *library, char *why, const struct cuda_driver **ret)
{
	const char *name = library && library[0] ? library : CUDA_LIBRARY;
	int r = 0;

	pthread_mutex_lock(&process.mutex);
	if (process.open && strcmp(name, process.library) != 0) {
		r = refuse_driver(why, -EBUSY, "%s cannot be opened: this process already uses %s; name the same "
				  "library everywhere", name, process.library);
	} else if (!process.open && strlen(name) >= sizeof(process.library)) {
		r = refuse_driver(why, -ENOENT, "could not open CUDA's library: its name is longer than %zu bytes",
				  sizeof(process.library) - 1);
	} else if (!process.open) {
		r = open_library(name, why, &process.driver);
		if (r == 0) {
			memcpy(process.library, name, strlen(name) + 1);
			process.open = true;
		}
	}
	if (r == 0)
		*ret = &process.driver;
	pthread_mutex_unlock(&process.mutex);
	return r;
}

/* --- errors ----------------------------------------------------------------------------------------------------- */

/* The name that we know, for when the driver is not there to be asked. */
static const char *own_name(enum cuda_result result)
{
	switch ((int)result) {
	case CUDA_OK:
		return "CUDA_SUCCESS";
#define CUDA_RESULT_AS_NAME(name, value, fatal) case (value): return "CUDA_ERROR_" #name;
	CUDA_RESULTS(CUDA_RESULT_AS_NAME)
	default:
		return NULL;
	}
}

const char *cuda_error_text(const struct cuda_driver *driver, enum cuda_result result, char *text)
{
	const char *name = NULL, *words = NULL;

	if (driver && driver->get_error_name(result, &name) != CUDA_OK)
		name = NULL;
	if (driver && driver->get_error_string(result, &words) != CUDA_OK)
		words = NULL;
	if (!name)
		name = own_name(result);
	if (words && name)
		snprintf(text, CUDA_TEXT, "%s (%s, %d)", words, name, (int)result);
	else if (name)
		snprintf(text, CUDA_TEXT, "%s (%d)", name, (int)result);
	else
		snprintf(text, CUDA_TEXT, "an error without a name (%d)", (int)result);
	return text;
}

bool cuda_result_is_fatal(enum cuda_result result)
{
	switch ((int)result) {
#define CUDA_RESULT_AS_FATAL(name, value, fatal) case (value): return (fatal);
	CUDA_RESULTS(CUDA_RESULT_AS_FATAL)
	case 226:			/* CUDA_ERROR_CONTAINED, _TENSOR_MEMORY_LEAK and _EXTERNAL_DEVICE: */
	case 721:			/* not in every cuda.h that driver.h is held against */
	case 911:
		return true;
	default:
		return false;
	}
}
