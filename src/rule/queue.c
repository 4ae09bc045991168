/*
 * rule/queue.c
 *	  What one peer is still to be told, the oldest copy first.
 *
 * Contract in rule/queue.h. Every entry is in two structures: a chained hash
 * by (relation, owner, key), which doubles when it is full, and one of its
 * priority's two binary heaps, for what is bulk and what is not, by (position,
 * order of arrival there), in which it knows its place. Events come in order of position and so stay at the heap's end,
 * where putting them takes constant time.
 */
#include "rule/queue.h"

#include <assert.h>
#include <string.h>

typedef struct Node
{
	EntQueueEntry e;			/* e.key points to key[] below */
	uint64_t	hash;
	uint64_t	order;			/* of arrival, among equal positions */
	struct Node *chain;			/* next of the hash bucket */
	size_t		place;			/* in its heap */
	uint8_t		key[];
} Node;

typedef struct Heap
{
	int32_t		priority;
	bool		bulk;
	Node	  **nodes;			/* nodes[i] goes before nodes[2i+1], [2i+2] */
	size_t		n;
	size_t		cap;
} Heap;

struct EntQueue
{
	EntQueueAllocator alloc;
	uint64_t	seed;
	uint64_t	arrivals;
	Node	  **buckets;
	size_t		nbuckets;		/* a power of two */
	size_t		length;
	size_t		memory;
	Heap	   *heaps;			/* ordered by priority, bulk last */
	size_t		nheaps;
	size_t		heaps_cap;
	bool		bulk_turn;		/* of two heaps that have something */
};

#define FIRST_BUCKETS	64
#define FIRST_NODES		64		/* of a heap; kept when it is empty */
#define FIRST_HEAPS		4

static void *
take(EntQueue *q, size_t size)
{
	q->memory += size;
	return q->alloc.alloc(q->alloc.ctx, size);
}

static void
give(EntQueue *q, void *p, size_t size)
{
	q->memory -= size;
	q->alloc.release(q->alloc.ctx, p);
}

/* ---- hash ---- */

/* A bijection in which every bit of x moves every bit of the result. */
static uint64_t
mix(uint64_t x)
{
	x ^= x >> 32;
	x *= UINT64_C(0xe9846af9b1a615d);
	x ^= x >> 32;
	x *= UINT64_C(0xe9846af9b1a615d);
	x ^= x >> 28;
	return x;
}

static uint64_t
hash_object(const EntQueue *q, int32_t rel, int32_t owner, const uint8_t *key,
			size_t len)
{
	uint64_t	h = mix(mix(q->seed ^ len) ^ ((uint64_t) (uint32_t) rel << 32) ^
						(uint32_t) owner);

	while (len > 0)
	{
		uint64_t	word = 0;
		size_t		n = len < sizeof(word) ? len : sizeof(word);

		memcpy(&word, key, n);
		h = mix(h ^ word) + UINT64_C(0x9e3779b97f4a7c15);
		key += n;
		len -= n;
	}
	return mix(h);
}

static Node **
make_buckets(EntQueue *q, size_t n)
{
	Node	  **buckets = take(q, n * sizeof(Node *));

	for (size_t i = 0; i < n; i++)
		buckets[i] = NULL;
	return buckets;
}

static void
double_buckets(EntQueue *q)
{
	size_t		n = q->nbuckets * 2;
	Node	  **buckets = make_buckets(q, n);

	for (size_t i = 0; i < q->nbuckets; i++)
	{
		for (Node *node = q->buckets[i]; node != NULL;)
		{
			Node	   *chain = node->chain;
			Node	  **bucket = &buckets[node->hash & (n - 1)];

			node->chain = *bucket;
			*bucket = node;
			node = chain;
		}
	}
	give(q, q->buckets, q->nbuckets * sizeof(Node *));
	q->buckets = buckets;
	q->nbuckets = n;
}

