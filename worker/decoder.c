/*
 * worker/decoder.c
 *	  The collector's part in capture from the log: the slot and the rounds.
 *
 * A table's trigger captures until the slot is there; then it is taken back to
 * what the log does not tell, under a lock that waits for the table's writers.
 * So every change is captured by one of the two, some by both.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"

#include "api/logged.h"
#include "base/wake.h"
#include "step/decode.h"
#include "store/query.h"
#include "store/relinfo.h"
#include "worker/decoder.h"

/* A writer that stays in its transaction must not hold up the collector. */
#define LOCK_TIMEOUT	"500ms"

static EntQuery state_query = {
	"SELECT EXISTS (SELECT 1 FROM entanglement.relation WHERE wal OR capture OPERATOR(pg_catalog.=) 'wal'), "
	"EXISTS (SELECT 1 FROM entanglement.relation WHERE wal), "
	"EXISTS (SELECT 1 FROM entanglement.relation WHERE NOT wal AND capture OPERATOR(pg_catalog.=) 'wal'), "
	"EXISTS (SELECT 1 FROM pg_catalog.pg_replication_slots WHERE slot_name OPERATOR(pg_catalog.=) $1), "
	"EXISTS (SELECT 1 FROM pg_catalog.pg_replication_slots WHERE slot_name OPERATOR(pg_catalog.=) $1 "
	"AND wal_status OPERATOR(pg_catalog.<>) 'lost')",
	1, {NAMEOID}, NULL
};

typedef struct State
{
	bool		any;			/* a table is, or wants to be, captured from it */
	bool		running;		/* ... is */
	bool		waiting;		/* ... wants to be */
	bool		slot;			/* there is a slot */
	bool		usable;			/* ... that is not lost */
} State;

static void
begin(void)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	PushActiveSnapshot(GetTransactionSnapshot());
	(void) set_config_option("lock_timeout", LOCK_TIMEOUT, PGC_SUSET,
							 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
}

static void
finish(void)
{
	PopActiveSnapshot();
	SPI_finish();
	CommitTransactionCommand();
}

static State
look(void)
{
	NameData	name;
	Datum		args[1];
	State		s;

	begin();
	namestrcpy(&name, ent_decode_slot_name());
	args[0] = NameGetDatum(&name);
	ent_query_run(&state_query, args, NULL, SPI_OK_SELECT, NULL);
	s.any = ent_query_bool(0, 1);
	s.running = ent_query_bool(0, 2);
	s.waiting = ent_query_bool(0, 3);
	s.slot = ent_query_bool(0, 4);
	s.usable = ent_query_bool(0, 5);
	finish();
	return s;
}

static void
make_slot(State *s)
{
	ent_decode_release();
	if (s->slot)
		ent_decode_drop_slot();
	begin();
	ent_decode_create_slot();
	finish();
}

/* The slot was made anew, or is further than we are for another reason. */
static void
compare_if_interrupted(void)
{
	begin();
	if (ent_logged_interrupted())
	{
		ereport(LOG,
				(errmsg("the replication slot for capture was lost; tables captured from the log are compared")));
		ent_logged_compare();
	}
	finish();
}

bool
ent_decoder_settle(void)
{
	State		s = look();

	if (!s.any)
	{
		if (s.slot)
			ent_decode_drop_slot();
		return false;
	}
	if (!s.usable)
		make_slot(&s);
	if (s.running)
		compare_if_interrupted();
	if (s.waiting)
	{
		begin();
		ent_relinfo_refresh();
		ent_logged_start();
		finish();
	}
	return true;
}

bool
ent_decoder_run(int limit)
{
	bool		more;
	bool		left;
	bool		kept;

	begin();
	ForceSyncCommit();
	ent_relinfo_refresh();
	(void) ent_decode(limit, &more, &left);
	ent_logged_compare_tables(ent_decode_doubtful());
	kept = ent_decode_keep();
	finish();
	if (kept)
		ent_decode_confirm();
	if (left)
		ent_decoder_settle();
	return more;
}
