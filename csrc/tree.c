/* A directory that a received archive is unpacked into. Names in archives are hostile: every part of one is opened from
 * the directory before it without following a link, so nothing is ever made outside. */
#define _FILE_OFFSET_BITS 64
#include "file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define E2B_TREE "e2b.tree"

/* Error numbers of our own, with sentences; the first is given with ELOOP, the others with EINVAL. */
enum { TREE_LINK = 100000, TREE_ABSOLUTE, TREE_DOTS, TREE_NUL, TREE_ITSELF };

typedef struct tree {
    int root; /* -1: closed */
} tree;

/* A name in the tree while it is looked up. */
typedef struct place {
    int dir; /* the directory that holds the last part; the root's own descriptor for one part */
    int owned;
    char name[E2B_NAME_SIZE]; /* the last part; "": the root itself */
} place;

static tree *check_tree(lua_State *L)
{
    tree *t = luaL_checkudata(L, 1, E2B_TREE);
    if (t->root < 0)
        luaL_error(L, "attempt to use a closed tree");
    return t;
}

static int failed(lua_State *L, const char *what, const char *rel, int error)
{
    switch (error) {
    case TREE_LINK:
        return e2b_file_refused(L, what, rel, "a link is in its way, and links are not followed here", ELOOP);
    case TREE_ABSOLUTE:
        return e2b_file_refused(L, what, rel, "it leads out of the directory", EINVAL);
    case TREE_DOTS:
        return e2b_file_refused(L, what, rel, "it leads out of the directory with '..'", EINVAL);
    case TREE_NUL:
        return e2b_file_refused(L, what, rel, "a path cannot hold a NUL byte", EINVAL);
    case TREE_ITSELF:
        return e2b_file_refused(L, what, rel, "it is the directory itself", EISDIR);
    default:
        return e2b_file_failed(L, what, rel, error);
    }
}

static int answer(lua_State *L, const char *what, const char *rel, int error)
{
    if (error != 0)
        return failed(L, what, rel, error);
    lua_pushboolean(L, 1);
    return 1;
}

static void leave(place *at)
{
    if (at->owned)
        close(at->dir);
    at->dir = -1;
    at->owned = 0;
}

/* What opening a part as a directory meant when it failed: a link is worth a sentence of its own. */
static int meaning(int dir, const char *name, int error)
{
    struct stat st;
    if ((error == ELOOP || error == ENOTDIR || error == EMLINK)
        && fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(st.st_mode))
        return TREE_LINK;
    return error;
}

/* Goes one directory down, which is made when it isn't there and `make` says so. 0 or an error. */
static int descend(place *at, int make)
{
    int flags = E2B_O_DIRECTORY | O_NOFOLLOW, dir = e2b_openat(at->dir, at->name, flags, 0);
    if (dir < 0 && errno == ENOENT && make) {
        if (mkdirat(at->dir, at->name, 0777) != 0 && errno != EEXIST)
            return errno;
        dir = e2b_openat(at->dir, at->name, flags, 0);
    }
    if (dir < 0)
        return meaning(at->dir, at->name, errno);
    leave(at);
    at->dir = dir;
    at->owned = 1;
    return 0;
}

/* Finds the directory of rel; the caller leaves `at` whatever comes back. 0 or an error. */
static int find(const tree *t, const char *rel, size_t len, int make, place *at)
{
    const char *p = rel, *end = rel + len;
    at->dir = t->root;
    at->owned = 0;
    at->name[0] = '\0';
    if (memchr(rel, 0, len) != NULL)
        return TREE_NUL;
    if (rel[0] == '/')
        return TREE_ABSOLUTE;
    while (p < end) {
        const char *slash = memchr(p, '/', (size_t)(end - p));
        size_t size = (size_t)((slash != NULL ? slash : end) - p);
        if (size == 2 && p[0] == '.' && p[1] == '.')
            return TREE_DOTS;
        if (size >= sizeof at->name)
            return ENAMETOOLONG;
        if (size > 0 && !(size == 1 && p[0] == '.')) {
            int error = at->name[0] != '\0' ? descend(at, make) : 0;
            if (error != 0)
                return error;
            memcpy(at->name, p, size);
            at->name[size] = '\0';
        }
        p += size + (slash != NULL);
    }
    return 0;
}

/* core.tree(dir) -> tree | nil, message, errno */
static int tree_new(lua_State *L)
{
    size_t len;
    const char *path = e2b_path_arg(L, 1, &len);
    tree *t;
    if (path == NULL)
        return e2b_path_nul(L, "open", 1);
    t = e2b_newuserdata(L, sizeof *t);
    t->root = -1;
    luaL_setmetatable(L, E2B_TREE);
    t->root = e2b_openat(AT_FDCWD, path, E2B_O_DIRECTORY, 0);
    if (t->root < 0)
        return e2b_file_failed(L, "open", path, errno);
    return 1;
}

