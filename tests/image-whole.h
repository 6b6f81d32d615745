/* A seal or verify of a whole image at once, for tests: the tasks that the helpers run in steps. */
#ifndef STOKER_TESTS_IMAGE_WHOLE_H
#define STOKER_TESTS_IMAGE_WHOLE_H

#include "src/device/image.h"

/* Makes the header, and returns the payload's checksum. */
static inline uint64_t seal_whole(void *image, const struct engine_object *object,
				  const struct image_identity *identity)
{
	struct image_task task;

	image_task_begin(&task, true, image, object, identity);
	while (!image_task_step(&task, UINT64_MAX))
		;
	return task.checksum;
}

/* *ret_checksum, unless NULL: of the payload. A verify writes nothing. */
static inline enum engine_result verify_whole(const void *image, const struct engine_object *object,
					      const struct image_identity *identity, uint64_t *ret_checksum)
{
	struct image_task task;

	image_task_begin(&task, false, (void *)(uintptr_t)image, object, identity);
	while (!image_task_step(&task, UINT64_MAX))
		;
	if (ret_checksum)
		*ret_checksum = task.checksum;
	return task.result;
}

#endif
