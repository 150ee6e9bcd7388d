/* Sentences about a value that is not what was expected: where it is, what should be there. No value is ever shown, it
 * may be a secret. */
#include "e2b.h"
#include "shape.h"

#include <stdio.h>

/* Bytes of a message that the way to the value leaves for the rest of the sentence. */
#define SENTENCE 120

/* Appends what is fit to print; the buffer always keeps room for the rest of the sentence. */
static size_t append(char *to, size_t used, size_t size, const char *s)
{
    for (; *s != '\0' && used + 1 < size; s++) {
        to[used++] = (char)((unsigned char)*s < 0x20 || *s == 0x7f ? '?' : *s);
    }
    to[used] = '\0';
    return used;
}

static size_t append_place(char *to, size_t used, size_t size, const struct e2b_place *at)
{
    char index[32];

    if (at == NULL)
        return used;
    used = append_place(to, used, size, at->up);
    if (at->key == NULL) {
        snprintf(index, sizeof index, "[%lu]", (unsigned long)at->index);
        return append(to, used, size, index);
    }
    if (used > 0)
        used = append(to, used, size, ".");
    return append(to, used, size, at->key);
}

size_t e2b_explain(char *to, const struct e2b_place *at, const char *what)
{
    size_t used = append_place(to, 0, E2B_MESSAGE_SIZE - SENTENCE, at);
    if (used > 0)
        used = append(to, used, E2B_MESSAGE_SIZE, ": ");
    return append(to, used, E2B_MESSAGE_SIZE, what);
}

size_t e2b_explain_type(char *to, const struct e2b_place *at, const char *expected, lua_State *L, int index)
{
    static const char *const names[] = {"nothing", "a boolean", "a userdata", "a number", "a string"};
    int type = lua_type(L, index);
    const char *got = "a function or a thread";
    char what[SENTENCE];

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