/* tree:mkdir(rel[, mode]) -> true | nil, message, errno; a directory that is there stays */
static int tree_mkdir(lua_State *L)
{
    const tree *t = check_tree(L);
    size_t len;
    const char *rel = luaL_checklstring(L, 2, &len);
    /* what comes next is put into it */
    mode_t mode = e2b_mode_arg(L, 3, 0777) | 0700;
    struct stat st;
    place at;
    int error = find(t, rel, len, 1, &at);
    if (error == 0 && at.name[0] != '\0' && mkdirat(at.dir, at.name, mode) != 0) {
        error = errno;
        if (error == EEXIST && fstatat(at.dir, at.name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
            if (S_ISDIR(st.st_mode))
                error = 0;
            else if (S_ISLNK(st.st_mode))
                error = TREE_LINK;
        }
    }
    leave(&at);
    return answer(L, "make directory", rel, error);
}

/* tree:create(rel[, mode]) -> file | nil, message, errno */
static int tree_create(lua_State *L)
{
    const tree *t = check_tree(L);
    size_t len;
    const char *rel = luaL_checklstring(L, 2, &len);
    struct stat st;
    place at;
    mode_t mode = e2b_mode_arg(L, 3, 0);
    e2b_file *f = e2b_file_new(L, rel, len);
    int error = find(t, rel, len, 1, &at);
    if (error == 0 && at.name[0] == '\0')
        error = TREE_ITSELF;
    if (error == 0 && fstatat(at.dir, at.name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode))
        error = EISDIR;
    if (error == 0) {
        memcpy(f->name, at.name, sizeof f->name);
        f->has_mode = !lua_isnoneornil(L, 3);
        f->mode = mode;
        f->dir = at.owned ? at.dir : fcntl(at.dir, F_DUPFD_CLOEXEC, 0);
        at.owned = 0;
        error = f->dir < 0 ? errno : e2b_file_begin(f);
    }
    leave(&at);
    if (error != 0) {
        e2b_file_release(f);
        return failed(L, "write", rel, error);
    }
    return 1;
}

/* Puts a new link of either kind in the place of what is there, unless that is a directory. */
static int put_link(const place *at, const char *target, const place *from)
{
    char temp[E2B_TEMP_SIZE];
    struct stat st;
    int error;
    if (at->name[0] == '\0')
        return TREE_ITSELF;
    if (fstatat(at->dir, at->name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode))
        return EISDIR;
    e2b_temp_name(temp);
    if (from == NULL ? symlinkat(target, at->dir, temp) != 0
                     : linkat(from->dir, from->name, at->dir, temp, 0) != 0)
        return errno;
    if (renameat(at->dir, temp, at->dir, at->name) == 0) {
        if (from != NULL)
            unlinkat(at->dir, temp, 0); /* renaming to another name of the same file does nothing */
        return 0;
    }
    error = errno;
    unlinkat(at->dir, temp, 0);
    return error;
}

/* tree:symlink(target, rel) -> true | nil, message, errno */
static int tree_symlink(lua_State *L)
{
    const tree *t = check_tree(L);
    size_t len, target_len;
    const char *target = luaL_checklstring(L, 2, &target_len), *rel = luaL_checklstring(L, 3, &len);
    place at;
    int error;
    if (memchr(target, 0, target_len) != NULL)
        return failed(L, "make link", target, TREE_NUL);
    error = find(t, rel, len, 1, &at);
    if (error == 0)
        error = put_link(&at, target, NULL);
    leave(&at);
    return answer(L, "make link", rel, error);
}

/* tree:link(other, rel) -> true | nil, message, errno: one more name of a file of the tree */
static int tree_link(lua_State *L)
{
    const tree *t = check_tree(L);
    size_t len, other_len;
    const char *other = luaL_checklstring(L, 2, &other_len), *rel = luaL_checklstring(L, 3, &len);
    struct stat st;
    place from, at;
    int error = find(t, other, other_len, 0, &from);
    if (error == 0 && from.name[0] == '\0')
        error = TREE_ITSELF;
    if (error == 0 && fstatat(from.dir, from.name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        error = errno;
    if (error != 0) {
        leave(&from);
        return failed(L, "make link to", other, error);
    }
    error = find(t, rel, len, 1, &at);
    if (error == 0)
        error = put_link(&at, NULL, &from);
    leave(&at);
    leave(&from);
    return answer(L, "make link", rel, error);
}

/* tree:touch(rel, mode, mtime) -> true | nil, message, errno; nil leaves either as it is */
static int tree_touch(lua_State *L)
{
    const tree *t = check_tree(L);
    size_t len;
    double time;
    const char *rel = luaL_checklstring(L, 2, &len);
    mode_t mode = e2b_mode_arg(L, 3, 0);
    const double *mtime = e2b_mtime_arg(L, 4, &time);
    place at;
    int error = find(t, rel, len, 0, &at);
    if (error == 0)
        error = e2b_touch(at.dir, at.name[0] != '\0' ? at.name : ".", lua_isnoneornil(L, 3) ? NULL : &mode, mtime);
    leave(&at);
    return answer(L, "change", rel, error);
}

/* tree:close(); also __gc and __close */
static int tree_close(lua_State *L)
{
    tree *t = luaL_checkudata(L, 1, E2B_TREE);
    if (t->root >= 0)
        close(t->root);
    t->root = -1;
    return 0;
}

int e2b_tree_open(lua_State *L)
{
    static const luaL_Reg methods[] = {
        { "mkdir", tree_mkdir }, { "create", tree_create }, { "symlink", tree_symlink }, { "link", tree_link },
        { "touch", tree_touch }, { "close", tree_close },   { NULL, NULL },
    };
    static const luaL_Reg meta[] = { { "__gc", tree_close }, { "__close", tree_close }, { NULL, NULL } };
    static const luaL_Reg functions[] = { { "tree", tree_new }, { NULL, NULL } };
    e2b_type(L, E2B_TREE, methods, meta);
    luaL_setfuncs(L, functions, 0);
    return 0;
}
