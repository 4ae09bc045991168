/*
 * link/inrun.c
 *	  The receiving end: sections with state that stand together.
 *
 * Where tables keep their foreign keys, the rows of a batch are right or wrong
 * together, whatever their order: they are applied in one subtransaction,
 * looked at, and if need be taken back and applied again without those that
 * break a foreign key, which are parked.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "base/wake.h"
#include "link/inbound_private.h"
#include "step/apply.h"
#include "store/query.h"

static EntQuery elsewhere_query = {
	"SELECT 1 FROM entanglement.parked p JOIN entanglement.owner o "
	"ON o.no OPERATOR(pg_catalog.=) p.owner "
	"WHERE p.waits_for OPERATOR(pg_catalog.=) ANY ($1) "
	"AND o.peer OPERATOR(pg_catalog.<>) $2 LIMIT 1",
	2, {INT8ARRAYOID, INT4OID}, NULL
};

static EntQuery waiting_query = {
	"SELECT 1 FROM entanglement.parked "
	"WHERE waits_for OPERATOR(pg_catalog.=) ANY ($1) LIMIT 1",
	1, {INT8ARRAYOID}, NULL
};

bool
ent_inbound_is_state(unsigned type)
{
	return type == ENT_SECTION_OBJECTS || type == ENT_SECTION_PRESENT;
}

/* The first of them, and what goes with it; how many that were. */
static int
take_state(EntInbound *ib, EntInSection *sections, int n)
{
	EntReader	body = sections[0].body;

	if (sections[0].type == ENT_SECTION_OBJECTS)
		return ent_inbound_take_objects(ib, sections, n);
	ent_inbound_take_present(ib, &body);
	return 1;
}

/*
 * Is any of them of a table that keeps its foreign keys? What is found out
 * about tables for the first time is written down outside of what may be rolled
 * back.
 */
static bool
any_keeps(EntInbound *ib, EntInSection *sections, int n)
{
	bool		any = false;

	for (int i = 0; i < n; i++)
	{
		EntReader	body = sections[i].body;
		EntWireObjects objects = {0};
		EntWirePresent present = {0};
		EntRelation *rel;

		if (sections[i].type == ENT_SECTION_OBJECTS)
			ent_wire_read_objects(&body, &objects);
		else
			ent_wire_read_present(&body, &present);
		ent_inbound_check(&body, "section");
		rel = ent_inbound_relation(ib, ent_inbound_announced_table(ib, sections[i].type == ENT_SECTION_OBJECTS ?
																   objects.table : present.table));
		any |= rel != NULL && rel->integrity;
	}
	return any;
}

static void
take_all(EntInbound *ib, EntInSection *sections, int n)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "entanglement section",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);

	for (int i = 0; i < n;)
	{
		CHECK_FOR_INTERRUPTS();
		i += take_state(ib, &sections[i], n - i);
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

/* One try; true: everything holds. */
static bool
try_all(EntInbound *ib, EntInSection *sections, int n)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	uint64		received = pg_atomic_read_u64(&ib->slot->objects_received);
	int			asked = list_length(ib->again);
	bool		good;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	ent_integrity_reset(ib->integrity);
	take_all(ib, sections, n);
	good = ent_integrity_check(ib->integrity);
	if (good)
		ReleaseCurrentSubTransaction();
	else
	{
		RollbackAndReleaseCurrentSubTransaction();
		ib->again = list_truncate(ib->again, asked);
		pg_atomic_write_u64(&ib->slot->objects_received, received);
	}
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return good;
}

static Datum
hash_array(List *hashes)
{
	Datum	   *values = palloc(list_length(hashes) * sizeof(Datum));
	int			n = 0;
	ListCell   *lc;

	foreach(lc, hashes)
		values[n++] = Int64GetDatum(*(int64 *) lfirst(lc));
	return ent_query_array(INT8OID, values, NULL, n);
}

static bool
any_found(EntQuery *query, Datum *args)
{
	bool		any;

	ent_query_run(query, args, NULL, SPI_OK_SELECT, NULL);
	any = SPI_processed > 0;
	SPI_freetuptable(SPI_tuptable);
	return any;
}

/* Parked rows may have waited for what has come. */
static void
note_helped(EntInbound *ib, List *helped)
{
	Datum		args[2] = {0, Int32GetDatum(ib->peer)};
	MemoryContext old = MemoryContextSwitchTo(ib->batch);

	args[0] = hash_array(helped);
	ib->helped = lappend(ib->helped, DatumGetPointer(args[0]));
	MemoryContextSwitchTo(old);
	/* those of other peers are asked for again by their links */
	if (any_found(&elsewhere_query, args))
		ent_wake_routes_at_commit();
}

/*
 * Parked rows wait for one that could not come in either: perhaps because it
 * references them in a circle. Asked for together they can.
 */
static void
note_missed(EntInbound *ib, List *missed)
{
	Datum		args[1] = {hash_array(missed)};

	ib->ask_all |= any_found(&waiting_query, args);
}

void
ent_inbound_take_run(EntInbound *ib, EntInSection *sections, int n)
{
	MemoryContext run = AllocSetContextCreate(CurrentMemoryContext,
											  "entanglement run",
											  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(run);

	ib->integrity = any_keeps(ib, sections, n) ? ent_integrity_begin() : NULL;
	if (ib->integrity == NULL)
		take_all(ib, sections, n);
	else
	{
		List	   *helped,
				   *missed;

		while (!try_all(ib, sections, n))
			;
		helped = ent_integrity_helped(ib->integrity);
		if (helped != NIL)
			note_helped(ib, helped);
		missed = ent_integrity_missed(ib->integrity);
		if (missed != NIL)
			note_missed(ib, missed);
	}
	ib->integrity = NULL;
	MemoryContextSwitchTo(old);
	MemoryContextDelete(run);
}
