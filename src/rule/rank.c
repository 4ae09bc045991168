/*
 * rule/rank.c
 *	  In which order tables that reference each other are sent.
 *
 * Tarjan's strongly connected components, without recursion: a circle is
 * complete when the first of it that was met is left, and by then all that it
 * references has its rank.
 */
#include "rule/rank.h"

#include <string.h>

typedef struct Walk
{
	int			n;
	const EntRankEdge *edges;
	const bool *given;
	int32_t    *rank;
	int		   *first;			/* of n + 1: first edge of each node */
	int		   *next;			/* edge to follow next */
	int		   *met;			/* order in which it was met, 0: not yet */
	int		   *low;			/* least met that is reached within the circle */
	int		   *open;			/* stack of those whose circle is not complete */
	int		   *path;			/* stack of those being walked */
	int			nopen;
	int			npath;
	int			count;
} Walk;

#define DONE	(-1)			/* met: its circle is complete */

static void
enter(Walk *w, int node)
{
	w->met[node] = w->low[node] = ++w->count;
	w->next[node] = w->first[node];
	w->open[w->nopen++] = node;
	w->path[w->npath++] = node;
}

/* The members of a circle, which lie on the stack from `from` on. */
static void
settle(Walk *w, int from)
{
	int32_t		rank = 0;

	for (int i = from; i < w->nopen; i++)
	{
		int			node = w->open[i];

		for (int e = w->first[node]; e < w->first[node + 1]; e++)
		{
			int			to = w->edges[e].to;

			if (w->met[to] != DONE)
				continue;		/* in the same circle */
			if (w->rank[to] < INT32_MAX && rank < w->rank[to] + 1)
				rank = w->rank[to] + 1;
			else if (w->rank[to] == INT32_MAX)
				rank = INT32_MAX;
		}
	}
	for (int i = from; i < w->nopen; i++)
		if (!w->given[w->open[i]])
			w->rank[w->open[i]] = rank;
	for (int i = from; i < w->nopen; i++)
		w->met[w->open[i]] = DONE;
	w->nopen = from;
}

/* All edges of the node have been followed. */
static void
leave(Walk *w, int node)
{
	w->npath--;
	if (w->npath > 0 && w->low[node] < w->low[w->path[w->npath - 1]])
		w->low[w->path[w->npath - 1]] = w->low[node];
	if (w->low[node] == w->met[node])
	{
		int			from = w->nopen;

		while (w->open[--from] != node)
			;
		settle(w, from);
	}
}

static void
walk_from(Walk *w, int start)
{
	enter(w, start);
	while (w->npath > 0)
	{
		int			node = w->path[w->npath - 1];
		int			to;

		if (w->next[node] == w->first[node + 1])
		{
			leave(w, node);
			continue;
		}
		to = w->edges[w->next[node]++].to;
		if (w->met[to] == 0)
			enter(w, to);
		else if (w->met[to] != DONE && w->met[to] < w->low[node])
			w->low[node] = w->met[to];
	}
}

void
ent_rank(int n, const EntRankEdge *edges, int nedges, const bool *given,
		 int32_t *rank, int *scratch)
{
	Walk		w = {.n = n, .edges = edges, .given = given, .rank = rank};
	int			e = 0;

	w.first = scratch;
	w.next = w.first + n + 1;
	w.met = w.next + n;
	w.low = w.met + n;
	w.open = w.low + n;
	w.path = w.open + n;
	memset(w.met, 0, n * sizeof(int));
	for (int i = 0; i <= n; i++)
	{
		while (e < nedges && edges[e].from < i)
			e++;
		w.first[i] = e;
	}
	for (int i = 0; i < n; i++)
		if (w.met[i] == 0)
			walk_from(&w, i);
}
