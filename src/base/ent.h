/*
 * base/ent.h
 *	  Names and limits every floor shares.
 *
 * Floor 0: includes nothing of ours.
 */
#ifndef ENT_BASE_ENT_H
#define ENT_BASE_ENT_H

#define ENT_NAME			"entanglement"
#define ENT_SCHEMA			"entanglement"
#define ENT_VERSION			"0.1.0"
#define ENT_SOFTWARE		ENT_NAME " " ENT_VERSION

#define ENT_MAX_DATABASES	64		/* databases with the extension, per server */
#define ENT_ERROR_LENGTH	1024	/* bytes of a remembered error, with NUL */
#define ENT_FINGERPRINT_LENGTH 64	/* hex digits of SHA-256 */
#define ENT_MAX_DISTANCE	32		/* links from an owner's home */

#endif							/* ENT_BASE_ENT_H */
