/*
 * base/report.c
 *	  Errors as text that is kept and shown: last_error.
 *
 * Floor 0. A peer's error text is data of somebody else: it is shown to
 * administrators and written to the log, so nothing in it may forge a line
 * there or break a client's encoding.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"

#include "base/report.h"

char *
ent_report_text(const char *message, const char *detail, const char *hint)
{
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfoString(&text, message);
	if (detail != NULL && detail[0] != '\0')
		appendStringInfo(&text, " DETAIL: %s", detail);
	if (hint != NULL && hint[0] != '\0')
		appendStringInfo(&text, " HINT: %s", hint);
	return text.data;
}

void
ent_report_clean(char *text)
{
	int			len = strlen(text);

	if (!pg_verify_mbstr(GetDatabaseEncoding(), text, len, true))
		for (char *p = text; *p != '\0'; p++)
			if (IS_HIGHBIT_SET(*p))
				*p = '?';
	/* in every server encoding a byte below 0x20 is a character by itself */
	for (char *p = text; *p != '\0'; p++)
		if ((unsigned char) *p < ' ' || *p == 0x7f)
			*p = ' ';
	while (len > 0 && text[len - 1] == ' ')
		text[--len] = '\0';
}
