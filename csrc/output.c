/* What a process wrote, as far as it is kept: the newest bytes up to a limit, in one block that grows with them and is
 * then written around. Strings of Lua would be garbage long before they are collected. */
#include "engine.h"

#include <stdlib.h>
#include <string.h>

#define E2B_OUTPUT "e2b.output"
#define SMALLEST 4096

typedef struct output {
    char *data;
    size_t most, cap, head, size; /* size bytes from head on, around the end */
    double gone;
    char *taken; /* the block while a string is made of it: a finalizer may add to this or take as well */
    size_t taken_head, taken_size;
} output;

/* core.output(most) */
static int output_new(lua_State *L)
{
    lua_Number most = luaL_checknumber(L, 1);
    const size_t largest = (size_t)-1 / 4;
    output *o;
    luaL_argcheck(L, most >= 0, 1, "must be a number of bytes");
    o = e2b_newuserdata(L, sizeof *o);
    memset(o, 0, sizeof *o);
    o->most = most < (lua_Number)largest ? (size_t)most : largest;
    luaL_setmetatable(L, E2B_OUTPUT);
    return 1;
}

/* 0: out of memory. Before the block is as large as it may be nothing was written around its end. */
static int grow(output *o, size_t need)
{
    size_t cap = o->cap > SMALLEST / 2 ? o->cap * 2 : SMALLEST;
    char *data;
    if (cap < need)
        cap = need;
    if (cap > o->most)
        cap = o->most;
    data = realloc(o->data, cap);
    if (data == NULL)
        return 0;
    o->data = data;
    o->cap = cap;
    return 1;
}

/* o:add(bytes) */
static int output_add(lua_State *L)
{
    output *o = luaL_checkudata(L, 1, E2B_OUTPUT);
    size_t len, at, first;
    const char *bytes = luaL_checklstring(L, 2, &len);
    if (len > o->most) {
        o->gone += (double)(len - o->most);
        bytes += len - o->most;
        len = o->most;
    }
    if (len == 0)
        return 0;
    if (o->cap < o->most && o->size + len > o->cap && !grow(o, o->size + len))
        return luaL_error(L, "not enough memory");
    if (o->size + len > o->cap) {
        size_t over = o->size + len - o->cap;
        o->head = (o->head + over) % o->cap;
        o->size -= over;
        o->gone += (double)over;
    }
    at = (o->head + o->size) % o->cap;
    first = o->cap - at < len ? o->cap - at : len;
    memcpy(o->data + at, bytes, first);
    memcpy(o->data, bytes + first, len - first);
    o->size += len;
    return 0;
}

static void reverse(char *from, char *end)
{
    while (from < end) {
        char c = *from;
        *from++ = *--end;
        *end = c;
    }
}

/* o:take() -> what is kept, which is no longer kept here */
static int output_take(lua_State *L)
{
    output *o = luaL_checkudata(L, 1, E2B_OUTPUT);
    int mine = o->taken == NULL;
    if (mine) {
        if (o->head + o->size > o->cap) {
            reverse(o->data, o->data + o->head);
            reverse(o->data + o->head, o->data + o->cap);
            reverse(o->data, o->data + o->cap);
            o->head = 0;
        }
        o->taken = o->data;
        o->taken_head = o->head;
        o->taken_size = o->size;
        o->data = NULL;
        o->cap = o->head = o->size = 0;
    }
    if (o->taken == NULL)
        lua_pushliteral(L, "");
    else
        lua_pushlstring(L, o->taken + o->taken_head, o->taken_size);
    if (mine) {
        free(o->taken);
        o->taken = NULL;
    }
    return 1;
}

/* o:dropped() -> bytes */
static int output_dropped(lua_State *L)
{
    output *o = luaL_checkudata(L, 1, E2B_OUTPUT);
    e2b_pushwhole(L, (long long)o->gone);
    return 1;
}

static int output_gc(lua_State *L)
{
    output *o = luaL_checkudata(L, 1, E2B_OUTPUT);
    free(o->data);
    free(o->taken);
    o->data = o->taken = NULL;
    o->cap = o->head = o->size = o->most = 0;
    return 0;
}

int e2b_output_open(lua_State *L)
{
    static const luaL_Reg methods[] = {
        { "add", output_add }, { "take", output_take }, { "dropped", output_dropped }, { NULL, NULL },
    };
    static const luaL_Reg meta[] = { { "__gc", output_gc }, { NULL, NULL } };
    static const luaL_Reg functions[] = { { "output", output_new }, { NULL, NULL } };
    e2b_type(L, E2B_OUTPUT, methods, meta);
    luaL_setfuncs(L, functions, 0);
    return 0;
}
