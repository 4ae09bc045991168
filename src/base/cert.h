/*
 * base/cert.h
 *	  Is a connection safe, and with which certificate? Fingerprints of TLS
 *	  certificates, as they are pinned.
 *
 * A fingerprint is the SHA-256 digest of the certificate's DER form in
 * lower-case hexadecimal digits: what "openssl x509 -fingerprint -sha256"
 * shows, without the colons.
 */
#ifndef ENT_BASE_CERT_H
#define ENT_BASE_CERT_H

#include "postgres.h"

#include "base/ent.h"

/*
 * Has this process a client, and one that came with TLS or over a Unix
 * socket?
 */
extern bool ent_cert_have_client(void);
extern bool ent_cert_client_is_safe(void);
/* Its socket, to notice that it was closed; PGINVALID_SOCKET without a client. */
extern pgsocket ent_cert_client_socket(void);

/* out holds ENT_FINGERPRINT_LENGTH + 1 bytes and is set to "" on false. */

/* Of the certificate that this backend's client showed; false: none. */
extern bool ent_cert_of_client(char *out);

/*
 * Of the certificate that the server showed on a TLS connection of libpq's;
 * ssl is what PQsslStruct(conn, "OpenSSL") returned, and may be NULL.
 */
extern bool ent_cert_of_server(void *ssl, char *out);

/*
 * While libpq shakes hands: why does OpenSSL not trust the server? libpq
 * tells no more than "certificate verify failed". watch, called before the
 * first connection, has all of this process watched; verdict gives the reason
 * for the last failure since forget, or NULL.
 */
extern void ent_cert_watch(void);
extern const char *ent_cert_verdict(void);
extern void ent_cert_forget_verdict(void);

/*
 * Reads a fingerprint as people write it: 64 hexadecimal digits of either
 * case, with or without colons or blanks in between. false: it is none.
 */
extern bool ent_cert_parse(const char *text, char *out);

#endif							/* ENT_BASE_CERT_H */
