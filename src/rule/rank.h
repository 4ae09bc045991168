/*
 * rule/rank.h
 *	  In which order tables that reference each other are sent.
 *
 * Pure C. Tables are nodes 0 .. n-1, foreign keys are edges from who
 * references to who is referenced. Those that reference each other in a circle
 * share a rank; every other one comes after all that it references.
 */
#ifndef ENT_RULE_RANK_H
#define ENT_RULE_RANK_H

#include <stdbool.h>
#include <stdint.h>

typedef struct EntRankEdge
{
	int			from;
	int			to;
} EntRankEdge;

/* Elements of scratch that ent_rank needs. */
#define ENT_RANK_SCRATCH(n)	(6 * (n) + 1)

/*
 * given[i]: rank[i] is set and stays. The others get 0 when they reference
 * nothing outside their circle, else one more than the greatest rank of what
 * it references there. edges must be sorted by from; scratch has room
 * for ENT_RANK_SCRATCH(n).
 */
extern void ent_rank(int n, const EntRankEdge *edges, int nedges,
					 const bool *given, int32_t *rank, int *scratch);

#endif							/* ENT_RULE_RANK_H */
