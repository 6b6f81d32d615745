/* What the environment asks of the fake, and the way into and out of every call. See fake.h. */
#include "tests/fake-cuda/fake.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct fake fake = { .mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };

static const struct {
	const char *symbol, *exported;
	int since;
	void *function;
} calls[] = {
#define FAKE_CALL_AS_ROW(field, symbol, exported, since, need, parameters) \
	{ #symbol, #exported, since, (void *)fake_##field },
	CUDA_ENTRIES(FAKE_CALL_AS_ROW)
};
#define N_CALLS (sizeof(calls) / sizeof(calls[0]))

/* What FAKE_CUDA_FAIL asks: counted in this process alone. */
static struct plan {
	uint64_t in;			/* calls until then; 0: none */
	enum cuda_result with;
} plans[FAKE_CALLS];

void fake_die(const char *format, ...)
{
	char message[512];
	va_list args;

	va_start(args, format);
	vsnprintf(message, sizeof(message), format, args);
	va_end(args);
	fprintf(stderr, "fake-cuda: %s\n", message);
	if (fake.config.directory[0])
		registry_abort(fake.config.directory, message);
	abort();
}

/* --- the environment -------------------------------------------------------------------------------------------- */

static uint64_t number_of(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);
	char *end;
	uint64_t number;

	if (!text || !text[0])
		return otherwise;
	number = strtoull(text, &end, 0);
	if (*end)
		fake_die("%s is \"%s\": a number was expected", name, text);
	return number;
}

/* Is @word one of the words in @list, between commas? */
static bool lists(const char *list, const char *word)
{
	const size_t length = strlen(word);

	for (const char *at = list; at && (at = strstr(at, word)); at += length)
		if ((at == list || at[-1] == ',') && (at[length] == ',' || at[length] == '\0'))
			return true;
	return false;
}

static void plan_one(const char *text)
{
	char symbol[64];
	unsigned long long n;
	unsigned code;

	if (sscanf(text, "%63[^:]:%llu:%u", symbol, &n, &code) != 3 || n == 0)
		fake_die("FAKE_CUDA_FAIL has \"%s\": symbol:n:code was expected", text);
	if (strcmp(symbol, "execute") == 0) {
		plans[FAKE_CALL_execute] = (struct plan){ n, code };
		return;
	}
	for (size_t i = 0; i < N_CALLS; i++)
		if (strcmp(symbol, calls[i].symbol) == 0 || strcmp(symbol, calls[i].exported) == 0) {
			plans[i] = (struct plan){ n, code };
			symbol[0] = '\0';
			break;
		}
	if (symbol[0])
		fake_die("FAKE_CUDA_FAIL has \"%s\": no such symbol is used", symbol);
}

static void read_plans(void)
{
	char copy[1024], *rest = copy, *one;

	snprintf(copy, sizeof(copy), "%s", getenv("FAKE_CUDA_FAIL") ? getenv("FAKE_CUDA_FAIL") : "");
	while ((one = strsep(&rest, ",")))
		if (one[0])
			plan_one(one);
}

/* The machine's number of the device that @word of CUDA_VISIBLE_DEVICES names; -1: none. */
static int device_named(const char *word)
{
	char *end;
	long number;

	for (unsigned i = 0; i < fake.config.machine_devices; i++) {
		struct cuda_uuid uuid;
		char text[48];
		int length = 0;

		fake_cuda_uuid(i, &uuid);
		length += sprintf(text, "GPU-");
		for (unsigned byte = 0; byte < 16; byte++)
			length += sprintf(text + length, byte == 4 || byte == 6 || byte == 8 || byte == 10 ? "-%02x" : "%02x",
					  (unsigned char)uuid.bytes[byte]);
		if (strcmp(word, text) == 0)
			return (int)i;
	}
	number = strtol(word, &end, 10);
	return word[0] && !*end && number >= 0 && number < (long)fake.config.machine_devices ? (int)number : -1;
}

