/*
 * store/unfolded.c
 *	  Changes of some objects that are in the log and not folded yet.
 *
 * What a page held when it was read, it or less holds now, unless a row has been
 * written into it since; that is counted in shared memory for some pages together
 * (ent_shmem_log_mark), and of those that share a count the LSN tells. Whether a
 * snapshot sees a row is asked each time; one that was deleted before it is forgotten,
 * for no later one sees it. 12 bytes are remembered of a change.
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

#include "base/compat.h"
#include "base/shmem.h"
#include "store/catalog.h"
#include "store/unfolded.h"

#define SIEVE_BITS	65536		/* 8 kB: stays in the processor's first cache */

typedef struct Note
{
	uint32		hash;
	OffsetNumber at;
	bool		any;			/* it has no key, or one that is not in the page */
} Note;

typedef struct PageNotes
{
	XLogRecPtr	lsn;			/* invalid: to be read */
	int			n;
	Note	   *notes;
} PageNotes;

/* What this process remembers of the log. */
static struct
{
	MemoryContext context;
	Oid			file;			/* of which it is */
	BlockNumber n;
	BlockNumber room;
	PageNotes  *pages;
	uint32		marks[ENT_LOG_MARKS];	/* what they were when pages were read */
	TransactionId xmax;			/* of the newest snapshot it was used with, */
	uint32		running;		/* ... and how many transactions ran then */
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
		is_older(snapshot))
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
		memset(memory.pages + memory.room, 0,
			   (room - memory.room) * sizeof(PageNotes));
		memory.room = room;
	}
	memory.n = n;
}

static Note
note_of(HeapTuple tuple, TupleDesc desc)
{
	Note		note = {.at = ItemPointerGetOffsetNumber(&tuple->t_self)};
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
read_page(Relation log, Buffer buffer, Note *notes)
{
	OffsetNumber last = PageGetMaxOffsetNumber(BufferGetPage(buffer));
	int			n = 0;
	HeapTupleData tuple;

	for (OffsetNumber at = FirstOffsetNumber; at <= last; at++)
		if (row_at(log, buffer, at, &tuple))
			notes[n++] = note_of(&tuple, RelationGetDescr(log));
	return n;
}

static void
set_notes(PageNotes *p, const Note *notes, int n)
{
	p->lsn = InvalidXLogRecPtr;
	p->n = 0;
	if (p->notes != NULL)
		pfree(p->notes);
	p->notes = NULL;
	if (n > 0)
	{
		p->notes = MemoryContextAlloc(memory.context, n * sizeof(Note));
		memcpy(p->notes, notes, n * sizeof(Note));
	}
	p->n = n;
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
	n = read_page(log, buffer, notes);
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

/* The hashes that are asked for, and some others. NULL: all. */
static uint8 *
make_sieve(const uint32 *hashes, int n)
{
	uint8	   *sieve;

	if (hashes == NULL)
		return NULL;
	sieve = palloc0(SIEVE_BITS / 8);
	for (int i = 0; i < n; i++)
		sieve[hashes[i] % SIEVE_BITS / 8] |= 1 << hashes[i] % 8;
	return sieve;
}

static bool
passes(const uint8 *sieve, const Note *note)
{
	return sieve == NULL || note->any ||
		(sieve[note->hash % SIEVE_BITS / 8] & 1 << note->hash % 8) != 0;
}

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

/* Is the row seen? It is in the slot then. */
static bool
fetch(Relation log, Buffer buffer, const Note *note, Snapshot snapshot,
	  HeapTuple tuple, TupleTableSlot *slot, bool *gone)
{
	bool		seen = false;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	*gone = !row_at(log, buffer, note->at, tuple);
	if (!*gone)
	{
		seen = HeapTupleSatisfiesVisibility(tuple, snapshot, buffer);
		*gone = !seen && is_gone(tuple->t_data, snapshot);
	}
	LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
	if (seen)
		ExecStoreBufferHeapTuple(tuple, slot, buffer);
	return seen;
}

typedef struct Search
{
	Relation	log;
	Snapshot	snapshot;
	const uint8 *sieve;
	TupleTableSlot *slot;
	bool		(*fn) (void *arg, TupleTableSlot *slot);
	void	   *arg;
} Search;

/* False: the search is at its end. */
static bool
search_page(const Search *s, BlockNumber block)
{
	PageNotes  *p = &memory.pages[block];
	Buffer		buffer = InvalidBuffer;
	HeapTupleData tuple;
	XLogRecPtr	lsn = p->lsn;
	bool		more = true;
	int			kept = 0;

	p->lsn = InvalidXLogRecPtr; /* if fn fails */
	for (int i = 0; i < p->n; i++)
	{
		bool		gone = false;

		if (more && passes(s->sieve, &p->notes[i]))
		{
			if (!BufferIsValid(buffer))
				buffer = ReadBuffer(s->log, block);
			if (fetch(s->log, buffer, &p->notes[i], s->snapshot, &tuple, s->slot, &gone))
				more = s->fn(s->arg, s->slot);
		}
		if (!gone)
			p->notes[kept++] = p->notes[i];
	}
	p->n = kept;
	p->lsn = lsn;
	if (BufferIsValid(buffer))
		ReleaseBuffer(buffer);
	return more;
}

void
ent_unfolded_find(Snapshot snapshot, const uint32 *hashes, int n,
				  bool (*fn) (void *arg, TupleTableSlot *slot), void *arg)
{
	Relation	log = ent_catalog_open(ENT_CATALOG_CHANGE, AccessShareLock);
	Search		s = {
		.log = log, .snapshot = snapshot, .sieve = make_sieve(hashes, n),
		.slot = table_slot_create(log, NULL), .fn = fn, .arg = arg
	};

	make_room(log->rd_rel->relfilenode, RelationGetNumberOfBlocks(log), snapshot);
	refresh(log);
	for (BlockNumber block = 0; block < memory.n; block++)
		if (memory.pages[block].n > 0 && !search_page(&s, block))
			break;
	ExecDropSingleTupleTableSlot(s.slot);
	table_close(log, NoLock);
}
