/* What JSON looks like on the wire and in Lua: the types that rows of calls.c are made of, the walk between the two
 * (shape.c), and the helpers around it. */
#ifndef E2B_SHAPE_H
#define E2B_SHAPE_H

#include "e2b.h"

#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif

typedef enum e2b_kind {
    E2B_STRING,  /* a string */
    E2B_TEXT,    /* a string; an empty one counts as absent */
    E2B_BOOL,    /* true or false */
    E2B_TIME,    /* seconds since the epoch in Lua, RFC 3339 on the wire */
    E2B_NUMBER,  /* a number; whole ones are integers where the Lua has them */
    E2B_WHOLE,   /* the same; requests carry whole ones only */
    E2B_SECONDS, /* a number of seconds; requests carry whole ones, rounded up */
    E2B_EPOCH,   /* seconds since the epoch as a number; requests carry whole ones, rounded down */
    E2B_INT64,   /* a whole number, which answers may write as a string */
    E2B_BYTES,   /* any bytes in Lua, base64 on the wire */
    E2B_ENUM,    /* answers: one of the words in `fields` by its Lua name; absent when it is none of them */
    E2B_ANY,     /* any JSON value; from here on tables are expected */
    E2B_OBJECT,  /* an object with the fields of its shape */
    E2B_LIST,    /* an array of `item` */
    E2B_MAP,     /* an object whose keys are the user's, values are `item` */
    E2B_INNER,   /* answers: an object that stands for the value of its one field; without one, it is true */
    E2B_SWITCH,  /* requests: true and false stand for the object { enabled = … }, else as E2B_OBJECT */
    E2B_PAIRS    /* queries: a map as one value, encoded twice before the encoding of the query */
} e2b_kind;

struct e2b_shape {
    e2b_kind kind;
    int id;                  /* objects that are read: a number of their own, below E2B_OBJECTS */
    const e2b_field *fields; /* objects: ended by one without a wire name, at most 63 */
    const e2b_shape *item;   /* lists and maps */
};

struct e2b_field {
    const char *wire, *name;
    size_t wire_len;
    const e2b_shape *shape;
    unsigned flags;
};

/* More flags of a row: a body is sent even when no field of it was given; the body is a string of the caller's; so is
 * the answer. */
#define E2B_ALWAYS_BODY 256u
#define E2B_BYTES_BODY 512u

/* Flags of a field. */
#define E2B_REQUIRED 1u /* an answer without it is of the wrong shape */
#define E2B_DROPPED 2u  /* never handed to Lua */
#define E2B_FALLBACK 4u /* gives way to another field of the same Lua name */
#define E2B_SECRET 8u   /* holds one, so a value of another type is dropped; else that goes to `extra` */
#define E2B_DEFAULT 16u /* absent from an answer it is 0, false, "" or empty; another type is a wrong shape */

/* The deepest nesting that is read or written. */
#define E2B_MAX_DEPTH 100

/* Ids of objects are below this. */
#define E2B_OBJECTS 20

/* shape.c */

/* The value on top of the stack, as cjson decoded it, becomes what Lua is to see. 1: done, with the value in its
 * place (it may be nil, for a null). 0: the message in its place says which field is wrong. */
int e2b_shape_read(lua_State *L, const e2b_shape *shape);

/* The way from the root to some value, for messages. */
struct e2b_place {
    const struct e2b_place *up;
    const char *key; /* NULL: the index */
    size_t index;
};

#define E2B_MESSAGE_SIZE 400

/* Write "place: what" to a buffer of E2B_MESSAGE_SIZE bytes; no value is ever shown, it may be a secret. The second
 * says which type was expected there and which one the value at `index` has. */
size_t e2b_explain(char *to, const struct e2b_place *at, const char *what);
size_t e2b_explain_type(char *to, const struct e2b_place *at, const char *expected, lua_State *L, int index);

int e2b_shape_open(lua_State *L);

/* Events of streams (calls_envd.c). */
extern const e2b_shape e2b_process_end, e2b_watch_event;

extern const e2b_shape e2b_shape_any;

/* scalar.c: the value on top becomes what a shape of E2B_INT64, E2B_BYTES or E2B_ENUM says. 0: the message says why not,
 * and the stack is anything. */
int e2b_scalar_read(lua_State *L, const e2b_shape *shape, const struct e2b_place *at, char *message);

/* unshape.c: the reverse. The Lua value on top of the stack becomes a copy that cjson can encode; `name` is what
 * messages call it. 1: done, with the copy in its place (nil when nothing is to be sent). 0: the message in its place. */
int e2b_shape_write(lua_State *L, const e2b_shape *shape, const char *name);

/* 1 when the table at that absolute index has no other keys than the Lua names of the fields; 0 with a message. */
int e2b_only_fields(lua_State *L, int table, const e2b_field *fields, const struct e2b_place *up, char *message);

/* cjson.c */
void e2b_cjson_push(lua_State *L);
void e2b_cjson_check(lua_State *L, int encode, int decode);

/* json.c */

/* 1: pushes the value (cjson's tables, JSON null as a light userdata). 0: pushes a message. */
int e2b_json_parse(lua_State *L, const char *s, size_t len);

/* Replaces the value on top, which e2b_shape_write made, with its JSON. 0: with a message. */
int e2b_json_print(lua_State *L);

/* The number on top becomes an integer if it is a whole one and the Lua has integers. 1 when it did. */
int e2b_json_whole(lua_State *L);

/* Takes nulls out of the table on top and makes its whole numbers integers, all the way down. */
void e2b_json_clean(lua_State *L);

/* Whole numbers that cjson would not write exactly travel as strings with this beginning. */
#define E2B_DIGITS_MARK "\1e2b#"

/* url.c */
void e2b_push_escaped(lua_State *L, const char *s, size_t len, const char *mark);

/* timefmt.c */
#define E2B_TIME_SIZE 32
int e2b_time_parse(const char *s, size_t len, long long *seconds);
size_t e2b_time_format(double seconds, char *to);
int e2b_time_http(const char *s, size_t len, long long *seconds);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#endif