static void read_devices(struct fake_config *config)
{
	const char *visible = getenv("CUDA_VISIBLE_DEVICES");
	char copy[1024], *rest = copy, *one;

	config->machine_devices = (unsigned)number_of("FAKE_CUDA_DEVICES", 1);
	if (config->machine_devices > FAKE_DEVICES_MAX)
		fake_die("FAKE_CUDA_DEVICES is %u: %u at most", config->machine_devices, FAKE_DEVICES_MAX);
	for (unsigned i = 0; !visible && i < config->machine_devices; i++)
		config->devices[config->n_devices++] = i;
	snprintf(copy, sizeof(copy), "%s", visible ? visible : "");
	while (visible && (one = strsep(&rest, ",")) && config->n_devices < FAKE_DEVICES_MAX) {
		const int device = device_named(one);

		if (device < 0)
			break;		/* as CUDA does: what follows an unknown one is not seen either */
		config->devices[config->n_devices++] = (unsigned)device;
	}
}

static void lock(void)
{
	pthread_mutex_lock(&fake.mutex);
}

static void unlock(void)
{
	pthread_mutex_unlock(&fake.mutex);
}

static void read_environment(void)
{
	struct fake_config *config = &fake.config;
	const char *directory = getenv("FAKE_CUDA_DIR"), *lacks = getenv("FAKE_CUDA_LACKS");
	const char *missing = getenv("FAKE_CUDA_MISSING");

	snprintf(config->directory, sizeof(config->directory), "%s", directory ? directory : "");
	snprintf(config->missing, sizeof(config->missing), "%s", missing ? missing : "");
	config->version = (int)number_of("FAKE_CUDA_VERSION", 13000);
	config->memory = number_of("FAKE_CUDA_MEMORY", UINT64_C(1) << 30);
	config->register_max = number_of("FAKE_CUDA_REGISTER_MAX", UINT64_C(64) << 30);
	config->pin_max = number_of("FAKE_CUDA_PIN_MAX", UINT64_MAX);
	config->seed = number_of("FAKE_CUDA_SEED", 1);
	config->hang = number_of("FAKE_CUDA_HANG", 0);
	config->pageable = number_of("FAKE_CUDA_PAGEABLE", 0) != 0;
	config->lacks_stream_values = lists(lacks, "stream-values");
	config->lacks_batch = lists(lacks, "batch");
	config->lacks_posix_handles = lists(lacks, "posix-handles");
	config->lacks_read_only = lists(lacks, "read-only-register");
	config->lacks_vmm = lists(lacks, "vmm");
	config->lacks_peer = lists(lacks, "peer");
	config->lacks_ipc = lists(lacks, "ipc");
	fake.random = config->seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
	read_devices(config);
	read_plans();
	if (config->directory[0])
		fake.control = fake_cuda_open(config->directory);
	pthread_atfork(lock, unlock, unlock);	/* a child can call, and is refused */
}

static pthread_once_t environment = PTHREAD_ONCE_INIT;

uint64_t fake_below(uint64_t n)
{
	fake.random ^= fake.random << 13;	/* xorshift64 */
	fake.random ^= fake.random >> 7;
	fake.random ^= fake.random << 17;
	return n ? fake.random % n : 0;
}

/* --- errors ----------------------------------------------------------------------------------------------------- */

static const struct error {
	enum cuda_result result;
	const char *name;
	bool fatal;
} errors[] = {
	{ CUDA_OK, "CUDA_SUCCESS", false },
#define RESULT_AS_ROW(name, value, fatal) { value, "CUDA_ERROR_" #name, fatal },
	CUDA_RESULTS(RESULT_AS_ROW)
};

static const struct error *error_of(enum cuda_result result)
{
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
		if (errors[i].result == result)
			return &errors[i];
	return NULL;
}

enum cuda_result fake_get_error_name(enum cuda_result error, const char **name)
{
	const struct error *known = error_of(error);

	*name = known ? known->name : NULL;
	return known ? CUDA_OK : CUDA_RESULT_INVALID_VALUE;
}

enum cuda_result fake_get_error_string(enum cuda_result error, const char **text)
{
	const struct error *known = error_of(error);

	*text = !known ? NULL : error == CUDA_RESULT_OUT_OF_MEMORY ? "out of memory" : "the fake driver's error";
	return known ? CUDA_OK : CUDA_RESULT_INVALID_VALUE;
}

