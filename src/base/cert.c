/*
 * base/cert.c
 *	  Is a connection safe, and with which certificate?
 *
 * Floor 0. The only file that talks to OpenSSL. Without TLS in the server
 * there are no certificates, hence no fingerprints.
 */
#include "postgres.h"

#include "miscadmin.h"

/*
 * Port has a pointer where GSSAPI's state is, whether or not its headers are
 * at hand; we do not look there.
 */
#undef ENABLE_GSS
#include "libpq/libpq-be.h"

#ifdef USE_OPENSSL
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#endif

#include "base/cert.h"

bool
ent_cert_have_client(void)
{
	return MyProcPort != NULL;
}

bool
ent_cert_client_is_safe(void)
{
	return MyProcPort != NULL &&
		(MyProcPort->ssl_in_use ||
		 MyProcPort->raddr.addr.ss_family == AF_UNIX);
}

#ifdef USE_OPENSSL

static bool
fingerprint(X509 *cert, char *out)
{
	static const char digits[] = "0123456789abcdef";
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned int len = 0;

	if (X509_digest(cert, EVP_sha256(), digest, &len) != 1 ||
		len * 2 != ENT_FINGERPRINT_LENGTH)
		return false;
	for (unsigned int i = 0; i < len; i++)
	{
		out[2 * i] = digits[digest[i] >> 4];
		out[2 * i + 1] = digits[digest[i] & 15];
	}
	out[ENT_FINGERPRINT_LENGTH] = '\0';
	return true;
}

#endif							/* USE_OPENSSL */

pgsocket
ent_cert_client_socket(void)
{
	return MyProcPort != NULL ? MyProcPort->sock : PGINVALID_SOCKET;
}

/* X509_V_OK: no failure so far. */
static long verify_error = 0;

#ifdef USE_OPENSSL

/* A refused certificate is told to the other side by an alert. */
static void
note_alert(const SSL *ssl, int where, int value)
{
	if ((where & SSL_CB_WRITE_ALERT) == SSL_CB_WRITE_ALERT &&
		(value >> 8) == SSL3_AL_FATAL &&
		SSL_get_verify_mode(ssl) != SSL_VERIFY_NONE &&
		SSL_get_verify_result(ssl) != X509_V_OK)
		verify_error = SSL_get_verify_result(ssl);
}

static void
watch_new(void *ssl, void *data, CRYPTO_EX_DATA *all, int index, long argl,
		  void *argp)
{
	SSL_set_info_callback(ssl, note_alert);
}

#endif							/* USE_OPENSSL */

void
ent_cert_watch(void)
{
#ifdef USE_OPENSSL
	/*
	 * libpq makes the SSL object and may finish the handshake in one call; the
	 * one way in is to be told of every object that comes into being.
	 */
	static int	index = -1;

	if (index < 0)
		index = SSL_get_ex_new_index(0, NULL, watch_new, NULL, NULL);
#endif
}

const char *
ent_cert_verdict(void)
{
#ifdef USE_OPENSSL
	if (verify_error != X509_V_OK)
		return X509_verify_cert_error_string(verify_error);
#endif
	return NULL;
}

void
ent_cert_forget_verdict(void)
{
	verify_error = 0;
}

bool
ent_cert_of_client(char *out)
{
	out[0] = '\0';
#ifdef USE_OPENSSL
	if (MyProcPort != NULL && MyProcPort->ssl_in_use &&
		MyProcPort->peer != NULL)
		return fingerprint(MyProcPort->peer, out);
#endif
	return false;
}

bool
ent_cert_of_server(void *ssl, char *out)
{
	bool		found = false;

	out[0] = '\0';
#ifdef USE_OPENSSL
	if (ssl != NULL)
	{
		/* the name of 1.1.1, which 3.0 keeps as an alias */
		X509	   *cert = SSL_get_peer_certificate(ssl);

		if (cert != NULL)
		{
			found = fingerprint(cert, out);
			X509_free(cert);
		}
	}
#endif
	return found;
}

bool
ent_cert_parse(const char *text, char *out)
{
	int			n = 0;

	out[0] = '\0';
	for (const char *p = text; *p != '\0'; p++)
	{
		char		c = pg_ascii_tolower((unsigned char) *p);

		if (c == ':' || c == ' ')
			continue;
		if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')) ||
			n == ENT_FINGERPRINT_LENGTH)
		{
			out[0] = '\0';
			return false;
		}
		out[n++] = c;
	}
	out[n] = '\0';
	if (n != ENT_FINGERPRINT_LENGTH)
		out[0] = '\0';
	return n == ENT_FINGERPRINT_LENGTH;
}
