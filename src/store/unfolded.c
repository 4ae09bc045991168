/*
 * store/unfolded.c
 *	  Changes of some objects that are in the log and not folded yet.
 *
 * What a page held when it was read, it or less holds now, unless a row has been
 * written into it since; that is counted in shared memory for some pages together
 * (ent_shmem_log_mark), and of those that share a count the LSN tells. Whether a
 * snapshot sees a row is asked each time; one that was deleted before it is forgotten,
 * for no later one sees it; so those of which nobody asks are, when there are many. A
 * change takes up to 56 bytes.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/bufpage.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/shmem.h"
#include "store/catalog.h"
#include "store/unfolded.h"

#define NONE		(-1)

#define MANY		65536		/* notes that are not kept for longer than ... */
#define KEPT_MS		60000

/* A change. Those with one place in heads, and those of a page, are chained. */
typedef struct Note
{
	uint32		hash;			/* of its key */
	BlockNumber block;
	OffsetNumber at;
	bool		any;			/* it has no key, or one that is not in the page */
	int32		next;
	int32		previous;
	int32		next_in_page;	/* or the next free one */
} Note;

typedef struct PageNotes
{
	XLogRecPtr	lsn;			/* invalid: to be read */
	int32		first;
	TransactionId youngest;		/* that has written a row of it; may be frozen */
} PageNotes;

/* What this process remembers of the log. */
static struct
{
	MemoryContext context;
	Oid			file;			/* of which it is */
	PageNotes  *pages;
	BlockNumber n;
	BlockNumber room;
	Note	   *notes;
	int32		nnotes;			/* that were used once, and */
	int32		used;			/* ... that are */
	int32		maxnotes;		/* 0, or a power of two */
	int32		free;			/* the first one */
	int32	   *heads;			/* maxnotes of them, by hash */
	int32		any;			/* the first one that may be of any key */
	uint32		marks[ENT_LOG_MARKS];	/* what they were when pages were read */
	TransactionId xmax;			/* of the newest snapshot it was used with, */
	uint32		running;		/* ... and how many transactions ran then */
	TimestampTz since;			/* it began anew then */
	bool		newest_first;	/* at the last search for all */
}			memory;

uint32
ent_unfolded_hash(const uint8 *key, size_t keylen)
{
	return hash_bytes(key, keylen);
}

static void
forget(void)
{
	if (memory.context == NULL)
		memory.context = AllocSetContextCreate(TopMemoryContext,
											   "entanglement unfolded changes",
											   ALLOCSET_DEFAULT_SIZES);
	MemoryContextReset(memory.context);
	memory.pages = NULL;
	memory.n = memory.room = 0;
	memory.notes = NULL;
	memory.heads = NULL;
	memory.nnotes = memory.used = memory.maxnotes = 0;
	memory.free = memory.any = NONE;
	memory.since = GetCurrentTimestamp();
}

/* Was the snapshot taken before one that the memory was used with? */
static bool
is_older(Snapshot s)
{
	return TransactionIdPrecedes(s->xmax, memory.xmax) ||
		(s->xmax == memory.xmax && s->xcnt > memory.running);
}

/* The first pages of that file, of which so many are to be known. */
static void
make_room(Oid file, BlockNumber n, Snapshot snapshot)
{
	if (memory.context == NULL || file != memory.file || n < memory.n ||
		is_older(snapshot) ||
		(memory.used > MANY && TimestampDifferenceExceeds(memory.since,
														  GetCurrentTimestamp(), KEPT_MS)))
		forget();
	memory.file = file;
	memory.xmax = snapshot->xmax;
	memory.running = snapshot->xcnt;
	if (n > memory.room)
	{
		BlockNumber room = Max(n, 2 * memory.room);
		Size		size = room * sizeof(PageNotes);

		memory.pages = memory.pages == NULL ?
			MemoryContextAllocHuge(memory.context, size) :
			repalloc_huge(memory.pages, size);
		for (BlockNumber i = memory.room; i < room; i++)
			memory.pages[i] = (PageNotes) {InvalidXLogRecPtr, NONE, InvalidTransactionId};
		memory.room = room;
	}
	memory.n = n;
}

