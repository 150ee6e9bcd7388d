/* What the files of the local server's native module share: the filesystem, watching, compression. */
#ifndef E2B_SERVER_FS_H
#define E2B_SERVER_FS_H

#include "../compat.h"
#include <sys/stat.h>
#include <sys/types.h>

#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif

/* Adds everything of this header to the table on top of the stack. */
int e2b_native_fs(lua_State *L);

void e2b_native_file(lua_State *L);
void e2b_native_tree(lua_State *L);
void e2b_native_xattr(lua_State *L);
void e2b_native_inotify(lua_State *L);
void e2b_native_deflate(lua_State *L);

/* nil, the system's text with a small first letter, the number. */
int e2b_fs_fail(lua_State *L, int error);

/* The argument as a path; NULL when it holds a zero byte, which no path can. */
const char *e2b_native_path(lua_State *L, int index);

/* Pushes a table of what stat(2) says. */
void e2b_native_push_stat(lua_State *L, const struct stat *st);

/* A type whose values may release what they hold: methods, __gc, __close, __name, __tostring. */
void e2b_native_type(lua_State *L, const char *name, const luaL_Reg *methods, lua_CFunction release,
                     lua_CFunction text);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#endif