static Node *
find(const EntQueue *q, uint64_t hash, const EntQueueEntry *e)
{
	Node	   *node = q->buckets[hash & (q->nbuckets - 1)];

	for (; node != NULL; node = node->chain)
		if (node->hash == hash && node->e.rel == e->rel &&
			node->e.owner == e->owner && node->e.keylen == e->keylen &&
			(e->keylen == 0 || memcmp(node->key, e->key, e->keylen) == 0))
			return node;
	return NULL;
}

static Node *
add_node(EntQueue *q, uint64_t hash, const EntQueueEntry *e)
{
	Node	   *node = take(q, sizeof(Node) + e->keylen);
	Node	  **bucket;

	if (q->length >= q->nbuckets)
		double_buckets(q);
	bucket = &q->buckets[hash & (q->nbuckets - 1)];
	node->e = *e;
	node->e.key = node->key;
	if (e->keylen > 0)
		memcpy(node->key, e->key, e->keylen);
	node->hash = hash;
	node->chain = *bucket;
	*bucket = node;
	q->length++;
	return node;
}

static void
drop_node(EntQueue *q, Node *node)
{
	Node	  **p = &q->buckets[node->hash & (q->nbuckets - 1)];

	while (*p != node)
		p = &(*p)->chain;
	*p = node->chain;
	q->length--;
	give(q, node, sizeof(Node) + node->e.keylen);
}

/* ---- one heap ---- */

static bool
goes_before(const Node *a, const Node *b)
{
	if (a->e.position != b->e.position)
		return a->e.position < b->e.position;
	return a->order < b->order;
}

static void
put(Heap *heap, size_t place, Node *node)
{
	heap->nodes[place] = node;
	node->place = place;
}

/* Lets node, for which place is free, move towards the head. */
static void
rise(Heap *heap, size_t place, Node *node)
{
	while (place > 0 && goes_before(node, heap->nodes[(place - 1) / 2]))
	{
		put(heap, place, heap->nodes[(place - 1) / 2]);
		place = (place - 1) / 2;
	}
	put(heap, place, node);
}

/* The same, away from the head. */
static void
sink(Heap *heap, size_t place, Node *node)
{
	size_t		child;

	while ((child = 2 * place + 1) < heap->n)
	{
		if (child + 1 < heap->n &&
			goes_before(heap->nodes[child + 1], heap->nodes[child]))
			child++;
		if (goes_before(node, heap->nodes[child]))
			break;
		put(heap, place, heap->nodes[child]);
		place = child;
	}
	put(heap, place, node);
}

static void
resize_heap(EntQueue *q, Heap *heap, size_t cap)
{
	Node	  **nodes = take(q, cap * sizeof(Node *));

	if (heap->n > 0)
		memcpy(nodes, heap->nodes, heap->n * sizeof(Node *));
	if (heap->nodes != NULL)
		give(q, heap->nodes, heap->cap * sizeof(Node *));
	heap->nodes = nodes;
	heap->cap = cap;
}

static void
insert(EntQueue *q, Heap *heap, Node *node)
{
	if (heap->n == heap->cap)
		resize_heap(q, heap, heap->cap == 0 ? FIRST_NODES : heap->cap * 2);
	node->order = q->arrivals++;
	heap->n++;
	rise(heap, heap->n - 1, node);
}

static void
shrink_when_empty(EntQueue *q, Heap *heap)
{
	if (heap->n == 0 && heap->cap > FIRST_NODES)
		resize_heap(q, heap, FIRST_NODES);
}

/* The hole is filled with the last node, which finds its place from there. */
static void
take_out(EntQueue *q, Heap *heap, Node *node)
{
	size_t		place = node->place;
	Node	   *last = heap->nodes[--heap->n];

	if (last == node)
		shrink_when_empty(q, heap);
	else if (goes_before(last, node))
		rise(heap, place, last);
	else
		sink(heap, place, last);
}

/* ---- the heaps ---- */

static bool
heap_before(const Heap *heap, int32_t priority, bool bulk)
{
	if (heap->priority != priority)
		return heap->priority < priority;
	return heap->bulk < bulk;
}

