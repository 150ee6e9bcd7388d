/* The walk between JSON as cjson has it and the values Lua is to see. Reading makes one pass over what was decoded:
 * objects with a shape become new tables of the right size, user maps and unknown values are put right in place. */
#include "e2b.h"
#include "shape.h"

#include <string.h>

#define SLOTS 64

#define BOOK "e2b.shapes"

const e2b_shape e2b_shape_any = {E2B_ANY, 0, NULL, NULL};

/* What one Lua state knows about an object's fields: a hash from wire names to fields, and where the Lua names, as
 * strings that need no hashing any more, begin in the table of names. Filled when the shape is first met. */
struct page {
    unsigned char slot[SLOTS]; /* field + 1, or 0; collisions go to the next slot */
    const char *wire[SLOTS];   /* the wire names as this Lua's interned strings, kept alive by the table of names */
    unsigned long long required, defaults;
    int names;
    int same; /* every field keeps its name */
    int known;
};

struct book {
    struct page page[E2B_OBJECTS];
};

struct walk {
    lua_State *L;
    struct book *book;
    int names; /* stack index of the table of names */
    char message[E2B_MESSAGE_SIZE];
};

static unsigned hash(const char *s, size_t len)
{
    const unsigned char *u = (const unsigned char *)s;
    return ((unsigned)len * 3 + u[0] * 5u + u[len / 2] * 11u + u[len - 1] * 17u) % SLOTS;
}

static int complain(struct walk *w, const struct e2b_place *at, const char *what)
{
    e2b_explain(w->message, at, what);
    return 0;
}

static int mismatch(struct walk *w, const struct e2b_place *at, const char *expected)
{
    e2b_explain_type(w->message, at, expected, w->L, -1);
    return 0;
}

/* ---- Reading ---- */

static const struct page *find_page(struct walk *w, const e2b_shape *shape)
{
    lua_State *L = w->L;
    struct page *page = &w->book->page[shape->id];
    int i, at;

    if (page->known)
        return page;
    memset(page, 0, sizeof *page);
    page->names = at = (int)lua_rawlen(L, w->names) + 1;
    page->same = 1;
    for (i = 0; shape->fields[i].wire != NULL; i++) {
        const e2b_field *field = &shape->fields[i];
        const char *name = field->name != NULL ? field->name : field->wire;
        unsigned h = hash(field->wire, field->wire_len);

        while (page->slot[h] != 0)
            h = (h + 1) % SLOTS;
        page->slot[h] = (unsigned char)(i + 1);
        if (field->flags & E2B_REQUIRED)
            page->required |= 1ull << i;
        if (field->flags & E2B_DEFAULT)
            page->defaults |= 1ull << i;
        /* Fields that may be read twice without harm: read_same gives up in the middle. */
        if (strcmp(field->wire, name) != 0 || field->flags != 0 || field->shape->kind > E2B_ANY ||
            field->shape->kind == E2B_TIME || field->shape->kind >= E2B_INT64)
            page->same = 0;
        lua_pushstring(L, name);
        lua_rawseti(L, w->names, at++);
    }
    for (i = 0; shape->fields[i].wire != NULL; i++) {
        lua_pushstring(L, shape->fields[i].wire);
        page->wire[i] = lua_tostring(L, -1);
        lua_rawseti(L, w->names, at++);
    }
    page->known = 1;
    return page;
}

/* The number of the field with that wire name, or -1. Short strings are interned in every Lua, so the first comparison
 * is nearly always enough. */
static int find_field(const struct page *page, const e2b_field *fields, const char *key, size_t len)
{
    unsigned h;
    int i;

    if (len == 0)
        return -1;
    for (h = hash(key, len); (i = page->slot[h]) != 0; h = (h + 1) % SLOTS) {
        if (page->wire[i - 1] == key)
            return i - 1;
        if (fields[i - 1].wire_len == len && memcmp(fields[i - 1].wire, key, len) == 0)
            return i - 1;
    }
    return -1;
}

