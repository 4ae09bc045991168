/*
 * step/apply_heir.c
 *	  An object has been handed over by its owner to another one.
 *
 * The state that says so is the old owner's last one. From it on the object
 * is the heir's here, unconfirmed (born 0) until a version of his own comes;
 * at the heir's home it becomes one. A row is the same object all the time: it
 * never goes and comes again.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"

#include "rule/coalesce.h"
#include "step/apply_private.h"
#include "store/changelog.h"
#include "store/handover.h"
#include "store/object.h"
#include "store/query.h"

static EntQuery parked_query = {
	"SELECT 1 FROM entanglement.parked WHERE rel OPERATOR(pg_catalog.=) $1 "
	"AND key OPERATOR(pg_catalog.=) $2 AND owner OPERATOR(pg_catalog.=) $3",
	3, {INT4OID, BYTEAOID, INT4OID}, NULL
};

/*
 * Has a version of the heir's own come that could not be stored yet? Whatever he
 * is said to have been given, that one is not to be kept out.
 */
static bool
heir_waits(EntApply *a, EntApplyCopy *c, const EntHand *heir)
{
	Datum		args[3] = {Int32GetDatum(a->rel->no), PointerGetDatum(c->key),
	Int32GetDatum(heir->owner)};
	bool		found;

	ent_query_run(&parked_query, args, NULL, SPI_OK_SELECT, NULL);
	found = SPI_processed > 0;
	SPI_freetuptable(SPI_tuptable);
	return found;
}

static bool
known(EntApply *a, EntApplyCopy *c, EntApplyRow *r)
{
	/* of another owner's object, or of none, only the grave is news */
	if (c->exists && c->owner != a->owner)
		return c->buried && !ent_apply_newer(a->epoch, r->serial,
											 c->grave_epoch, c->grave_serial);
	return ent_apply_stale(a, c, r);
}

static void
pass_to(EntApplyWrite *w, EntVersions *versions, const EntHand *heir)
{
	bytea	   *columns = palloc(VARHDRSZ);
	EntHand		from = {w->a->owner, w->a->epoch, w->r->serial};

	SET_VARSIZE(columns, VARHDRSZ);
	ent_versions_put(versions, w->a->rel->no, heir->owner, heir->epoch,
					 ent_handover_believable(w->a->rel->no, w->c->key, heir),
					 0, w->c->key, columns, NULL, w->c->exists ? &w->c->at : NULL);
	ent_handover_inherited(w->a->rel->no, w->c->key, from);
	if (!ent_object_owner_is_local(heir->owner))
		return;
	/* the next fold gives it his first version */
	ent_changelog_write(w->a->rel->no, heir->owner, ENT_CHANGE_INSERT, w->c->key, NULL);
}

/*
 * This very hand-over is known here, nothing has come of the heir yet, and the
 * table is compared as a whole: what the row holds may have been damaged.
 */
static bool
is_repair(EntApply *a, EntApplyCopy *c, EntApplyRow *r)
{
	return (r->flags & ENT_ROW_REFRESH) && r->op == ENT_ROW_FULL &&
		c->exists && c->owner == r->heir.owner && c->born == 0 &&
		!ent_object_owner_is_local(c->owner) && c->buried &&
		c->grave_epoch == a->epoch && c->grave_serial == r->serial;
}

static bool
repair(EntApplyWrite *w)
{
	if (!ent_apply_ask_hooks(w) || ent_integrity_holds_back(w->a, w->c, w->r))
		return false;
	w->compare = ent_apply_may_compare(w->a);
	ent_apply_write(w);
	if (w->outcome != ENT_APPLY_STORED)
		return false;
	ent_apply_owe_others(w->a, w->c, w->r);
	return true;
}

static void
park_invisible(EntApplyWrite *w)
{
	ent_apply_park(w->a, w->c, w->r, "42501", "the row exists but the peer's role may not change it",
				   NULL);
}

/* False when a foreign key, a hook, or what the peer may not see holds it back. */
static bool
delete_it(EntApplyWrite *w, EntVersions *versions)
{
	EntApplyRow gone = *w->r;
	EntApplyWrite del = {.a = w->a,.c = w->c,.r = &gone};

	gone.op = ENT_ROW_DELETE;
	if (!ent_apply_ask_hooks(&del) || ent_integrity_holds_back(w->a, w->c, &gone))
		return false;
	ent_apply_write(&del);
	if (del.outcome == ENT_APPLY_INVISIBLE)
	{
		park_invisible(w);
		return false;
	}
	ent_versions_drop(versions, w->a->rel->no, w->c->key);
	return true;
}

bool
ent_apply_inherit(EntApplyWrite *w, EntVersions *versions)
{
	EntApply   *a = w->a;
	EntApplyCopy *c = w->c;
	EntApplyRow *r = w->r;
	bool		mine = c->exists && c->owner == a->owner;
	EntHand		heir = r->heir;

	if (is_repair(a, c, r))
		return repair(w);
	if (known(a, c, r))
		return false;
	if (heir.owner == 0)
	{
		ent_apply_park(a, c, r, "55000", "it was handed over to an owner that is not known here",
					   NULL);
		return false;
	}
	if (!c->exists && r->op == ENT_ROW_FULL && heir_waits(a, c, &heir))
	{
		ent_apply_park(a, c, r, "23505", "another owner has an object with this key here",
					   NULL);
		return false;
	}
	if (mine || (!c->exists && r->op == ENT_ROW_FULL))
	{
		bool		lives = ent_handover_follow(a->rel->no, c->key, &heir, NULL);

		if (lives && r->op == ENT_ROW_FULL)
		{
			if (!ent_apply_ask_hooks(w) || ent_integrity_holds_back(a, c, r))
				return false;
			ent_apply_write(w);
		}
		if (w->outcome == ENT_APPLY_INVISIBLE)
		{
			park_invisible(w);
			return false;
		}
		if (lives)
			pass_to(w, versions, &heir);
		else if (mine && !delete_it(w, versions))
			return false;
		ent_apply_wake_parked(a, c);
	}
	ent_versions_bury(versions, a->rel->no, a->owner, a->epoch, r->serial,
					  c->key, r->heir, r->from);
	ent_apply_unpark(a, c, r);
	if (ent_apply_late(a, r))
		ent_apply_owe_others(a, c, r);
	return true;
}
