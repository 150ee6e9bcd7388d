/* Runs a script in a Lua whose n-th allocation fails, n rising until the script gets through; twice: with one failure,
 * and with every allocation failing from the n-th on. After each failure the same state must still do all of it, and
 * close without a trace. host SCRIPT URL CJSON [FIRST [LAST]]        CJSON: path of the lua-cjson module, kept loaded
 * so that reports have names */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/lsan_interface.h>
#define LEAKS() __lsan_do_recoverable_leak_check()
#else
#define LEAKS() 0
#endif

#define LEAKS_EVERY 100

typedef struct budget {
    int armed;
    unsigned long count, fail_at, fail_to; /* which allocations fail */
    unsigned long failed;
    size_t bytes;
} budget;

static void *allocate(void *owner, void *block, size_t old_size, size_t size)
{
    budget *b = owner;
    void *made;
    if (block == NULL)
        old_size = 0; /* 5.2 and later say the kind of the object there */
    if (size == 0) {
        b->bytes -= old_size;
        free(block);
        return NULL;
    }
    if (b->armed && size > old_size) { /* shrinking never fails: Lua counts on that */
        b->count++;
        if (b->count >= b->fail_at && b->count <= b->fail_to) {
            b->failed++;
            return NULL;
        }
    }
    made = realloc(block, size);
    if (made != NULL)
        b->bytes += size - old_size;
    return made;
}

static int traceback(lua_State *L)
{
    return lua_gettop(L) > 0 ? 1 : 0;
}

/* Puts script and its arguments on the stack. */
static int load(lua_State *L, const char *script, const char *url, const char *phase)
{
    lua_pushcfunction(L, traceback);
    if (luaL_loadfile(L, script) != 0)
        return 0;
    lua_pushstring(L, url);
    lua_pushstring(L, phase);
    return 1;
}

/* 1: got through without a failure; 0: failed as it should; -1: something is wrong */
static int attempt(const char *script, const char *url, unsigned long n, unsigned long to)
{
    budget b;
    lua_State *L;
    int status, result = 0;
    memset(&b, 0, sizeof b);
    b.fail_at = n;
    b.fail_to = to;
#if LUA_VERSION_NUM >= 505
    L = lua_newstate(allocate, &b, 1);
#else
    L = lua_newstate(allocate, &b);
#endif
    if (L == NULL)
        return -1;
    luaL_openlibs(L);
    if (!load(L, script, url, "sweep")) {
        fprintf(stderr, "%s\n", lua_tostring(L, -1));
        lua_close(L);
        return -1;
    }
    b.armed = 1;
    status = lua_pcall(L, 2, 0, 0);
    b.armed = 0;
    if (status == 0 && b.failed == 0) {
        result = 1;
    } else if (status != 0) {
        const char *message = lua_tostring(L, -1);
        /* a stack that can't grow is a full one to luaL_checkstack */
        if (status != LUA_ERRMEM && (message == NULL || (strstr(message, "not enough memory") == NULL &&
                                                         strstr(message, "stack overflow (") == NULL))) {
            fprintf(stderr, "allocation %lu failed, and the script says: %s\n", n, message ? message : "nothing");
            result = -1;
        }
    }
    lua_settop(L, 0);
    if (result >= 0) {
        if (!load(L, script, url, "recover") || lua_pcall(L, 2, 0, 0) != 0) {
            fprintf(stderr, "after allocation %lu failed: %s\n", n, lua_tostring(L, -1));
            result = -1;
        }
    }
    lua_close(L);
    if (b.bytes != 0) {
        fprintf(stderr, "allocation %lu failed, and %lu bytes of Lua's stayed\n", n, (unsigned long)b.bytes);
        result = -1;
    }
    return result;
}

/* The number of the first allocation that doesn't exist, or 0. */
static unsigned long sweep(const char *script, const char *url, int burst, unsigned long first, unsigned long last)
{
    unsigned long n;
    for (n = first;; n++) {
        /* a failed allocation is tried once more after a collection, so one failure is two in a row */
        int result = attempt(script, url, n, burst ? (unsigned long)-1 : n + 1);
        if (result < 0)
            return 0;
        if ((n % LEAKS_EVERY == 0 || result == 1 || n == last) && LEAKS()) {
            fprintf(stderr, "leaks after the failure of one of the allocations up to %lu\n", n);
            return 0;
        }
        if (result == 1 || n == last)
            return n;
    }
}

int main(int argc, char **argv)
{
    int burst;
    if (argc < 4) {
        fprintf(stderr, "usage: host SCRIPT URL CJSON [FIRST [LAST]]\n");
        return 2;
    }
    if (argv[3][0] != '\0' && dlopen(argv[3], RTLD_LAZY | RTLD_NODELETE) == NULL)
        fprintf(stderr, "%s\n", dlerror());
    for (burst = 0; burst <= 1; burst++) {
        unsigned long n = sweep(argv[1], argv[2], burst, argc > 4 ? strtoul(argv[4], NULL, 10) : 1,
                                argc > 5 ? strtoul(argv[5], NULL, 10) : (unsigned long)-1);
        if (n == 0)
            return 1;
        printf("%s: %lu allocations failed in turn, and nothing was left behind\n",
               burst ? "no memory from then on" : "one failure", n - 1);
        fflush(stdout);
    }
    return 0;
}
