/*
 * step/fold.c
 *	  Captured changes become versions of objects.
 *
 * Runs in one REPEATABLE READ transaction, so the changes taken from the log
 * and the rows looked at belong to one snapshot: whether an object lives is
 * decided by what was committed, not by the order in which changes were
 * written. There is no cursor on the log; rows of transactions still
 * running are seen by a later fold.
 */
#include "postgres.h"

#include "access/transam.h"
#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/ring.h"
#include "base/wake.h"
#include "rule/colserial.h"
#include "step/fold.h"
#include "step/fold_private.h"
#include "store/direct.h"
#include "store/doubt.h"
#include "store/handover.h"
#include "store/identity.h"
#include "store/journal.h"
#include "store/owner.h"
#include "store/query.h"
#include "store/relinfo.h"
#include "store/request.h"
#include "store/rowquery.h"
#include "store/seek.h"
#include "store/value.h"
#include "store/version.h"

static EntQuery strange_query = {
	"INSERT INTO entanglement.parked (rel, key, owner, peer, epoch, serial, sqlstate, message) "
	"VALUES ($1, $2, $3, 0, $4, $5, '55000', "
	"'the row was written here although its owner is elsewhere') "
	"ON CONFLICT DO NOTHING",
	5, {INT4OID, BYTEAOID, INT4OID, INT4OID, INT8OID}, NULL
};

static EntQuery stranded_query = {
	"INSERT INTO entanglement.arrears (owner, rel) VALUES ($1, $2) ON CONFLICT DO NOTHING",
	2, {INT4OID, INT4OID}, NULL
};

static EntQuery waits_query = {
	"SELECT 1 FROM entanglement.parked WHERE waits_for IS NOT NULL LIMIT 1",
	0, {0}, NULL
};

#define HELP_MS		1000		/* so often at most */
#define RUN			512			/* an owner's births are told together */

/* From whom did owners get what they have no more after this fold? */
static void
find_givers(EntFold *f)
{
	int			n = list_length(f->entries),
				m = 0;
	Datum	   *rels = palloc(n * sizeof(Datum));
	Datum	   *keys = palloc(n * sizeof(Datum));
	EntFoldEntry **entries = palloc(n * sizeof(EntFoldEntry *));
	EntHand    *from = palloc0(n * sizeof(EntHand));
	ListCell   *lc;

	foreach(lc, f->entries)
	{
		EntFoldEntry  *e = lfirst(lc);

		if (e->verdict != ENT_VERDICT_DEATH && e->old_owner == 0)
			continue;
		entries[m] = e;
		rels[m] = Int32GetDatum(e->k.rel);
		keys[m++] = PointerGetDatum(e->image);
	}
	if (m == 0)
		return;
	ent_handover_take_inherited(ent_query_array(INT4OID, rels, NULL, m),
								ent_query_array(BYTEAOID, keys, NULL, m), from);
	for (int i = 0; i < m; i++)
		entries[i]->from = from[i];
}

/* Is the row there, in this transaction's snapshot? */
static bool
row_exists(EntFoldEntry *e)
{
	Datum		values[ENT_WIRE_MAX_KEYS];

	ent_key_values(e->rel, e->k.key, e->k.len, values);
	return ent_rowquery_exists(e->rel, values, GetActiveSnapshot());
}

static EntFoldOwner *
find_owner(EntFold *f, int32 no)
{
	bool		found;
	EntFoldOwner  *o = hash_search(f->owners, &no, HASH_ENTER, &found);

	if (!found)
		memset((char *) o + sizeof(int32), 0, sizeof(EntFoldOwner) - sizeof(int32));
	return o;
}

/* Has it been handed over to an owner who is not at home here? */
static bool
abroad(EntFoldEntry *e)
{
	return e->heir.owner != 0 && !e->heir_local;
}

/* The owner it has, or was to get, leaves a tombstone that names the heir. */
static void
hand_over(EntFold *f, EntFoldEntry *e)
{
	if (e->old_owner == 0)
	{
		e->old_owner = e->owner;
		find_owner(f, e->old_owner)->wanted++;
	}
	e->owner = e->heir.owner;
	e->verdict = ENT_VERDICT_BIRTH;
}

/* Whose are rows that were written before they were objects? */
static int32
default_owner(EntFold *f)
{
	if (f->default_owner == 0)
		f->default_owner = ent_identity_get()->default_owner;
	return f->default_owner;
}

/*
 * What becomes of this object? Leaves verdict TOUCH, BIRTH or DEATH, or LOOK
 * for "nothing", and asks its owners for serials.
 */
