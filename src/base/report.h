/*
 * base/report.h
 *	  Errors as text that is kept and shown: last_error.
 */
#ifndef ENT_BASE_REPORT_H
#define ENT_BASE_REPORT_H

#include "postgres.h"

/*
 * "message DETAIL: detail HINT: hint" in the current context; detail and hint
 * may be NULL or empty.
 */
extern char *ent_report_text(const char *message, const char *detail,
							 const char *hint);

/*
 * Makes text from outside harmless, in place: control characters become
 * blanks, what is not valid in the database encoding question marks, and
 * blanks at the end go.
 */
extern void ent_report_clean(char *text);

#endif							/* ENT_BASE_REPORT_H */
