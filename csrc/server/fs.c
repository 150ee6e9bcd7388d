/* The filesystem for the sandbox's daemon: what Lua's own libraries can't ask. Every function answers nil, message,
 * errno on failure; messages begin with a small letter, as envd's do. */
#include "fs.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>
#include <sys/statvfs.h>
#if defined(__linux__)
#include <sys/vfs.h>
#endif

int e2b_fs_fail(lua_State *L, int error)
{
    char text[160];
    (void)snprintf(text, sizeof(text), "%s", strerror(error));
    if (text[0] >= 'A' && text[0] <= 'Z')
        text[0] = (char)(text[0] - 'A' + 'a');
    lua_pushnil(L);
    lua_pushstring(L, text);
    lua_pushinteger(L, error);
    return 3;
}

const char *e2b_native_path(lua_State *L, int index)
{
    size_t length;
    const char *path = luaL_checklstring(L, index, &length);
    return strlen(path) == length ? path : NULL;
}

static int answer(lua_State *L, int failed)
{
    if (failed)
        return e2b_fs_fail(L, errno);
    lua_pushboolean(L, 1);
    return 1;
}

static const char *type_name(mode_t mode)
{
    if (S_ISREG(mode))
        return "file";
    if (S_ISDIR(mode))
        return "dir";
    if (S_ISLNK(mode))
        return "symlink";
    if (S_ISFIFO(mode))
        return "fifo";
    if (S_ISSOCK(mode))
        return "socket";
    if (S_ISBLK(mode))
        return "block";
    if (S_ISCHR(mode))
        return "char";
    return "other";
}

static void set_whole(lua_State *L, const char *name, long long value)
{
    e2b_pushwhole(L, value);
    lua_setfield(L, -2, name);
}

void e2b_native_push_stat(lua_State *L, const struct stat *st)
{
    lua_createtable(L, 0, 11);
    lua_pushstring(L, type_name(st->st_mode));
    lua_setfield(L, -2, "type");
    set_whole(L, "mode", st->st_mode & 07777);
    set_whole(L, "size", (long long)st->st_size);
    set_whole(L, "uid", (long long)st->st_uid);
    set_whole(L, "gid", (long long)st->st_gid);
    set_whole(L, "links", (long long)st->st_nlink);
#if defined(__APPLE__)
    set_whole(L, "mtime", (long long)st->st_mtimespec.tv_sec);
    set_whole(L, "mtime_nsec", (long long)st->st_mtimespec.tv_nsec);
#else
    set_whole(L, "mtime", (long long)st->st_mtim.tv_sec);
    set_whole(L, "mtime_nsec", (long long)st->st_mtim.tv_nsec);
#endif
    /* Only ever compared, so doubles may do where there are no integers. */
    set_whole(L, "dev", (long long)st->st_dev);
    set_whole(L, "ino", (long long)st->st_ino);
}

static int fs_stat(lua_State *L)
{
    struct stat st;
    const char *path = e2b_native_path(L, 1);
    if (path == NULL)
        return e2b_fs_fail(L, EINVAL);
    if (stat(path, &st) != 0)
        return e2b_fs_fail(L, errno);
    e2b_native_push_stat(L, &st);
    return 1;
}

static int fs_lstat(lua_State *L)
{
    struct stat st;
    const char *path = e2b_native_path(L, 1);
    if (path == NULL)
        return e2b_fs_fail(L, EINVAL);
    if (lstat(path, &st) != 0)
        return e2b_fs_fail(L, errno);
    e2b_native_push_stat(L, &st);
    return 1;
}

static int fs_readlink(lua_State *L)
{
    char target[PATH_MAX];
    ssize_t length;
    const char *path = e2b_native_path(L, 1);
    if (path == NULL)
        return e2b_fs_fail(L, EINVAL);
    length = readlink(path, target, sizeof(target));
    if (length < 0)
        return e2b_fs_fail(L, errno);
    lua_pushlstring(L, target, (size_t)length);
    return 1;
}

static int fs_realpath(lua_State *L)
{
    char resolved[PATH_MAX];
    const char *path = e2b_native_path(L, 1);
    if (path == NULL)
        return e2b_fs_fail(L, EINVAL);
    if (realpath(path, resolved) == NULL)
        return e2b_fs_fail(L, errno);
    lua_pushstring(L, resolved);
    return 1;
}

/* An open directory and its names in memory that a raised error frees. */
typedef struct {
    DIR *dir;
    char **names;
    size_t count, room;
} listing;

#define LISTING "e2b.server.listing"

static void listing_free(listing *list)
{
    size_t i;
    if (list->dir != NULL)
        closedir(list->dir);
    list->dir = NULL;
    for (i = 0; i < list->count; i++)
        free(list->names[i]);
    free(list->names);
    list->names = NULL;
    list->count = list->room = 0;
}

