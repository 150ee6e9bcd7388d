/* Base64, as bytes travel in JSON. Written in the standard alphabet with padding; read in either alphabet, with or
 * without padding, and nothing else: no blanks, no line ends. */
#include "e2b.h"

#include <stdint.h>
#include <string.h>

static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* What a character stands for, at each of its four places in a group of three bytes (the first byte lowest). BAD stays
 * above them, whatever the other characters of the group are. */
#define BAD 0x80000000u
#define VALUE(c)                                   \
    ((c) >= 'A' && (c) <= 'Z'   ? (c) - 'A'        \
     : (c) >= 'a' && (c) <= 'z' ? (c) - 'a' + 26   \
     : (c) >= '0' && (c) <= '9' ? (c) - '0' + 52   \
     : (c) == '+' || (c) == '-' ? 62               \
     : (c) == '/' || (c) == '_' ? 63               \
                                : -1)
#define AT(place, v)                                                           \
    ((v) < 0        ? BAD                                                      \
     : (place) == 0 ? (uint32_t)(v) << 2                                       \
     : (place) == 1 ? ((uint32_t)(v) >> 4) | (((uint32_t)(v) & 15) << 12)      \
     : (place) == 2 ? (((uint32_t)(v) >> 2) << 8) | (((uint32_t)(v) & 3) << 22) \
                    : (uint32_t)(v) << 16)
#define ONE(p, c) AT(p, VALUE(c))
#define FOUR(p, c) ONE(p, c), ONE(p, c + 1), ONE(p, c + 2), ONE(p, c + 3)
#define ROW(p, c) FOUR(p, c), FOUR(p, c + 4), FOUR(p, c + 8), FOUR(p, c + 12)
#define ROWS(p, c) ROW(p, c), ROW(p, c + 16), ROW(p, c + 32), ROW(p, c + 48)
#define TABLE(p) {ROWS(p, 0), ROWS(p, 64), ROWS(p, 128), ROWS(p, 192)}

static const uint32_t places[4][256] = {TABLE(0), TABLE(1), TABLE(2), TABLE(3)};

static inline uint32_t group(const unsigned char *s)
{
    return places[0][s[0]] | places[1][s[1]] | places[2][s[2]] | places[3][s[3]];
}

static inline void put(char *to, uint32_t v)
{
    to[0] = (char)(v & 255);
    to[1] = (char)(v >> 8 & 255);
    to[2] = (char)(v >> 16 & 255);
}

size_t e2b_base64_size(size_t len)
{
    return (len + 2) / 3 * 4;
}

void e2b_base64_encode(const char *from, size_t len, char *to)
{
    const unsigned char *s = (const unsigned char *)from;
    for (; len >= 3; len -= 3, s += 3) {
        uint32_t v = (uint32_t)s[0] << 16 | (uint32_t)s[1] << 8 | s[2];
        *to++ = letters[v >> 18];
        *to++ = letters[v >> 12 & 63];
        *to++ = letters[v >> 6 & 63];
        *to++ = letters[v & 63];
    }
    if (len > 0) {
        uint32_t v = (uint32_t)s[0] << 16 | (len > 1 ? (uint32_t)s[1] << 8 : 0);
        *to++ = letters[v >> 18];
        *to++ = letters[v >> 12 & 63];
        to[0] = to[1] = '=';
        if (len > 1)
            to[0] = letters[v >> 6 & 63];
    }
}

size_t e2b_base64_decode(const char *from, size_t len, char *to)
{
    const unsigned char *s = (const unsigned char *)from;
    const char *start = to;
    uint32_t v = 0;

    if (len > 0 && len % 4 == 0 && s[len - 1] == '=')
        len -= s[len - 2] == '=' ? 2 : 1;
    for (; len >= 16; len -= 16, s += 16, to += 12) {
        uint32_t a = group(s), b = group(s + 4), c = group(s + 8), d = group(s + 12);
        v |= a | b | c | d;
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        {
            uint64_t x = (uint64_t)a | (uint64_t)b << 24, y = (uint64_t)c | (uint64_t)d << 24;
            memcpy(to, &x, 8);
            memcpy(to + 6, &y, 8);
        }
#else
        put(to, a);
        put(to + 3, b);
        put(to + 6, c);
        put(to + 9, d);
#endif
    }
    for (; len >= 4; len -= 4, s += 4, to += 3) {
        uint32_t a = group(s);
        v |= a;
        put(to, a);
    }
    if (len == 1)
        return E2B_BASE64_BAD;
    if (len > 0) {
        uint32_t a = places[0][s[0]] | places[1][s[1]] | (len == 3 ? places[2][s[2]] : 0);
        v |= a;
        *to++ = (char)(a & 255);
        if (len == 3)
            *to++ = (char)(a >> 8 & 255);
    }
    return (v & BAD) ? E2B_BASE64_BAD : (size_t)(to - start);
}

/* core.base64_encode(bytes) -> text */
static int base64_encode(lua_State *L)
{
    size_t len;
    const char *s = luaL_checklstring(L, 1, &len);
    char *to;

    if (len > ((size_t)-1 >> 2))
        return luaL_error(L, "not enough memory");
    to = (char *)e2b_newuserdata(L, e2b_base64_size(len) + 1);
    e2b_base64_encode(s, len, to);
    lua_pushlstring(L, to, e2b_base64_size(len));
    return 1;
}

/* core.base64_decode(text) -> bytes | nil */
static int base64_decode(lua_State *L)
{
    size_t len, size;
    const char *s = luaL_checklstring(L, 1, &len);
    char *to = (char *)e2b_newuserdata(L, len / 4 * 3 + 3 + E2B_BASE64_SLACK);

    size = e2b_base64_decode(s, len, to);
    if (size == E2B_BASE64_BAD)
        lua_pushnil(L);
    else
        lua_pushlstring(L, to, size);
    return 1;
}

int e2b_base64_open(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"base64_encode", base64_encode}, {"base64_decode", base64_decode}, {NULL, NULL}};

    luaL_setfuncs(L, functions, 0);
    return 0;
}
