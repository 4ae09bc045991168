/*
 * api/integrity.c
 *	  Tables with integrity reference none but tables with integrity.
 *
 * synchronize takes along what a table references; a foreign key that is added
 * later, or a table that leaves, must not break what was promised.
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "commands/event_trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "api/integrity.h"
#include "base/compat.h"
#include "store/identity.h"
#include "store/query.h"
#include "store/relinfo.h"

PG_FUNCTION_INFO_V1(ent_sql_foreign_keys_changed);

static EntQuery any_query = {
	"SELECT 1 FROM entanglement.relation WHERE integrity LIMIT 1",
	0, {0}, NULL
};

void
ent_integrity_check_owners(Oid relid)
{
	ListCell   *lc;

	foreach(lc, ent_foreignkey_of(relid))
	{
		EntForeignKey *fk = lfirst(lc);
		EntRelation *parent = ent_relinfo_read_by_oid(fk->parent_root);

		if (parent != NULL && parent->every_state)
			ent_integrity_refuse_states(parent->name);
		if (parent != NULL && !parent->integrity &&
			!ent_compat_owns_table(fk->parent_root, GetUserId()))
			aclcheck_error(ACLCHECK_NOT_OWNER,
						   get_relkind_objtype(get_rel_relkind(fk->parent_root)),
						   get_rel_name(fk->parent_root));
	}
}

void
ent_integrity_refuse_temporal(const EntForeignKey *fk)
{
	if (fk->temporal)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("integrity of foreign key \"%s\" of table \"%s\" cannot be kept",
						NameStr(fk->name), get_rel_name(fk->child)),
				 errdetail("It compares periods."),
				 errhint("Synchronize the table without integrity.")));
}

void
ent_integrity_refuse_states(const char *table)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("table \"%s\" cannot have both every_state and integrity",
					table ? table : "?"),
			 errdetail("What changed together arrives together only in its newest state."),
			 errhint("Choose one of them; entanglement.set_every_state() changes the one.")));
}

void
ent_integrity_refuse_leaving(Oid relid)
{
	ListCell   *lc;

	foreach(lc, ent_foreignkey_read_all())
	{
		EntForeignKey *fk = lfirst(lc);

		if (fk->parent_root == relid && fk->child_root != relid)
			ereport(ERROR,
					(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
					 errmsg("cannot end the synchronization of table \"%s\"",
							get_rel_name(relid)),
					 errdetail("Foreign key \"%s\" of table \"%s\", which is synchronized with integrity, references it.",
							   NameStr(fk->name), get_rel_name(fk->child_root)),
					 errhint("End the synchronization of \"%s\" first, or drop its foreign key.",
							 get_rel_name(fk->child_root))));
	}
}

static void
refuse_reference(const EntForeignKey *fk)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("table \"%s\" is synchronized with integrity and can only reference synchronized tables",
					get_rel_name(fk->child_root)),
			 errdetail("Foreign key \"%s\" references table \"%s\".",
					   NameStr(fk->name), get_rel_name(fk->parent)),
			 errhint("Synchronize it first: SELECT entanglement.synchronize(%s, integrity => true).",
					 quote_literal_cstr(quote_identifier(get_rel_name(fk->parent_root))))));
}

static bool
any_with_integrity(void)
{
	bool		any;

	ent_query_run(&any_query, NULL, NULL, SPI_OK_SELECT, NULL);
	any = SPI_processed > 0;
	SPI_freetuptable(SPI_tuptable);
	return any;
}

void
ent_integrity_settle(void)
{
	EntForeignKey *bad;

	if (!any_with_integrity())
		return;
	bad = ent_foreignkey_settle();
	if (bad == NULL)
		return;
	ent_integrity_refuse_temporal(bad);
	refuse_reference(bad);
}

/*
 * A foreign key may have been added or dropped. While a dump is being restored
 * what is there is neither complete nor new.
 */
Datum
ent_sql_foreign_keys_changed(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_EVENT_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("entanglement.foreign_keys_changed() must be called by an event trigger")));
	if (!ent_query_installed() || !ent_identity_ready())
		PG_RETURN_NULL();
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	ent_integrity_settle();
	SPI_finish();
	PG_RETURN_NULL();
}