/* ---- notes ---- */

static int32 *
head_of(const Note *note)
{
	return note->any ? &memory.any : &memory.heads[note->hash & (memory.maxnotes - 1)];
}

static void
chain(int32 i)
{
	int32	   *head = head_of(&memory.notes[i]);

	memory.notes[i].next = *head;
	memory.notes[i].previous = NONE;
	if (*head != NONE)
		memory.notes[*head].previous = i;
	*head = i;
}

/* All notes there are are in use. */
static void
grow(void)
{
	int32		max = memory.maxnotes == 0 ? 256 : 2 * memory.maxnotes;

	if (max < 0)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("too many changes wait in entanglement.change")));
	if (memory.notes == NULL)
	{
		memory.notes = MemoryContextAllocHuge(memory.context, max * sizeof(Note));
		memory.heads = MemoryContextAllocHuge(memory.context, max * sizeof(int32));
	}
	else
	{
		memory.notes = repalloc_huge(memory.notes, max * sizeof(Note));
		memory.heads = repalloc_huge(memory.heads, max * sizeof(int32));
	}
	memory.maxnotes = max;
	memory.any = NONE;
	for (int32 i = 0; i < max; i++)
		memory.heads[i] = NONE;
	/* none is free */
	for (int32 i = 0; i < memory.nnotes; i++)
		chain(i);
}

static void
add_note(PageNotes *p, const Note *note)
{
	int32		i = memory.free;

	if (i == NONE)
	{
		if (memory.nnotes == memory.maxnotes)
			grow();
		i = memory.nnotes++;
	}
	else
		memory.free = memory.notes[i].next_in_page;
	memory.notes[i] = *note;
	memory.notes[i].next_in_page = p->first;
	p->first = i;
	memory.used++;
	chain(i);
}

/* It has been taken out of its page's chain. */
static void
free_note(int32 i)
{
	Note	   *note = &memory.notes[i];

	if (note->previous == NONE)
		*head_of(note) = note->next;
	else
		memory.notes[note->previous].next = note->next;
	if (note->next != NONE)
		memory.notes[note->next].previous = note->previous;
	note->next_in_page = memory.free;
	memory.free = i;
	memory.used--;
}

static void
remove_note(int32 i)
{
	int32	   *link = &memory.pages[memory.notes[i].block].first;

	while (*link != i)
		link = &memory.notes[*link].next_in_page;
	*link = memory.notes[i].next_in_page;
	free_note(i);
}

/* ---- pages ---- */

static Note
note_of(HeapTuple tuple, TupleDesc desc)
{
	Note		note = {
		.block = ItemPointerGetBlockNumber(&tuple->t_self),
		.at = ItemPointerGetOffsetNumber(&tuple->t_self)
	};
	bool		null;
	Datum		key = heap_getattr(tuple, ENT_CHANGE_KEY, desc, &null);
	struct varlena *v = (struct varlena *) DatumGetPointer(key);

	note.any = null || VARATT_IS_EXTERNAL(v) || VARATT_IS_COMPRESSED(v);
	if (!note.any)
		note.hash = ent_unfolded_hash((uint8 *) VARDATA_ANY(v), VARSIZE_ANY_EXHDR(v));
	return note;
}

/* The buffer is locked. False: there is no row at that place any more. */
static bool
row_at(Relation log, Buffer buffer, OffsetNumber at, HeapTuple tuple)
{
	Page		page = BufferGetPage(buffer);
	ItemId		item;

	if (at > PageGetMaxOffsetNumber(page))
		return false;
	item = PageGetItemId(page, at);
	if (!ItemIdIsNormal(item))
		return false;
	tuple->t_data = (HeapTupleHeader) PageGetItem(page, item);
	tuple->t_len = ItemIdGetLength(item);
	tuple->t_tableOid = RelationGetRelid(log);
	ItemPointerSet(&tuple->t_self, BufferGetBlockNumber(buffer), at);
	return true;
}

