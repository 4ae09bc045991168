/*
 * store/doubt.c
 *	  entanglement.doubt: a row while there is any.
 */
#include "postgres.h"

#include "executor/spi.h"

#include "store/doubt.h"
#include "store/query.h"

static EntQuery get_query = {
	"SELECT FROM entanglement.doubt", 0, {0}, NULL
};
static EntQuery begin_query = {
	"INSERT INTO entanglement.doubt DEFAULT VALUES ON CONFLICT DO NOTHING", 0, {0}, NULL
};
static EntQuery end_query = {
	"DELETE FROM entanglement.doubt", 0, {0}, NULL
};

bool
ent_doubt_get(void)
{
	bool		doubt;

	ent_query_run(&get_query, NULL, NULL, SPI_OK_SELECT, NULL);
	doubt = SPI_processed > 0;
	SPI_freetuptable(SPI_tuptable);
	return doubt;
}

void
ent_doubt_set(bool doubt)
{
	if (doubt)
		ent_query_run(&begin_query, NULL, NULL, SPI_OK_INSERT, NULL);
	else
		ent_query_run(&end_query, NULL, NULL, SPI_OK_DELETE, NULL);
}
