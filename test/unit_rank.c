/*
 * test/unit_rank.c
 *	  Promises of rule/rank.h.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rule/rank.h"
#include "tap.h"

/* edges: "ab" means a references b, sorted; ranks given are digits, else '-' */
static const struct
{
	const char *name;
	const char *edges;
	const char *given;
	const char *ranks;
}			cases[] = {
	{"no tables", "", "", ""},
	{"no foreign keys", "", "---", "000"},
	{"a chain", "ab bc", "---", "210"},
	{"a diamond", "ab ac bd cd", "----", "2110"},
	{"the longest way counts", "ab ac ad bc cd", "----", "3210"},
	{"itself", "aa", "-", "0"},
	{"itself and another", "aa ab", "--", "10"},
	{"a circle shares one", "ab bc ca", "---", "000"},
	{"a circle in the middle", "ab bc cb cd", "----", "2110"},
	{"two circles, one after the other", "ab ba bc cd dc", "----", "1100"},
	{"circles that share a table are one", "ab ba bc cb", "---", "000"},
	{"several foreign keys between two", "ab ab", "--", "10"},
	{"given stays", "ab bc", "0--", "010"},
	{"who references what is given comes after", "ab bc", "--5", "765"},
	{"given in a circle", "ab ba bc", "7--", "710"},
	{"two that have nothing to do with each other", "ab cd", "----", "1010"},
};

static bool
ranks_are(const char *edges, const char *given, const char *ranks)
{
	int			n = (int) strlen(given);
	int			nedges = 0;
	EntRankEdge list[16];
	bool		is_given[8] = {false};
	int32_t		rank[8];
	int			scratch[ENT_RANK_SCRATCH(8)];

	for (const char *e = edges; *e; e += e[2] ? 3 : 2)
	{
		list[nedges].from = e[0] - 'a';
		list[nedges++].to = e[1] - 'a';
	}
	for (int i = 0; i < n; i++)
	{
		is_given[i] = given[i] != '-';
		rank[i] = is_given[i] ? given[i] - '0' : 99;
	}
	ent_rank(n, list, nedges, is_given, rank, scratch);
	for (int i = 0; i < n; i++)
		if (rank[i] != ranks[i] - '0')
			return false;
	return true;
}

/* A chain that would be too long for recursion. */
static bool
long_chain(int n)
{
	EntRankEdge *edges = malloc(n * sizeof(EntRankEdge));
	bool	   *given = calloc(n, sizeof(bool));
	int32_t    *rank = malloc(n * sizeof(int32_t));
	int		   *scratch = malloc(ENT_RANK_SCRATCH((size_t) n) * sizeof(int));
	bool		right = true;

	for (int i = 0; i < n - 1; i++)
	{
		edges[i].from = i;
		edges[i].to = i + 1;
	}
	ent_rank(n, edges, n - 1, given, rank, scratch);
	for (int i = 0; i < n; i++)
		right = right && rank[i] == n - 1 - i;
	given[n - 1] = true;
	rank[n - 1] = INT32_MAX;
	ent_rank(n, edges, n - 1, given, rank, scratch);
	right = right && rank[0] == INT32_MAX;
	free(edges);
	free(given);
	free(rank);
	free(scratch);
	return right;
}

int
main(void)
{
	tap_promise("rank: what is referenced comes first, circles share a rank, "
				"what is given stays");
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		CHECK_CASE(ranks_are(cases[i].edges, cases[i].given, cases[i].ranks),
				   cases[i].name);

	tap_promise("rank: a chain of any length, and no rank beyond the last");
	CHECK(long_chain(300000));
	return tap_done();
}
