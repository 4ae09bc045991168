/*
 * base/shmem_database.c
 *	  The slots of databases, and the launcher's and collectors' life in them.
 *
 * Floor 0; part of base/shmem.h. A slot exists while a database has, or may
 * have, the extension. Whether its workers run is decided under the lock:
 * wanted by CREATE EXTENSION, kept out by statements that need the database
 * for themselves, entered by one collector at a time.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "base/cut.h"
#include "base/shmem_private.h"

/* ---- databases ---- */

void
ent_shmem_init_databases(EntShared *shared)
{
	for (int i = 0; i < ENT_MAX_DATABASES; i++)
	{
		EntDatabaseSlot *slot = &shared->databases[i];

		pg_atomic_init_u64(&slot->fold_asked, 0);
		pg_atomic_init_u64(&slot->fold_done, 0);
		pg_atomic_init_u64(&slot->folded, 0);
		pg_atomic_init_u32(&slot->marking, 0);
		pg_atomic_init_u64(&slot->routes, 0);
		for (int j = 0; j < ENT_LOG_MARKS; j++)
			pg_atomic_init_u32(&slot->log_marks[j], 0);
	}
}

EntDatabaseSlot *
ent_shmem_find_database(Oid database)
{
	if (!OidIsValid(database))
		return NULL;
	for (int i = 0; i < ENT_MAX_DATABASES; i++)
		if (ent_shared->databases[i].database == database)
			return &ent_shared->databases[i];
	return NULL;
}

/* Takes a free slot; NULL when there is none. Lock held exclusively. */
static EntDatabaseSlot *
create_database(Oid database)
{
	for (int i = 0; i < ENT_MAX_DATABASES; i++)
	{
		EntDatabaseSlot *slot = &ent_shared->databases[i];

		if (OidIsValid(slot->database))
			continue;
		slot->collector_pid = 0;
		slot->collector_latch = NULL;
		slot->wanted = false;
		slot->asked = 0;
		slot->stopped = 0;
		slot->excused = false;
		slot->started = 0;
		slot->decode_failed = 0;
		slot->decode_error[0] = '\0';
		pg_atomic_write_u64(&slot->fold_asked, 0);
		pg_atomic_write_u64(&slot->fold_done, 0);
		pg_atomic_write_u64(&slot->folded, 0);
		slot->refolded = slot->hurry = false;
		pg_atomic_write_u32(&slot->marking, 0);
		pg_atomic_write_u64(&slot->routes, 0);
		ent_cut_forget(slot);
		slot->database = database;
		return slot;
	}
	return NULL;
}

EntDatabaseSlot *
ent_shmem_database_of(Oid database, bool create, bool quiet)
{
	EntDatabaseSlot *slot;

	if (ent_shared == NULL)
		return NULL;
	LWLockAcquire(ent_shared->lock, LW_SHARED);
	slot = ent_shmem_find_database(database);
	LWLockRelease(ent_shared->lock);
	if (slot != NULL || !create)
		return slot;

	LWLockAcquire(ent_shared->lock, LW_EXCLUSIVE);
	slot = ent_shmem_find_database(database);
	if (slot == NULL)
		slot = create_database(database);
	LWLockRelease(ent_shared->lock);
	if (slot == NULL && !quiet)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many databases use entanglement"),
				 errdetail("No more than %d databases of a server can.",
						   ENT_MAX_DATABASES),
				 errhint("Drop the extension in another database and restart the server.")));
	return slot;
}

EntDatabaseSlot *
ent_shmem_database(bool create)
{
	return ent_shmem_database_of(MyDatabaseId, create, false);
}

pg_atomic_uint32 *
ent_shmem_log_marks(void)
{
	static EntDatabaseSlot *slot = NULL;

	if (slot == NULL || slot->database != MyDatabaseId)
		slot = ent_shmem_database(false);
	return slot == NULL ? NULL : slot->log_marks;
}

void
ent_shmem_log_mark(uint32 page)
{
	pg_atomic_uint32 *marks = ent_shmem_log_marks();

	if (marks != NULL)
		pg_atomic_fetch_add_u32(&marks[page % ENT_LOG_MARKS], 1);
}

static void
free_database(Oid database)
{
	EntDatabaseSlot *slot = ent_shmem_find_database(database);

	if (slot != NULL)
	{
		slot->database = InvalidOid;
		slot->collector_pid = 0;
		slot->collector_latch = NULL;
		slot->wanted = false;
	}
	ent_shmem_free_peers(database);
}

void
ent_shmem_database_free(Oid database)
{
	if (ent_shared == NULL || !OidIsValid(database))
		return;
	LWLockAcquire(ent_shared->lock, LW_EXCLUSIVE);
	free_database(database);
	LWLockRelease(ent_shared->lock);
}

/* ---- keeping workers out ---- */

bool
ent_shmem_keep_out(Oid database)
{
	EntDatabaseSlot *slot;

	LWLockAcquire(ent_shared->lock, LW_EXCLUSIVE);
	slot = ent_shmem_find_database(database);
	if (slot != NULL)
	{
		slot->stopped++;
		slot->excused = true;
	}
	LWLockRelease(ent_shared->lock);
	return slot != NULL;
}