/* Index of the first heap that is not before that one. */
static size_t
heap_index(const EntQueue *q, int32_t priority, bool bulk)
{
	size_t		lo = 0,
				hi = q->nheaps;

	while (lo < hi)
	{
		size_t		mid = lo + (hi - lo) / 2;

		if (heap_before(&q->heaps[mid], priority, bulk))
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static void
grow_heaps(EntQueue *q)
{
	size_t		cap = q->heaps_cap == 0 ? FIRST_HEAPS : q->heaps_cap * 2;
	Heap	   *heaps = take(q, cap * sizeof(Heap));

	if (q->heaps != NULL)
	{
		memcpy(heaps, q->heaps, q->nheaps * sizeof(Heap));
		give(q, q->heaps, q->heaps_cap * sizeof(Heap));
	}
	q->heaps = heaps;
	q->heaps_cap = cap;
}

/* Made when it is missing. */
static Heap *
heap_of(EntQueue *q, int32_t priority, bool bulk)
{
	size_t		i = heap_index(q, priority, bulk);

	if (i < q->nheaps && q->heaps[i].priority == priority &&
		q->heaps[i].bulk == bulk)
		return &q->heaps[i];
	if (q->nheaps == q->heaps_cap)
		grow_heaps(q);
	memmove(&q->heaps[i + 1], &q->heaps[i], (q->nheaps - i) * sizeof(Heap));
	q->nheaps++;
	memset(&q->heaps[i], 0, sizeof(Heap));
	q->heaps[i].priority = priority;
	q->heaps[i].bulk = bulk;
	return &q->heaps[i];
}

/* ---- the queue ---- */

EntQueue *
ent_queue_create(EntQueueAllocator alloc)
{
	EntQueue   *q = alloc.alloc(alloc.ctx, sizeof(EntQueue));

	memset(q, 0, sizeof(*q));
	q->alloc = alloc;
	q->memory = sizeof(EntQueue);
	q->seed = mix((uint64_t) (uintptr_t) q);
	q->nbuckets = FIRST_BUCKETS;
	q->buckets = make_buckets(q, q->nbuckets);
	return q;
}

void
ent_queue_destroy(EntQueue *q)
{
	for (size_t i = 0; i < q->nbuckets; i++)
		while (q->buckets[i] != NULL)
			drop_node(q, q->buckets[i]);
	give(q, q->buckets, q->nbuckets * sizeof(Node *));
	for (size_t i = 0; i < q->nheaps; i++)
		if (q->heaps[i].nodes != NULL)
			give(q, q->heaps[i].nodes, q->heaps[i].cap * sizeof(Node *));
	if (q->heaps != NULL)
		give(q, q->heaps, q->heaps_cap * sizeof(Heap));
	q->alloc.release(q->alloc.ctx, q);
}

static void
join(EntQueueEntry *have, const EntQueueEntry *e)
{
	have->flags |= e->flags;
	if (e->since < have->since)
		have->since = e->since;
	if (e->stale_at < have->stale_at)
		have->stale_at = e->stale_at;
	if (e->newest > have->newest)
		have->newest = e->newest;
	if (e->round > have->round)
		have->round = e->round;
}

/*
 * Moves an entry to where a smaller position, another priority or an event puts
 * it.
 */
static void
replace(EntQueue *q, Node *node, uint64_t position, int32_t priority, bool bulk)
{
	take_out(q, heap_of(q, node->e.priority, node->e.bulk), node);
	node->e.position = position;
	node->e.priority = priority;
	node->e.bulk = bulk;
	insert(q, heap_of(q, priority, bulk), node);
}

bool
ent_queue_push(EntQueue *q, const EntQueueEntry *e)
{
	uint64_t	hash = hash_object(q, e->rel, e->owner, e->key, e->keylen);
	Node	   *node = find(q, hash, e);

	assert(e->keylen <= ENT_QUEUE_MAX_KEY);
	if (node == NULL)
	{
		node = add_node(q, hash, e);
		insert(q, heap_of(q, e->priority, e->bulk), node);
		return false;
	}
	join(&node->e, e);
	if (e->position < node->e.position || e->priority != node->e.priority ||
		(node->e.bulk && !e->bulk))
		replace(q, node, e->position < node->e.position ? e->position :
				node->e.position, e->priority, node->e.bulk && e->bulk);
	return true;
}

/* Of the first priority that has something; both: of either kind. */
static Heap *
first_heap(const EntQueue *q, bool *both)
{
	*both = false;
	for (size_t i = 0; i < q->nheaps; i++)
	{
		Heap	   *heap = &q->heaps[i];

		if (heap->n == 0)
			continue;
		*both = i + 1 < q->nheaps && heap[1].priority == heap->priority &&
			heap[1].n > 0;
		return *both && q->bulk_turn ? heap + 1 : heap;
	}
	return NULL;
}

bool
ent_queue_pop(EntQueue *q, EntQueueEntry *e, uint8_t *keybuf)
{
	bool		both;
	Heap	   *heap = first_heap(q, &both);
	Node	   *node;

	if (heap == NULL)
		return false;
	q->bulk_turn = both && !heap->bulk;
	node = heap->nodes[0];
	take_out(q, heap, node);
	*e = node->e;
	memcpy(keybuf, node->key, node->e.keylen);
	e->key = keybuf;
	drop_node(q, node);
	return true;
}

bool
ent_queue_take(EntQueue *q, EntQueueEntry *e)
{
	Node	   *node = find(q, hash_object(q, e->rel, e->owner, e->key, e->keylen), e);

	if (node == NULL)
		return false;
	join(e, &node->e);
	/* claims wait for the older of the two */
	if (node->e.position < e->position)
		e->position = node->e.position;
	take_out(q, heap_of(q, node->e.priority, node->e.bulk), node);
	drop_node(q, node);
	return true;
}

const EntQueueEntry *
ent_queue_peek(const EntQueue *q)
{
	bool		both;
	const Heap *heap = first_heap(q, &both);

	return heap != NULL ? &heap->nodes[0]->e : NULL;
}

/* Closes the gaps first, then makes a heap of what is left. */
static void
filter_heap(EntQueue *q, Heap *heap,
			bool (*keep) (const EntQueueEntry *e, void *arg), void *arg)
{
	size_t		kept = 0;

	for (size_t i = 0; i < heap->n; i++)
	{
		Node	   *node = heap->nodes[i];

		if (keep(&node->e, arg))
			put(heap, kept++, node);
		else
			drop_node(q, node);
	}
	heap->n = kept;
	for (size_t i = kept / 2; i > 0; i--)
		sink(heap, i - 1, heap->nodes[i - 1]);
	shrink_when_empty(q, heap);
}

void
ent_queue_filter(EntQueue *q, bool (*keep) (const EntQueueEntry *e, void *arg),
				 void *arg)
{
	for (size_t i = 0; i < q->nheaps; i++)
		filter_heap(q, &q->heaps[i], keep, arg);
}

size_t
ent_queue_length(const EntQueue *q)
{
	return q->length;
}

uint64_t
ent_queue_min_position(const EntQueue *q)
{
	uint64_t	least = UINT64_MAX;

	for (size_t i = 0; i < q->nheaps; i++)
		if (q->heaps[i].n > 0 &&
			q->heaps[i].nodes[0]->e.position < least)
			least = q->heaps[i].nodes[0]->e.position;
	return least;
}

int64_t
ent_queue_oldest(const EntQueue *q)
{
	int64_t		least = INT64_MAX;

	for (size_t i = 0; i < q->nheaps; i++)
		if (q->heaps[i].n > 0 &&
			q->heaps[i].nodes[0]->e.stale_at < least)
			least = q->heaps[i].nodes[0]->e.stale_at;
	return least;
}

size_t
ent_queue_memory(const EntQueue *q)
{
	return q->memory;
}
