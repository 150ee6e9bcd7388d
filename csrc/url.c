/* Percent-encoding. One rule everywhere: what RFC 3986 calls unreserved stays, every other byte becomes %XX. */
#include "e2b.h"
#include "shape.h"

static int is_unreserved(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
           c == '_' || c == '~';
}

/* Pushes s with every other byte as `mark` and its two hex digits: "%" is the usual encoding, "%25" that of an
 * already encoded text, "%2525" once more. */
void e2b_push_escaped(lua_State *L, const char *s, size_t len, const char *mark)
{
    static const char hex[] = "0123456789ABCDEF";
    size_t plain = 0;
    luaL_Buffer buffer;

    while (plain < len && is_unreserved((unsigned char)s[plain])) plain++;
    if (plain == len) {
        lua_pushlstring(L, s, len);
        return;
    }
    luaL_buffinit(L, &buffer);
    luaL_addlstring(&buffer, s, plain);
    for (; plain < len; plain++) {
        unsigned char c = (unsigned char)s[plain];
        if (is_unreserved(c)) {
            luaL_addchar(&buffer, (char)c);
        } else {
            luaL_addstring(&buffer, mark);
            luaL_addchar(&buffer, hex[c >> 4]);
            luaL_addchar(&buffer, hex[c & 15]);
        }
    }
    luaL_pushresult(&buffer);
}

static int escape(lua_State *L)
{
    size_t len;
    const char *s = luaL_checklstring(L, 1, &len);
    e2b_push_escaped(L, s, len, "%");
    return 1;
}

/* Adds escape to the table on top of the stack. */
int e2b_url_open(lua_State *L)
{
    static const luaL_Reg functions[] = {{"escape", escape}, {NULL, NULL}};
    luaL_setfuncs(L, functions, 0);
    return 0;
}
