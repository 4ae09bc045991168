/*
 * test/fuzz_queue.c
 *	  The queue does what a plain array does that is searched from end to
 *	  end, whatever is asked of it in whatever order.
 */
#include <string.h>

#include "alloc.h"
#include "fuzz.h"
#include "rule/queue.h"

#define MAX_MODEL	256			/* more distinct objects than inputs can name */

const char *const fuzz_promise =
	"fuzz: any sequence of pushes, pops and filters does to the queue what it "
	"does to a plain array";
const int	fuzz_rounds = 15000;

/* ---- the array ---- */

typedef struct Plain
{
	EntQueueEntry e;
	uint64_t	order;			/* among equal positions: when it got there */
	uint8_t		key[4];
} Plain;

typedef struct Model
{
	Plain		entries[MAX_MODEL];
	size_t		n;
	uint64_t	clock;
	bool		bulk_turn;
} Model;

static Plain *
model_find(Model *m, const EntQueueEntry *e)
{
	for (size_t i = 0; i < m->n; i++)
	{
		Plain	   *p = &m->entries[i];

		if (p->e.rel == e->rel && p->e.owner == e->owner &&
			p->e.keylen == e->keylen &&
			memcmp(p->key, e->key, e->keylen) == 0)
			return p;
	}
	return NULL;
}

static void
model_join(Model *m, Plain *p, const EntQueueEntry *e)
{
	if (e->position < p->e.position || e->priority != p->e.priority ||
		(p->e.bulk && !e->bulk))
		p->order = ++m->clock;
	if (e->position < p->e.position)
		p->e.position = e->position;
	p->e.priority = e->priority;
	p->e.bulk = p->e.bulk && e->bulk;
	p->e.flags |= e->flags;
	p->e.since = e->since < p->e.since ? e->since : p->e.since;
	p->e.stale_at = e->stale_at < p->e.stale_at ? e->stale_at : p->e.stale_at;
	p->e.newest = e->newest > p->e.newest ? e->newest : p->e.newest;
	p->e.round = e->round > p->e.round ? e->round : p->e.round;
}

static bool
model_push(Model *m, const EntQueueEntry *e)
{
	Plain	   *p = model_find(m, e);

	if (p != NULL)
	{
		model_join(m, p, e);
		return true;
	}
	p = &m->entries[m->n++];
	p->e = *e;
	p->order = ++m->clock;
	memcpy(p->key, e->key, e->keylen);
	return false;
}

static bool
goes_before(const Plain *a, const Plain *b)
{
	if (a->e.priority != b->e.priority)
		return a->e.priority < b->e.priority;
	if (a->e.position != b->e.position)
		return a->e.position < b->e.position;
	return a->order < b->order;
}

/* The first of one priority and kind; NULL when there is none. */
static Plain *
model_first_of(Model *m, int32_t priority, bool bulk)
{
	Plain	   *first = NULL;

	for (size_t i = 0; i < m->n; i++)
	{
		Plain	   *p = &m->entries[i];

		if (p->e.priority == priority && p->e.bulk == bulk &&
			(first == NULL || goes_before(p, first)))
			first = p;
	}
	return first;
}

/* The one to be taken next. */
static Plain *
model_first(Model *m, bool *both)
{
	*both = false;
	for (int32_t priority = -1; priority <= 2; priority++)
	{
		Plain	   *live = model_first_of(m, priority, false);
		Plain	   *bulk = model_first_of(m, priority, true);

		*both = live != NULL && bulk != NULL;
		if (*both)
			return m->bulk_turn ? bulk : live;
		if (live != NULL || bulk != NULL)
			return live != NULL ? live : bulk;
	}
	return NULL;
}

static void
model_remove(Model *m, Plain *p)
{
	*p = m->entries[--m->n];
}

/* ---- comparing ---- */

static void
check_same(const EntQueueEntry *e, const Plain *p)
{
	FUZZ_CHECK(e->rel == p->e.rel && e->owner == p->e.owner);
	FUZZ_CHECK(e->priority == p->e.priority && e->flags == p->e.flags);
	FUZZ_CHECK(e->position == p->e.position && e->since == p->e.since);
	FUZZ_CHECK(e->stale_at == p->e.stale_at && e->keylen == p->e.keylen);
	FUZZ_CHECK(e->newest == p->e.newest && e->round == p->e.round);
	FUZZ_CHECK(e->bulk == p->e.bulk);
	FUZZ_CHECK(memcmp(e->key, p->key, e->keylen) == 0);
}

