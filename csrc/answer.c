/* From the bytes of an answer to what Lua gets: the value of a success, what an error body says of a failure. */
#include "e2b.h"
#include "shape.h"

#include <string.h>

#define MAX_MESSAGE 1024
#define MAX_ERROR_CODE 128
/* An error body longer than this is nobody's one sentence. */
#define MAX_ERROR_BODY (256u << 10)

static size_t skip_blanks(const char *s, size_t len)
{
    size_t i = 0;

    while (i < len && (s[i] == ' ' || s[i] == '\t' || s[i] == '\n' || s[i] == '\r'))
        i++;
    return i;
}

/* Puts a few words before the message on top. */
static int explain(lua_State *L, const char *words, int result)
{
    lua_pushstring(L, words);
    lua_insert(L, -2);
    lua_concat(L, 2);
    return result;
}

int e2b_call_answer(lua_State *L, const e2b_call *call, long status, const char *body, size_t len)
{
    size_t first = skip_blanks(body, len);
    const e2b_shape *shape = call->answer;

    luaL_checkstack(L, 8, "answer");
    if (call->flags & E2B_BYTES_ANSWER) {
        lua_pushlstring(L, body != NULL ? body : "", len);
        return E2B_ANSWER_OK;
    }
    if (shape == NULL || status == 204 || ((call->flags & E2B_RAW) && first == len)) {
        if (shape == NULL || (call->flags & E2B_RAW)) {
            lua_pushboolean(L, 1);
            return E2B_ANSWER_OK;
        }
    }
    if (!e2b_json_parse(L, body, len))
        return explain(L, "the answer is not JSON: ", E2B_ANSWER_JSON);
    if (shape->kind == E2B_INNER && body[first] != '{') {
        lua_pop(L, 1);
        lua_pushliteral(L, "the answer has the wrong shape: an object expected");
        return E2B_ANSWER_SHAPE;
    }
    /* Decoded, an empty array and an empty object are the same. */
    if (shape->kind == E2B_LIST && body[first] != '[') {
        lua_pop(L, 1);
        lua_pushliteral(L, "the answer has the wrong shape: a list expected");
        return E2B_ANSWER_SHAPE;
    }
    if (!e2b_shape_read(L, shape))
        return explain(L, "the answer has the wrong shape: ", E2B_ANSWER_SHAPE);
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        lua_pushliteral(L, "the answer has the wrong shape: it is null");
        return E2B_ANSWER_SHAPE;
    }
    return E2B_ANSWER_OK;
}

/* Sets facts[name] to the text on top, cut to `max` bytes between two characters and without control characters: it
 * ends in terminals and logs. Takes the text off the stack. */
static void set_text(lua_State *L, int facts, const char *name, size_t max)
{
    size_t len, i, from;
    const char *s = lua_tolstring(L, -1, &len);
    luaL_Buffer buffer;

    if (len > max) {
        len = max;
        while (len > 0 && ((unsigned char)s[len] & 0xc0) == 0x80)
            len--;
    }
    luaL_buffinit(L, &buffer);
    for (i = from = 0; i < len; i++) {
        unsigned char c = (unsigned char)s[i];
        /* The second group of control characters is C2 80 to C2 9F in UTF-8. */
        size_t width = c < 0x20 || c == 0x7f ? 1 : 0;
        if (c == 0xc2 && i + 1 < len && (unsigned char)s[i + 1] >= 0x80 && (unsigned char)s[i + 1] < 0xa0)
            width = 2;
        if (width == 0)
            continue;
        luaL_addlstring(&buffer, s + from, i - from);
        luaL_addchar(&buffer, ' ');
        i += width - 1;
        from = i + 1;
    }
    luaL_addlstring(&buffer, s + from, len - from);
    luaL_pushresult(&buffer);
    lua_setfield(L, facts, name);
    lua_pop(L, 1);
}

/* The words of the Connect protocol, whose errors need no message. */
static int is_connect_code(const char *code)
{
    static const char *const codes[] = {
        "canceled",           "unknown",           "invalid_argument",    "deadline_exceeded", "not_found",
        "already_exists",     "permission_denied", "resource_exhausted",  "failed_precondition", "aborted",
        "out_of_range",       "unimplemented",     "internal",            "unavailable",       "data_loss",
        "unauthenticated",
    };
    size_t i;

    for (i = 0; i < sizeof codes / sizeof *codes; i++) {
        if (strcmp(code, codes[i]) == 0)
            return 1;
    }
    return 0;
}

void e2b_error_object(lua_State *L, int facts)
{
    int object = lua_gettop(L), has_message = 0, has_code = 0;

    luaL_checkstack(L, 6, "error body");
    lua_getfield(L, object, "message");
    if (lua_type(L, -1) == LUA_TSTRING && lua_rawlen(L, -1) > 0) {
        has_message = 1;
        set_text(L, facts, "message", MAX_MESSAGE);
    }
    lua_settop(L, object);
    lua_getfield(L, object, "error_code");
    if (lua_type(L, -1) == LUA_TSTRING && lua_rawlen(L, -1) > 0) {
        has_code = 1;
        set_text(L, facts, "error_code", MAX_ERROR_CODE);
    }
    lua_settop(L, object);
    /* The status as a number; a word in errors of Connect and of the volume content API. */
    lua_getfield(L, object, "code");
    if (lua_type(L, -1) == LUA_TNUMBER) {
        lua_Number code = lua_tonumber(L, -1);
        has_code = 1;
        if (code >= 400 && code < 600 && code == (lua_Number)(int)code) { /* in this order: not every number is an int */
            lua_pushinteger(L, (lua_Integer)code);
            lua_setfield(L, facts, "code");
        }
    } else if (lua_type(L, -1) == LUA_TSTRING && lua_rawlen(L, -1) > 0) {
        if (is_connect_code(lua_tostring(L, -1)))
            has_message = 1;
        if (!has_code)
            set_text(L, facts, "error_code", MAX_ERROR_CODE);
        has_code = 1;
    }
    if (has_message && has_code) {
        lua_pushboolean(L, 1);
        lua_setfield(L, facts, "has_body");
    }
    lua_settop(L, object - 1);
}

void e2b_error_body(lua_State *L, int facts, const char *body, size_t len)
{
    int top = lua_gettop(L);
    size_t first = skip_blanks(body, len);

    luaL_checkstack(L, 10, "error body");
    if (first == len || body[first] != '{' || len > MAX_ERROR_BODY)
        return;
    if (e2b_json_parse(L, body, len) && lua_type(L, -1) == LUA_TTABLE)
        e2b_error_object(L, facts);
    lua_settop(L, top);
}
