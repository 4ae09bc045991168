/*
 * rule/queue.c
 *	  What one peer is still to be told, the oldest copy first.
 *
 * Contract in rule/queue.h. Every entry is in two structures: a chained hash
 * by (relation, key), which doubles when it is full, and its priority's
 * doubly linked list, ordered by position, first come first among equals.
 * Invariant: along a list positions never decrease.
 */
#include "rule/queue.h"

#include <assert.h>
#include <string.h>

typedef struct Node
{
	EntQueueEntry e;			/* e.key points to key[] below */
	uint64_t	hash;
	struct Node *chain;			/* next of the hash bucket */
	struct Node *prev;			/* towards the older */
	struct Node *next;
	uint8_t		key[];
} Node;

typedef struct List
{
	int32_t		priority;
	Node	   *head;
	Node	   *tail;
	Node	   *finger;			/* where the last push in the middle went */
} List;

struct EntQueue
{
	EntQueueAllocator alloc;
	uint64_t	seed;
	Node	  **buckets;
	size_t		nbuckets;		/* a power of two */
	size_t		length;
	size_t		memory;
	List	   *lists;			/* ordered by priority */
	size_t		nlists;
	size_t		lists_cap;
};

#define FIRST_BUCKETS	64
#define FIRST_LISTS		4

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
hash_object(const EntQueue *q, int32_t rel, const uint8_t *key, size_t len)
{
	uint64_t	h = mix(q->seed ^ ((uint64_t) (uint32_t) rel << 32) ^ len);

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
			node->e.keylen == e->keylen &&
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

/* ---- lists ---- */

/* Index of the first list whose priority is not below this one. */
static size_t
list_index(const EntQueue *q, int32_t priority)
{
	size_t		lo = 0,
				hi = q->nlists;

	while (lo < hi)
	{
		size_t		mid = lo + (hi - lo) / 2;

		if (q->lists[mid].priority < priority)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static void
grow_lists(EntQueue *q)
{
	size_t		cap = q->lists_cap == 0 ? FIRST_LISTS : q->lists_cap * 2;
	List	   *lists = take(q, cap * sizeof(List));

	if (q->nlists > 0)
	{
		memcpy(lists, q->lists, q->nlists * sizeof(List));
		give(q, q->lists, q->lists_cap * sizeof(List));
	}
	q->lists = lists;
	q->lists_cap = cap;
}

/* The list of a priority, made when it is missing. */
static List *
list_of(EntQueue *q, int32_t priority)
{
	size_t		i = list_index(q, priority);

	if (i < q->nlists && q->lists[i].priority == priority)
		return &q->lists[i];
	if (q->nlists == q->lists_cap)
		grow_lists(q);
	memmove(&q->lists[i + 1], &q->lists[i], (q->nlists - i) * sizeof(List));
	q->nlists++;
	memset(&q->lists[i], 0, sizeof(List));
	q->lists[i].priority = priority;
	return &q->lists[i];
}

/* after NULL: at the head */
static void
link_after(List *list, Node *node, Node *after)
{
	node->prev = after;
	node->next = after != NULL ? after->next : list->head;
	if (node->next != NULL)
		node->next->prev = node;
	else
		list->tail = node;
	if (after != NULL)
		after->next = node;
	else
		list->head = node;
}

static void
unlink_node(List *list, Node *node)
{
	if (node->prev != NULL)
		node->prev->next = node->next;
	else
		list->head = node->next;
	if (node->next != NULL)
		node->next->prev = node->prev;
	else
		list->tail = node->prev;
	if (list->finger == node)
		list->finger = node->prev;
}

/*
 * The last node at or before position, looked for from the finger (from the
 * tail when there is none). Head and tail are known not to be the answer:
 * head.position <= position < tail.position.
 */
static Node *
walk_to(const List *list, uint64_t position)
{
	Node	   *node = list->finger != NULL ? list->finger : list->tail;

	while (node->e.position > position)
		node = node->prev;
	while (node->next->e.position <= position)
		node = node->next;
	return node;
}

static void
insert_ordered(List *list, Node *node)
{
	uint64_t	position = node->e.position;

	if (list->tail == NULL || position >= list->tail->e.position)
		link_after(list, node, list->tail);
	else if (position < list->head->e.position)
		link_after(list, node, NULL);
	else
	{
		link_after(list, node, walk_to(list, position));
		list->finger = node;
	}
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
	if (q->lists != NULL)
		give(q, q->lists, q->lists_cap * sizeof(List));
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
	if (e->owner != have->owner)
	{
		have->owner = e->owner;
		have->since = 0;
	}
}

/* Moves an entry to where a smaller position or another priority puts it. */
static void
replace(EntQueue *q, Node *node, uint64_t position, int32_t priority)
{
	unlink_node(list_of(q, node->e.priority), node);
	node->e.position = position;
	node->e.priority = priority;
	insert_ordered(list_of(q, priority), node);
}

bool
ent_queue_push(EntQueue *q, const EntQueueEntry *e)
{
	uint64_t	hash = hash_object(q, e->rel, e->key, e->keylen);
	Node	   *node = find(q, hash, e);

	assert(e->keylen <= ENT_QUEUE_MAX_KEY);
	if (node == NULL)
	{
		node = add_node(q, hash, e);
		insert_ordered(list_of(q, e->priority), node);
		return false;
	}
	join(&node->e, e);
	if (e->position < node->e.position)
		replace(q, node, e->position, e->priority);
	else if (e->priority != node->e.priority)
		replace(q, node, node->e.position, e->priority);
	return true;
}

static List *
first_list(const EntQueue *q)
{
	for (size_t i = 0; i < q->nlists; i++)
		if (q->lists[i].head != NULL)
			return &q->lists[i];
	return NULL;
}

bool
ent_queue_pop(EntQueue *q, EntQueueEntry *e, uint8_t *keybuf)
{
	List	   *list = first_list(q);
	Node	   *node;

	if (list == NULL)
		return false;
	node = list->head;
	unlink_node(list, node);
	*e = node->e;
	memcpy(keybuf, node->key, node->e.keylen);
	e->key = keybuf;
	drop_node(q, node);
	return true;
}

const EntQueueEntry *
ent_queue_peek(const EntQueue *q)
{
	const List *list = first_list(q);

	return list != NULL ? &list->head->e : NULL;
}

void
ent_queue_filter(EntQueue *q, bool (*keep) (const EntQueueEntry *e, void *arg),
				 void *arg)
{
	for (size_t i = 0; i < q->nlists; i++)
	{
		List	   *list = &q->lists[i];

		for (Node *node = list->head; node != NULL;)
		{
			Node	   *next = node->next;

			if (!keep(&node->e, arg))
			{
				unlink_node(list, node);
				drop_node(q, node);
			}
			node = next;
		}
	}
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

	for (size_t i = 0; i < q->nlists; i++)
		if (q->lists[i].head != NULL &&
			q->lists[i].head->e.position < least)
			least = q->lists[i].head->e.position;
	return least;
}

int64_t
ent_queue_oldest(const EntQueue *q)
{
	int64_t		least = INT64_MAX;

	for (size_t i = 0; i < q->nlists; i++)
		if (q->lists[i].head != NULL &&
			q->lists[i].head->e.stale_at < least)
			least = q->lists[i].head->e.stale_at;
	return least;
}

size_t
ent_queue_memory(const EntQueue *q)
{
	return q->memory;
}
