/*
 * The slab allocator: places in slabs. Which extents become a slab is space_runs.c's business.
 *
 * A slab's free places are a map of bits over the maps of all its extents, with a second map of which
 * words of the first are not 0: to find a free place is to look at few words. Slabs of a class that
 * have a free place are a list; all slabs of the size are another, coldest first. So alloc and free touch no
 * other slab, except that making a slab looks through the map of extents.
 *
 * Neighbours: a place after a given one is looked for in its slab from there on; others from where
 * the slab's last search ended, so that what comes together lies together.
 */
#include "src/engine/check.h"
#include "src/engine/space_inside.h"

#define NONE		ENGINE_NONE

static size_t aligned(size_t bytes)
{
	return (bytes + 63) & ~(size_t)63;
}

static uint32_t words_for(uint64_t bits)
{
	return (uint32_t)((bits + 63) / 64);
}

/* Lay the arrays out after the head; with @space NULL only count. */
static size_t lay_out(struct space *space, uint32_t extents, uint64_t extent_bytes)
{
	const uint32_t map_words = words_for(extent_bytes / UNIT_BYTES), sum_words = words_for(map_words);
	const size_t sizes[] = {
		aligned(sizeof(struct space)),
		aligned(words_for(extents) * sizeof(uint64_t)),
		aligned(words_for(extents) * sizeof(uint64_t)),
		aligned(extents * sizeof(uint32_t)),
		aligned(extents * sizeof(struct slab)),
		aligned(extents * sizeof(struct size_class)),
		aligned(extents * sizeof(uint32_t)),
		aligned((size_t)extents * map_words * sizeof(uint64_t)),
		aligned((size_t)extents * sum_words * sizeof(uint64_t)),
	};
	uint8_t *at = (uint8_t *)space;
	size_t sum = 0;

	for (uint32_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		sum += sizes[i];
	if (space == NULL)
		return sum;
	space->map_words = map_words;
	space->sum_words = sum_words;
	space->idle_map = (uint64_t *)(at += sizes[0]);
	space->expected_map = (uint64_t *)(at += sizes[1]);
	space->slab_of = (uint32_t *)(at += sizes[2]);
	space->slabs = (struct slab *)(at += sizes[3]);
	space->classes = (struct size_class *)(at += sizes[4]);
	space->class_heads = (uint32_t *)(at += sizes[5]);
	space->maps = (uint64_t *)(at += sizes[6]);
	space->sums = (uint64_t *)(at += sizes[7]);
	return sum;
}

size_t space_bytes(uint32_t extents, uint64_t extent_bytes)
{
	return lay_out(NULL, extents, extent_bytes);
}

struct space *space_init(void *memory, uint32_t extents, uint64_t extent_bytes)
{
	struct space *space = memory;

	ENGINE_ASSERT(extent_bytes > 0 && extent_bytes % UNIT_BYTES == 0);
	ENGINE_ASSERT(extents < ENGINE_NONE && extents * (extent_bytes / UNIT_BYTES) < ENGINE_NONE);
	*space = (struct space){
		.extents = extents, .extent_units = (uint32_t)(extent_bytes / UNIT_BYTES),
		.class_first = NONE, .class_free = extents > 0 ? 0 : NONE,
	};
	lay_out(space, extents, extent_bytes);
	for (uint32_t i = 0; i < words_for(extents); i++)
		space->idle_map[i] = space->expected_map[i] = 0;
	for (uint32_t i = 0; i < extents; i++) {
		bit_set(space->expected_map, i);
		space->slab_of[i] = NONE;
		space->slabs[i].size = 0;
		space->classes[i] = (struct size_class){ .chain = i + 1 < extents ? i + 1 : NONE };
		space->class_heads[i] = NONE;
	}
	return space;
}

void space_extent_add(struct space *space, uint32_t extent)
{
	ENGINE_ASSERT(extent < space->extents);
	if (!bit_get(space->expected_map, extent))
		return;
	bit_clear(space->expected_map, extent);
	bit_set(space->idle_map, extent);
	space->present++;
	space->idle++;
}

void space_extent_lost(struct space *space, uint32_t extent)
{
	ENGINE_ASSERT(extent < space->extents);
	bit_clear(space->expected_map, extent);
}

/* ---- classes ----------------------------------------------------------------------------------- */

static uint32_t *class_head(const struct space *space, uint32_t size)
{
	return &space->class_heads[(size * 0x9e3779b1u) % space->extents];
}

uint32_t class_find(const struct space *space, uint32_t size)
{
	uint32_t class = *class_head(space, size);

	while (class != NONE && space->classes[class].size != size)
		class = space->classes[class].chain;
	return class;
}

static uint32_t class_make(struct space *space, uint32_t size)
{
	const uint32_t class = space->class_free;
	uint32_t *head = class_head(space, size);

	ENGINE_ASSERT(class != NONE);	/* each has a slab, and there are no more slabs than extents */
	space->class_free = space->classes[class].chain;
	space->classes[class] = (struct size_class){
		.size = size, .head = NONE, .tail = NONE, .coldest = NONE, .hottest = NONE, .chain = *head,
		.before = NONE, .after = space->class_first,
	};
	*head = class;
	if (space->class_first != NONE)
		space->classes[space->class_first].before = class;
	space->class_first = class;
	return class;
}

static void class_drop(struct space *space, uint32_t class)
{
	uint32_t *link = class_head(space, space->classes[class].size);

	while (*link != class)
		link = &space->classes[*link].chain;
	*link = space->classes[class].chain;
	if (space->classes[class].before == NONE)
		space->class_first = space->classes[class].after;
	else
		space->classes[space->classes[class].before].after = space->classes[class].after;
	if (space->classes[class].after != NONE)
		space->classes[space->classes[class].after].before = space->classes[class].before;
	space->classes[class].size = 0;
	space->classes[class].chain = space->class_free;
	space->class_free = class;
}

static void class_list_add(struct space *space, uint32_t number)
{
	struct slab *slab = &space->slabs[number];
	struct size_class *class = &space->classes[slab->class];

	slab->prev = class->tail;
	slab->next = NONE;
	if (class->tail == NONE)
		class->head = number;
	else
		space->slabs[class->tail].next = number;
	class->tail = number;
}

static void class_list_take(struct space *space, uint32_t number)
{
	const struct slab *slab = &space->slabs[number];
	struct size_class *class = &space->classes[slab->class];

	if (slab->prev == NONE)
		class->head = slab->next;
	else
		space->slabs[slab->prev].next = slab->next;
	if (slab->next == NONE)
		class->tail = slab->prev;
	else
		space->slabs[slab->next].prev = slab->prev;
}

/* ---- recency ------------------------------------------------------------------------------------ */

static void recency_take(struct space *space, uint32_t number)
{
	const struct slab *slab = &space->slabs[number];
	struct size_class *class = &space->classes[slab->class];

	if (slab->colder == NONE)
		class->coldest = slab->hotter;
	else
		space->slabs[slab->colder].hotter = slab->hotter;
	if (slab->hotter == NONE)
		class->hottest = slab->colder;
	else
		space->slabs[slab->hotter].colder = slab->colder;
}

/* Uses come in nearly rising order, so the place is at the hot end or near it. */
static void recency_put(struct space *space, uint32_t number)
{
	struct slab *slab = &space->slabs[number];
	struct size_class *class = &space->classes[slab->class];
	uint32_t colder = class->hottest, hotter = NONE;

	while (colder != NONE && space->slabs[colder].use > slab->use) {
		hotter = colder;
		colder = space->slabs[colder].colder;
	}
	slab->colder = colder;
	slab->hotter = hotter;
	if (colder == NONE)
		class->coldest = number;
	else
		space->slabs[colder].hotter = number;
	if (hotter == NONE)
		class->hottest = number;
	else
		space->slabs[hotter].colder = number;
}

/* ---- slabs ------------------------------------------------------------------------------------- */

static uint64_t *map_of(const struct space *space, uint32_t number)
{
	return space->maps + (size_t)number * space->map_words;
}

static uint64_t *sum_of(const struct space *space, uint32_t number)
{
	return space->sums + (size_t)number * space->sum_words;
}

static void slab_make(struct space *space, uint32_t number, uint32_t order, uint32_t size)
{
	struct slab *slab = &space->slabs[number];
	uint64_t *map = map_of(space, number), *sum = sum_of(space, number);
	uint32_t class = class_find(space, size);

	if (class == NONE)
		class = class_make(space, size);
	*slab = (struct slab){
		.use = space->newest, .order = order, .size = size, .class = class, .places = run_places(space, size, order),
	};
	for (uint32_t i = number; i < number + (1u << order); i++) {
		space->slab_of[i] = number;
		bit_clear(space->idle_map, i);
	}
	space->idle -= 1u << order;
	for (uint32_t i = 0; i < space->sum_words << order; i++)
		sum[i] = 0;
	for (uint32_t i = 0; i < space->map_words << order; i++) {
		const uint32_t left = slab->places > i * 64 ? slab->places - i * 64 : 0;

		map[i] = left >= 64 ? ~0ull : (1ull << left) - 1;
		if (left > 0)
			bit_set(sum, i);
	}
	space->classes[class].slabs++;
	space->classes[class].free_places += slab->places;
	class_list_add(space, number);
	recency_put(space, number);
}

static void slab_drop(struct space *space, uint32_t number)
{
	struct slab *slab = &space->slabs[number];
	struct size_class *class = &space->classes[slab->class];

	class_list_take(space, number);
	recency_take(space, number);
	class->free_places -= slab->places;
	if (--class->slabs == 0)
		class_drop(space, slab->class);
	for (uint32_t i = number; i < number + (1u << slab->order); i++) {
		space->slab_of[i] = NONE;
		bit_set(space->idle_map, i);
	}
	space->idle += 1u << slab->order;
	slab->size = 0;
}

/* The first free place of the slab from @from on, then from the start; it has one. */
static uint32_t place_find(const struct space *space, uint32_t number, uint32_t from)
{
	const uint64_t *map = map_of(space, number), *sum = sum_of(space, number);
	const struct slab *slab = &space->slabs[number];
	uint32_t word = from / 64, i;
	uint64_t bits = from < slab->places ? map[word] & ~0ull << from % 64 : 0;

	if (bits != 0)
		return word * 64 + (uint32_t)__builtin_ctzll(bits);
	word = from < slab->places ? word + 1 : 0;
	i = word / 64;
	bits = i < space->sum_words << slab->order ? sum[i] & ~0ull << word % 64 : 0;
	while (bits == 0) {
		i = i + 1 < space->sum_words << slab->order ? i + 1 : 0;
		bits = sum[i];
	}
	word = i * 64 + (uint32_t)__builtin_ctzll(bits);
	return word * 64 + (uint32_t)__builtin_ctzll(map[word]);
}

static uint32_t place_take(struct space *space, uint32_t number, uint32_t place)
{
	struct slab *slab = &space->slabs[number];
	uint64_t *map = map_of(space, number);

	bit_clear(map, place);
	if (map[place / 64] == 0)
		bit_clear(sum_of(space, number), place / 64);
	slab->hint = place + 1;
	space->classes[slab->class].free_places--;
	space->used_units += slab->size;
	if (++slab->used == slab->places)
		class_list_take(space, number);
	return number * space->extent_units + place * slab->size;
}

/* The slab and the number of the place that begins at @unit; false: none does. */
static bool place_of(const struct space *space, uint32_t unit, uint32_t *ret_slab, uint32_t *ret_place)
{
	const uint32_t extent = unit / space->extent_units;
	uint32_t offset;

	if (extent >= space->extents || space->slab_of[extent] == NONE)
		return false;
	*ret_slab = space->slab_of[extent];
	offset = unit - *ret_slab * space->extent_units;
	*ret_place = offset / space->slabs[*ret_slab].size;
	return offset % space->slabs[*ret_slab].size == 0 && *ret_place < space->slabs[*ret_slab].places;
}

/* ---- interface --------------------------------------------------------------------------------- */

/* Units of an object; 0: none, or more than any slab holds. */
static uint32_t units_of(const struct space *space, uint64_t bytes)
{
	const uint64_t units = bytes / UNIT_BYTES + (bytes % UNIT_BYTES != 0);

	return units <= (uint64_t)space->extent_units * GROUP ? (uint32_t)units : 0;
}

uint32_t space_alloc(struct space *space, uint64_t bytes, uint32_t near)
{
	const uint32_t size = units_of(space, bytes);
	uint32_t slab, place, class, order;

	if (size == 0)
		return NONE;
	if (near != NONE && place_of(space, near, &slab, &place) && space->slabs[slab].size == size &&
	    space->slabs[slab].used < space->slabs[slab].places)
		return place_take(space, slab, place_find(space, slab, place + 1));
	class = class_find(space, size);
	if (class != NONE && space->classes[class].head != NONE) {
		slab = space->classes[class].head;
	} else {
		if (!run_find(space, size, &order, &slab))
			return NONE;
		slab_make(space, slab, order, size);
	}
	return place_take(space, slab, place_find(space, slab, space->slabs[slab].hint));
}

bool space_take(struct space *space, uint32_t unit, uint64_t bytes)
{
	const uint32_t size = units_of(space, bytes);
	uint32_t slab, place, order;

	if (size == 0 || unit / space->extent_units >= space->extents)
		return false;
	if (space->slab_of[unit / space->extent_units] == NONE) {
		if (!run_around(space, size, unit, &order, &slab))
			return false;
		slab_make(space, slab, order, size);
	}
	if (!place_of(space, unit, &slab, &place) || space->slabs[slab].size != size ||
	    !bit_get(map_of(space, slab), place))
		return false;
	place_take(space, slab, place);
	return true;
}

void space_free(struct space *space, uint32_t unit)
{
	uint32_t number, place;
	struct slab *slab;
	uint64_t *map;

	if (!place_of(space, unit, &number, &place))
		__builtin_trap();	/* our own mistake: nothing was ever given out there */
	slab = &space->slabs[number];
	map = map_of(space, number);
	ENGINE_ASSERT(!bit_get(map, place));
	bit_set(map, place);
	bit_set(sum_of(space, number), place / 64);
	space->classes[slab->class].free_places++;
	space->used_units -= slab->size;
	if (slab->used-- == slab->places)
		class_list_add(space, number);
	if (slab->used == 0)
		slab_drop(space, number);
}

void space_touch(struct space *space, uint32_t unit, uint64_t use)
{
	const uint32_t number = space->slab_of[unit / space->extent_units];

	if (number == NONE || space->slabs[number].use >= use)
		return;
	space->slabs[number].use = use;
	if (space->newest < use)
		space->newest = use;
	if (space->slabs[number].hotter == NONE)
		return;
	recency_take(space, number);
	recency_put(space, number);
}

bool space_slab_object(const struct space *space, uint32_t number, uint32_t i, uint32_t *ret_unit, bool *ret_used)
{
	const struct slab *slab = &space->slabs[number];

	if (slab->size == 0 || i >= slab->places)
		return false;
	*ret_unit = number * space->extent_units + i * slab->size;
	*ret_used = !bit_get(map_of(space, number), i);
	return true;
}

uint64_t space_total(const struct space *space)
{
	return (uint64_t)space->present * space->extent_units * UNIT_BYTES;
}

uint64_t space_used(const struct space *space)
{
	return space->used_units * UNIT_BYTES;
}

/* ---- audit ------------------------------------------------------------------------------------- */

static const char *slab_audit(const struct space *space, uint32_t number)
{
	const struct slab *slab = &space->slabs[number];
	const uint64_t *map = map_of(space, number), *sum = sum_of(space, number);
	uint32_t spare = 0;

	if (number % (1u << slab->order) != 0 || slab->places != run_places(space, slab->size, slab->order))
		return "a slab is not what its size asks for";
	for (uint32_t i = number; i < number + (1u << slab->order); i++)
		if (i >= space->extents || space->slab_of[i] != number || bit_get(space->idle_map, i))
			return "a slab and its extents disagree";
	for (uint32_t i = 0; i < space->map_words << slab->order; i++) {
		for (uint64_t bits = map[i]; bits != 0; bits &= bits - 1)
			spare++;	/* counted by hand: the builtin can be a function of libgcc */
		if (bit_get(sum, i) != (map[i] != 0))
			return "a slab's two maps disagree";
	}
	for (uint32_t i = slab->places; i < (space->map_words << slab->order) * 64; i++)
		if (bit_get(map, i))
			return "a slab's map has a place beyond its end";
	if (slab->used == 0 || spare + slab->used != slab->places)
		return "a slab's count of objects is wrong";
	return space->classes[slab->class].size == slab->size ? NULL : "a slab is in another size's class";
}

static const char *class_audit(const struct space *space, uint32_t number)
{
	const struct size_class *class = &space->classes[number];
	uint64_t spare = 0;
	uint32_t slabs = 0, listed = 0;

	for (uint32_t i = 0; i < space->extents; i++) {
		if (space->slabs[i].size == 0 || space->slabs[i].class != number)
			continue;
		slabs++;
		spare += space->slabs[i].places - space->slabs[i].used;
		listed += space->slabs[i].used < space->slabs[i].places;
	}
	for (uint32_t i = class->head, before = NONE; i != NONE; before = i, i = space->slabs[i].next) {
		if (space->slabs[i].prev != before || space->slabs[i].class != number || listed-- == 0)
			return "the list of a class is broken";
	}
	if (listed != 0 || slabs != class->slabs || slabs == 0 || spare != class->free_places)
		return "the counts of a class are wrong";
	return class_find(space, class->size) == number ? NULL : "a class cannot be found";
}

static const char *uses_audit(const struct space *space, uint32_t class)
{
	uint32_t slabs = space->classes[class].slabs;

	for (uint32_t i = space->classes[class].coldest, before = NONE; i != NONE; before = i, i = space->slabs[i].hotter) {
		const bool order = before == NONE || space->slabs[before].use <= space->slabs[i].use;

		if (space->slabs[i].colder != before || !order || space->slabs[i].class != class || slabs-- == 0 ||
		    space->slabs[i].use > space->newest)
			return "the list of a size's slabs by use is broken";
	}
	return slabs == 0 ? NULL : "the list of a size's slabs by use is too short";
}

const char *space_audit(const struct space *space)
{
	uint64_t used = 0;
	uint32_t idle = 0, in_slabs = 0, slabs = 0;
	const char *broken = NULL;

	for (uint32_t i = 0; i < space->extents && broken == NULL; i++) {
		idle += bit_get(space->idle_map, i);
		in_slabs += space->slab_of[i] != NONE;
		if (space->slabs[i].size != 0) {
			slabs++;
			used += (uint64_t)space->slabs[i].used * space->slabs[i].size;
			broken = slab_audit(space, i);
		}
		if (broken == NULL && space->classes[i].size != 0)
			broken = class_audit(space, i);
	}
	for (uint32_t i = space->class_first, before = NONE; i != NONE && broken == NULL; before = i, i = space->classes[i].after) {
		broken = space->classes[i].before != before || slabs < space->classes[i].slabs
			 ? "the list of classes is broken" : uses_audit(space, i);
		slabs -= space->classes[i].slabs;
	}
	if (broken != NULL)
		return broken;
	if (slabs != 0 || idle != space->idle || idle + in_slabs != space->present || used != space->used_units)
		return "the counts of the space are wrong";
	return NULL;
}