static int listing_gc(lua_State *L)
{
    listing_free(luaL_checkudata(L, 1, LISTING));
    return 0;
}

static int listing_add(listing *list, const char *name)
{
    if (list->count == list->room) {
        size_t room = list->room ? list->room * 2 : 64;
        char **names = realloc(list->names, room * sizeof(char *));
        if (names == NULL)
            return -1;
        list->names = names;
        list->room = room;
    }
    list->names[list->count] = strdup(name);
    if (list->names[list->count] == NULL)
        return -1;
    list->count++;
    return 0;
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* readdir(path) -> names sorted by their bytes, without "." and ".." */
static int fs_readdir(lua_State *L)
{
    struct dirent *entry;
    size_t i;
    listing *list;
    int error = 0;
    const char *path = e2b_native_path(L, 1);
    if (path == NULL)
        return e2b_fs_fail(L, EINVAL);
    list = e2b_newuserdata(L, sizeof(*list));
    memset(list, 0, sizeof(*list));
    luaL_setmetatable(L, LISTING);
    list->dir = opendir(path);
    if (list->dir == NULL)
        return e2b_fs_fail(L, errno);
    while (errno = 0, (entry = readdir(list->dir)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (listing_add(list, entry->d_name) != 0) {
            error = ENOMEM;
            break;
        }
    }
    if (error == 0)
        error = errno;
    if (error != 0) {
        listing_free(list);
        return e2b_fs_fail(L, error);
    }
    if (list->count > 1)
        qsort(list->names, list->count, sizeof(char *), by_bytes);
    lua_createtable(L, list->count < INT_MAX ? (int)list->count : INT_MAX, 0);
    for (i = 0; i < list->count; i++) {
        lua_pushstring(L, list->names[i]);
        lua_rawseti(L, -2, (int)(i + 1));
    }
    listing_free(list);
    return 1;
}

static int fs_mkdir(lua_State *L)
{
    const char *path = e2b_native_path(L, 1);
    int mode = (int)luaL_optinteger(L, 2, 0755);
    if (path == NULL)
        return e2b_fs_fail(L, EINVAL);
    return answer(L, mkdir(path, (mode_t)mode));
}

static int fs_unlink(lua_State *L)
{
    const char *path = e2b_native_path(L, 1);
    if (path == NULL)
        return e2b_fs_fail(L, EINVAL);
    return answer(L, unlink(path));
}

static int fs_chmod(lua_State *L)
{
    const char *path = e2b_native_path(L, 1);
    int mode = (int)luaL_checkinteger(L, 2);
    if (path == NULL)
        return e2b_fs_fail(L, EINVAL);
    return answer(L, chmod(path, (mode_t)mode));
}

static int fs_chown(lua_State *L)
{
    const char *path = e2b_native_path(L, 1);
    uid_t uid = (uid_t)luaL_checkinteger(L, 2);
    gid_t gid = (gid_t)luaL_checkinteger(L, 3);
    if (path == NULL)
        return e2b_fs_fail(L, EINVAL);
    return answer(L, chown(path, uid, gid));
}

static int two_paths(lua_State *L, int (*call)(const char *, const char *))
{
    const char *from = e2b_native_path(L, 1), *to = e2b_native_path(L, 2);
    if (from == NULL || to == NULL)
        return e2b_fs_fail(L, EINVAL);
    return answer(L, call(from, to));
}

static int fs_rename(lua_State *L)
{
    return two_paths(L, rename);
}

/* symlink(target, path) */
static int fs_symlink(lua_State *L)
{
    return two_paths(L, symlink);
}

/* utime(path, seconds[, nanoseconds]): sets both times. */
static int fs_utime(lua_State *L)
{
    const char *path = e2b_native_path(L, 1);
    struct timespec times[2];
    if (path == NULL)
        return e2b_fs_fail(L, EINVAL);
    times[0].tv_sec = (time_t)luaL_checknumber(L, 2);
    times[0].tv_nsec = (long)luaL_optinteger(L, 3, 0);
    times[1] = times[0];
    return answer(L, utimensat(AT_FDCWD, path, times, 0));
}

/* statfs(path) -> { total, free, available (bytes), inodes_free, kind (the filesystem's magic number, on Linux) } */
static int fs_statfs(lua_State *L)
{
    struct statvfs st;
    long long unit;
    const char *path = e2b_native_path(L, 1);
#if defined(__linux__)
    struct statfs more;
#endif
    if (path == NULL)
        return e2b_fs_fail(L, EINVAL);
    if (statvfs(path, &st) != 0)
        return e2b_fs_fail(L, errno);
    unit = st.f_frsize != 0 ? (long long)st.f_frsize : (long long)st.f_bsize;
    lua_createtable(L, 0, 5);
    set_whole(L, "total", (long long)st.f_blocks * unit);
    set_whole(L, "free", (long long)st.f_bfree * unit);
    set_whole(L, "available", (long long)st.f_bavail * unit);
    set_whole(L, "inodes_free", (long long)st.f_ffree);
#if defined(__linux__)
    if (statfs(path, &more) != 0)
        return e2b_fs_fail(L, errno);
    set_whole(L, "kind", (long long)((unsigned long)more.f_type & 0xFFFFFFFFUL));
#endif
    return 1;
}

/* username(uid) -> name | nil. The files of the passwd database are small; the daemon's has no network behind it. */
static int fs_username(lua_State *L)
{
    struct passwd entry, *found = NULL;
    char text[4096];
    if (getpwuid_r((uid_t)luaL_checkinteger(L, 1), &entry, text, sizeof(text), &found) != 0 || found == NULL)
        return 0;
    lua_pushstring(L, found->pw_name);
    return 1;
}

static int fs_groupname(lua_State *L)
{
    struct group entry, *found = NULL;
    char text[16384];
    if (getgrgid_r((gid_t)luaL_checkinteger(L, 1), &entry, text, sizeof(text), &found) != 0 || found == NULL)
        return 0;
    lua_pushstring(L, found->gr_name);
    return 1;
}

static int fs_euid(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)geteuid());
    lua_pushinteger(L, (lua_Integer)getegid());
    return 2;
}