static void
check_sums(const EntQueue *q, Model *m)
{
	uint64_t	position = UINT64_MAX;
	int64_t		oldest = INT64_MAX;

	for (int i = 0; i < 8; i++)
	{
		const Plain *p = model_first_of(m, i / 2 - 1, i % 2);

		if (p != NULL && p->e.position < position)
			position = p->e.position;
		if (p != NULL && p->e.stale_at < oldest)
			oldest = p->e.stale_at;
	}
	FUZZ_CHECK(ent_queue_length(q) == m->n);
	FUZZ_CHECK(ent_queue_min_position(q) == position);
	FUZZ_CHECK(ent_queue_oldest(q) == oldest);
}

static void
pop_one(EntQueue *q, Model *m)
{
	EntQueueEntry e;
	uint8_t    *keybuf = malloc(ENT_QUEUE_MAX_KEY);
	bool		both;
	Plain	   *p = model_first(m, &both);
	const EntQueueEntry *peeked = ent_queue_peek(q);

	FUZZ_CHECK((peeked != NULL) == (p != NULL));
	if (p != NULL)
		check_same(peeked, p);
	FUZZ_CHECK(ent_queue_pop(q, &e, keybuf) == (p != NULL));
	if (p != NULL)
	{
		check_same(&e, p);
		m->bulk_turn = both && !p->e.bulk;
		model_remove(m, p);
	}
	free(keybuf);
}

static bool
is_not_of_owner(const EntQueueEntry *e, void *arg)
{
	return e->owner != *(const int32_t *) arg;
}

static void
filter_owner(EntQueue *q, Model *m, int32_t owner)
{
	ent_queue_filter(q, is_not_of_owner, &owner);
	for (size_t i = 0; i < m->n;)
	{
		if (m->entries[i].e.owner == owner)
			model_remove(m, &m->entries[i]);
		else
			i++;
	}
}

/* ---- inputs: six bytes are one step ---- */

static EntQueueEntry
entry_of(const uint8_t *step, uint64_t now, uint8_t *own)
{
	static const uint8_t key[4] = {1, 2, 3, 4};
	EntQueueEntry e;

	memset(&e, 0, sizeof(e));
	memcpy(own, key, sizeof(key));
	own[0] = step[1] & 15;
	e.rel = (step[1] >> 4) & 1;
	e.keylen = (step[1] >> 5) & 3;
	e.key = own;
	e.owner = step[2] & 1;
	e.priority = (step[2] >> 4) % 4 - 1;
	e.flags = step[2] & 12;
	e.bulk = (step[2] & 2) != 0;
	/* mostly in order, often equal, sometimes old */
	e.position = step[3] < 200 ? now : now - now * (step[3] - 200) / 64;
	e.since = step[4];
	e.stale_at = step[5];
	e.newest = step[4] ^ step[5];
	e.round = step[3];
	return e;
}

static void
push_one(EntQueue *q, Model *m, const uint8_t *step, uint64_t now)
{
	uint8_t		own[4];
	EntQueueEntry e = entry_of(step, now, own);

	FUZZ_CHECK(ent_queue_push(q, &e) == model_push(m, &e));
}

static void
take_one(EntQueue *q, Model *m, const uint8_t *step, uint64_t now)
{
	uint8_t		own[4];
	EntQueueEntry e = entry_of(step, now, own);
	Plain	   *p = model_find(m, &e);
	Plain		joined;

	if (p == NULL)
	{
		FUZZ_CHECK(!ent_queue_take(q, &e));
		return;
	}
	joined = *p;
	model_join(m, &joined, &e);
	model_remove(m, p);
	FUZZ_CHECK(ent_queue_take(q, &e));
	FUZZ_CHECK(e.position == joined.e.position && e.flags == joined.e.flags &&
			   e.since == joined.e.since && e.stale_at == joined.e.stale_at &&
			   e.newest == joined.e.newest && e.round == joined.e.round);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static Model m;
	AllocState	memory;
	EntQueue   *q;
	uint64_t	now = 100;

	alloc_init(&memory);
	m.n = 0;
	m.bulk_turn = false;
	q = ent_queue_create(alloc_for_queue(&memory));
	for (; size >= 6; data += 6, size -= 6)
	{
		now += data[0] & 1;
		if (data[0] < 180)
			push_one(q, &m, data, now);
		else if (data[0] < 190)
			take_one(q, &m, data, now);
		else if (data[0] < 250)
			pop_one(q, &m);
		else
			filter_owner(q, &m, data[1] & 1);
		check_sums(q, &m);
	}
	while (m.n > 5)
		pop_one(q, &m);
	ent_queue_destroy(q);
	FUZZ_CHECK(memory.pieces == 0);
	return 0;
}

size_t
fuzz_good_input(Random *r, uint8_t *buf)
{
	size_t		len = random_below(r, 400) * 6;

	random_fill(r, buf, len);
	return len;
}
