/*
 * store/keytype.h
 *	  How values of a type go into a key image, and come out again.
 *
 * Equal values have equal images and different ones different images, under
 * the type's default btree operator class. Leaves are the bytes of the
 * type's send function; numeric loses trailing zeros, floats the sign of
 * zero and of what is no number, character(n) its trailing blanks. Arrays, ranges, multiranges and composites have
 * a form of their own, because send functions put oids of types into it.
 */
#ifndef ENT_STORE_KEYTYPE_H
#define ENT_STORE_KEYTYPE_H

#include "postgres.h"

#include "lib/stringinfo.h"

typedef struct EntKeyType EntKeyType;

/* In the current memory context; NULL when the type cannot be in a key. */
extern EntKeyType *ent_keytype_make(Oid type, int32 typmod, Oid collation);

/* Does the image tell the value to the last bit? */
extern bool ent_keytype_exact(const EntKeyType *kt);

/* May the bytes depend on an encoding? */
extern bool ent_keytype_textual(const EntKeyType *kt);

/*
 * Appends the image of a value. The client's encoding is the one that the
 * image's text is to be in, unless the type is not textual.
 */
extern void ent_keytype_encode(EntKeyType *kt, Datum value, StringInfo out);

/*
 * The value of an image, encoded as above; in the current context. foreign: the
 * bytes come from another node and nothing is taken for granted: raises what
 * the type's receive function and the domains' constraints raise. Raises
 * ERRCODE_DATA_CORRUPTED when malformed.
 */
extern Datum ent_keytype_decode(EntKeyType *kt, const uint8 *data, size_t len,
								bool foreign);

/* Sets the client's encoding, and returns the one before. */
extern int	ent_keytype_set_encoding(int encoding);

#endif							/* ENT_STORE_KEYTYPE_H */