/* Makes the string, number or boolean on top what its shape says; nil when it is an empty text or null. */
static inline int read_scalar(struct walk *w, const e2b_shape *shape, const struct e2b_place *at)
{
    lua_State *L = w->L;
    e2b_kind kind = shape->kind;
    int type = lua_type(L, -1);

    if (type == LUA_TSTRING && kind == E2B_STRING)
        return 1;
    if (type == LUA_TSTRING && kind == E2B_TEXT) {
        if (lua_rawlen(L, -1) == 0) {
            lua_pop(L, 1);
            lua_pushnil(L);
        }
        return 1;
    }
    if (type == LUA_TSTRING && kind == E2B_TIME) {
        size_t len;
        const char *s = lua_tolstring(L, -1, &len);
        long long seconds;

        if (!e2b_time_parse(s, len, &seconds))
            return complain(w, at, "this is not an RFC 3339 time");
        lua_pop(L, 1);
        e2b_pushwhole(L, seconds);
        return 1;
    }
    if (type == LUA_TNUMBER && kind >= E2B_NUMBER && kind <= E2B_EPOCH) {
        e2b_json_whole(L);
        return 1;
    }
    if (type == LUA_TBOOLEAN && kind == E2B_BOOL)
        return 1;
    if (type == LUA_TLIGHTUSERDATA) {
        lua_pop(L, 1);
        lua_pushnil(L);
        return 1;
    }
    if (kind >= E2B_INT64)
        return e2b_scalar_read(L, shape, at, w->message);
    return mismatch(w, at,
                    kind == E2B_BOOL   ? "a boolean"
                    : kind == E2B_TIME ? "a time"
                    : kind <= E2B_TEXT ? "a string"
                                       : "a number");
}

static int read_table(struct walk *w, const e2b_shape *shape, const struct e2b_place *at, int *size);

/* Puts the value on top right; nil when it is not there. On failure the message is in the walk and the stack is
 * anything. `size` is read_object's, or NULL. */
static inline int read_value(struct walk *w, const e2b_shape *shape, const struct e2b_place *at, int *size)
{
    return shape->kind < E2B_ANY ? read_scalar(w, shape, at) : read_table(w, shape, at, size);
}

/* Puts the key and the value on top into `extra`: of a field no shape knows, or of one with a value it can't have. */
static void keep_extra(struct walk *w, int *extra, int to)
{
    lua_State *L = w->L;
    int value = lua_gettop(L);

    if (lua_type(L, value) == LUA_TLIGHTUSERDATA)
        return;
    if (lua_type(L, value) == LUA_TTABLE)
        e2b_json_clean(L);
    lua_pushliteral(L, "extra");
    if (!*extra) {
        *extra = 1;
        lua_createtable(L, 0, 1);
        lua_pushvalue(L, -2);
        lua_pushvalue(L, -2);
        lua_rawset(L, to);
    } else {
        lua_pushvalue(L, -1);
        lua_rawget(L, to);
    }
    lua_pushvalue(L, value - 1);
    lua_pushvalue(L, value);
    if (lua_type(L, -1) == LUA_TNUMBER)
        e2b_json_whole(L);
    lua_rawset(L, -3);
    lua_settop(L, value);
}

static int check_required(struct walk *w, const e2b_shape *shape, unsigned long long missing, struct e2b_place *at)
{
    int i = 0;

    if (missing == 0)
        return 1;
    while (!(missing & (1ull << i)))
        i++;
    at->key = shape->fields[i].wire;
    return complain(w, at, "this field is missing");
}

/* An object whose fields keep their names stays the table it is. -1: it has fields that no shape knows, or values that
 * they can't have. */
static int read_same(struct walk *w, const e2b_shape *shape, const struct page *page, const struct e2b_place *up)
{
    lua_State *L = w->L;
    int table = lua_gettop(L);
    unsigned long long seen = 0;
    struct e2b_place at = {up, NULL, 0};

    lua_pushnil(L);
    while (lua_next(L, table)) {
        size_t len;
        const e2b_shape *type;
        int i;

        at.key = lua_tolstring(L, -2, &len);
        i = find_field(page, shape->fields, at.key, len);
        if (i < 0) {
            lua_settop(L, table);
            return -1;
        }
        type = shape->fields[i].shape;
        if (!read_value(w, type, &at, NULL)) {
            lua_settop(L, table);
            return -1;
        }
        if (!lua_isnil(L, -1))
            seen |= 1ull << i;
        if (type->kind == E2B_STRING && !lua_isnil(L, -1)) {
            lua_pop(L, 1); /* it is what it was */
        } else {
            lua_pushvalue(L, -2);
            lua_insert(L, -2);
            lua_rawset(L, table);
        }
    }
    return check_required(w, shape, page->required & ~seen, &at);
}

