/* Between request.c and query.c. */
#ifndef E2B_REQUEST_H
#define E2B_REQUEST_H

#include "shape.h"

#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif

struct e2b_request {
    lua_State *L;
    char message[E2B_MESSAGE_SIZE]; /* what is wrong, when a function answers 0 */
};

struct e2b_key {
    const char *s;
    size_t len;
};

/* Pushes a userdata with the keys of the table at that index in byte order, so that equal requests are equal bytes.
 * The strings belong to the table. */
int e2b_push_keys(struct e2b_request *r, int table, const struct e2b_place *at, struct e2b_key **keys, size_t *count);

/* Add "?name=value&name=value" to the buffer; `query` is the stack index of the table of values. The second takes all of
 * the keys pushed before (at stack index keys_at) and begins with that separator. */
int e2b_add_query(struct e2b_request *r, luaL_Buffer *out, const e2b_field *fields, int query);
int e2b_add_raw_query(struct e2b_request *r, luaL_Buffer *out, int query, int keys_at, size_t count, char separator);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#endif
