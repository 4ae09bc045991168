/*
 * link/hello.h
 *	  Who speaks, in which version: the first bytes on each connection.
 */
#ifndef ENT_LINK_HELLO_H
#define ENT_LINK_HELLO_H

#include "postgres.h"

#include "rule/wire.h"

/* Our hello as a batch. In a transaction with SPI. Current context. */
extern bytea *ent_hello_build(void);

/*
 * Reads a hello. Raises ERRCODE_PROTOCOL_VIOLATION for what is none, and
 * ERRCODE_FEATURE_NOT_SUPPORTED with detail (both sides' versions) and hint when no
 * protocol version is common.
 */
extern void ent_hello_read(const void *data, size_t len, EntWireHello *hello);

#endif							/* ENT_LINK_HELLO_H */
