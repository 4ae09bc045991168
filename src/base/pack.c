/*
 * base/pack.c
 *	  Messages of one direction of a link, compressed with what went before.
 *
 * Floor 0. The only file that talks to zstd. What it allocates by itself is
 * given back when the context goes. Of what comes from outside nothing is
 * believed: memory grows with what has been unpacked, up to the limit.
 */
#include "postgres.h"

#include <zstd.h>

#include "utils/memutils.h"

#include "base/compat.h"
#include "base/guc.h"
#include "base/pack.h"

#define WORTH_IT		32		/* bytes: shorter ones go as they are */
#define SHARE			16		/* of a message in the ratio seen lately */
#define MAX_RATIO		8.0		/* more is not counted on */

struct EntPacker
{
	ZSTD_CCtx  *zstd;			/* NULL: not yet */
	int			level;
	int			window;			/* log2 of bytes */
	double		ratio;			/* of message to packed, of late */
	MemoryContext context;
};

struct EntUnpacker
{
	ZSTD_DCtx  *zstd;			/* NULL: not yet */
	MemoryContext context;
};

static void
free_packer(void *p)
{
	ZSTD_freeCCtx(((EntPacker *) p)->zstd);
}

static void
free_unpacker(void *u)
{
	ZSTD_freeDCtx(((EntUnpacker *) u)->zstd);
}

static void
free_with(MemoryContext context, void (*func) (void *), void *arg)
{
	MemoryContextCallback *callback =
		MemoryContextAllocZero(context, sizeof(MemoryContextCallback));

	callback->func = func;
	callback->arg = arg;
	MemoryContextRegisterResetCallback(context, callback);
}

static int
log2_of(int kilobytes)
{
	int			log = 10;

	while (log < ENT_PACK_MAX_WINDOW && (1 << (log - 9)) <= kilobytes)
		log++;
	return log;
}

/* ---- packing ---- */

EntPacker *
ent_pack_create(MemoryContext context)
{
	EntPacker  *p = MemoryContextAllocZero(context, sizeof(EntPacker));

	p->context = context;
	p->level = ent_compression_level;
	p->window = log2_of(ent_compression_window);
	p->ratio = 1;
	return p;
}

pg_noreturn static void
fail(const char *what, size_t code)
{
	ereport(ERROR,
			(errcode(ERRCODE_INTERNAL_ERROR),
			 errmsg("could not compress: %s: %s", what, ZSTD_getErrorName(code))));
}

static void
set(EntPacker *p, ZSTD_cParameter parameter, int value)
{
	size_t		code = ZSTD_CCtx_setParameter(p->zstd, parameter, value);

	if (ZSTD_isError(code))
		fail("parameter", code);
}

/*
 * Long matches are looked for besides: a large value is like its last version, which
 * a fast level would have forgotten long before the window does.
 */
static void
start(EntPacker *p)
{
	p->zstd = ZSTD_createCCtx();
	if (p->zstd == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	free_with(p->context, free_packer, p);
	set(p, ZSTD_c_compressionLevel, p->level);
	set(p, ZSTD_c_windowLog, p->window);
	set(p, ZSTD_c_enableLongDistanceMatching, 1);
	set(p, ZSTD_c_contentSizeFlag, 0);
	set(p, ZSTD_c_checksumFlag, 0);
}

/* It falls at once, and rises slowly: a batch must not become more than it should. */
static void
note_ratio(EntPacker *p, double ratio)
{
	if (ratio < p->ratio)
		p->ratio = ratio;
	else
		p->ratio += (Min(ratio, MAX_RATIO) - p->ratio) / SHARE;
}

bytea *
ent_pack(EntPacker *p, bytea *message)
{
	size_t		len = VARSIZE_ANY_EXHDR(message);
	ZSTD_inBuffer in = {VARDATA_ANY(message), len, 0};
	ZSTD_outBuffer out;
	size_t		left;
	bytea	   *packed;

	if (p == NULL || p->level == 0 || len < WORTH_IT || len > ENT_PACK_MAX)
		return message;
	if (p->zstd == NULL)
		start(p);
	out.size = ZSTD_compressBound(len) + 64;
	out.pos = 0;
	packed = MemoryContextAllocHuge(CurrentMemoryContext, VARHDRSZ + 1 + out.size);
	*VARDATA(packed) = (char) ENT_PACK_MAGIC;
	out.dst = VARDATA(packed) + 1;
	left = ZSTD_compressStream2(p->zstd, &out, &in, ZSTD_e_flush);
	if (ZSTD_isError(left))
		fail("message", left);
	if (left > 0 || in.pos < in.size)
		elog(ERROR, "a packed message is longer than its bound");
	SET_VARSIZE(packed, VARHDRSZ + 1 + out.pos);
	note_ratio(p, (double) len / (double) (1 + out.pos));
	return packed;
}

static double
counted_on(const EntPacker *p)
{
	return p == NULL ? 1 : Min(Max(p->ratio, 1), MAX_RATIO);
}

size_t
ent_pack_expand(const EntPacker *p, size_t bytes)
{
	return (size_t) ((double) bytes * counted_on(p));
}

size_t
ent_pack_shrink(const EntPacker *p, size_t bytes)
{
	return (size_t) ((double) bytes / counted_on(p));
}

/* ---- unpacking ---- */

EntUnpacker *
ent_unpack_create(MemoryContext context)
{
	EntUnpacker *u = MemoryContextAllocZero(context, sizeof(EntUnpacker));

	u->context = context;
	return u;
}

pg_noreturn static void
refuse(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROTOCOL_VIOLATION),
			 errmsg("malformed message from peer"),
			 errdetail("It could not be unpacked: %s.", detail)));
}

static void
start_unpacking(EntUnpacker *u)
{
	u->zstd = ZSTD_createDCtx();
	if (u->zstd == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	free_with(u->context, free_unpacker, u);
	(void) ZSTD_DCtx_setParameter(u->zstd, ZSTD_d_windowLogMax, ENT_PACK_MAX_WINDOW);
}

void
ent_unpack(EntUnpacker *u, const char **data, size_t *len)
{
	ZSTD_inBuffer in = {*data + 1, *len - 1, 0};
	ZSTD_outBuffer out = {NULL, 0, 0};

	if (*len == 0 || (uint8) **data != ENT_PACK_MAGIC)
		return;
	if (u->zstd == NULL)
		start_unpacking(u);
	out.size = Min(4 * *len + 1024, ENT_PACK_MAX + 1);
	out.dst = MemoryContextAllocHuge(CurrentMemoryContext, out.size);
	for (;;)
	{
		size_t		code = ZSTD_decompressStream(u->zstd, &out, &in);

		if (ZSTD_isError(code))
			refuse(ZSTD_getErrorName(code));
		if (out.pos > ENT_PACK_MAX)
			refuse(psprintf("it becomes more than %zu bytes", ENT_PACK_MAX));
		if (out.pos < out.size)
		{
			if (in.pos == in.size)
				break;
			continue;			/* the next frame */
		}
		out.size = Min(2 * out.size, ENT_PACK_MAX + 1);
		out.dst = repalloc_huge(out.dst, out.size);
	}
	*data = out.dst;
	*len = out.pos;
}
