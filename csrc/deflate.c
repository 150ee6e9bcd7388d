/* Compressing what is sent: a gzip stream out of pieces. */
#include "engine.h"

#if defined(__has_include)
#if !__has_include(<zlib.h>)
#error "zlib.h is missing: install the headers of zlib (Debian/Ubuntu: zlib1g-dev; Fedora: zlib-devel; Alpine: zlib-dev; \
Arch: zlib; macOS: xcode-select --install) or point CPPFLAGS at them"
#endif
#endif

#include <limits.h>
#include <string.h>
#include <zlib.h>

#define E2B_DEFLATE "e2b.deflate"
#define GZIP (15 + 16) /* zlib's window bits: the largest window, in gzip's clothes */

typedef struct deflater {
    z_stream z;
    int ready; /* z has to be ended */
    int torn;  /* a piece is being taken; still set afterwards: an error cut it short */
} deflater;

static void deflater_end(deflater *d)
{
    if (d->ready)
        deflateEnd(&d->z);
    d->ready = 0;
}

/* core.deflate([level]) */
static int deflate_new(lua_State *L)
{
    lua_Number level = luaL_optnumber(L, 1, Z_DEFAULT_COMPRESSION);
    deflater *d;
    luaL_argcheck(L, level >= -1 && level <= 9 && level == (lua_Number)(int)level, 1, "must be 0 to 9");
    d = e2b_newuserdata(L, sizeof *d);
    memset(d, 0, sizeof *d);
    luaL_setmetatable(L, E2B_DEFLATE);
    if (deflateInit2(&d->z, (int)level, Z_DEFLATED, GZIP, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        return luaL_error(L, "not enough memory");
    d->ready = 1;
    return 1;
}

/* d:write(bytes[, "finish"]) -> compressed bytes, "" while zlib keeps them */
static int deflate_write(lua_State *L)
{
    static const char *const options[] = { "more", "finish", NULL };
    deflater *d = luaL_checkudata(L, 1, E2B_DEFLATE);
    size_t len;
    const char *data = luaL_checklstring(L, 2, &len);
    int finish = luaL_checkoption(L, 3, "more", options);
    unsigned char out[8192];
    luaL_Buffer buffer;
    if (!d->ready || d->torn)
        return luaL_error(L, "attempt to use a finished compressor");
    d->torn = 1;
    luaL_buffinit(L, &buffer);
    do {
        uInt piece = len < UINT_MAX ? (uInt)len : UINT_MAX;
        int flush = finish && piece == len ? Z_FINISH : Z_NO_FLUSH;
        len -= piece;
        d->z.next_in = (Bytef *)data;
        d->z.avail_in = piece;
        data += piece;
        do {
            d->z.next_out = out;
            d->z.avail_out = sizeof out;
            deflate(&d->z, flush);
            luaL_addlstring(&buffer, (const char *)out, sizeof out - d->z.avail_out);
        } while (d->z.avail_out == 0);
    } while (len > 0);
    luaL_pushresult(&buffer);
    d->z.next_in = NULL;
    d->torn = 0;
    if (finish)
        deflater_end(d);
    return 1;
}

static int deflate_gc(lua_State *L)
{
    deflater_end(luaL_checkudata(L, 1, E2B_DEFLATE));
    return 0;
}

int e2b_deflate_open(lua_State *L)
{
    static const luaL_Reg methods[] = { { "write", deflate_write }, { NULL, NULL } };
    static const luaL_Reg meta[] = { { "__gc", deflate_gc }, { NULL, NULL } };
    static const luaL_Reg functions[] = { { "deflate", deflate_new }, { NULL, NULL } };
    e2b_type(L, E2B_DEFLATE, methods, meta);
    luaL_setfuncs(L, functions, 0);
    return 0;
}
