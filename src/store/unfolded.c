/*
 * store/unfolded.c
 *	  Changes of some objects that are in the log and not folded yet.
 *
 * What a page held when it was read, it or less holds now, unless a row has been
 * written into it since; that is counted in shared memory for some pages together
 * (ent_shmem_log_mark), and of those that share a count the LSN tells. Whether a
 * snapshot sees a row is asked each time. 12 bytes are remembered of a change.
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
	bool		any;			/* the key is not in the page: it may be any */
} Note;

typedef struct PageNotes
{
	XLogRecPtr	lsn;			/* invalid: to be read */
	int			n;
	bool		less;			/* not all of that is there any more, it seems */
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
}			memory;

uint32
ent_unfolded_hash(const uint8 *key, size_t keylen)
{
	return hash_bytes(key, keylen);
}

static void
forget(Oid file)
{
	if (memory.context == NULL)
		memory.context = AllocSetContextCreate(TopMemoryContext,
											   "entanglement unfolded changes",
											   ALLOCSET_DEFAULT_SIZES);
	MemoryContextReset(memory.context);
	memory.pages = NULL;
	memory.n = memory.room = 0;
	memory.file = file;
}

/* Pages up to the n-th are to be known. */
static void
make_room(Oid file, BlockNumber n)
{
	if (memory.context == NULL || file != memory.file || n < memory.n)
		forget(file);
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

/* False: it has no key, and is of no object. */
static bool
note_of(HeapTuple tuple, TupleDesc desc, Note *note)
{
	bool		null;
	Datum		key = heap_getattr(tuple, ENT_CHANGE_KEY, desc, &null);
	struct varlena *v = (struct varlena *) DatumGetPointer(key);

	if (null)
		return false;
	note->at = ItemPointerGetOffsetNumber(&tuple->t_self);
	note->any = VARATT_IS_EXTERNAL(v) || VARATT_IS_COMPRESSED(v);
	note->hash = note->any ? 0 :
		ent_unfolded_hash((uint8 *) VARDATA_ANY(v), VARSIZE_ANY_EXHDR(v));
	return true;
}

/* The buffer is locked. */
static int
read_page(Relation log, Page page, BlockNumber block, Note *notes)
{
	OffsetNumber last = PageGetMaxOffsetNumber(page);
	int			n = 0;

	for (OffsetNumber at = FirstOffsetNumber; at <= last; at++)
	{
		ItemId		item = PageGetItemId(page, at);
		HeapTupleData tuple;

		if (!ItemIdIsNormal(item))
			continue;
		tuple.t_data = (HeapTupleHeader) PageGetItem(page, item);
		tuple.t_len = ItemIdGetLength(item);
		tuple.t_tableOid = RelationGetRelid(log);
		ItemPointerSet(&tuple.t_self, block, at);
		n += note_of(&tuple, RelationGetDescr(log), &notes[n]);
	}
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

	p->less = false;
	heap_page_prune_opt(log, buffer);
	if (p->lsn != InvalidXLogRecPtr && BufferGetLSNAtomic(buffer) == p->lsn)
	{
		ReleaseBuffer(buffer);
		return;
	}
	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	lsn = PageGetLSN(BufferGetPage(buffer));
	n = read_page(log, BufferGetPage(buffer), block, notes);
	UnlockReleaseBuffer(buffer);
	set_notes(p, notes, n);
	p->lsn = lsn;
}

/* Looks into the pages that may hold more than is known, or less. */
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

		if (p->lsn != InvalidXLogRecPtr && !p->less && now[mark] == memory.marks[mark])
			continue;
		CHECK_FOR_INTERRUPTS();
		look_into(log, block);
	}
	memcpy(memory.marks, now, sizeof(now));
}

/* The hashes that are asked for, and some others. */
static uint8 *
make_sieve(const uint32 *hashes, int n)
{
	uint8	   *sieve = palloc0(SIEVE_BITS / 8);

	for (int i = 0; i < n; i++)
		sieve[hashes[i] % SIEVE_BITS / 8] |= 1 << hashes[i] % 8;
	return sieve;
}

static bool
passes(const uint8 *sieve, const Note *note)
{
	return note->any ||
		(sieve[note->hash % SIEVE_BITS / 8] & 1 << note->hash % 8) != 0;
}

void
ent_unfolded_find(Snapshot snapshot, const uint32 *hashes, int n,
				  void (*fn) (void *arg, TupleTableSlot *slot), void *arg)
{
	Relation	log = ent_catalog_open(ENT_CATALOG_CHANGE, AccessShareLock);
	TupleTableSlot *slot = table_slot_create(log, NULL);
	uint8	   *sieve = make_sieve(hashes, n);

	make_room(log->rd_rel->relfilenode, RelationGetNumberOfBlocks(log));
	refresh(log);
	for (BlockNumber block = 0; block < memory.n; block++)
	{
		PageNotes  *p = &memory.pages[block];

		for (int i = 0; i < p->n; i++)
		{
			ItemPointerData at;

			if (!passes(sieve, &p->notes[i]))
				continue;
			ItemPointerSet(&at, block, p->notes[i].at);
			if (table_tuple_fetch_row_version(log, &at, snapshot, slot))
				fn(arg, slot);
			else
				p->less = true;
		}
	}
	ExecDropSingleTupleTableSlot(slot);
	pfree(sieve);
	table_close(log, NoLock);
}