static int set_defaults(struct walk *w, const e2b_shape *shape, const struct page *page, unsigned long long missing,
                        const struct e2b_place *at)
{
    lua_State *L = w->L;
    int i;

    for (i = 0; missing != 0; i++, missing >>= 1) {
        const e2b_shape *type = shape->fields[i].shape;
        if (!(missing & 1))
            continue;
        lua_rawgeti(L, w->names, page->names + i);
        if (type->kind >= E2B_ANY) {
            lua_newtable(L);
            if (type->kind == E2B_OBJECT && !read_value(w, type, at, NULL))
                return 0;
        } else if (type->kind == E2B_BOOL) {
            lua_pushboolean(L, 0);
        } else if (type->kind == E2B_STRING) {
            lua_pushliteral(L, "");
        } else {
            lua_pushinteger(L, 0);
        }
        lua_rawset(L, -3);
    }
    return 1;
}

/* `size` is how many fields the new table is made for and, afterwards, how many it has: rows of a page are alike. */
static int read_object(struct walk *w, const e2b_shape *shape, const struct e2b_place *up, int *size)
{
    lua_State *L = w->L;
    int from = lua_gettop(L), to = from + 1, extra = 0, count = 0;
    unsigned long long seen = 0;
    const struct page *page;
    struct e2b_place at = {up, NULL, 0};

    luaL_checkstack(L, 12, "JSON");
    if (lua_rawlen(L, from) > 0) /* all keys of a decoded table are of one type */
        return mismatch(w, up, "an object");
    page = find_page(w, shape);
    if (page->same) {
        int done = read_same(w, shape, page, up);
        if (done >= 0)
            return done;
    }
    lua_createtable(L, 0, *size);
    lua_pushnil(L);
    while (lua_next(L, from)) {
        const e2b_field *field;
        size_t len;
        int i;

        at.key = lua_tolstring(L, -2, &len);
        i = find_field(page, shape->fields, at.key, len);
        if (i < 0) {
            keep_extra(w, &extra, to);
            lua_pop(L, 1);
            continue;
        }
        field = &shape->fields[i];
        if (field->flags & E2B_DROPPED) {
            lua_pop(L, 1);
            continue;
        }
        if (!read_value(w, field->shape, &at, NULL)) {
            if (field->flags & (E2B_REQUIRED | E2B_DEFAULT))
                return 0;
            /* The rest of the answer may be all there is to find a sandbox by. */
            lua_settop(L, to + 2);
            if (!(field->flags & E2B_SECRET))
                keep_extra(w, &extra, to);
            lua_pop(L, 1);
            continue;
        }
        if (lua_isnil(L, -1)) {
            lua_pop(L, 1);
            continue;
        }
        seen |= 1ull << i;
        lua_rawgeti(L, w->names, page->names + i);
        if (field->flags & E2B_FALLBACK) {
            lua_pushvalue(L, -1);
            lua_rawget(L, to);
            if (!lua_isnil(L, -1)) {
                lua_pop(L, 3);
                continue;
            }
            lua_pop(L, 1);
        }
        lua_insert(L, -2);
        lua_rawset(L, to);
        count++;
    }
    *size = count + extra;
    lua_replace(L, from);
    if ((page->defaults & ~seen) != 0 && !set_defaults(w, shape, page, page->defaults & ~seen, up))
        return 0;
    return check_required(w, shape, page->required & ~seen, &at);
}

static int read_list(struct walk *w, const e2b_shape *shape, const struct e2b_place *up)
{
    lua_State *L = w->L;
    int list = lua_gettop(L), size = 8, done = 1;
    size_t n = lua_rawlen(L, list), i, kept = 0;
    struct e2b_place at = {up, NULL, 0};

    luaL_checkstack(L, 6, "JSON");
    if (n == 0) {
        lua_pushnil(L);
        if (lua_next(L, list)) {
            lua_settop(L, list);
            return mismatch(w, up, "a list");
        }
        return 1; /* {} and [] can't be told apart here */
    }
    for (i = 1; i <= n; i++) {
        at.index = i;
        lua_rawgeti(L, list, (int)i);
        if (done) { /* what comes after an element that can't be read stays as it is */
            done = read_value(w, shape->item, &at, &size);
            lua_settop(L, list + 1);
            if (done && lua_isnil(L, -1) && shape->item->kind == E2B_OBJECT)
                done = complain(w, &at, "this is null"); /* a row is not left out without a word */
        }
        if (lua_isnil(L, -1))
            lua_pop(L, 1);
        else
            lua_rawseti(L, list, (int)++kept);
    }
    for (; n > kept; n--) {
        lua_pushnil(L);
        lua_rawseti(L, list, (int)n);
    }
    return done;
}

