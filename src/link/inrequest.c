/*
 * link/inrequest.c
 *	  The receiving end: requests that arrive, and answers to ours.
 *
 * A request is decided here when its owner is at home here, else passed on if
 * the peer's role might do here what it asks: nobody gains rights by sending
 * through us. Either way it is stored, under its id, in the transaction of the
 * batch.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/uuid.h"

#include "base/wake.h"
#include "guard/policy.h"
#include "link/inbound_private.h"
#include "step/decide.h"
#include "store/object.h"
#include "store/owner.h"
#include "store/request.h"
#include "store/value.h"

#define MAX_LEFT_MS		(UINT64CONST(366) * 24 * 3600 * 1000)	/* of the longest
																 * retention */

/* A request as it came, and as it is stored. */
typedef struct Arrival
{
	EntWireRequest wire;
	EntWireField *fields;
	int			nfields;
	EntAsked	asked;
	EntRequest	q;
	bool		on_the_way;		/* it is not decided here */
} Arrival;

static char *
from_wire(const uint8 *value, size_t len)
{
	char	   *text = palloc(len + 1);

	memcpy(text, value, len);
	text[len] = '\0';
	if (strlen(text) != len)
		ereport(ERROR,
				(errcode(ERRCODE_CHARACTER_NOT_IN_REPERTOIRE),
				 errmsg("a text contains a null character")));
	return pg_any_to_server(text, len, PG_UTF8);
}

static EntWireField *
read_fields(EntReader *body, int n)
{
	EntWireField *fields = palloc0((n + 1) * sizeof(EntWireField));

	for (int i = 0; i < n; i++)
	{
		ent_wire_read_field(body, &fields[i]);
		ent_inbound_check(body, "field");
	}
	return fields;
}

/* As the role: what the texts say. */
static void
read_asked(void *arg)
{
	Arrival    *a = arg;
	int			nkeys = a->wire.nkeys;
	const char **names = palloc((a->nfields + 1) * sizeof(char *));
	const char **values = palloc((a->nfields + 1) * sizeof(char *));

	for (int i = 0; i < a->nfields; i++)
	{
		names[i] = ent_name_from_wire(a->fields[i].name);
		values[i] = a->fields[i].value == NULL ? NULL :
			from_wire(a->fields[i].value, a->fields[i].len);
	}
	a->q.ncolumns = a->nfields - nkeys;
	a->q.columns = (char **) names + nkeys;
	a->q.values = (char **) values + nkeys;
	ent_decide_read(&a->asked, names, values, nkeys, a->nfields);
	if (a->asked.has_key)
		a->q.key = ent_key_image(a->asked.rel, a->asked.key);
}

/* The settings that texts are read under are not those that triggers see. */
static bool
read_as_peer(EntInbound *ib, Arrival *a, EntRequestAnswer *answer)
{
	int			level = ent_value_enter();
	bool		ok = ent_decide_try(ib->role, read_asked, a, answer);

	ent_value_leave(level);
	return ok;
}

/*
 * The owner that decides: the row's, if it has gone to another one here. It
 * may have gone elsewhere: who asks is told so, and may ask the new one. To pass
 * it on would let rows and requests chase each other around a circle.
 */
static bool
settle_owner(Arrival *a, EntOwner *owner, EntRequestAnswer *answer)
{
	int32		no;

	a->asked.owner = owner->no;
	if (a->q.key == NULL)
		return true;
	PushActiveSnapshot(GetLatestSnapshot());
	no = ent_object_owner(a->asked.rel->no, a->q.key);
	PopActiveSnapshot();
	if (no == 0 || no == owner->no)
		return true;
	if (ent_object_owner_is_local(no))
	{
		a->asked.owner = a->q.owner = no;
		return true;
	}
	/* whose it is tells that it is: to be decided like one that is not there */
	if (!ent_policy_sees_row(a->asked.rel, a->asked.role, NULL, a->asked.key))
		return true;
	answer->sqlstate = "55000";
	answer->message = psprintf("the row of table \"%s\" has been handed over to owner \"%s\"",
							   a->asked.rel->name, ent_object_owner_name(no));
	return false;
}

/* NULL: it is waiting to be passed on, or done (then *state says so). */
static EntRequestAnswer *
judge(EntInbound *ib, Arrival *a, const char **state)
{
	EntRequestAnswer *answer = palloc0(sizeof(EntRequestAnswer));
	pg_uuid_t	id;
	EntOwner   *owner;

	memcpy(id.data, a->wire.owner.bytes, UUID_LEN);
	owner = ent_owner_by_id(&id);
	a->asked.rel = ent_relinfo_by_name(ent_name_from_wire(a->wire.schema),
									   ent_name_from_wire(a->wire.table));
	a->asked.peer = ib->peer;
	a->asked.role = ib->role;
	a->asked.op = a->q.op;
	a->q.owner = owner ? owner->no : 0;
	a->on_the_way = owner == NULL || !owner->local;
	a->q.rel = a->asked.rel ? a->asked.rel->no : 0;
	if (owner == NULL)
	{
		answer->sqlstate = "42704";
		answer->message = "the owner is not known here";
		return answer;
	}
	if (a->asked.rel == NULL)
	{
		answer->sqlstate = "42P01";
		answer->message = psprintf("table \"%s.%s\" is not synchronized here",
								   ent_name_from_wire(a->wire.schema),
								   ent_name_from_wire(a->wire.table));
		return answer;
	}
	if (!read_as_peer(ib, a, answer))
		return answer;
	if (!owner->local)
		return ent_decide_rehearse(&a->asked, answer) ? NULL : answer;
	if (!settle_owner(a, owner, answer))
		return answer;
	if (!ent_decide(&a->asked, a->q.op == ENT_REQUEST_OP_CREATE ? &a->q.key : NULL,
					answer))
		return answer;
	*state = "applied";
	ent_wake_collector_at_commit();
	return NULL;
}

