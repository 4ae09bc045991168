/*
 * step/decide.c
 *	  At an owner's home: is a request carried out?
 */
#include "postgres.h"

#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"

#include "step/decide_private.h"
#include "store/object.h"
#include "store/owner.h"
#include "store/query.h"
#include "store/rowquery.h"
#include "store/value.h"

/* ---- in a subtransaction ---- */

#define TRIES	3

/*
 * What a later try may not meet is tried again at once. Whatever it is then is
 * the answer: a trigger may raise anything each time, which must not end the
 * link for good.
 */
static bool
worth_another_try(int sqlstate)
{
	switch (ERRCODE_TO_CATEGORY(sqlstate))
	{
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_SYSTEM_ERROR:
			return true;
		default:
			return false;
	}
}

static void
take_answer(EntRequestAnswer *answer, const ErrorData *e)
{
	memset(answer, 0, sizeof(*answer));
	answer->sqlstate = pstrdup(unpack_sql_state(e->sqlerrcode));
	answer->message = e->message ? e->message : "unknown error";
	answer->detail = e->detail;
	answer->constraint = e->constraint_name;
}

typedef struct Attempt
{
	Oid			role;
	void		(*run) (void *arg);
	void	   *arg;
} Attempt;

static void
attempt(void *arg)
{
	Attempt    *a = arg;

	ent_query_as(a->role, a->run, a->arg);
}

bool
ent_decide_try(Oid role, void (*run) (void *arg), void *arg,
			   EntRequestAnswer *answer)
{
	Attempt		a = {role, run, arg};
	ErrorData  *error;

	for (int i = 1; (error = ent_query_try(attempt, &a)) != NULL; i++)
	{
		if (error->sqlerrcode == ERRCODE_ADMIN_SHUTDOWN ||
			error->sqlerrcode == ERRCODE_CRASH_SHUTDOWN)
			ReThrowError(error);
		if (i < TRIES && worth_another_try(error->sqlerrcode))
			continue;
		take_answer(answer, error);
		return false;
	}
	return true;
}

/* ---- reading ---- */

typedef struct Texts
{
	EntAsked   *asked;
	const char *const *names;
	const char *const *values;
	int			nkeys;
	int			n;
} Texts;

static int
column_of(EntRelation *rel, const char *name)
{
	EntColumn  *col = ent_relinfo_column(rel, name);

	if (col == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of relation \"%s\" does not exist", name,
						rel->name)));
	return col - rel->columns;
}

static Datum
input(EntColumn *col, const char *text)
{
	return InputFunctionCall(&col->in_text, (char *) text, col->in_text_ioparam,
							 col->typmod);
}

/* One that is given twice leaves another one of the key without a value. */
static void
refuse_twice(bool given, EntColumn *col, EntRelation *rel)
{
	if (given)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_COLUMN),
				 errmsg("column \"%s\" of table \"%s\" is named twice in a request",
						col->name, rel->name)));
}

/*
 * A key column of an object that exists goes to key; one of an object to be
 * made is a column as any other.
 */
static void
read_texts(void *arg)
{
	Texts	   *t = arg;
	EntAsked   *asked = t->asked;
	EntRelation *rel = asked->rel;
	bool		create = asked->op == ENT_REQUEST_OP_CREATE;
	bool		in_key[ENT_WIRE_MAX_KEYS] = {false};

	asked->set = palloc0((rel->ncolumns + 1) * sizeof(bool));
	asked->values = palloc0((rel->ncolumns + 1) * sizeof(Datum));
	asked->nulls = palloc0((rel->ncolumns + 1) * sizeof(bool));
	if (!create && t->nkeys != rel->nkeys)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("table \"%s\" has another key here", rel->name)));
	for (int i = 0; i < t->n; i++)
	{
		int			c = column_of(rel, t->names[i]);
		EntColumn  *col = &rel->columns[c];
		Datum		value = (Datum) 0;

		if (t->values[i] != NULL)
			value = input(col, t->values[i]);
		if (i < t->nkeys && !create)
		{
			if (col->key == 0 || t->values[i] == NULL)
				ereport(ERROR,
						(errcode(ERRCODE_DATATYPE_MISMATCH),
						 errmsg("table \"%s\" has another key here", rel->name)));
			refuse_twice(in_key[col->key - 1], col, rel);
			in_key[col->key - 1] = true;
			asked->key[col->key - 1] = value;
			asked->has_key = true;
			continue;
		}
		refuse_twice(asked->set[c], col, rel);
		asked->set[c] = true;
		asked->values[c] = value;
		asked->nulls[c] = t->values[i] == NULL;
	}
}

void
ent_decide_read(EntAsked *asked, const char *const *names,
				const char *const *values, int nkeys, int n)
{
	Texts		t = {asked, names, values, nkeys, n};

	ent_query_as(asked->role, read_texts, &t);
}

/* ---- doing ---- */

/* Other traffic of the link waits as long; then the answer is 55P03. */
#define LOCK_TIMEOUT	"2s"

