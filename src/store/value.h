/*
 * store/value.h
 *	  Values and keys as bytes, independent of any session's settings.
 *
 * Between enter and leave the settings that influence input and output
 * functions are pinned (client_encoding UTF8, DateStyle ISO, IntervalStyle postgres,
 * extra_float_digits 3, bytea_output hex, search_path pg_catalog, xmloption content ...),
 * and so are those of the parser;
 * an error in between restores them with the (sub)transaction.
 */
#ifndef ENT_STORE_VALUE_H
#define ENT_STORE_VALUE_H

#include "postgres.h"

#include "store/relinfo.h"

extern int	ent_value_enter(void);
extern void ent_value_leave(int nestlevel);

/*
 * A value in the column's wire format (UTF-8). Needs enter. Result in the
 * current context; *len its bytes.
 */
extern const char *ent_value_encode(EntColumn *col, Datum value, size_t *len);

/*
 * The reverse, under the format and type that the sender announced.
 * sender_type: oid of the built-in base type the sender's binary values have, or InvalidOid when it
 * sends text. When it differs from the column's base type the value is
 * taken over through text. Raises what the type's input raises; the
 * domain's constraints are checked.
 */
extern Datum ent_value_decode(EntColumn *col, EntWireFormat format,
							  Oid sender_type, const char *data, size_t len);

/*
 * Do values of this type (no domain) mean the same in another database? Not
 * those of reg*. And does it have send and receive functions at all?
 */
extern bool ent_value_exchangeable(Oid type);
/* Does it travel in binary form: built-in and exchangeable, its parts too? */
extern bool ent_value_binary(Oid type);

/*
 * The built-in type of that name in pg_catalog that travels in binary form, or
 * InvalidOid.
 */
extern Oid	ent_value_builtin_type(const char *schema, const char *name);
/* Schema and name under which a column's (base, if binary) type is announced. */
extern void ent_value_type_name(EntColumn *col, const char **schema,
								const char **name);

/* ---- keys ---- */

/*
 * Bytes of a local key image. Whatever fits goes into our indexes without
 * compression, whichever other columns they have, and is below ENT_WIRE_MAX_KEY
 * in any encoding.
 */
#define ENT_KEY_MAX		2600

/*
 * Local key image of these key values (rel->nkeys, none NULL), as a bytea in
 * the current context. Independent of the session's settings; needs no
 * enter. Raises ERRCODE_PROGRAM_LIMIT_EXCEEDED beyond ENT_KEY_MAX.
 * Cheap for the usual types (integers, text, uuid, timestamps).
 */
extern bytea *ent_key_image(EntRelation *rel, const Datum *values);
/* The key values of an image; raises ERRCODE_DATA_CORRUPTED when malformed. */
extern void ent_key_values(EntRelation *rel, const uint8 *key, size_t len,
						   Datum *values);
/*
 * Between the local image and the wire's (UTF-8). Identity unless the
 * database encoding is neither UTF8 nor SQL_ASCII. From the wire: bytes
 * are validated and canonicalised: what comes out is exactly what
 * ent_key_image would make, or an error is raised. That is done as the role,
 * since a domain's constraints are somebody's code.
 */
extern bool ent_key_is_wire(EntRelation *rel);	/* identity here? */
extern const uint8 *ent_key_to_wire(EntRelation *rel, const uint8 *key,
									size_t len, size_t *outlen);
extern bytea *ent_key_from_wire(EntRelation *rel, Oid role, const uint8 *key,
								size_t len, Datum *values);
/* For people: (id, name)=(7, x), at most about 200 bytes, current context. */
extern char *ent_key_text(EntRelation *rel, const uint8 *key, size_t len);

/*
 * Identifiers: database encoding to UTF-8 and back, current context. A
 * character that the database's encoding lacks becomes \XXXX, so that no name
 * of a peer's keeps its other tables and owners out.
 */
extern char *ent_name_to_wire(const char *name);
extern char *ent_name_from_wire(const char *name);

#endif							/* ENT_STORE_VALUE_H */
