/* gzip both ways on zlib, in pieces: whatever the other side sends, no step holds more than what it was asked for. */
#include "fs.h"
#include <stdlib.h>
#include <string.h>
#define ZLIB_CONST /* next_in is read only */
#include <zlib.h>

#define DEFLATE "e2b.server.deflate"
#define INFLATE "e2b.server.inflate"
#define PIECE 16384
#define MAX_PULL (1024 * 1024)

typedef struct {
    z_stream z;
    int open, finished;
} deflater;

typedef struct {
    z_stream z;
    gz_header header;
    char *input, *output;
    size_t room;
    int open;
    int first;  /* still in the header of the first member */
    int inside; /* somewhere inside a member */
} inflater;

static int fail(lua_State *L, const char *message)
{
    lua_pushnil(L);
    lua_pushstring(L, message);
    return 2;
}

static int deflate_release(lua_State *L)
{
    deflater *d = luaL_checkudata(L, 1, DEFLATE);
    if (d->open)
        (void)deflateEnd(&d->z);
    d->open = 0;
    return 0;
}

/* deflate([level]) -> a value that writes the gzip format */
static int native_deflate(lua_State *L)
{
    int level = (int)luaL_optinteger(L, 1, Z_DEFAULT_COMPRESSION);
    deflater *d = e2b_newuserdata(L, sizeof(*d));
    memset(d, 0, sizeof(*d));
    luaL_setmetatable(L, DEFLATE);
    if (deflateInit2(&d->z, level, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        return fail(L, d->z.msg ? d->z.msg : "not enough memory");
    d->open = 1;
    return 1;
}

/* write(bytes[, last]) -> compressed bytes, often none; `last` ends the format */
static int deflate_write(lua_State *L)
{
    deflater *d = luaL_checkudata(L, 1, DEFLATE);
    size_t length;
    const char *bytes = luaL_checklstring(L, 2, &length);
    int flush = lua_toboolean(L, 3) ? Z_FINISH : Z_NO_FLUSH;
    char piece[PIECE];
    luaL_Buffer out;
    int result;
    luaL_argcheck(L, d->open && !d->finished, 1, "already finished");
    luaL_argcheck(L, length <= 0x7fffffff, 2, "too long");
    d->z.next_in = (const Bytef *)bytes;
    d->z.avail_in = (uInt)length;
    luaL_buffinit(L, &out);
    do {
        d->z.next_out = (Bytef *)piece;
        d->z.avail_out = sizeof(piece);
        result = deflate(&d->z, flush);
        luaL_addlstring(&out, piece, sizeof(piece) - d->z.avail_out);
    } while (result == Z_OK && d->z.avail_out == 0);
    if (flush == Z_FINISH)
        d->finished = 1;
    luaL_pushresult(&out);
    return 1;
}

static int inflate_release(lua_State *L)
{
    inflater *i = luaL_checkudata(L, 1, INFLATE);
    if (i->open)
        (void)inflateEnd(&i->z);
    i->open = 0;
    free(i->input);
    free(i->output);
    i->input = i->output = NULL;
    i->room = 0;
    return 0;
}

static int native_inflate(lua_State *L)
{
    inflater *i = e2b_newuserdata(L, sizeof(*i));
    memset(i, 0, sizeof(*i));
    luaL_setmetatable(L, INFLATE);
    if (inflateInit2(&i->z, 15 + 16) != Z_OK)
        return fail(L, "not enough memory");
    i->open = 1;
    i->first = 1;
    (void)inflateGetHeader(&i->z, &i->header);
    return 1;
}

static inflater *check_inflate(lua_State *L)
{
    inflater *i = luaL_checkudata(L, 1, INFLATE);
    if (!i->open)
        luaL_error(L, "attempt to use a closed decompressor");
    return i;
}

/* push(bytes): gives it input, after what it has not used yet */
static int inflate_push(lua_State *L)
{
    inflater *i = check_inflate(L);
    size_t length, left = i->z.avail_in;
    const char *bytes = luaL_checklstring(L, 2, &length);
    char *input;
    luaL_argcheck(L, length + left <= 0x7fffffff, 2, "too long");
    if (left > 0)
        memmove(i->input, i->z.next_in, left);
    if (left + length > i->room) {
        input = realloc(i->input, left + length);
        if (input == NULL)
            return fail(L, "not enough memory");
        i->input = input;
        i->room = left + length;
    }
    if (length > 0)
        memcpy(i->input + left, bytes, length);
    i->z.next_in = (const Bytef *)i->input;
    i->z.avail_in = (uInt)(left + length);
    lua_pushboolean(L, 1);
    return 1;
}

static const char *problem(const inflater *i, int result)
{
    if (result == Z_MEM_ERROR)
        return "not enough memory";
    if (i->first || (i->z.msg && strstr(i->z.msg, "header check")))
        return "gzip: invalid header";
    if (i->z.msg && (strstr(i->z.msg, "data check") || strstr(i->z.msg, "length check")))
        return "gzip: invalid checksum";
    return "flate: corrupt input";
}

/* pull(n) -> up to n bytes | false when it needs more input | nil, message. Members may follow one another. */
static int inflate_pull(lua_State *L)
{
    inflater *i = check_inflate(L);
    lua_Number wanted = luaL_checknumber(L, 2);
    luaL_argcheck(L, wanted >= 1 && wanted <= MAX_PULL, 2, "not between 1 and 1 MiB");
    if (i->output == NULL)
        i->output = malloc(MAX_PULL);
    if (i->output == NULL)
        return fail(L, "not enough memory");
    i->z.next_out = (Bytef *)i->output;
    i->z.avail_out = (uInt)wanted;
    while (i->z.avail_out > 0) {
        int result;
        if (i->z.avail_in > 0)
            i->inside = 1;
        else if (!i->inside)
            break;
        result = inflate(&i->z, Z_NO_FLUSH);
        if (i->header.done == 1)
            i->first = 0;
        if (result == Z_STREAM_END) {
            i->inside = 0;
            (void)inflateReset(&i->z);
            continue;
        }
        if (result == Z_BUF_ERROR)
            break;
        if (result != Z_OK) {
            if (i->z.avail_out < (uInt)wanted)
                break; /* what came before the fault first; the fault comes again */
            return fail(L, problem(i, result));
        }
    }
    if (i->z.avail_out == (uInt)wanted) {
        lua_pushboolean(L, 0);
        return 1;
    }
    lua_pushlstring(L, i->output, (size_t)wanted - i->z.avail_out);
    return 1;
}

/* at_end() -> whether the input so far is whole; started() -> whether the first header was read */
static int inflate_at_end(lua_State *L)
{
    inflater *i = check_inflate(L);
    lua_pushboolean(L, !i->inside && !i->first && i->z.avail_in == 0);
    return 1;
}

static int inflate_started(lua_State *L)
{
    lua_pushboolean(L, !check_inflate(L)->first);
    return 1;
}

static const luaL_Reg deflate_methods[] = {{"write", deflate_write}, {"close", deflate_release}, {NULL, NULL}};

static const luaL_Reg inflate_methods[] = {
    {"push", inflate_push},       {"pull", inflate_pull},     {"at_end", inflate_at_end},
    {"started", inflate_started}, {"close", inflate_release}, {NULL, NULL},
};

static const luaL_Reg functions[] = {{"deflate", native_deflate}, {"inflate", native_inflate}, {NULL, NULL}};

void e2b_native_deflate(lua_State *L)
{
    e2b_native_type(L, DEFLATE, deflate_methods, deflate_release, NULL);
    e2b_native_type(L, INFLATE, inflate_methods, inflate_release, NULL);
    luaL_setfuncs(L, functions, 0);
}
