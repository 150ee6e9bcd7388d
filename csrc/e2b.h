/* What the files of e2b.core share. Rules: libcurl's callbacks touch C memory only; a Lua call may longjmp, so nothing
 * is held over one without a userdata that owns it; no lua_State is kept; no C globals. */
#ifndef E2B_H
#define E2B_H

#include "compat.h"

#include <stddef.h>

/* Raised whenever lua/e2b would not work with an older core.so. */
#define E2B_ABI 3

#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif

/* ---- REST calls: calls.c, shape.c, json.c, timefmt.c, url.c ---- */

typedef struct e2b_field e2b_field;
typedef struct e2b_shape e2b_shape;

#define E2B_IDEMPOTENT 1u /* may be sent again when a connection died: GET, DELETE */
#define E2B_GZIP 2u       /* ask for gzip, deflate */
#define E2B_RAW 4u        /* the row "raw": method and path are the caller's */
#define E2B_RPC 8u        /* Connect RPC */
#define E2B_STREAM 16u    /* its answer is a stream of events; request and answer are in envelopes */
#define E2B_WATCH 32u     /* these events are those of a watched folder, else those of a process */
#define E2B_BYTES_ANSWER 64u /* the value is the body as it came */
#define E2B_READS 128u /* a POST that changes nothing: libcurl may send it again when a pooled connection had died */

typedef struct e2b_call e2b_call;
struct e2b_call {
    const char *name;   /* "sandbox_create" */
    const char *method; /* "POST" */
    const char *path;   /* "/sandboxes/{sandbox_id}/pause" */
    unsigned success;   /* documented status; any 2xx counts */
    unsigned flags;
    const e2b_field *query;
    const e2b_field *body;
    const e2b_shape *answer; /* NULL: no answer body, the value is true */
};

/* The row of that name, or NULL. */
const e2b_call *e2b_call_find(const char *name);

/* Makes the request out of the table at stack index args (absolute; may be nil). 1: pushes method, path with query,
 * body or nil, content type or nil. 0: pushes a message. Raises only on misuse (wrong Lua types) and on lack of memory.
 * Path and content type are free of control characters and spaces, so they can go into a request line and a header. */
int e2b_call_request(lua_State *L, const e2b_call *call, int args);

/* Is this status a success of the call? */
int e2b_call_success(const e2b_call *call, long status);

#define E2B_ANSWER_OK 1     /* pushed: the value (true when the row has no answer body) */
#define E2B_ANSWER_SHAPE 0  /* pushed: a message; JSON, but not of the row's shape */
#define E2B_ANSWER_JSON (-1) /* pushed: a message; not JSON, empty, or HTML */

/* Turns the body of a successful answer into Lua values. body is not zero-terminated and may be NULL when len is 0. */
int e2b_call_answer(lua_State *L, const e2b_call *call, long status, const char *body, size_t len);

/* Sets message, error_code and has_body in the table at stack index facts (absolute) from E2B's JSON error body, if it
 * is one. */
void e2b_error_body(lua_State *L, int facts, const char *body, size_t len);

/* The same from a decoded error: the table on top, which it takes off the stack. */
void e2b_error_object(lua_State *L, int facts);

/* Each adds its functions to the table on top of the stack and leaves the stack as it was; returns 0. */
int e2b_json_open(lua_State *L);    /* json_decode json_encode; the private lua-cjson */
int e2b_calls_open(lua_State *L);   /* calls */
int e2b_timefmt_open(lua_State *L); /* time_parse time_format */
int e2b_url_open(lua_State *L);     /* escape */
int e2b_base64_open(lua_State *L);  /* base64_encode base64_decode */

/* ---- base64.c ---- */

#define E2B_BASE64_BAD ((size_t)-1)
#define E2B_BASE64_SLACK 8 /* bytes that decoding may touch behind its result */

size_t e2b_base64_size(size_t len); /* of the encoding of so many bytes */
void e2b_base64_encode(const char *from, size_t len, char *to);
/* `to` has room for len / 4 * 3 + 3 + E2B_BASE64_SLACK bytes. Either alphabet, padded or not; E2B_BASE64_BAD: neither. */
size_t e2b_base64_decode(const char *from, size_t len, char *to);
int e2b_terminal_open(lua_State *L); /* terminal */
void e2b_close_from(int first); /* that descriptor and all above it; safe between fork and exec */
int e2b_file_open(lua_State *L);    /* file_open file_temp */
int e2b_local_open(lua_State *L);   /* fs_list fs_stat fs_mkdir fs_symlink fs_touch fs_remove */
int e2b_tree_open(lua_State *L);    /* tree */
int e2b_sha256_open(lua_State *L);  /* sha256 */
int e2b_deflate_open(lua_State *L); /* deflate */
int e2b_output_open(lua_State *L);
int e2b_interrupt_open(lua_State *L); /* keep_interrupt */
int e2b_journal_open(lua_State *L); /* journal_open path_whole */
int e2b_living_open(lua_State *L);  /* process_start process_place */

/* ---- The engine: module.c target.c transfer.c engine.c poller.c stream.c (structs in engine.h) ---- */

int e2b_target_open(lua_State *L);
int e2b_transfer_open(lua_State *L);
int e2b_engine_open(lua_State *L);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#endif
