/* What the files of e2b.server.native share: the system calls of the local server's daemon. Rules: a Lua call may
 * longjmp, so no descriptor, process or memory is held over one without an owner; every descriptor is close-on-exec;
 * no C globals. */
#ifndef E2B_SERVER_NATIVE_H
#define E2B_SERVER_NATIVE_H

#include "compat.h"
#include "fs.h"

#include <stddef.h>

#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif

/* Each adds its functions to the table on top of the stack and leaves the stack as it was; returns 0. */
int e2b_native_base64(lua_State *L);  /* base64.c */
int e2b_native_process(lua_State *L); /* process.c */
int e2b_native_spawn(lua_State *L);   /* spawn.c */

/* Writes len bytes as base64 with padding; the room needed is 4 * ((len + 2) / 3). Returns the end. */
char *e2b_base64_put(char *out, const unsigned char *bytes, size_t len);

/* close(2) without losing errno; a negative descriptor is none. */
void e2b_native_close(int fd);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#endif