void
ent_shmem_admit(Oid database)
{
	EntDatabaseSlot *slot;

	LWLockAcquire(ent_shared->lock, LW_EXCLUSIVE);
	slot = ent_shmem_find_database(database);
	if (slot != NULL && slot->stopped > 0)
	{
		slot->stopped--;
		if (slot->stopped == 0 && !slot->wanted && slot->collector_pid == 0)
			free_database(database);
	}
	LWLockRelease(ent_shared->lock);
}

int
ent_shmem_workers(Oid database, int **pids)
{
	EntDatabaseSlot *slot;
	int			n = 0;

	*pids = palloc((1 + ent_shared->npeers) * sizeof(int));
	LWLockAcquire(ent_shared->lock, LW_SHARED);
	slot = ent_shmem_find_database(database);
	if (slot != NULL && slot->collector_pid != 0)
		(*pids)[n++] = slot->collector_pid;
	for (int i = 0; i < ent_shared->npeers; i++)
		if (ent_shared->peers[i].database == database &&
			ent_shared->peers[i].dialer.pid != 0)
			(*pids)[n++] = ent_shared->peers[i].dialer.pid;
	LWLockRelease(ent_shared->lock);
	return n;
}

/* ---- launcher and collectors ---- */

void
ent_shmem_launcher_enter(void)
{
	ent_shmem_release_at_exit();
	LWLockAcquire(ent_shared->lock, LW_EXCLUSIVE);
	ent_shared->launcher_pid = MyProcPid;
	ent_shared->launcher_latch = MyLatch;
	LWLockRelease(ent_shared->lock);
}

EntDatabaseSlot *
ent_shmem_collector_enter(Oid database)
{
	EntDatabaseSlot *slot;

	if (ent_shared == NULL)
		return NULL;
	ent_shmem_release_at_exit();
	LWLockAcquire(ent_shared->lock, LW_EXCLUSIVE);
	slot = ent_shmem_find_database(database);
	if (slot != NULL && (slot->stopped > 0 || slot->collector_pid != 0))
		slot = NULL;
	if (slot != NULL)
	{
		slot->collector_pid = MyProcPid;
		slot->collector_latch = MyLatch;
	}
	LWLockRelease(ent_shared->lock);
	return slot;
}

bool
ent_shmem_collector_leave(uint32 asked)
{
	EntDatabaseSlot *slot;
	bool		done = true;

	LWLockAcquire(ent_shared->lock, LW_EXCLUSIVE);
	slot = ent_shmem_find_database(MyDatabaseId);
	if (slot != NULL && slot->collector_pid == MyProcPid)
	{
		done = slot->asked == asked;
		if (done && slot->stopped > 0)
			slot->wanted = false;	/* the last to admit frees it */
		else if (done)
			free_database(MyDatabaseId);
	}
	LWLockRelease(ent_shared->lock);
	return done;
}

void
ent_shmem_want_collector(void)
{
	EntDatabaseSlot *database;

	if (ent_shared == NULL)
		return;
	LWLockAcquire(ent_shared->lock, LW_EXCLUSIVE);
	database = ent_shmem_find_database(MyDatabaseId);
	if (database == NULL)
		database = create_database(MyDatabaseId);
	if (database != NULL)
	{
		database->wanted = true;
		database->asked++;
		ent_shmem_wake(database->collector_latch);
	}
	ent_shmem_wake(ent_shared->launcher_latch);
	LWLockRelease(ent_shared->lock);
}

bool
ent_shmem_release_database(void)
{
	bool		had = false;

	for (int i = 0; i < ENT_MAX_DATABASES; i++)
	{
		EntDatabaseSlot *slot = &ent_shared->databases[i];

		if (slot->collector_pid != MyProcPid)
			continue;
		slot->collector_pid = 0;
		slot->collector_latch = NULL;
		had = true;
	}
	return had;
}

void
ent_shmem_set_decode_error(EntDatabaseSlot *database, const char *sqlstate,
						   const char *message)
{
	int			len = message ? strlen(message) : 0;

	if (message == NULL && database->decode_failed == 0)
		return;
	if (len >= ENT_ERROR_LENGTH)
		len = pg_mbcliplen(message, len, ENT_ERROR_LENGTH - 1);
	LWLockAcquire(ent_shared->lock, LW_EXCLUSIVE);
	if (message == NULL)
		database->decode_failed = 0;
	else if (database->decode_failed == 0)
		database->decode_failed = GetCurrentTimestamp();
	memcpy(database->decode_error, message ? message : "", len);
	database->decode_error[len] = '\0';
	strlcpy(database->decode_sqlstate, sqlstate ? sqlstate : "",
			sizeof(database->decode_sqlstate));
	LWLockRelease(ent_shared->lock);
}

TimestampTz
ent_shmem_decode_error(char *sqlstate, char *message)
{
	EntDatabaseSlot *database = ent_shmem_database(false);
	TimestampTz failed;

	if (database == NULL)
		return 0;
	LWLockAcquire(ent_shared->lock, LW_SHARED);
	failed = database->decode_failed;
	strlcpy(sqlstate, database->decode_sqlstate, sizeof(database->decode_sqlstate));
	strlcpy(message, database->decode_error, sizeof(database->decode_error));
	LWLockRelease(ent_shared->lock);
	return failed;
}