static int
read_page(Relation log, Buffer buffer, Note *notes, TransactionId *youngest)
{
	OffsetNumber last = PageGetMaxOffsetNumber(BufferGetPage(buffer));
	int			n = 0;
	HeapTupleData tuple;

	*youngest = FrozenTransactionId;
	for (OffsetNumber at = FirstOffsetNumber; at <= last; at++)
	{
		TransactionId writer;

		if (!row_at(log, buffer, at, &tuple))
			continue;
		notes[n++] = note_of(&tuple, RelationGetDescr(log));
		writer = HeapTupleHeaderGetXmin(tuple.t_data);
		if (TransactionIdFollows(writer, *youngest))
			*youngest = writer;
	}
	return n;
}

static void
set_notes(PageNotes *p, const Note *notes, int n)
{
	p->lsn = InvalidXLogRecPtr;
	while (p->first != NONE)
	{
		int32		i = p->first;

		p->first = memory.notes[i].next_in_page;
		free_note(i);
	}
	for (int i = n - 1; i >= 0; i--)
		add_note(p, &notes[i]);
}

/* Reads the page, if it has changed. What is dead to everybody goes first. */
static void
look_into(Relation log, BlockNumber block)
{
	PageNotes  *p = &memory.pages[block];
	Buffer		buffer = ReadBuffer(log, block);
	Note		notes[MaxHeapTuplesPerPage];
	XLogRecPtr	lsn;
	int			n;

	heap_page_prune_opt(log, buffer);
	if (p->lsn != InvalidXLogRecPtr && BufferGetLSNAtomic(buffer) == p->lsn)
	{
		ReleaseBuffer(buffer);
		return;
	}
	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	lsn = PageGetLSN(BufferGetPage(buffer));
	n = read_page(log, buffer, notes, &p->youngest);
	UnlockReleaseBuffer(buffer);
	set_notes(p, notes, n);
	p->lsn = lsn;
}

/* Looks into the pages that may hold more than is known. */
static void
refresh(Relation log)
{
	pg_atomic_uint32 *marks = ent_shmem_log_marks();
	uint32		now[ENT_LOG_MARKS];

	pg_read_barrier();
	for (int i = 0; i < ENT_LOG_MARKS; i++)
		now[i] = marks == NULL ? memory.marks[i] + 1 : pg_atomic_read_u32(&marks[i]);
	for (BlockNumber block = 0; block < memory.n; block++)
	{
		const PageNotes *p = &memory.pages[block];
		int			mark = block % ENT_LOG_MARKS;

		if (p->lsn != InvalidXLogRecPtr && now[mark] == memory.marks[mark])
			continue;
		CHECK_FOR_INTERRUPTS();
		look_into(log, block);
	}
	memcpy(memory.marks, now, sizeof(now));
}

/* ---- search ---- */

/* A row that the snapshot does not see: will none that is taken later? */
static bool
is_gone(HeapTupleHeader row, Snapshot snapshot)
{
	if (HeapTupleHeaderXminInvalid(row))
		return true;
	return HeapTupleHeaderXminCommitted(row) &&
		(row->t_infomask & (HEAP_XMAX_COMMITTED | HEAP_XMAX_INVALID |
							HEAP_XMAX_IS_MULTI)) == HEAP_XMAX_COMMITTED &&
		!HEAP_XMAX_IS_LOCKED_ONLY(row->t_infomask) &&
		!XidInMVCCSnapshot(HeapTupleHeaderGetRawXmax(row), snapshot);
}

