/*
 * link/outresend.c
 *	  The sending end: tables that a peer must be sent anew, or that are looked at
 *	  again for it.
 *
 * They stand in entanglement.resend (written by entanglement.resync, or when what the
 * peer may see has changed) until all of them has been acknowledged, so that a
 * link that ends in between begins again. What is to be compared is sent as if
 * the peer had asked (ARREARS): which keys live, then each object in full. What
 * is to be reviewed is queued, and extraction decides what there is to tell.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/memutils.h"

#include "link/outbound_private.h"
#include "store/query.h"
#include "store/shown.h"

static EntQuery resend_query = {
	"SELECT owner, rel, round, compare FROM entanglement.resend "
	"WHERE peer OPERATOR(pg_catalog.=) $1",
	1, {INT4OID}, NULL
};
/* Who holds one is noting it once more, and others after it: not to be waited for. */
static EntQuery resent_query = {
	"DELETE FROM entanglement.resend WHERE (peer, owner, rel) OPERATOR(pg_catalog.=) "
	"(SELECT s.peer, s.owner, s.rel FROM entanglement.resend s "
	"WHERE s.peer OPERATOR(pg_catalog.=) $1 AND s.owner OPERATOR(pg_catalog.=) $2 "
	"AND s.rel OPERATOR(pg_catalog.=) $3 AND s.round OPERATOR(pg_catalog.=) $4 "
	"FOR UPDATE SKIP LOCKED)",
	4, {INT4OID, INT4OID, INT4OID, INT8OID}, NULL
};

static void
forget(EntOutbound *ob, const EntOutResent *r)
{
	Datum		args[4] = {Int32GetDatum(ob->peer), Int32GetDatum(r->owner),
	Int32GetDatum(r->rel), Int64GetDatum(r->round)};

	ent_query_run(&resent_query, args, NULL, SPI_OK_DELETE, NULL);
	if (SPI_processed > 0 && ent_shown_reviewed(ob->peer, r->rel))
		ent_outbound_look_anew(ob, r->rel);
}

static bool
under_way(EntOutbound *ob, const EntOutResent *r)
{
	dlist_iter	iter;

	dlist_foreach(iter, &ob->arrears)
	{
		EntOutArrears *a = dlist_container(EntOutArrears, node, iter.cur);

		if (a->owner == r->owner && a->rel == r->rel)
			return a->resend && a->round == r->round;
	}
	dlist_foreach(iter, &ob->flights)
	{
		ListCell   *lc;

		foreach(lc, dlist_container(EntOutFlight, node, iter.cur)->resent)
		{
			EntOutResent *sent = lfirst(lc);

			if (sent->owner == r->owner && sent->rel == r->rel &&
				sent->round == r->round)
				return true;
		}
	}
	return false;
}

static void
begin(EntOutbound *ob, const EntOutResent *r)
{
	EntOutOwner *o = hash_search(ob->owners, &r->owner, HASH_FIND, NULL);
	EntOutTable *t = hash_search(ob->tables, &r->rel, HASH_FIND, NULL);
	EntOutArrears *a;

	if (o != NULL && !o->answered)
		return;					/* looked at again when the peer has answered */
	if (o == NULL || !o->wanted || t == NULL || !t->known)
	{
		/* the peer takes it by another way, or not at all: nothing to mend */
		forget(ob, r);
		return;
	}
	if (under_way(ob, r))
		return;
	a = (r->compare ? ent_outbound_start_arrears : ent_outbound_start_review)
		(ob, r->owner, r->rel, ob->ring_position);
	a->resend = true;
	a->round = r->round;
}

void
ent_outbound_load_resend(EntOutbound *ob)
{
	Datum		args[1] = {Int32GetDatum(ob->peer)};
	EntOutResent *all;
	int			n;

	ent_query_run(&resend_query, args, NULL, SPI_OK_SELECT, NULL);
	n = SPI_processed;
	all = palloc((n + 1) * sizeof(EntOutResent));
	for (int i = 0; i < n; i++)
	{
		all[i].owner = ent_query_int4(i, 1, NULL);
		all[i].rel = ent_query_int4(i, 2, NULL);
		all[i].round = ent_query_int8(i, 3, NULL);
		all[i].compare = ent_query_bool(i, 4);
	}
	SPI_freetuptable(SPI_tuptable);
	for (int i = 0; i < n; i++)
		begin(ob, &all[i]);
	pfree(all);
	ob->resend_due = false;
}

void
ent_outbound_note_resent(EntOutbound *ob, EntOutArrears *a)
{
	EntOutResent *r = ent_outbound_note(ob, &ob->flight->resent, sizeof(EntOutResent));

	r->owner = a->owner;
	r->rel = a->rel;
	r->round = a->round;
}

void
ent_outbound_settle_resent(EntOutbound *ob, EntOutFlight *f)
{
	ListCell   *lc;

	if (f->resent != NIL)
		ent_outbound_save_haves(ob);
	foreach(lc, f->resent)
		forget(ob, lfirst(lc));
	list_free_deep(f->resent);
}
