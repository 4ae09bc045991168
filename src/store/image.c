/*
 * store/image.c
 *	  All values of a row, as bytes that travel.
 */
#include "postgres.h"

#include "lib/stringinfo.h"

#include "store/image.h"
#include "store/rowquery.h"
#include "store/value.h"

/* What stands before each value. */
typedef struct ColumnHead
{
	int16		attnum;			/* of the root */
	int16		format;
	Oid			type;
	int32		len;			/* -1: NULL */
} ColumnHead;

static EntColumn *
column_numbered(EntRelation *rel, AttrNumber attnum)
{
	int			lo = 0,
				hi = rel->ncolumns - 1;

	while (lo <= hi)
	{
		int			mid = (lo + hi) / 2;

		if (rel->columns[mid].attnum == attnum)
			return &rel->columns[mid];
		if (rel->columns[mid].attnum < attnum)
			lo = mid + 1;
		else
			hi = mid - 1;
	}
	return NULL;
}

static void
append_value(StringInfo buf, EntColumn *col, Datum value, bool isnull)
{
	ColumnHead	head = {col->attnum, col->format, col->type, -1};
	const char *data = NULL;
	size_t		len = 0;

	if (!isnull)
	{
		data = ent_value_encode(col, value, &len);
		head.len = len;
	}
	appendBinaryStringInfo(buf, (const char *) &head, sizeof(head));
	appendBinaryStringInfo(buf, data ? data : "", len);
}

bytea *
ent_image_make(EntTriggered *t, TupleTableSlot *slot)
{
	StringInfoData buf;
	int			level = ent_value_enter();

	initStringInfo(&buf);
	appendBinaryStringInfo(&buf, "\0\0\0\0", VARHDRSZ);
	slot_getallattrs(slot);
	for (int i = 0; i < t->natts; i++)
	{
		EntColumn  *col = t->root_attnum[i] == 0 ? NULL :
			column_numbered(t->root, t->root_attnum[i]);

		if (col != NULL && !col->in_key_only)
			append_value(&buf, col, slot->tts_values[i], slot->tts_isnull[i]);
	}
	ent_value_leave(level);
	SET_VARSIZE(buf.data, buf.len);
	return (bytea *) buf.data;
}

static void
make_of_row(void *arg, Relation heap, TupleTableSlot *slot)
{
	EntTriggered *t = ent_triggered(heap);

	if (t != NULL)
		*(bytea **) arg = ent_image_make(t, slot);
}

bytea *
ent_image_of_row(EntRelation *rel, const Datum *key)
{
	bytea	   *image = NULL;

	(void) ent_rowquery_visit(rel, key, NULL, make_of_row, &image);
	return image;
}

bool
ent_image_read(EntRelation *rel, bytea *image, const bool *needed,
			   const char **data, size_t *len)
{
	const char *p = VARDATA_ANY(image),
			   *end = p + VARSIZE_ANY_EXHDR(image);
	bool	   *found = palloc0(rel->ncolumns * sizeof(bool));
	bool		all = true;

	while (end - p >= (ptrdiff_t) sizeof(ColumnHead))
	{
		ColumnHead	head;
		EntColumn  *col;

		memcpy(&head, p, sizeof(head));
		p += sizeof(head);
		if (head.len > end - p)
			break;
		col = column_numbered(rel, head.attnum);
		if (col != NULL && col->type == head.type &&
			col->format == (EntWireFormat) head.format)
		{
			found[col - rel->columns] = true;
			data[col - rel->columns] = head.len < 0 ? NULL : p;
			len[col - rel->columns] = Max(head.len, 0);
		}
		p += Max(head.len, 0);
	}
	for (int i = 0; i < rel->ncolumns; i++)
		all &= !needed[i] || found[i];
	pfree(found);
	return all;
}
