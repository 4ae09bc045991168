/*
 * link/outstates.c
 *	  The sending end: which states of objects were sent on this link.
 *
 * A scan and the events behind its start tell of the same states, and of a table
 * with every_state each would be sent again. What is remembered here is told
 * once; what is forgotten costs bytes only, since the receiver has it already.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "utils/hsearch.h"

#include "link/outbound_private.h"

#define MAX_STATES	100000		/* objects remembered; then from the start */

typedef struct SentKey
{
	uint64		hash[2];		/* of table, owner and key */
} SentKey;

typedef struct Sent
{
	SentKey		key;			/* hash key */
	int64		serial;
} Sent;

static SentKey
key_of(const EntQueueEntry *e)
{
	uint64		seed = ((uint64) (uint32) e->rel << 32) | (uint32) e->owner;
	SentKey		key;

	key.hash[0] = DatumGetUInt64(hash_any_extended(e->key, e->keylen, seed));
	key.hash[1] = DatumGetUInt64(hash_any_extended(e->key, e->keylen, ~seed));
	return key;
}

int64
ent_outbound_state_sent(const EntOutbound *ob, const EntQueueEntry *e)
{
	SentKey		key = key_of(e);
	Sent	   *sent = ob->states_sent == NULL ? NULL :
		hash_search(ob->states_sent, &key, HASH_FIND, NULL);

	return sent == NULL ? 0 : sent->serial;
}

void
ent_outbound_note_state(EntOutbound *ob, const EntQueueEntry *e, int64 serial)
{
	SentKey		key = key_of(e);
	Sent	   *sent;

	if (ob->states_sent != NULL && hash_get_num_entries(ob->states_sent) >= MAX_STATES)
		ent_outbound_forget_states(ob);
	if (ob->states_sent == NULL)
	{
		HASHCTL		ctl = {.keysize = sizeof(SentKey), .entrysize = sizeof(Sent),
		.hcxt = ob->context};

		ob->states_sent = hash_create("entanglement states sent", 256, &ctl,
									  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	sent = hash_search(ob->states_sent, &key, HASH_ENTER, NULL);
	sent->serial = serial;
}

void
ent_outbound_forget_states(EntOutbound *ob)
{
	if (ob->states_sent != NULL)
		hash_destroy(ob->states_sent);
	ob->states_sent = NULL;
}