/* Until the GUC nest level ends. */
static void
set_for_now(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

typedef struct Deed
{
	EntAsked   *asked;
	bool		rehearsal;
	Datum		made[ENT_WIRE_MAX_KEYS];	/* key of the new row */
	bytea	   *key;			/* its image */
} Deed;

static void
fail_not_done(EntAsked *asked)
{
	if (!ent_rowquery_visible(asked->rel, NULL, asked->key))
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("not found: no such row in table \"%s\"", asked->rel->name)));
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("the row of table \"%s\" was left as it is",
					asked->rel->name),
			 errdetail("A row-level security policy or a trigger kept role \"%s\" from changing it.",
					   GetUserNameFromId(asked->role, false))));
}

/*
 * Handed over between our look at its owner and the row's lock? Then what was
 * done became a request of ours, or nothing.
 */
static void
check_still_ours(EntAsked *asked)
{
	int32		owner = ent_object_remote_owner(asked->rel->no,
												ent_key_image(asked->rel, asked->key));

	if (owner != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the row of table \"%s\" is being handed over to owner \"%s\"",
						asked->rel->name, ent_object_owner_name(owner))));
}

static void
create_row(Deed *d)
{
	EntAsked   *asked = d->asked;

	for (int i = 0; i < asked->rel->nkeys; i++)
		if (!d->rehearsal && asked->set[asked->rel->keys[i]] &&
			!asked->rel->keys_from_others)
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("the key of a new row of table \"%s\" is chosen by its owner's database",
							asked->rel->name),
					 errdetail("Leave column \"%s\" out, or allow it there with entanglement.synchronize(..., keys_from_others => true).",
							 asked->rel->columns[asked->rel->keys[i]].name)));
	if (asked->state)
	{
		(void) ent_rowquery_insert(asked->rel, asked->set, asked->key,
								   asked->values, asked->nulls);
		return;
	}
	if (ent_rowquery_create(asked->rel, asked->set, asked->values, asked->nulls,
							d->made) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("no row was made in table \"%s\"", asked->rel->name),
				 errdetail("A trigger or rule kept it out.")));
	d->key = ent_key_image(asked->rel, d->made);
}

static void
do_it(void *arg)
{
	Deed	   *d = arg;
	EntAsked   *asked = d->asked;
	EntDecideLook look = {0};

	if (!d->rehearsal)
		ent_decide_ask_before(asked, &look);
	if (asked->op == ENT_REQUEST_OP_CREATE)
		create_row(d);
	else if (asked->op == ENT_REQUEST_OP_DELETE)
	{
		if (ent_rowquery_delete(asked->rel, asked->key) == 0)
			fail_not_done(asked);
		if (!d->rehearsal)
			check_still_ours(asked);
	}
	else
	{
		for (int i = 0; i < asked->rel->nkeys; i++)
			if (asked->set[asked->rel->keys[i]])
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("the key of a row of table \"%s\" can be changed by its owner only",
								asked->rel->name)));
		if (ent_rowquery_update(asked->rel, asked->set, asked->key,
								asked->values, asked->nulls) == 0)
			fail_not_done(asked);
		if (!d->rehearsal)
			check_still_ours(asked);
	}
	if (!d->rehearsal)
		ent_decide_ask_after(asked, &look,
							 asked->op == ENT_REQUEST_OP_CREATE ? d->made : asked->key);
	else
		ereport(ERROR, (errcode(MAKE_SQLSTATE('E', 'N', 'T', 'R', 'H')),
						errmsg("rehearsed")));
}

bool
ent_decide(EntAsked *asked, bytea **key, EntRequestAnswer *answer)
{
	Deed		d = {.asked = asked};
	bool		done = false;
	int			level = NewGUCNestLevel();

	/* triggers and defaults find what they find in an ordinary session */
	set_for_now("search_path", "\"$user\", public");
	set_for_now("lock_timeout", LOCK_TIMEOUT);
	/* so that the trigger notes whose it is, where the log is captured from */
	set_for_now("entanglement.owner", "?");
	ent_owner_forced = asked->owner;
	PG_TRY();
	{
		done = ent_decide_try(asked->role, do_it, &d, answer);
	}
	PG_FINALLY();
	{
		ent_owner_forced = 0;
	}
	PG_END_TRY();
	AtEOXact_GUC(true, level);
	if (done && key != NULL)
		*key = d.key;
	return done;
}

bool
ent_decide_rehearse(EntAsked *asked, EntRequestAnswer *answer)
{
	Deed		d = {.asked = asked, .rehearsal = true};
	int			save_role = SessionReplicationRole;
	bool		save_applying = ent_rowquery_applying;
	bool		done = false;
	int			level = NewGUCNestLevel();

	set_for_now("search_path", "pg_catalog, pg_temp");
	set_for_now("lock_timeout", LOCK_TIMEOUT);
	SessionReplicationRole = SESSION_REPLICATION_ROLE_REPLICA;
	ent_rowquery_applying = true;
	PG_TRY();
	{
		done = ent_decide_try(asked->role, do_it, &d, answer);
	}
	PG_FINALLY();
	{
		ent_rowquery_applying = save_applying;
		SessionReplicationRole = save_role;
	}
	PG_END_TRY();
	AtEOXact_GUC(true, level);
	return done || (strcmp(answer->sqlstate, "42501") != 0 &&
					strcmp(answer->sqlstate, "P0002") != 0 &&
					strcmp(answer->sqlstate, "55P03") != 0);
}