typedef struct Search
{
	Relation	log;
	Snapshot	snapshot;
	TupleTableSlot *slot;
	bool		(*fn) (void *arg, TupleTableSlot *slot);
	void	   *arg;
} Search;

/* The row of a note, if the snapshot sees it. What is gone is forgotten. False: enough. */
static bool
visit(const Search *s, int32 i, Buffer buffer)
{
	HeapTupleData tuple;
	bool		seen = false,
				gone;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	gone = !row_at(s->log, buffer, memory.notes[i].at, &tuple);
	if (!gone)
	{
		seen = HeapTupleSatisfiesVisibility(&tuple, s->snapshot, buffer);
		gone = !seen && is_gone(tuple.t_data, s->snapshot);
	}
	LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
	if (gone)
		remove_note(i);
	if (!seen)
		return true;
	ExecStoreBufferHeapTuple(&tuple, s->slot, buffer);
	return s->fn(s->arg, s->slot);
}

static bool
search_page(const Search *s, BlockNumber block)
{
	Buffer		buffer = ReadBuffer(s->log, block);
	bool		more = true;
	int32		next;

	for (int32 i = memory.pages[block].first; i != NONE && more; i = next)
	{
		next = memory.notes[i].next_in_page;
		more = visit(s, i, buffer);
	}
	ReleaseBuffer(buffer);
	return more;
}

static bool
search_chain(const Search *s, int32 first, const uint32 *hash)
{
	bool		more = true;
	int32		next;

	for (int32 i = first; i != NONE && more; i = next)
	{
		Buffer		buffer;

		next = memory.notes[i].next;
		if (hash != NULL && memory.notes[i].hash != *hash)
			continue;
		buffer = ReadBuffer(s->log, memory.notes[i].block);
		more = visit(s, i, buffer);
		ReleaseBuffer(buffer);
	}
	return more;
}

static int
by_age(const void *a, const void *b)
{
	TransactionId x = memory.pages[*(const BlockNumber *) a].youngest,
				y = memory.pages[*(const BlockNumber *) b].youngest;

	return x == y ? 0 : TransactionIdFollows(x, y) ? -1 : 1;
}

/* Every other time, pages that were written to last come first. */
static void
search_all(const Search *s)
{
	BlockNumber *blocks = palloc_extended((memory.n + 1) * sizeof(BlockNumber), MCXT_ALLOC_HUGE);
	BlockNumber n = 0;
	bool		more = true;

	for (BlockNumber block = 0; block < memory.n; block++)
		if (memory.pages[block].first != NONE)
			blocks[n++] = block;
	memory.newest_first = !memory.newest_first;
	if (memory.newest_first)
		qsort(blocks, n, sizeof(BlockNumber), by_age);
	for (BlockNumber i = 0; i < n && more; i++)
		more = search_page(s, blocks[i]);
	pfree(blocks);
}

static void
search(const Search *s, const uint32 *hashes, int n)
{
	if (memory.used == 0 || !search_chain(s, memory.any, NULL))
		return;
	for (int i = 0; i < n; i++)
		if (!search_chain(s, memory.heads[hashes[i] & (memory.maxnotes - 1)], &hashes[i]))
			return;
}

void
ent_unfolded_find(Snapshot snapshot, const uint32 *hashes, int n,
				  bool (*fn) (void *arg, TupleTableSlot *slot), void *arg)
{
	Search		s = {
		.log = ent_catalog_open(ENT_CATALOG_CHANGE, AccessShareLock),
		.snapshot = snapshot, .fn = fn, .arg = arg
	};

	s.slot = table_slot_create(s.log, NULL);
	make_room(s.log->rd_rel->relfilenode, RelationGetNumberOfBlocks(s.log), snapshot);
	refresh(s.log);
	if (hashes == NULL)
		search_all(&s);
	else
		search(&s, hashes, n);
	ExecDropSingleTupleTableSlot(s.slot);
	table_close(s.log, NoLock);
}
