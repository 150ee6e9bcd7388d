/* The values of answers that JSON has no type for: whole numbers of 64 bits, bytes, words out of a few. */
#include "shape.h"

#include <string.h>

static int complain(char *message, const struct e2b_place *at, const char *what)
{
    e2b_explain(message, at, what);
    return 0;
}

static int mismatch(lua_State *L, char *message, const struct e2b_place *at, const char *expected)
{
    e2b_explain_type(message, at, expected, L, -1);
    return 0;
}

/* A string of digits, which may have a sign. */
static int parse_int64(const char *s, size_t len, long long *n)
{
    unsigned long long value = 0, max = 9223372036854775807ull;
    size_t i = 0;

    if (len > 0 && s[0] == '-') {
        max++;
        i = 1;
    }
    if (i == len)
        return 0;
    for (; i < len; i++) {
        unsigned digit = (unsigned)(unsigned char)s[i] - '0';
        if (digit > 9 || value > (max - digit) / 10)
            return 0;
        value = value * 10 + digit;
    }
    *n = s[0] == '-' ? (long long)(0 - value) : (long long)value;
    return 1;
}

static int read_int64(lua_State *L, const struct e2b_place *at, char *message)
{
    int type = lua_type(L, -1);
    long long n;

    if (type == LUA_TSTRING) {
        size_t len;
        const char *s = lua_tolstring(L, -1, &len);
        if (!parse_int64(s, len, &n))
            return complain(message, at, "a whole number expected, got another string");
    } else if (type == LUA_TNUMBER) {
        double d = (double)lua_tonumber(L, -1);
        if (!(d >= -9223372036854775808.0 && d < 9223372036854775808.0) || d != (double)(long long)d)
            return complain(message, at, "a whole number expected, got another number");
        n = (long long)d;
    } else {
        return mismatch(L, message, at, "a whole number");
    }
    lua_pop(L, 1);
    e2b_pushwhole(L, n);
    return 1;
}

static int read_bytes(lua_State *L, const struct e2b_place *at, char *message)
{
    size_t len, size;
    const char *s;
    char *to;

    if (lua_type(L, -1) != LUA_TSTRING)
        return mismatch(L, message, at, "a string");
    s = lua_tolstring(L, -1, &len);
    to = (char *)e2b_newuserdata(L, len / 4 * 3 + 3 + E2B_BASE64_SLACK);
    size = e2b_base64_decode(s, len, to);
    if (size == E2B_BASE64_BAD)
        return complain(message, at, "this is not base64");
    lua_pushlstring(L, to, size);
    lua_replace(L, -3);
    lua_pop(L, 1);
    return 1;
}

/* A word by its name, or by its number, from 1 on. */
static int read_enum(lua_State *L, const e2b_shape *shape, const struct e2b_place *at, char *message)
{
    int type = lua_type(L, -1);
    const e2b_field *field = shape->fields;

    if (type == LUA_TSTRING) {
        size_t len;
        const char *s = lua_tolstring(L, -1, &len);
        while (field->wire != NULL && (field->wire_len != len || memcmp(field->wire, s, len) != 0))
            field++;
    } else if (type == LUA_TNUMBER) {
        double d = (double)lua_tonumber(L, -1), i = 1;
        while (field->wire != NULL && d != i) {
            field++;
            i++;
        }
    } else {
        return mismatch(L, message, at, "a word");
    }
    lua_pop(L, 1);
    lua_pushstring(L, field->wire != NULL ? field->name : NULL);
    return 1;
}

int e2b_scalar_read(lua_State *L, const e2b_shape *shape, const struct e2b_place *at, char *message)
{
    if (shape->kind == E2B_INT64)
        return read_int64(L, at, message);
    if (shape->kind == E2B_ENUM)
        return read_enum(L, shape, at, message);
    return read_bytes(L, at, message);
}
