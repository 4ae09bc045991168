/*
 * api/changed.c
 *	  SQL: change_trigger. Statements that write into the log of changes.
 *
 * What captures writes there as the backend does into its catalogs; some of our
 * statements, a dump that is loaded and a superuser who repairs something do not.
 */
#include "postgres.h"

#include "commands/trigger.h"
#include "fmgr.h"

#include "store/changelog.h"

PG_FUNCTION_INFO_V1(ent_sql_change_trigger);

Datum
ent_sql_change_trigger(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(data->tg_event) ||
		!TRIGGER_FIRED_FOR_STATEMENT(data->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("entanglement.change_trigger() must be called by a trigger AFTER ... FOR EACH STATEMENT"),
				 errhint("It belongs to table entanglement.change.")));
	ent_changelog_written();
	PG_RETURN_POINTER(NULL);
}