/* --- every call ------------------------------------------------------------------------------------------------- */

bool fake_countdown(_Atomic int32_t *left)
{
	int32_t n = atomic_load(left);

	while (n > 0)
		if (atomic_compare_exchange_weak(left, &n, n - 1))
			return n == 1;
	return false;
}

enum cuda_result fake_injected(enum fake_call call)
{
	if (plans[call].in > 0 && --plans[call].in == 0)
		return plans[call].with;
	if (fake.control && fake_countdown(&fake.control->fail_in[call]))
		return atomic_load(&fake.control->fail_with[call]);
	return CUDA_OK;
}

void fake_kill_context(enum cuda_result with)
{
	if (fake.dead == CUDA_OK)
		fake.dead = with;
	pthread_cond_broadcast(&fake.changed);
}

enum cuda_result fake_enter(enum fake_call call, enum fake_want want)
{
	enum cuda_result result;

	pthread_once(&environment, read_environment);
	if (fake_in_host_function())
		fake_die("%s is called by a host function, which must make no call", calls[call].symbol);
	pthread_mutex_lock(&fake.mutex);
	if (fake.control)
		atomic_fetch_add(&fake.control->calls[call], 1);
	if (want == FAKE_ALWAYS)
		return fake_injected(call);
	if (fake.pid != getpid())	/* not yet, or in the child of a process that had */
		return CUDA_RESULT_NOT_INITIALIZED;
	if (fake.dead != CUDA_OK)
		return fake.dead;
	result = fake_injected(call);
	if (result != CUDA_OK) {
		const struct error *known = error_of(result);

		if (known && known->fatal)
			fake_kill_context(result);
		return result;
	}
	return want == FAKE_CONTEXT && !fake_current() ? CUDA_RESULT_INVALID_CONTEXT : CUDA_OK;
}

enum cuda_result fake_leave(enum cuda_result result)
{
	pthread_mutex_unlock(&fake.mutex);
	return result;
}

/* --- the driver itself ------------------------------------------------------------------------------------------ */

enum cuda_result fake_init(unsigned int flags)
{
	enum cuda_result result = fake_enter(FAKE_CALL_init, FAKE_ALWAYS);

	if (result != CUDA_OK)
		return fake_leave(result);
	if (!fake.control)
		fake_die("FAKE_CUDA_DIR is \"%s\": it must name a directory that exists", fake.config.directory);
	if (flags != 0)
		return fake_leave(CUDA_RESULT_INVALID_VALUE);
	if (fake.config.n_devices == 0)
		return fake_leave(CUDA_RESULT_NO_DEVICE);
	if (fake.pid != 0 && fake.pid != getpid())
		return fake_leave(CUDA_RESULT_NOT_INITIALIZED);
	fake.pid = getpid();
	return fake_leave(CUDA_OK);
}

enum cuda_result fake_driver_get_version(int *version)
{
	const enum cuda_result result = fake_enter(FAKE_CALL_driver_get_version, FAKE_ALWAYS);

	if (result == CUDA_OK)
		*version = fake.config.version;
	return fake_leave(result);
}

__attribute__((visibility("default")))
enum cuda_result cuGetProcAddress_v2(const char *symbol, void **ret, int version, uint64_t flags, int *status);

enum cuda_result cuGetProcAddress_v2(const char *symbol, void **ret, int version, uint64_t flags, int *status)
{
	int best = 0;

	(void)flags;
	pthread_once(&environment, read_environment);
	*ret = NULL;
	*status = 1;			/* not found */
	if (version > fake.config.version)
		return CUDA_RESULT_INVALID_VALUE;
	if (lists(fake.config.missing, symbol))
		return CUDA_OK;
	for (size_t i = 0; i < N_CALLS; i++) {
		if (strcmp(symbol, calls[i].symbol) != 0)
			continue;
		if (calls[i].since <= version && calls[i].since > best) {
			best = calls[i].since;
			*ret = calls[i].function;
			*status = 0;
		} else if (best == 0) {
			*status = 2;	/* there, and not of that version */
		}
	}
	return CUDA_OK;
}
