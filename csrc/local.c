/* What trees of local files are read with: listing, asking, making, removing. Links are never followed unasked. */
#define _FILE_OFFSET_BITS 64
#include "file.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define E2B_LISTING "e2b.listing"

/* ---- fs_list ---- */

/* The names of a directory while they are read and sorted, all in C memory: a Lua error meets nothing half done. */
typedef struct listing {
    DIR *dir;
    char *text; /* names, each with its zero */
    size_t len, cap, count;
    const char **names;
} listing;

static void listing_free(listing *list)
{
    if (list->dir != NULL)
        closedir(list->dir);
    free(list->text);
    free((void *)list->names);
    memset(list, 0, sizeof *list);
}

static int listing_gc(lua_State *L)
{
    listing_free(luaL_checkudata(L, 1, E2B_LISTING));
    return 0;
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int listing_add(listing *list, const char *name)
{
    size_t size = strlen(name) + 1;
    if (list->cap - list->len < size) {
        size_t cap = list->cap * 2 + size + 4096;
        char *text = realloc(list->text, cap);
        if (text == NULL)
            return ENOMEM;
        list->text = text;
        list->cap = cap;
    }
    memcpy(list->text + list->len, name, size);
    list->len += size;
    list->count++;
    return 0;
}

/* 0 or an errno. */
static int listing_fill(listing *list, const char *path)
{
    const struct dirent *entry;
    size_t i;
    char *at;
    int error = 0, fd = e2b_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return errno;
    list->dir = fdopendir(fd);
    if (list->dir == NULL) {
        error = errno;
        close(fd);
        return error;
    }
    while (error == 0) {
        errno = 0;
        entry = readdir(list->dir);
        if (entry == NULL) {
            error = errno;
            break;
        }
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            error = listing_add(list, entry->d_name);
    }
    if (error != 0 || list->count == 0)
        return error;
    list->names = malloc(list->count * sizeof *list->names);
    if (list->names == NULL)
        return ENOMEM;
    for (i = 0, at = list->text; i < list->count; i++, at += strlen(at) + 1)
        list->names[i] = at;
    qsort((void *)list->names, list->count, sizeof *list->names, by_bytes);
    return 0;
}

/* core.fs_list(dir) -> names in byte order | nil, message, errno */
static int fs_list(lua_State *L)
{
    size_t len, i;
    const char *path = e2b_path_arg(L, 1, &len);
    listing *list;
    int error;
    if (path == NULL)
        return e2b_path_nul(L, "list", 1);
    list = e2b_newuserdata(L, sizeof *list);
    memset(list, 0, sizeof *list);
    luaL_setmetatable(L, E2B_LISTING);
    error = listing_fill(list, path);
    if (error != 0) {
        listing_free(list);
        return e2b_file_failed(L, "list", path, error);
    }
    lua_createtable(L, list->count < 65536 ? (int)list->count : 65536, 0);
    for (i = 0; i < list->count; i++) {
        lua_pushstring(L, list->names[i]);
        lua_rawseti(L, -2, (int)i + 1);
    }
    listing_free(list);
    return 1;
}

/* ---- fs_stat ---- */

static const char *type_of(mode_t mode)
{
    if (S_ISREG(mode))
        return "file";
    if (S_ISDIR(mode))
        return "dir";
    return S_ISLNK(mode) ? "symlink" : "other";
}

/* Pushes where the link points to; 0 or an errno. */
static int push_target(lua_State *L, const char *path)
{
    size_t size = 256;
    for (;;) {
        char *target = e2b_newuserdata(L, size);
        ssize_t len = readlink(path, target, size);
        if (len < 0)
            return errno;
        if ((size_t)len < size) {
            lua_pushlstring(L, target, (size_t)len);
            lua_remove(L, -2);
            return 0;
        }
        lua_pop(L, 1);
        size *= 2;
    }
}

/* core.fs_stat(path[, follow]) -> { type, size, mode, mtime, target? } | nil, message, errno */
static int fs_stat(lua_State *L)
{
    size_t len;
    const char *path = e2b_path_arg(L, 1, &len);
    struct stat st;
    int result;
    if (path == NULL)
        return e2b_path_nul(L, "read", 1);
    result = lua_toboolean(L, 2) ? stat(path, &st) : lstat(path, &st);
    if (result != 0)
        return e2b_file_failed(L, "read", path, errno);
    lua_createtable(L, 0, 5);
    lua_pushstring(L, type_of(st.st_mode));
    lua_setfield(L, -2, "type");
    e2b_pushwhole(L, (long long)st.st_size);
    lua_setfield(L, -2, "size");
    lua_pushinteger(L, (lua_Integer)(st.st_mode & 07777));
    lua_setfield(L, -2, "mode");
    e2b_pushwhole(L, (long long)st.st_mtime);
    lua_setfield(L, -2, "mtime");
    if (S_ISLNK(st.st_mode)) {
        int error = push_target(L, path);
        if (error != 0)
            return e2b_file_failed(L, "read", path, error);
        lua_setfield(L, -2, "target");
    }
    return 1;
}

/* ---- what changes something ---- */

static int done(lua_State *L, const char *what, const char *path, int error)
{
    if (error != 0)
        return e2b_file_failed(L, what, path, error);
    lua_pushboolean(L, 1);
    return 1;
}

/* core.fs_mkdir(path[, mode]) -> true | nil, message, errno */
static int fs_mkdir(lua_State *L)
{
    size_t len;
    const char *path = e2b_path_arg(L, 1, &len);
    mode_t mode = e2b_mode_arg(L, 2, 0777);
    if (path == NULL)
        return e2b_path_nul(L, "make directory", 1);
    return done(L, "make directory", path, mkdir(path, mode) == 0 ? 0 : errno);
}

/* core.fs_symlink(target, path) -> true | nil, message, errno */
static int fs_symlink(lua_State *L)
{
    size_t len;
    const char *target = e2b_path_arg(L, 1, &len), *path = e2b_path_arg(L, 2, &len);
    if (target == NULL || path == NULL)
        return e2b_path_nul(L, "make link", path == NULL ? 2 : 1);
    return done(L, "make link", path, symlink(target, path) == 0 ? 0 : errno);
}

const double *e2b_mtime_arg(lua_State *L, int index, double *mtime)
{
    if (lua_isnoneornil(L, index))
        return NULL;
    *mtime = (double)luaL_checknumber(L, index);
    luaL_argcheck(L, *mtime > -1e15 && *mtime < 1e15, index, "must be seconds since the epoch");
    return mtime;
}

int e2b_touch(int dir, const char *name, const mode_t *mode, const double *mtime)
{
    struct stat st;
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return errno;
    if (mode != NULL && !S_ISLNK(st.st_mode) && fchmodat(dir, name, *mode, AT_SYMLINK_NOFOLLOW) != 0) {
        /* older C libraries don't have the flag */
        if ((errno != ENOTSUP && errno != EINVAL && errno != ENOSYS) || fchmodat(dir, name, *mode, 0) != 0)
            return errno;
    }
    if (mtime != NULL) {
        struct timespec times[2] = { { 0, UTIME_OMIT }, { 0, 0 } };
        double whole = floor(*mtime);
        times[1].tv_sec = (time_t)whole;
        times[1].tv_nsec = (long)((*mtime - whole) * 1e9);
        if (utimensat(dir, name, times, AT_SYMLINK_NOFOLLOW) != 0)
            return errno;
    }
    return 0;
}

/* core.fs_touch(path, mode, mtime) -> true | nil, message, errno; nil leaves either as it is */
static int fs_touch(lua_State *L)
{
    size_t len;
    double time;
    const char *path = e2b_path_arg(L, 1, &len);
    mode_t mode = e2b_mode_arg(L, 2, 0);
    const double *mtime = e2b_mtime_arg(L, 3, &time);
    if (path == NULL)
        return e2b_path_nul(L, "change", 1);
    return done(L, "change", path, e2b_touch(AT_FDCWD, path, lua_isnoneornil(L, 2) ? NULL : &mode, mtime));
}

/* core.fs_remove(path) -> true | nil, message, errno: a file, a link or an empty directory */
static int fs_remove(lua_State *L)
{
    size_t len;
    const char *path = e2b_path_arg(L, 1, &len);
    struct stat st;
    int error = 0;
    if (path == NULL)
        return e2b_path_nul(L, "remove", 1);
    if (lstat(path, &st) != 0 || (S_ISDIR(st.st_mode) ? rmdir(path) : unlink(path)) != 0)
        error = errno;
    return done(L, "remove", path, error);
}

int e2b_local_open(lua_State *L)
{
    static const luaL_Reg none[] = { { NULL, NULL } };
    static const luaL_Reg meta[] = { { "__gc", listing_gc }, { NULL, NULL } };
    static const luaL_Reg functions[] = {
        { "fs_list", fs_list },   { "fs_stat", fs_stat },     { "fs_mkdir", fs_mkdir }, { "fs_symlink", fs_symlink },
        { "fs_touch", fs_touch }, { "fs_remove", fs_remove }, { NULL, NULL },
    };
    e2b_type(L, E2B_LISTING, none, meta);
    luaL_setfuncs(L, functions, 0);
    return 0;
}
