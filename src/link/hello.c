/*
 * link/hello.c
 *	  Who speaks, in which version: the first bytes on each connection.
 *
 * Place: link. A hello is a batch with the number 0 and one section. Its first
 * fields, the versions, stay where they are in every future version, so
 * that two versions that have nothing in common can still say so.
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/ent.h"
#include "link/hello.h"
#include "store/identity.h"
#include "store/value.h"

static void *
grow(void *context, void *old, size_t size)
{
	return old == NULL ? palloc(size) : repalloc(old, size);
}

bytea *
ent_hello_build(void)
{
	EntIdentity *identity = ent_identity_get();
	EntWireHeader header = {.version = ENT_WIRE_VERSION};
	EntWireHello hello = {
		.max_version = ENT_WIRE_VERSION,
		.min_version = ENT_WIRE_MIN_VERSION
	};
	EntWireAllocator allocator = {grow, NULL};
	EntWriter	w;
	bytea	   *result;

	memcpy(hello.node.bytes, identity->id.data, UUID_LEN);
	strlcpy(hello.name, ent_name_to_wire(identity->name), sizeof(hello.name));
	strlcpy(hello.software, ENT_SOFTWARE, sizeof(hello.software));

	ent_wire_writer_init(&w, allocator);
	ent_wire_write_header(&w, &header);
	ent_wire_write_hello(&w, &hello);

	result = palloc(VARHDRSZ + w.len);
	SET_VARSIZE(result, VARHDRSZ + w.len);
	memcpy(VARDATA(result), w.data, w.len);
	pfree(w.data);
	return result;
}

static void
complain_malformed(EntWireError error)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROTOCOL_VIOLATION),
			 errmsg("what the other side sent is not a hello of entanglement"),
			 errdetail("It is malformed: %s.", ent_wire_error_text(error)),
			 errhint("Only another node of entanglement can take part in the exchange.")));
}

static void
complain_version(unsigned min, unsigned max)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("the nodes have no protocol version in common"),
			 errdetail("The other node speaks versions %u to %u, this one %u to %u.",
					   min, max, ENT_WIRE_MIN_VERSION, ENT_WIRE_VERSION),
			 min > ENT_WIRE_VERSION ?
			 errhint("Update entanglement on the node that says this.") :
			 errhint("Update entanglement on the other node.")));
}

/*
 * The versions alone, from a reader at the start of a HELLO: enough to refuse
 * a hello whose other fields this version may not even understand.
 */
static void
check_version(EntReader body)
{
	unsigned	max = (unsigned) ent_wire_read_bounded(&body, UINT16_MAX);
	unsigned	min = (unsigned) ent_wire_read_bounded(&body, UINT16_MAX);

	if (body.error != ENT_WIRE_OK)
		complain_malformed(body.error);
	if (min == 0 || min > max)
		complain_malformed(ENT_WIRE_MALFORMED);
	if (min > ENT_WIRE_VERSION || max < ENT_WIRE_MIN_VERSION)
		complain_version(min, max);
}

void
ent_hello_read(const void *data, size_t len, EntWireHello *hello)
{
	EntReader	r;
	EntReader	body;
	EntWireHeader header;
	unsigned	type = 0;

	ent_wire_reader_init(&r, data, len);
	ent_wire_read_header(&r, &header);
	if (r.error != ENT_WIRE_OK)
		complain_malformed(r.error);
	if (!ent_wire_read_section(&r, &type, &body) ||
		type != ENT_SECTION_HELLO)
		complain_malformed(r.error != ENT_WIRE_OK ? r.error :
						   ENT_WIRE_MALFORMED);

	check_version(body);
	memset(hello, 0, sizeof(*hello));
	ent_wire_read_hello(&body, hello);
	if (body.error != ENT_WIRE_OK)
		complain_malformed(body.error);
	if (hello->name[0] == '\0')
		complain_malformed(ENT_WIRE_MALFORMED);
}