static void
judge(EntFold *f, EntFoldEntry *e)
{
	EntVerdict	v = ent_coalesce_verdict(&e->folded);

	if (e->verdict == ENT_VERDICT_LOOK)
		v = ENT_VERDICT_LOOK;
	e->verdict = ENT_VERDICT_LOOK;
	if (e->rel == NULL)
		return;					/* no longer synchronized */
	if (e->folded.changes == 0 && e->heir.owner == 0)
		return;					/* its heir is gone */
	if (v == ENT_VERDICT_TOUCH && e->exists && !e->handed && ent_fold_is_same(e))
		return;					/* written as it was */
	if (v == ENT_VERDICT_TOUCH && !e->exists)
		v = e->folded.changes == 0 ? ENT_VERDICT_LOOK : ENT_VERDICT_BIRTH;
	if (v == ENT_VERDICT_LOOK || (v == ENT_VERDICT_BIRTH && f->doubt))
		v = row_exists(e) ? ENT_VERDICT_BIRTH : ENT_VERDICT_DEATH;
	if (e->exists && !e->local)
	{
		Datum		args[5] = {Int32GetDatum(e->k.rel), PointerGetDatum(e->image),
			Int32GetDatum(e->owner), Int32GetDatum(e->epoch),
		Int64GetDatum(e->serial)};

		ent_query_run(&strange_query, args, NULL, SPI_OK_INSERT, NULL);
		return;
	}
	if (v == ENT_VERDICT_DEATH && !e->exists)
		return;					/* born and died between two folds */
	if (v == ENT_VERDICT_BIRTH)
	{
		int32		owner = e->folded.owner != 0 ? e->folded.owner : default_owner(f);

		/* replaced in one transaction: stays with its owner */
		if (e->exists && (!e->folded.born || !e->folded.died ||
						  e->folded.insert_xid == e->folded.delete_xid))
			owner = e->owner;
		if (e->exists && owner != e->owner)
		{
			e->old_owner = e->owner;
			find_owner(f, e->old_owner)->wanted++;
		}
		e->owner = owner;
	}
	e->verdict = v;
	if (v == ENT_VERDICT_DEATH || e->heir.owner == e->owner)
		e->heir.owner = 0;
	if (e->heir.owner != 0)
		hand_over(f, e);
	if (!abroad(e))
		find_owner(f, e->owner)->wanted++;
}

static bool
not_in_part(void *arg, TupleTableSlot *shown)
{
	bool	   *found = arg;
	bool		null;

	*found = DatumGetChar(slot_getattr(shown, ENT_SHOWN_KIND, &null)) == 's';
	return !*found;
}

/* Is any peer shown a part of a table? */
static bool
any_partial(void)
{
	EntDirect  *shown = ent_direct_open(ENT_CATALOG_SHOWN, ENT_CATALOGS,
										AccessShareLock, GetActiveSnapshot());
	bool		found = false;

	ent_direct_scan(shown, not_in_part, &found);
	ent_direct_close(shown);
	return found;
}

/*
 * Reserves each owner's serials with one update. A peer that may not see what was
 * changed sees the serials that it took: while any peer is shown a part of a table
 * some are left out at random, so that they do not count the changes: 0 to 63, or up
 * to as many as there were.
 */
static void
allocate(EntFold *f)
{
	HASH_SEQ_STATUS seq;
	EntFoldOwner *o;
	bool		blur = any_partial();

	hash_seq_init(&seq, f->owners);
	while ((o = hash_seq_search(&seq)) != NULL)
	{
		int64		gap = blur ? pg_prng_uint64_range(&pg_global_prng_state, 0,
													  Max(64, o->wanted) - 1) : 0;

		o->given = o->wanted + gap;
		o->local = ent_owner_allocate(o->no, &o->given, &o->last, &o->epoch);
		o->next = o->last - o->wanted + 1;
	}
}

/* The column serials of the new version. */
static bytea *
new_columns(EntFoldEntry *e, int64 serial, int64 born)
{
	int			natts = e->rel->natts;
	int64	   *v;
	bytea	   *out;

	if (e->verdict != ENT_VERDICT_TOUCH)
		return ent_versions_all_born();
	v = palloc(natts * sizeof(int64));
	out = palloc(VARHDRSZ + ENT_COLSERIAL_MAX_BYTES(natts));
	ent_colserial_unpack((uint8 *) VARDATA_ANY(e->columns),
						 VARSIZE_ANY_EXHDR(e->columns),
						 e->serial, born, v, natts);
	for (int i = 0; i < natts; i++)
		if (ent_wire_in_set(e->folded.set, e->folded.setlen, i))
			v[i] = serial;
	SET_VARSIZE(out, VARHDRSZ +
				ent_colserial_pack(v, natts, serial, born, (uint8 *) VARDATA(out)));
	return out;
}

