/* Which process is which: one of the same number may be another by now. */
#include "file.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define UNKNOWN "?"

/* The beginning of a file of the kernel's, with a zero; its length, 0 when it can't be read. */
static size_t read_beginning(const char *path, char *to, size_t size)
{
    ssize_t got;
    int fd = e2b_openat(AT_FDCWD, path, O_RDONLY, 0);
    to[0] = '\0';
    if (fd < 0)
        return 0;
    do
        got = read(fd, to, size - 1);
    while (got < 0 && errno == EINTR);
    close(fd);
    if (got < 0)
        got = 0;
    to[got] = '\0';
    return (size_t)got;
}

/* The n-th word of a text, ended by a zero; NULL when there are fewer. */
static char *word_of(char *text, int n)
{
    char *end;
    for (;; n--) {
        text += strspn(text, " \n");
        end = text + strcspn(text, " \n");
        if (end == text)
            return NULL;
        if (n == 1)
            break;
        text = end;
    }
    *end = '\0';
    return text;
}

/* core.process_start(pid) -> text | nil when no such process runs. "?": it runs, and its start can't be told. */
static int process_start(lua_State *L)
{
    lua_Number number = luaL_checknumber(L, 1);
    char path[48], text[1024];
    pid_t pid;
    if (!(number >= 1 && number < 2147483648.0)) {
        lua_pushnil(L);
        return 1;
    }
    pid = (pid_t)number;
    snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
    if (read_beginning(path, text, sizeof text) > 0) {
        /* pid (name) state … with the start in field 22; the name may hold anything */
        char *after = strrchr(text, ')'), *start;
        if (after != NULL) {
            const char *state = after + 1 + strspn(after + 1, " ");
            if (*state == 'Z' || *state == 'X') {
                lua_pushnil(L); /* it has ended, and its parent doesn't look */
                return 1;
            }
            start = word_of(after + 1, 20);
            if (start != NULL) {
                lua_pushstring(L, start);
                return 1;
            }
        }
    }
    /* No /proc here, or it doesn't show the processes of others. */
    if (kill(pid, 0) == 0 || errno == EPERM)
        lua_pushliteral(L, UNKNOWN);
    else
        lua_pushnil(L);
    return 1;
}

/* Appends the digits of a namespace's link ("pid:[4026531836]"). */
static void add_space(char *to, size_t size, const char *link)
{
    char target[64];
    size_t at = strlen(to);
    ssize_t len = readlink(link, target, sizeof target - 1);
    const char *digits;
    if (len <= 0)
        return;
    target[len] = '\0';
    digits = strchr(target, '[');
    if (digits != NULL)
        snprintf(to + at, size - at, "%s%.*s", at > 0 ? "." : "", (int)strspn(digits + 1, "0123456789"), digits + 1);
}

/* core.process_place() -> boot, host, space: where a process id means something. Many machines are called localhost: a
 * piece of the machine's own id is added to its name. */
static int process_place(lua_State *L)
{
    char boot[64], host[256 + 16], space[64], machine[64];
    read_beginning("/proc/sys/kernel/random/boot_id", boot, sizeof boot);
    boot[strcspn(boot, "\n")] = '\0';
    if (gethostname(host, 256) != 0)
        host[0] = '\0';
    host[255] = '\0';
    if (read_beginning("/etc/machine-id", machine, sizeof machine) >= 8)
        snprintf(host + strlen(host), 16, "/%.8s", machine);
    space[0] = '\0';
    add_space(space, sizeof space, "/proc/self/ns/pid");
    add_space(space, sizeof space, "/proc/self/ns/time"); /* the start is told by its clock */
    lua_pushstring(L, boot[0] != '\0' ? boot : UNKNOWN);
    lua_pushstring(L, host[0] != '\0' ? host : UNKNOWN);
    lua_pushstring(L, space[0] != '\0' ? space : UNKNOWN);
    return 3;
}

int e2b_living_open(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "process_start", process_start }, { "process_place", process_place }, { NULL, NULL },
    };
    luaL_setfuncs(L, functions, 0);
    return 0;
}
