/*
 * latency.c
 *	  How long a commit on A takes to be visible on B.
 *
 * Usage: latency CONNINFO_A CONNINFO_B UPDATES
 *
 * Updates rows 1 to 100 of table item on A in turns, after a pause of 10 to 40
 * ms each, and reads the row on B by its key every 100 microseconds until the
 * new value shows. Prints the 50th and 99th percentile and the maximum, in
 * milliseconds since the commit was confirmed; fails when an update takes more
 * than a minute.
 */
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define POLL_US 100
#define GIVE_UP_MS 60000.0

static double
now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static void
fail(const char *what)
{
	fprintf(stderr, "latency: %s\n", what);
	exit(1);
}

static PGconn *
open_conn(const char *conninfo, const char *query)
{
	PGconn	   *conn = PQconnectdb(conninfo);
	PGresult   *result;

	if (PQstatus(conn) != CONNECTION_OK)
		fail(PQerrorMessage(conn));
	result = PQprepare(conn, "q", query, 0, NULL);
	if (PQresultStatus(result) != PGRES_COMMAND_OK)
		fail(PQerrorMessage(conn));
	PQclear(result);
	return conn;
}

/* Runs the prepared query; whether it touched or found a row. */
static int
found(PGconn *conn, int id, int value)
{
	char		texts[2][16];
	const char *values[2] = {texts[0], texts[1]};
	PGresult   *result;
	int			rows;

	snprintf(texts[0], sizeof texts[0], "%d", id);
	snprintf(texts[1], sizeof texts[1], "%d", value);
	result = PQexecPrepared(conn, "q", 2, values, NULL, NULL, 0);
	switch (PQresultStatus(result))
	{
		case PGRES_COMMAND_OK:
			rows = atoi(PQcmdTuples(result));
			break;
		case PGRES_TUPLES_OK:
			rows = PQntuples(result);
			break;
		default:
			fail(PQerrorMessage(conn));
			rows = 0;
	}
	PQclear(result);
	return rows == 1;
}

static int
compare(const void *left, const void *right)
{
	double		a = *(const double *) left;
	double		b = *(const double *) right;

	return (a > b) - (a < b);
}

int
main(int argc, char **argv)
{
	int			updates = argc == 4 ? atoi(argv[3]) : 0;
	PGconn	   *a;
	PGconn	   *b;
	double	   *times;

	if (updates < 1)
		fail("usage: latency CONNINFO_A CONNINFO_B UPDATES");
	a = open_conn(argv[1],
				  "UPDATE item SET x = $2, updated_at = clock_timestamp()"
				  " WHERE id = $1");
	b = open_conn(argv[2], "SELECT FROM item WHERE id = $1 AND x = $2");
	times = calloc(updates, sizeof *times);
	if (times == NULL)
		fail("out of memory");
	for (int i = 0; i < updates; i++)
	{
		int			id = i % 100 + 1;
		double		start;

		usleep(10000 + rand() % 30000);
		if (!found(a, id, 1000000 + i))
			fail("table item lacks rows 1 to 100");
		start = now_ms();
		while (!found(b, id, 1000000 + i))
		{
			if (now_ms() - start > GIVE_UP_MS)
				fail("an update has not arrived within a minute");
			usleep(POLL_US);
		}
		times[i] = now_ms() - start;
	}
	qsort(times, updates, sizeof *times, compare);
	printf("%.3f %.3f %.3f\n", times[updates / 2],
		   times[(int) ((updates - 1) * 0.99)], times[updates - 1]);
	return 0;
}
