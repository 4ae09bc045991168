/*
 * rule/wire_private.h
 *	  Fields that several of the files with sections share.
 */
#ifndef ENT_RULE_WIRE_PRIVATE_H
#define ENT_RULE_WIRE_PRIVATE_H

#include "rule/wire.h"

extern void ent_wire_write_uuid(EntWriter *w, const EntWireUuid *id);
extern void ent_wire_read_uuid(EntReader *r, EntWireUuid *id);

/* A name that identifies something and so is not empty. */
extern void ent_wire_read_name(EntReader *r, char *buf);

/* Five of 0-9 and A-Z into the buffer, which is left alone after an error. */
extern void ent_wire_read_sqlstate(EntReader *r, char *sqlstate);

#endif							/* ENT_RULE_WIRE_PRIVATE_H */