/* Is it as good if links find it in the object table, whenever they come to that? */
static bool
may_run(const EntFoldEntry *e)
{
	return e->verdict == ENT_VERDICT_BIRTH && e->old_owner == 0 && e->heir.owner == 0 &&
		!e->rel->integrity && !e->rel->every_state;
}

/* since: the serial before those that it has got now */
static void
post(EntFoldEntry *e, int32 owner, int64 serial, int64 since)
{
	EntEvent	ev = {
		.kind = ENT_EVENT_OBJECT, .owner = owner, .rel = e->k.rel,
		.serial = serial, .since = since, .keylen = e->k.len,
		.key = e->k.key
	};

	ent_wake_post_at_commit(&ev);
}

/*
 * The object of a former owner dies as his, and may live on as the heir's.
 */
static void
settle_old(EntFold *f, EntFoldEntry *e, EntVersions *versions)
{
	EntFoldOwner  *old = e->old_owner == 0 ? NULL : find_owner(f, e->old_owner);
	int64		serial;

	if (old == NULL || !old->local)
		return;
	serial = old->next++;
	ent_versions_bury(versions, e->k.rel, old->no, old->epoch, serial,
					  e->image, e->heir, e->from);
	if (e->heir.owner != 0)
	{
		EntHand		from = {old->no, old->epoch, serial};

		ent_handover_inherited(e->k.rel, e->image, from);
	}
	post(e, old->no, serial, serial - 1);
}

/*
 * Handed over to somebody elsewhere: his until he confirms it by a version of
 * his own. We keep what it was last, for those who have not got it.
 */
static void
settle_abroad(EntFold *f, EntFoldEntry *e, EntVersions *versions)
{
	settle_old(f, e, versions);
	ent_versions_put(versions, e->k.rel, e->heir.owner, e->heir.epoch,
					 e->heir.serial, 0, e->image, new_columns(e, 0, 0), NULL,
					 e->exists ? &e->at : NULL);
}

/*
 * A row was made for an owner that is at home elsewhere by now. It becomes an
 * object older than any, and the home is asked which of the table's live.
 */
static void
strand(EntFoldEntry *e, EntVersions *versions)
{
	Datum		args[2] = {Int32GetDatum(e->owner), Int32GetDatum(e->k.rel)};
	EntOwner   *o = ent_owner_get(e->owner);

	if (e->verdict != ENT_VERDICT_BIRTH || o == NULL || o->gone)
		return;
	ent_versions_put(versions, e->k.rel, o->no, 1, 1, 1, e->image,
					 new_columns(e, 1, 1), NULL, e->exists ? &e->at : NULL);
	ent_query_run(&stranded_query, args, NULL, SPI_OK_INSERT, NULL);
	ent_wake_routes_at_commit();
}

/* Gives the entry its new version and sorts it into the arrays. */
static void
settle(EntFold *f, EntFoldEntry *e, EntVersions *versions, EntJournal *journal)
{
	EntFoldOwner  *o;
	int64		serial,
				since;

	if (abroad(e))
	{
		settle_abroad(f, e, versions);
		return;
	}
	o = find_owner(f, e->owner);
	if (!o->local)
	{
		strand(e, versions);
		return;
	}
	since = o->next - 1;
	ent_fold_settle_states(f, e, o, journal);
	serial = o->next++;
	if (e->heir.owner != 0)
	{
		e->heir.epoch = o->epoch;
		e->heir.serial = serial - 1;
	}
	settle_old(f, e, versions);
	if (e->verdict == ENT_VERDICT_DEATH)
	{
		ent_versions_drop(versions, e->k.rel, e->image);
		ent_versions_bury(versions, e->k.rel, o->no, o->epoch, serial, e->image,
						  e->heir, e->from);
	}
	else
	{
		int64		born = e->verdict == ENT_VERDICT_BIRTH ? serial : e->born;

		ent_versions_put(versions, e->k.rel, o->no, o->epoch, serial, born,
						 e->image, new_columns(e, serial, born), ent_fold_digests(e),
						 e->exists ? &e->at : NULL);
		if (e->exists && e->old_owner == 0 && e->born != 0)
			ent_versions_no_grave(versions);
	}
	if (o->births < RUN || !may_run(e))
	{
		post(e, o->no, serial, since);
		return;
	}
	if (o->run_to == 0)
		o->run_since = since;
	o->run_to = serial;
}