/* umask(mask) -> the mask there was before */
static int fs_umask(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)umask((mode_t)luaL_checkinteger(L, 1)));
    return 1;
}

void e2b_native_type(lua_State *L, const char *name, const luaL_Reg *methods, lua_CFunction release,
                     lua_CFunction text)
{
    if (luaL_newmetatable(L, name)) {
        lua_pushstring(L, name);
        lua_setfield(L, -2, "__name");
        lua_pushcfunction(L, release);
        lua_setfield(L, -2, "__gc");
        lua_pushcfunction(L, release);
        lua_setfield(L, -2, "__close");
        if (text != NULL) {
            lua_pushcfunction(L, text);
            lua_setfield(L, -2, "__tostring");
        }
        lua_newtable(L);
        if (methods != NULL)
            luaL_setfuncs(L, methods, 0);
        lua_setfield(L, -2, "__index");
    }
    lua_pop(L, 1);
}

static const luaL_Reg functions[] = {
    {"fs_stat", fs_stat},
    {"fs_lstat", fs_lstat},
    {"fs_readlink", fs_readlink},
    {"fs_realpath", fs_realpath},
    {"fs_readdir", fs_readdir},
    {"fs_mkdir", fs_mkdir},
    {"fs_unlink", fs_unlink},
    {"fs_chmod", fs_chmod},
    {"fs_chown", fs_chown},
    {"fs_rename", fs_rename},
    {"fs_symlink", fs_symlink},
    {"fs_utime", fs_utime},
    {"fs_statfs", fs_statfs},
    {"fs_username", fs_username},
    {"fs_groupname", fs_groupname},
    {"fs_euid", fs_euid},
    {"fs_umask", fs_umask},
    {NULL, NULL},
};

static const struct {
    const char *name;
    int number;
} errors[] = {
    {"ENOENT", ENOENT}, {"EEXIST", EEXIST}, {"ENOTDIR", ENOTDIR}, {"EISDIR", EISDIR}, {"ELOOP", ELOOP},
    {"ENOSPC", ENOSPC}, {"EDQUOT", EDQUOT}, {"EPERM", EPERM},     {"EACCES", EACCES}, {"EINVAL", EINVAL},
    {"EAGAIN", EAGAIN}, {"ENOTSUP", ENOTSUP}, {"ENOTEMPTY", ENOTEMPTY}, {"EXDEV", EXDEV}, {"EPIPE", EPIPE},
    {"ENAMETOOLONG", ENAMETOOLONG}, {"ESPIPE", ESPIPE}, {"EFBIG", EFBIG}, {"ERANGE", ERANGE}, {"EBUSY", EBUSY},
};

int e2b_native_fs(lua_State *L)
{
    size_t i;
    luaL_checkstack(L, 8, NULL);
    e2b_native_type(L, LISTING, NULL, listing_gc, NULL);
    luaL_setfuncs(L, functions, 0);
    lua_newtable(L);
    for (i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
        lua_pushinteger(L, errors[i].number);
        lua_setfield(L, -2, errors[i].name);
    }
    lua_setfield(L, -2, "fs_errno");
    e2b_native_file(L);
    e2b_native_tree(L);
    e2b_native_xattr(L);
    e2b_native_inotify(L);
    e2b_native_deflate(L);
    return 0;
}
