/*
 * rule/wire_private.h
 *	  Fields that wire_section.c, wire_request.c and wire_life.c share.
 */
#ifndef ENT_RULE_WIRE_PRIVATE_H
#define ENT_RULE_WIRE_PRIVATE_H

#include "rule/wire.h"

extern void ent_wire_write_uuid(EntWriter *w, const EntWireUuid *id);
extern void ent_wire_read_uuid(EntReader *r, EntWireUuid *id);

/* A name that identifies something and so is not empty. */
extern void ent_wire_read_name(EntReader *r, char *buf);

#endif							/* ENT_RULE_WIRE_PRIVATE_H */
