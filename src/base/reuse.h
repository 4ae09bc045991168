/*
 * base/reuse.h
 *	  Memory of a process whose rounds take much and give all of it back.
 */
#ifndef ENT_BASE_REUSE_H
#define ENT_BASE_REUSE_H

/*
 * From now on this process keeps up to 16 MB of what it frees, for its next round. To be
 * called by processes that do little else than exchange and fold.
 */
extern void ent_reuse_memory(void);

#endif							/* ENT_BASE_REUSE_H */
