/*
 * api/partitions.h
 *	  Which partitions synchronized tables have, and what changes with them.
 */
#ifndef ENT_API_PARTITIONS_H
#define ENT_API_PARTITIONS_H

#include "postgres.h"

/*
 * Compares the partitions with rows that all synchronized tables have with
 * those they had. A new one gets its trigger; if its rows are to be captured,
 * they are born to the session's owner. One that was detached loses its
 * trigger, and its rows die; refused (55000) if an owner is remote. SPI must
 * be connected.
 */
extern void ent_partitions_settle(bool capture);

/* The table is no longer synchronized: its partitions lose their triggers. */
extern void ent_partitions_forget(int32 rel);

#endif							/* ENT_API_PARTITIONS_H */
