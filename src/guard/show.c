/*
 * guard/show.c
 *	  What a peer is shown of a table, as its role's rights are now.
 *
 * A table is shown in part when anything but SELECT decides about its rows: row-level
 * security, a should_send hook, or what the peer has subscribed with. Changes
 * of what decides are heard of as the catalogs' caches are: a session that changes a
 * policy keeps the table locked until it has said so, so whoever sees a row that
 * was written under the new policy has been told of that policy before.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/inval.h"
#include "utils/rls.h"
#include "utils/syscache.h"

#include "guard/filter.h"
#include "guard/hook.h"
#include "guard/policy.h"
#include "guard/show.h"
#include "store/catalog.h"
#include "store/peer.h"
#include "store/shown.h"

static uint64 version = 1;
static bool roles_changed = false;

static void
add_to_digest(EntShow *show, const char *text)
{
	uint64		hash = DatumGetUInt64(hash_any_extended((const unsigned char *) text,
														strlen(text), 0));

	show->digest = (int64) hash_combine64((uint64) show->digest, hash);
}

/* Their answers depend on it. */
static void
add_what_hooks_are_told(EntRelation *rel, int32 peer, const bool *may,
						EntShow *show)
{
	EntPeer    *p = ent_peer_get(peer);

	if (p != NULL)
		add_to_digest(show, p->name);
	for (int i = 0; i < rel->ncolumns; i++)
		if (may[i])
			add_to_digest(show, rel->columns[i].name);
}

/* Does it want the table, and which rows? */
static void
look_at_wish(EntRelation *rel, int32 peer, Oid role, EntShow *show)
{
	ErrorData  *error = NULL;

	show->nothing = !ent_wanted_get(peer, rel->no, &show->wish);
	if (show->nothing)
		add_to_digest(show, "");
	if (show->wish == NULL)
		return;
	show->sqlstate = "00000";
	if (show->wish->filter == NULL)
		return;
	show->filter = ent_filter_try(rel, role, show->wish->filter, &error);
	show->partial = true;
	add_to_digest(show, show->wish->filter);
	if (error == NULL)
		return;
	show->nothing = true;
	add_to_digest(show, "");
	show->sqlstate = pstrdup(unpack_sql_state(error->sqlerrcode));
	show->message = error->detail == NULL ? error->message :
		psprintf("%s: %s", error->message, error->detail);
}

void
ent_show_table(EntRelation *rel, int32 peer, Oid role, bool *may,
			   EntShow *show)
{
	memset(show, 0, sizeof(EntShow));
	show->sees = ent_policy_columns(rel, role, may);
	if (!show->sees)
		return;
	show->digest = (int64) ent_hooks_digest(rel, peer);
	show->partial = show->digest != 0;
	if (show->partial)
		add_what_hooks_are_told(rel, peer, may, show);
	if (check_enable_rls(rel->relid, role, true) == RLS_ENABLED)
	{
		show->partial = true;
		show->digest = (int64) hash_combine64((uint64) show->digest,
											  (uint64) ent_shown_policies(rel->relid, role));
		show->digest = (int64) hash_combine64((uint64) show->digest,
											  hash_uint32_extended(role, 0));
	}
	look_at_wish(rel, peer, role, show);
}

static void
relation_invalidated(Oid relid)
{
	if (relid == InvalidOid || ent_relinfo_knows(relid))
		version++;
}

static void
catalog_invalidated(Datum arg, int cacheid, uint32 hash)
{
	version++;
	roles_changed |= cacheid != NAMESPACEOID;
}

/*
 * PostgreSQL remembers of whom a role is a member. What it hears while it looks that up
 * makes it forget what it had, and then it remembers what it has just found, which may be
 * of before; so do plans that were made meanwhile. So once it has been heard, everything is
 * forgotten once more.
 */
uint64
ent_show_version(void)
{
	AcceptInvalidationMessages();
	if (roles_changed)
		InvalidateSystemCaches();	/* which tells us, too */
	roles_changed = false;
	return version + ent_hook_version();
}

void
ent_show_settle(void)
{
	ListCell   *lc;

	foreach(lc, ent_shown_whole())
	{
		EntShownWhole *w = lfirst(lc);
		EntRelation *rel = ent_relinfo_read(w->rel);
		EntShow		show;

		if (rel == NULL)
			continue;
		ent_show_table(rel, w->peer, w->role,
					   palloc(rel->ncolumns * sizeof(bool)), &show);
		if (!show.sees || show.partial || show.nothing)
			(void) ent_shown_narrow(w->peer, w->rel);
	}
}

static uint64 settled = 0;		/* version */

bool
ent_show_is_settled(void)
{
	return ent_show_version() == settled;
}

void
ent_show_settle_if_changed(void)
{
	uint64		now = ent_show_version();

	if (now == settled)
		return;
	list_free(ent_relinfo_all());	/* those are heard of from now on */
	ent_show_settle();
	settled = now;
}

void
ent_show_init(void)
{
	ent_catalog_watch(relation_invalidated);
	CacheRegisterSyscacheCallback(NAMESPACEOID, catalog_invalidated, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHOID, catalog_invalidated, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHMEMMEMROLE, catalog_invalidated, (Datum) 0);
}
