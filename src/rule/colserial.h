/*
 * rule/colserial.h
 *	  One serial per column of an object: when did each last change?
 *
 * Pure C. Packed as a sequence of varints, for attribute numbers 1, 2, ...:
 * (object's serial - column's serial). Attributes beyond the packed ones
 * count as changed at the object's birth. The vector answers the only
 * question asked of it: which columns are newer than a peer's copy?
 */
#ifndef ENT_RULE_COLSERIAL_H
#define ENT_RULE_COLSERIAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes that n columns can take at most. */
#define ENT_COLSERIAL_MAX_BYTES(n) ((size_t) (n) * 10)

/*
 * Unpacks into out[0 .. natts-1] (index is attnum - 1); more packed
 * attributes than natts are checked and dropped. Returns false, with
 * every column at serial (that is: changed just now, the safe answer), when
 * the bytes are damaged. Attributes that are not packed get born.
 */
extern bool ent_colserial_unpack(const uint8_t *data, size_t len,
								 int64_t serial, int64_t born,
								 int64_t *out, int natts);

/*
 * Packs in[0 .. natts-1] into buf (ENT_COLSERIAL_MAX_BYTES(natts)); returns
 * the length. A value above serial is stored as serial. Trailing columns at
 * born may be left out.
 */
extern size_t ent_colserial_pack(const int64_t *in, int natts, int64_t serial,
								 int64_t born, uint8_t *buf);

/*
 * The newest column serial that is <= since, or 0: the oldest version of the
 * object that a delta of the columns newer than since fits on.
 */
extern int64_t ent_colserial_base(const int64_t *in, int natts, int64_t since);

#endif							/* ENT_RULE_COLSERIAL_H */
