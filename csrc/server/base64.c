/* Base64 both ways, and the events of a process's output: read, encode and frame in one go, because everything that a
 * command prints passes here. */
#include "native.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#define CHUNK_MAX 32768 /* the most bytes of one event */
#define FRAME_MAX 64    /* room for the five bytes of the envelope and the JSON around the data */

static const char ALPHABET[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

char *e2b_base64_put(char *out, const unsigned char *bytes, size_t len)
{
    for (; len >= 3; len -= 3, bytes += 3) {
        unsigned group = (unsigned)bytes[0] << 16 | (unsigned)bytes[1] << 8 | bytes[2];
        *out++ = ALPHABET[group >> 18];
        *out++ = ALPHABET[group >> 12 & 63];
        *out++ = ALPHABET[group >> 6 & 63];
        *out++ = ALPHABET[group & 63];
    }
    if (len > 0) {
        unsigned group = (unsigned)bytes[0] << 16 | (len > 1 ? (unsigned)bytes[1] << 8 : 0);
        *out++ = ALPHABET[group >> 18];
        *out++ = ALPHABET[group >> 12 & 63];
        *out = '=';
        if (len > 1)
            *out = ALPHABET[group >> 6 & 63];
        out++;
        *out++ = '=';
    }
    return out;
}

/* base64_encode(bytes) -> text with padding */
static int l_encode(lua_State *L)
{
    size_t len, done;
    const unsigned char *bytes = (const unsigned char *)luaL_checklstring(L, 1, &len);
    luaL_Buffer buffer;
    char piece[1024];
    luaL_buffinit(L, &buffer);
    for (done = 0; done < len; done += 768) {
        char *end = e2b_base64_put(piece, bytes + done, len - done < 768 ? len - done : 768);
        luaL_addlstring(&buffer, piece, (size_t)(end - piece));
    }
    luaL_pushresult(&buffer);
    return 1;
}

/* The value of a digit of either alphabet, or -1. */
static int digit(unsigned char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    if (c == '+' || c == '-')
        return 62;
    return c == '/' || c == '_' ? 63 : -1;
}

/* base64_decode(text) -> bytes, or nil. Takes what protobuf's JSON takes: both alphabets, with padding or without. */
static int l_decode(lua_State *L)
{
    size_t len, at, used = 0;
    const unsigned char *text = (const unsigned char *)luaL_checklstring(L, 1, &len);
    luaL_Buffer buffer;
    char piece[768];
    unsigned group = 0;
    if (len % 4 == 0 && len > 0 && text[len - 1] == '=')
        len -= text[len - 2] == '=' ? 2 : 1;
    for (at = 0; at < len && digit(text[at]) >= 0; at++)
        continue;
    if (at < len || len % 4 == 1) {
        lua_pushnil(L);
        return 1;
    }
    luaL_buffinit(L, &buffer);
    for (at = 0; at < len; at++) {
        group = group << 6 | (unsigned)digit(text[at]);
        if (at % 4 == 3) {
            piece[used++] = (char)(group >> 16);
            piece[used++] = (char)(group >> 8);
            piece[used++] = (char)group;
            group = 0;
            if (used == sizeof piece) {
                luaL_addlstring(&buffer, piece, used);
                used = 0;
            }
        }
    }
    if (len % 4 == 2) {
        piece[used++] = (char)(group >> 4);
    } else if (len % 4 == 3) {
        piece[used++] = (char)(group >> 10);
        piece[used++] = (char)(group >> 2);
    }
    luaL_addlstring(&buffer, piece, used);
    luaL_pushresult(&buffer);
    return 1;
}

/* read_event(fd, most, kind) -> the envelope of {"event":{"data":{kind:…}}} with what could be read at once
 *   kind nil: what is read is thrown away, the answer is true
 *   false: nothing there now   nil: the end   nil, message, errno */
static int l_read_event(lua_State *L)
{
    int fd = (int)luaL_checkinteger(L, 1);
    lua_Integer most = luaL_checkinteger(L, 2);
    size_t kind_len = 0;
    const char *kind = luaL_optlstring(L, 3, NULL, &kind_len);
    unsigned char bytes[CHUNK_MAX];
    char frame[FRAME_MAX + 4 * ((CHUNK_MAX + 2) / 3)], *end = frame + 5;
    uint32_t size;
    ssize_t got;
    luaL_argcheck(L, most > 0 && most <= CHUNK_MAX, 2, "too many bytes for one event");
    luaL_argcheck(L, kind_len < FRAME_MAX - 32, 3, "too long");
    do {
        got = read(fd, bytes, (size_t)most);
    } while (got < 0 && errno == EINTR);
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        lua_pushboolean(L, 0);
        return 1;
    }
    /* A terminal whose last user has gone reads as an input/output error. */
    if (got == 0 || (got < 0 && errno == EIO)) {
        lua_pushnil(L);
        return 1;
    }
    if (got < 0)
        return e2b_fs_fail(L, errno);
    if (kind == NULL) {
        lua_pushboolean(L, 1);
        return 1;
    }
    memcpy(end, "{\"event\":{\"data\":{\"", 19);
    end += 19;
    memcpy(end, kind, kind_len);
    end += kind_len;
    memcpy(end, "\":\"", 3);
    end = e2b_base64_put(end + 3, bytes, (size_t)got);
    memcpy(end, "\"}}}", 4);
    end += 4;
    size = (uint32_t)(end - frame - 5);
    frame[0] = 0;
    frame[1] = (char)(size >> 24);
    frame[2] = (char)(size >> 16);
    frame[3] = (char)(size >> 8);
    frame[4] = (char)size;
    lua_pushlstring(L, frame, (size_t)(end - frame));
    return 1;
}

int e2b_native_base64(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "base64_encode", l_encode },
        { "base64_decode", l_decode },
        { "read_event", l_read_event },
        { NULL, NULL },
    };
    luaL_setfuncs(L, functions, 0);
    return 0;
}
