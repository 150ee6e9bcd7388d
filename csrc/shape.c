/* The walk between JSON as cjson has it and the values Lua is to see. Reading makes one pass over what was decoded:
 * objects with a shape become new tables of the right size, user maps and unknown values are put right in place. */
#include "e2b.h"
#include "shape.h"

#include <stdio.h>
#include <string.h>

#define EXACT 9007199254740992.0 /* 2^53: up to here every whole double is that very number */
#define SLOTS 64

#define BOOK "e2b.shapes"

const e2b_shape e2b_shape_any = {E2B_ANY, 0, NULL, NULL};

/* What one Lua state knows about an object's fields: a hash from wire names to fields, and where the Lua names, as
 * strings that need no hashing any more, begin in the table of names. Filled when the shape is first met. */
struct page {
    unsigned char slot[SLOTS]; /* field + 1, or 0; collisions go to the next slot */
    unsigned long long required;
    int names;
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

/* ---- Messages ---- */

/* Appends what is fit to print; the buffer always keeps room for the rest of the sentence. */
static size_t append(char *to, size_t used, size_t size, const char *s)
{
    for (; *s != '\0' && used + 1 < size; s++) {
        to[used++] = (unsigned char)*s < 0x20 || *s == 0x7f ? '?' : *s;
    }
    to[used] = '\0';
    return used;
}

static size_t append_place(char *to, size_t used, size_t size, const struct e2b_place *at)
{
    char index[32];

    if (at == NULL) return used;
    used = append_place(to, used, size, at->up);
    if (at->key == NULL) {
        snprintf(index, sizeof index, "[%lu]", (unsigned long)at->index);
        return append(to, used, size, index);
    }
    if (used > 0) used = append(to, used, size, ".");
    return append(to, used, size, at->key);
}

size_t e2b_explain(char *to, const struct e2b_place *at, const char *what)
{
    size_t used = append_place(to, 0, E2B_MESSAGE_SIZE - 120, at);
    if (used > 0)
        used = append(to, used, E2B_MESSAGE_SIZE, ": ");
    return append(to, used, E2B_MESSAGE_SIZE, what);
}

size_t e2b_explain_type(char *to, const struct e2b_place *at, const char *expected, lua_State *L, int index)
{
    static const char *const names[] = {"nothing", "a boolean", "a userdata", "a number", "a string"};
    int type = lua_type(L, index);
    const char *got = "a function or a thread";
    char what[120];

    if (type == LUA_TTABLE) {
        got = lua_rawlen(L, index) > 0 ? "a list" : "an object";
    } else if (type == LUA_TUSERDATA) {
        got = "a userdata";
    } else if (type >= 0 && type <= LUA_TSTRING) {
        got = names[type];
    }
    snprintf(what, sizeof what, "%s expected, got %s", expected, got);
    return e2b_explain(to, at, what);
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

/* The number on top becomes an integer if it is a whole one and the Lua has integers. 1 when it did. */
static int make_whole(lua_State *L)
{
#if LUA_VERSION_NUM >= 503
    if (!lua_isinteger(L, -1)) {
        double d = (double)lua_tonumber(L, -1);
        if (d >= -EXACT && d <= EXACT && d == (double)(long long)d) {
            lua_pop(L, 1);
            lua_pushinteger(L, (lua_Integer)d);
            return 1;
        }
    }
#else
    (void)L;
#endif
    return 0;
}

/* Takes nulls out of the table on top and makes its whole numbers integers, all the way down. The depth is bounded
 * by the parser's. */
static void clean(lua_State *L)
{
    int table = lua_gettop(L);
    size_t n = lua_rawlen(L, table), i, kept = 0;

    luaL_checkstack(L, 6, "JSON");
    if (n > 0) {
        for (i = 1; i <= n; i++) {
            int changed = 0;
            lua_rawgeti(L, table, (int)i);
            switch (lua_type(L, -1)) {
            case LUA_TLIGHTUSERDATA: lua_pop(L, 1); continue;
            case LUA_TNUMBER: changed = make_whole(L); break;
            case LUA_TTABLE: clean(L); break;
            default: break;
            }
            if (++kept != i || changed) {
                lua_rawseti(L, table, (int)kept);
            } else {
                lua_pop(L, 1);
            }
        }
        while (n > kept) {
            lua_pushnil(L);
            lua_rawseti(L, table, (int)n--);
        }
        return;
    }
    lua_pushnil(L);
    while (lua_next(L, table)) {
        switch (lua_type(L, -1)) {
        case LUA_TLIGHTUSERDATA:
            lua_pushvalue(L, -2);
            lua_pushnil(L);
            lua_rawset(L, table);
            break;
        case LUA_TNUMBER:
            if (make_whole(L)) {
                lua_pushvalue(L, -2);
                lua_insert(L, -2);
                lua_rawset(L, table);
                continue;
            }
            break;
        case LUA_TTABLE: clean(L); break;
        default: break;
        }
        lua_pop(L, 1);
    }
}

static const struct page *find_page(struct walk *w, const e2b_shape *shape)
{
    lua_State *L = w->L;
    struct page *page = &w->book->page[shape->id];
    int i;

    if (page->known) return page;
    memset(page, 0, sizeof *page);
    page->names = (int)lua_rawlen(L, w->names) + 1;
    for (i = 0; shape->fields[i].wire != NULL; i++) {
        const e2b_field *field = &shape->fields[i];
        unsigned h = hash(field->wire, field->wire_len);
        while (page->slot[h] != 0) h = (h + 1) % SLOTS;
        page->slot[h] = (unsigned char)(i + 1);
        if (field->flags & E2B_REQUIRED) page->required |= 1ull << i;
        lua_pushstring(L, field->name != NULL ? field->name : field->wire);
        lua_rawseti(L, w->names, page->names + i);
    }
    page->known = 1;
    return page;
}

/* The number of the field with that wire name, or -1. */
static int find_field(const struct page *page, const e2b_field *fields, const char *key, size_t len)
{
    unsigned h;
    int i;

    if (len == 0) return -1;
    for (h = hash(key, len); (i = page->slot[h]) != 0; h = (h + 1) % SLOTS) {
        if (fields[i - 1].wire_len == len && memcmp(fields[i - 1].wire, key, len) == 0) return i - 1;
    }
    return -1;
}

static int read_value(struct walk *w, const e2b_shape *shape, const struct e2b_place *at, int *size);

static int read_time(struct walk *w, const struct e2b_place *at)
{
    lua_State *L = w->L;
    size_t len;
    const char *s;
    long long seconds;

    if (lua_type(L, -1) != LUA_TSTRING) return mismatch(w, at, "a time");
    s = lua_tolstring(L, -1, &len);
    if (!e2b_time_parse(s, len, &seconds)) return complain(w, at, "this is not an RFC 3339 time");
    lua_pop(L, 1);
    e2b_pushwhole(L, seconds);
    return 1;
}

/* Puts the key and the value on top, of a field no shape knows, into `extra`. */
static void keep_extra(struct walk *w, int *extra, int to)
{
    lua_State *L = w->L;
    int value = lua_gettop(L);

    if (lua_type(L, value) == LUA_TLIGHTUSERDATA) return;
    if (lua_type(L, value) == LUA_TTABLE) clean(L);
    lua_pushstring(L, "extra");
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
    if (lua_type(L, -1) == LUA_TNUMBER) make_whole(L);
    lua_rawset(L, -3);
    lua_settop(L, value);
}

/* `size` is how many fields the new table is made for and, afterwards, how many it has: rows of a page are alike. */
static int read_object(struct walk *w, const e2b_shape *shape, const struct e2b_place *up, int *size)
{
    lua_State *L = w->L;
    int from = lua_gettop(L), to = from + 1, extra = 0, count = 0;
    unsigned long long seen = 0;
    const struct page *page;
    struct e2b_place at;

    luaL_checkstack(L, 12, "JSON");
    page = find_page(w, shape);
    at.up = up;
    lua_createtable(L, 0, *size);
    lua_pushnil(L);
    while (lua_next(L, from)) {
        const e2b_field *field;
        size_t len;
        int i;

        if (lua_type(L, -2) != LUA_TSTRING) {
            lua_settop(L, from);
            return mismatch(w, up, "an object");
        }
        at.key = lua_tolstring(L, -2, &len);
        i = find_field(page, shape->fields, at.key, len);
        if (i < 0) {
            keep_extra(w, &extra, to);
            lua_pop(L, 1);
            continue;
        }
        field = &shape->fields[i];
        if (lua_type(L, -1) == LUA_TLIGHTUSERDATA || (field->flags & E2B_DROPPED)) {
            lua_pop(L, 1);
            continue;
        }
        if (!read_value(w, field->shape, &at, NULL)) return 0;
        if (lua_isnil(L, -1)) {
            lua_pop(L, 1);
            continue;
        }
        seen |= 1ull << i;
        lua_rawgeti(L, w->names, page->names + i);
        if (field->flags & E2B_FALLBACK) {
            int taken;
            lua_pushvalue(L, -1);
            lua_rawget(L, to);
            taken = !lua_isnil(L, -1);
            lua_pop(L, 1);
            if (taken) {
                lua_pop(L, 2);
                continue;
            }
        }
        lua_insert(L, -2);
        lua_rawset(L, to);
        count++;
    }
    if ((seen & page->required) != page->required) {
        int i = 0;
        while (!(page->required & ~seen & (1ull << i))) i++;
        at.key = shape->fields[i].wire;
        return complain(w, &at, "this field is missing");
    }
    *size = count + extra;
    lua_replace(L, from);
    return 1;
}

static int read_list(struct walk *w, const e2b_shape *shape, const struct e2b_place *up)
{
    lua_State *L = w->L;
    int list = lua_gettop(L), size = 8;
    size_t n = lua_rawlen(L, list), i, kept = 0;
    struct e2b_place at;

    luaL_checkstack(L, 6, "JSON");
    if (n == 0) {
        lua_pushnil(L);
        if (lua_next(L, list)) {
            lua_settop(L, list);
            return mismatch(w, up, "a list");
        }
        return 1; /* {} and [] can't be told apart here */
    }
    at.up = up;
    at.key = NULL;
    for (i = 1; i <= n; i++) {
        at.index = i;
        lua_rawgeti(L, list, (int)i);
        if (!read_value(w, shape->item, &at, &size)) return 0;
        if (lua_isnil(L, -1)) {
            lua_pop(L, 1);
        } else {
            lua_rawseti(L, list, (int)++kept);
        }
    }
    for (; n > kept; n--) {
        lua_pushnil(L);
        lua_rawseti(L, list, (int)n);
    }
    return 1;
}

static int read_map(struct walk *w, const e2b_shape *shape, const struct e2b_place *up)
{
    lua_State *L = w->L;
    int map = lua_gettop(L);
    struct e2b_place at;

    luaL_checkstack(L, 6, "JSON");
    at.up = up;
    lua_pushnil(L);
    while (lua_next(L, map)) {
        if (lua_type(L, -2) != LUA_TSTRING) {
            lua_settop(L, map);
            return mismatch(w, up, "an object");
        }
        if (lua_type(L, -1) == LUA_TSTRING && shape->item->kind == E2B_ANY) {
            lua_pop(L, 1);
            continue;
        }
        at.key = lua_tostring(L, -2);
        if (!read_value(w, shape->item, &at, NULL)) return 0;
        lua_pushvalue(L, -2);
        lua_insert(L, -2);
        lua_rawset(L, map);
    }
    return 1;
}

/* Puts the value on top right; nil when it is not there. On failure the message is in the walk and the stack is
 * anything. `size` is read_object's, or NULL. */
static int read_value(struct walk *w, const e2b_shape *shape, const struct e2b_place *at, int *size)
{
    lua_State *L = w->L;
    int type = lua_type(L, -1), own_size = 4;

    if (type == LUA_TLIGHTUSERDATA) {
        lua_pop(L, 1);
        lua_pushnil(L);
        return 1;
    }
    switch (shape->kind) {
    case E2B_ANY:
        if (type == LUA_TTABLE) clean(L);
        if (type == LUA_TNUMBER) make_whole(L);
        return 1;
    case E2B_STRING: return type == LUA_TSTRING ? 1 : mismatch(w, at, "a string");
    case E2B_TEXT:
        if (type != LUA_TSTRING) return mismatch(w, at, "a string");
        if (lua_rawlen(L, -1) == 0) {
            lua_pop(L, 1);
            lua_pushnil(L);
        }
        return 1;
    case E2B_BOOL: return type == LUA_TBOOLEAN ? 1 : mismatch(w, at, "a boolean");
    case E2B_NUMBER:
    case E2B_WHOLE:
    case E2B_SECONDS:
    case E2B_EPOCH:
        if (type != LUA_TNUMBER) return mismatch(w, at, "a number");
        make_whole(L);
        return 1;
    case E2B_TIME: return read_time(w, at);
    case E2B_LIST: return type == LUA_TTABLE ? read_list(w, shape, at) : mismatch(w, at, "a list");
    case E2B_MAP:
    case E2B_PAIRS: return type == LUA_TTABLE ? read_map(w, shape, at) : mismatch(w, at, "an object");
    case E2B_SWITCH:
    case E2B_OBJECT:
        if (type != LUA_TTABLE) return mismatch(w, at, "an object");
        return read_object(w, shape, at, size != NULL ? size : &own_size);
    }
    return complain(w, at, "unknown kind of field");
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
    if (!done) lua_pushstring(L, w.message);
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
