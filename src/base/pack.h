/*
 * base/pack.h
 *	  Messages of one direction of a link, compressed with what went before.
 *
 * One zstd frame lasts as long as the link; each message is flushed, so the
 * other end can unpack it at once, and has all those before it for context, as far
 * as the window reaches. Both ends must see the same messages in the same order:
 * a packer's go to one unpacker, and one that is not packed is in neither's
 * history.
 */
#ifndef ENT_BASE_PACK_H
#define ENT_BASE_PACK_H

#include "postgres.h"

#define ENT_PACK_MAGIC		0xE8	/* first byte of a packed message */
/* Longer ones go as they are: so little can a packed one become so much. */
#define ENT_PACK_MAX		((size_t) 16 * 1024 * 1024)
#define ENT_PACK_MAX_WINDOW	21		/* log2 of bytes; what an unpacker accepts */

typedef struct EntPacker EntPacker;
typedef struct EntUnpacker EntUnpacker;

/*
 * Live in the context given, with what zstd allocates besides (about 1 MB with
 * the default window, from the first message on that is worth it). level and
 * window (kB) are those of the settings at that time; level 0: nothing is packed.
 */
extern EntPacker *ent_pack_create(MemoryContext context);
/*
 * The message as it is to be sent: packed in the current context, or itself. p may
 * be NULL.
 */
extern bytea *ent_pack(EntPacker *p, bytea *message);
/*
 * So many bytes on the wire are about so many of messages, by what was seen
 * lately; and the other way round.
 */
extern size_t ent_pack_expand(const EntPacker *p, size_t bytes);
extern size_t ent_pack_shrink(const EntPacker *p, size_t bytes);

extern EntUnpacker *ent_unpack_create(MemoryContext context);
/*
 * *data and *len, a message that has come, become the one that was sent; in the
 * current context if they change. Raises ERRCODE_PROTOCOL_VIOLATION for what is
 * malformed, becomes more than ENT_PACK_MAX, or wants a larger window.
 */
extern void ent_unpack(EntUnpacker *u, const char **data, size_t *len);

#endif							/* ENT_BASE_PACK_H */