/* What is new of an owner comes before the claim that covers it. */
static void
post_owners(EntFold *f)
{
	HASH_SEQ_STATUS seq;
	EntFoldOwner  *o;

	hash_seq_init(&seq, f->owners);
	while ((o = hash_seq_search(&seq)) != NULL)
	{
		EntEvent	run = {
			.kind = ENT_EVENT_RUN, .owner = o->no, .serial = o->run_to,
			.since = o->run_since
		};
		EntEvent	ev = {.kind = ENT_EVENT_OWNER, .owner = o->no, .serial = o->last};

		if (o->run_to != 0)
			ent_wake_post_at_commit(&run);
		if (o->local)
			ent_wake_post_at_commit(&ev);
	}
}

static void
fold_entries(EntFold *f)
{
	EntVersions *versions;
	EntJournal *journal = ent_journal_create();
	ListCell   *lc;

	f->keeps = f->stated > 0 && ent_journal_wanted(0);
	ent_fold_find_existing(f);
	ent_fold_find_heirs(f);
	foreach(lc, f->entries)
	{
		EntFoldEntry  *e = lfirst(lc);

		ent_fold_compare(e);
		judge(f, e);
		ent_fold_plan_states(f, e);
		if (ent_fold_states_wanted(e) > 0)
			find_owner(f, e->owner)->wanted += ent_fold_states_wanted(e);
		if (may_run(e))
			find_owner(f, e->owner)->births++;
		f->integrity |= e->rel && e->rel->integrity;
	}
	find_givers(f);
	allocate(f);
	versions = ent_versions_create();
	foreach(lc, f->entries)
	{
		EntFoldEntry  *e = lfirst(lc);

		if (e->verdict != ENT_VERDICT_LOOK)
			settle(f, e, versions, journal);
	}
	ent_journal_write(journal);
	ent_versions_write(versions);
	post_owners(f);
}

/*
 * Would it be done again, for those who have heard of it as well? An object that was
 * changed or has died is in our tables, so it gets a newer version in any case. One that
 * was born would get none if it died meanwhile; who handed over, or told of every state,
 * would do so twice.
 */
static bool
is_repeatable(const EntFoldEntry *e)
{
	if (e->verdict == ENT_VERDICT_LOOK)
		return true;
	return e->verdict != ENT_VERDICT_BIRTH && e->old_owner == 0 && e->from.owner == 0 &&
		e->heir.owner == 0 && !e->rel->wal && !e->rel->integrity && !e->rel->every_state;
}

/* As ent_fold says. */
static int64
count_given(EntFold *f)
{
	HASH_SEQ_STATUS seq;
	EntFoldOwner *o;
	int64		most = 0;
	ListCell   *lc;

	if (f->truncated || f->doubt || f->handed > 0)
		return -1;
	foreach(lc, f->entries)
		if (!is_repeatable(lfirst(lc)))
			return -1;
	hash_seq_init(&seq, f->owners);
	while ((o = hash_seq_search(&seq)) != NULL)
		most = Max(most, o->given);
	return most;
}

/* Owners that are sought get a serial that no object has. */
static void
serve_seeks(EntFold *f)
{
	ListCell   *lc;

	if (!ent_seek_any_local())
		return;
	foreach(lc, ent_seek_take_local())
		find_owner(f, lfirst_int(lc))->wanted++;
}

/* Objects that a foreign key holds back may come in: links ask for them. */
static void
help_parked(void)
{
	static TimestampTz helped_at = 0;

	if (!TimestampDifferenceExceeds(helped_at, GetCurrentTimestamp(), HELP_MS))
		return;
	ent_query_run(&waits_query, NULL, NULL, SPI_OK_SELECT, NULL);
	if (SPI_processed > 0)
	{
		helped_at = GetCurrentTimestamp();
		ent_wake_routes_at_commit();
	}
	SPI_freetuptable(SPI_tuptable);
}

uint64
ent_fold(int limit, bool told, bool *more, bool *doubt, int64 *given)
{
	EntFold	   *f = ent_fold_create();
	uint64		taken;

	f->doubt = *doubt || told;
	ent_relinfo_refresh();
	taken = ent_fold_take(f, limit);
	serve_seeks(f);
	if (f->entries != NIL || hash_get_num_entries(f->owners) > 0)
		fold_entries(f);
	if (f->integrity)
		help_parked();
	/* what they did has its version now */
	if (f->complete && ent_request_any_applied())
		ent_request_settle();
	*more = !f->complete;
	if (*doubt != (*more && (f->doubt || f->truncated)))
		ent_doubt_set(*doubt = !*doubt);
	*given = count_given(f);
	return taken;
}