static int read_map(struct walk *w, const e2b_shape *shape, const struct e2b_place *up)
{
    lua_State *L = w->L;
    int map = lua_gettop(L);
    struct e2b_place at = {up, NULL, 0};

    if (lua_rawlen(L, map) > 0)
        return mismatch(w, up, "an object");
    if (shape->item->kind == E2B_ANY) {
        e2b_json_clean(L);
        return 1;
    }
    luaL_checkstack(L, 6, "JSON");
    lua_pushnil(L);
    while (lua_next(L, map)) {
        at.key = lua_tostring(L, -2);
        if (!read_value(w, shape->item, &at, NULL))
            return 0;
        lua_pushvalue(L, -2);
        lua_insert(L, -2);
        lua_rawset(L, map);
    }
    return 1;
}

/* An object that stands for the value of its one field. */
static int read_inner(struct walk *w, const e2b_shape *shape)
{
    lua_State *L = w->L;
    const e2b_field *field = shape->fields;
    struct e2b_place at = {NULL, NULL, 0};

    if (lua_rawlen(L, -1) > 0)
        return mismatch(w, NULL, "an object");
    if (field == NULL) {
        lua_pop(L, 1);
        lua_pushboolean(L, 1);
        return 1;
    }
    at.key = field->wire;
    lua_getfield(L, -1, field->wire);
    lua_remove(L, -2);
    if (lua_isnil(L, -1) || lua_type(L, -1) == LUA_TLIGHTUSERDATA) {
        if (!(field->flags & E2B_DEFAULT))
            return complain(w, &at, "this field is missing");
        lua_pop(L, 1);
        lua_newtable(L);
        return 1;
    }
    return read_value(w, field->shape, &at, NULL);
}

static int read_table(struct walk *w, const e2b_shape *shape, const struct e2b_place *at, int *size)
{
    lua_State *L = w->L;
    int type = lua_type(L, -1), own_size = 8;

    if (type == LUA_TLIGHTUSERDATA) {
        lua_pop(L, 1);
        lua_pushnil(L);
        return 1;
    }
    if (shape->kind == E2B_ANY) {
        if (type == LUA_TTABLE)
            e2b_json_clean(L);
        else if (type == LUA_TNUMBER)
            e2b_json_whole(L);
        return 1;
    }
    if (type != LUA_TTABLE)
        return mismatch(w, at, shape->kind == E2B_LIST ? "a list" : "an object");
    if (shape->kind == E2B_LIST)
        return read_list(w, shape, at);
    if (shape->kind == E2B_MAP || shape->kind == E2B_PAIRS)
        return read_map(w, shape, at);
    if (shape->kind == E2B_INNER)
        return read_inner(w, shape);
    return read_object(w, shape, at, size != NULL ? size : &own_size);
}

int e2b_shape_read(lua_State *L, const e2b_shape *shape)
{
    struct walk w;
    int value = lua_gettop(L), done, size = 16;

    luaL_checkstack(L, 6, "JSON");
    lua_getfield(L, LUA_REGISTRYINDEX, BOOK);
    lua_rawgeti(L, -1, 0);
    w.L = L;
    w.book = (struct book *)lua_touserdata(L, -1);
    w.names = value + 1;
    lua_pushvalue(L, value);
    done = read_value(&w, shape, NULL, &size);
    if (!done)
        lua_pushstring(L, w.message);
    lua_replace(L, value);
    lua_settop(L, value);
    return done;
}

int e2b_shape_open(lua_State *L)
{
    struct book *book;

    lua_newtable(L);
    book = (struct book *)e2b_newuserdata(L, sizeof *book);
    memset(book, 0, sizeof *book);
    lua_rawseti(L, -2, 0);
    lua_setfield(L, LUA_REGISTRYINDEX, BOOK);
    return 0;
}