/* Two ways of one request may end here at the same time. */
static void
lock_request(const pg_uuid_t *id)
{
	LOCKTAG		tag;
	uint32		words[2];

	memcpy(words, id->data, sizeof(words));
	/* field 4: not one of those that pg_advisory_lock() takes */
	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, words[0], words[1], 3);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

static void
take_request(EntInbound *ib, EntReader *body)
{
	Arrival		a = {.q.peer = ib->peer};
	const char *state = "waiting";
	EntRequestAnswer *answer;

	ent_wire_read_request(body, &a.wire);
	ent_inbound_check(body, "request");
	a.nfields = a.wire.nkeys + a.wire.ncolumns;
	a.fields = read_fields(body, a.nfields);
	memcpy(a.q.id.data, a.wire.id.bytes, UUID_LEN);
	a.q.left = Min(a.wire.left, MAX_LEFT_MS);
	a.q.op = a.wire.op == ENT_REQUEST_CREATE ? ENT_REQUEST_OP_CREATE :
		a.wire.op == ENT_REQUEST_FORWARD ? ENT_REQUEST_OP_FORWARD :
		ENT_REQUEST_OP_DELETE;
	lock_request(&a.q.id);
	if (ent_request_seen(&a.q.id, ib->peer) != ENT_REQUEST_NEW || a.q.left == 0)
		return;
	answer = judge(ib, &a, &state);
	if (answer != NULL)
	{
		answer->on_the_way = a.on_the_way;
		if (a.asked.refusal)
			ent_hook_note_refusal(a.asked.refusal, a.asked.owner, a.q.rel, false);
		else if (strcmp(answer->sqlstate, "42501") == 0)
			ent_refusal_note(ENT_REFUSED_REQUEST, a.q.owner, a.q.rel, answer->message);
	}
	ent_request_store(&a.q, state, answer);
}

void
ent_inbound_take_request(EntInbound *ib, EntReader *body)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "entanglement request",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);

	if (++ib->requests > ENT_WIRE_MAX_REQUESTS)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("malformed batch from peer"),
				 errdetail("It has more than %d requests.", ENT_WIRE_MAX_REQUESTS)));
	take_request(ib, body);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

/* ---- answers ---- */

/* The key of what was created, if it can be read here; for people only. */
typedef struct KeyRead
{
	EntAsked	asked;
	EntWireField *fields;
	int			n;
	bytea	   *key;
} KeyRead;

static void
read_key(void *arg)
{
	KeyRead    *k = arg;
	const char *names[ENT_WIRE_MAX_KEYS];
	const char *values[ENT_WIRE_MAX_KEYS];

	for (int i = 0; i < k->n; i++)
	{
		names[i] = ent_name_from_wire(k->fields[i].name);
		values[i] = k->fields[i].value == NULL ? NULL :
			from_wire(k->fields[i].value, k->fields[i].len);
	}
	ent_decide_read(&k->asked, names, values, k->n, k->n);
	k->key = ent_key_image(k->asked.rel, k->asked.key);
}

static bytea *
key_of_answer(EntInbound *ib, const pg_uuid_t *id, EntWireField *fields, int n)
{
	KeyRead		k = {.fields = fields, .n = n};
	EntRequestAnswer ignored;
	int			level;
	bool		ok;

	k.asked.rel = ent_relinfo_get(n == 0 ? 0 : ent_request_creates_in(id, ib->peer));
	k.asked.role = ib->role;
	k.asked.op = ENT_REQUEST_OP_FORWARD;
	if (n == 0 || k.asked.rel == NULL)
		return NULL;
	level = ent_value_enter();
	ok = ent_decide_try(ib->role, read_key, &k, &ignored);
	ent_value_leave(level);
	return ok ? k.key : NULL;
}

static const char *
text_or_null(const char *utf8)
{
	return utf8[0] == '\0' ? NULL : ent_name_from_wire(utf8);
}

void
ent_inbound_take_response(EntInbound *ib, EntReader *body)
{
	EntWireResponse s;
	EntWireField *fields;
	EntRequestAnswer answer = {0};
	pg_uuid_t	id;

	ent_wire_read_response(body, &s);
	ent_inbound_check(body, "response");
	fields = read_fields(body, s.nkeys);
	memcpy(id.data, s.id.bytes, UUID_LEN);
	answer.accepted = s.accepted;
	answer.on_the_way = s.on_the_way;
	memcpy(answer.owner.data, s.owner.bytes, UUID_LEN);
	answer.epoch = s.epoch;
	answer.serial = s.serial;
	if (!s.accepted)
	{
		answer.sqlstate = s.sqlstate;
		answer.message = ent_name_from_wire(s.message);
		answer.detail = text_or_null(s.detail);
		answer.constraint = text_or_null(s.constraint);
	}
	ent_request_answered(&id, ib->peer, &answer,
						 key_of_answer(ib, &id, fields, s.nkeys));
}
