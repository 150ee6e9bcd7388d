/* The structs behind target, transfer and engine. */
#ifndef E2B_ENGINE_H
#define E2B_ENGINE_H

#include "e2b.h"

#include <curl/curl.h>
#include <stddef.h>
#include <sys/types.h>

#if LIBCURL_VERSION_NUM < 0x074200
#error "libcurl is too old: e2b needs 7.66 or later"
#endif

#define E2B_TARGET "e2b.target"
#define E2B_TRANSFER "e2b.transfer"
#define E2B_ENGINE "e2b.engine"
#define E2B_GUARD "e2b.guard"
#define E2B_BRIDGE "e2b.bridge"

#define E2B_NEVER 1e300           /* a time that doesn't come */
#define E2B_KEEP_BYTES 1048576    /* larger buffers go back to malloc after each call */
#define E2B_KEEP_SLOTS 100        /* idle easy handles kept */
#define E2B_ERROR_BYTES 65536     /* of a failed answer to a streamed call */
#define E2B_HEADER_BYTES 262144   /* of one answer, all header lines together; newer libcurls stop at 300 kB */
#define E2B_HIGH_WATER 262144

/* Upvalues of every method: the table that keeps running transfers alive, and the engine. */
#define E2B_ANCHORS lua_upvalueindex(1)
#define E2B_THE_ENGINE lua_upvalueindex(2)

#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif

typedef struct e2b_engine e2b_engine;
typedef struct e2b_target e2b_target;
typedef struct e2b_transfer e2b_transfer;
typedef struct e2b_slot e2b_slot;
typedef struct e2b_socket e2b_socket;
typedef struct e2b_guard e2b_guard;
typedef struct e2b_bridge e2b_bridge;

/* ---- bytes (slot.c) ---- */

typedef struct e2b_buffer {
    char *data;
    size_t head, len, cap; /* len bytes from data + head on */
} e2b_buffer;

int e2b_buffer_room(e2b_buffer *b, size_t extra); /* 0: out of memory */
int e2b_buffer_add(e2b_buffer *b, const char *data, size_t len);
void e2b_buffer_drop(e2b_buffer *b, size_t len);
void e2b_buffer_reset(e2b_buffer *b, int wipe);
void e2b_wipe(void *data, size_t len);

/* ---- target (target.c): where requests go and what each of them carries; counted, zeroed when freed ---- */

struct e2b_target {
    int refs;
    size_t serial; /* no other target of this engine ever has it; from 1 on */
    size_t size; /* of this block: the struct, the list nodes, the strings */
    int https;
    const char *url;
    size_t url_len;
    size_t shown_len; /* of scheme and host in url */
    struct curl_slist *headers;
    const char *proxy; /* NULL: the environment's; "": none */
    const char *ca_file;
};

e2b_target *e2b_target_check(lua_State *L, int index);
void e2b_target_unref(e2b_target *target);
void e2b_target_mask(const e2b_target *target, char *text, size_t len); /* puts stars over its secrets */
/* 1 when name and value can stand in a header; 0: pushes nil and a message, which never shows the value. */
int e2b_header_check(lua_State *L, const char *name, size_t name_len, const char *value, size_t value_len);
size_t e2b_header_size(size_t name_len, size_t value_len);
char *e2b_header_write(char *at, const char *name, size_t name_len, const char *value, size_t value_len);

/* ---- slot (slot.c): an easy handle and the memory of one call, used again and again ---- */

struct e2b_slot {
    e2b_slot *next;
    CURL *easy;
    unsigned generation;  /* of the engine when easy was made; another one: made before a fork, never touch it */
    size_t kept;          /* serial of the target whose options easy has still, or 0 */
    int kept_gzip;
    e2b_buffer request;   /* header nodes, header lines, URL, method, body: zeroed after use */
    e2b_buffer answer;    /* body, or what of a stream has not been read */
    e2b_buffer upload;    /* what of a chunked body has not been sent */
    e2b_buffer meta;      /* header values kept for the result */
    char error[CURL_ERROR_SIZE];
};

e2b_slot *e2b_slot_get(e2b_engine *engine);
void e2b_slot_put(e2b_engine *engine, e2b_slot *slot);
void e2b_slots_free(e2b_engine *engine);

/* ---- transfer ---- */

enum { E2B_PREPARED, E2B_RUNNING, E2B_DONE, E2B_TAKEN };

typedef enum {
    E2B_CAUSE_NONE,
    E2B_CAUSE_DEADLINE,
    E2B_CAUSE_CANCELLED,
    E2B_CAUSE_TOO_LARGE,
    E2B_CAUSE_SINK,
    E2B_CAUSE_SOURCE,
    E2B_CAUSE_MEMORY,
    E2B_CAUSE_MULTI,
    E2B_CAUSE_CONNECT, /* a stream that breaks its protocol, or ends with an error of the server's */
    E2B_CAUSE_CUT      /* a stream without its end */
} e2b_cause;

enum { E2B_GOES_ON, E2B_ENDED, E2B_ENDED_WITH_ERROR };

enum { E2B_CLOCK_REQUEST, E2B_CLOCK_CONNECT, E2B_CLOCK_IDLE };
enum { E2B_TO_BUFFER, E2B_TO_READER, E2B_TO_SINK };
enum { E2B_FROM_BYTES, E2B_FROM_FD, E2B_FROM_CHUNKS };
enum { E2B_EVENT_READ = 1, E2B_EVENT_WRITE = 2, E2B_EVENT_DONE = 4 };

/* Header values kept for the result: offset + 1 and length in slot->meta. */
typedef struct e2b_span {
    size_t at, len;
} e2b_span;

enum { E2B_H_DATE, E2B_H_NEXT, E2B_H_TOTAL, E2B_H_RETRY, E2B_H_REQUEST, E2B_H_TYPE, E2B_H_LOCATION, E2B_H_COUNT };

struct e2b_transfer {
    e2b_engine *engine;
    e2b_target *target;
    e2b_slot *slot;
    const e2b_call *call;
    e2b_transfer *prev, *next; /* running */
    e2b_transfer *news_prev, *news_next;
    int ref; /* in the table of anchors */
    e2b_guard *guard; /* whose collection cancels this, or NULL */
    unsigned char state, events, queued;
    unsigned char idempotent, added; /* added: to the multi handle */
    unsigned char to, from, gzip;

    /* the request, inside slot->request */
    struct curl_slist *headers;
    const char *url, *method, *body;
    size_t body_len;

    /* what the caller allows */
    double timeout, connect_timeout, idle_timeout;
    curl_off_t max_bytes; /* -1: any */
    size_t high_water;
    int sink, source;
    curl_off_t source_size; /* -1: not known */

    /* clocks: E2B_NEVER while they don't run */
    double deadline_at, connect_at, idle_at;

    /* what happened */
    CURLcode code;
    CURLMcode multi_code;
    e2b_cause cause;
    int clock, os_errno;
    const char *what;  /* with cause CONNECT and TOO_LARGE: what is wrong, unless it is the usual */
    unsigned char end; /* of a stream of events: its end-of-stream envelope was met, and is kept at the buffer's head */
    unsigned attempts;
    unsigned char replay, cut, headers_done, success, encoded;
    unsigned char read_paused, write_paused, want_read, want_write, write_closed, source_ended;
    long status;
    size_t header_bytes;
    curl_off_t down, up, total_down;
    e2b_span header[E2B_H_COUNT];
};

e2b_transfer *e2b_transfer_check(lua_State *L, int index);
void e2b_transfer_release(e2b_transfer *t); /* gives the slot back, lets go of the target */
void e2b_transfer_let_go(lua_State *L, e2b_transfer *t); /* no news of it any more; Lua may collect it */
int e2b_transfer_result(lua_State *L);      /* result.c */
int e2b_transfer_read(lua_State *L);        /* stream.c */
int e2b_transfer_write(lua_State *L);
int e2b_transfer_close_write(lua_State *L);
void e2b_transfer_unpause(e2b_transfer *t);
void e2b_transfer_cancel(lua_State *L, e2b_transfer *t);

/* ---- streams of events (connect.c) ---- */

#define E2B_BYTES_AFTER_END "bytes follow the end of the stream"

int e2b_transfer_event(lua_State *L);
int e2b_stream_ready(const e2b_transfer *t);   /* is there anything that an event() would look at? */
int e2b_stream_too_large(e2b_transfer *t);     /* 1: and says so */
void e2b_stream_settle(lua_State *L, e2b_transfer *t); /* before the result of one that is done: how did it end? */
void e2b_stream_error(lua_State *L, int facts, const e2b_transfer *t); /* what the server's error says */

int e2b_guard_open(lua_State *L); /* guard.c */
void e2b_guard_forget(e2b_guard *guard);

int e2b_leash_open(lua_State *L); /* leash.c */

/* ---- what libcurl is told (easy.c) and calls back (receive.c) ---- */

void e2b_idle_from_now(e2b_transfer *t); /* the idle clock starts anew */
CURLcode e2b_easy_setup(e2b_transfer *t);
size_t e2b_on_header(char *data, size_t size, size_t count, void *owner);
size_t e2b_on_body(char *data, size_t size, size_t count, void *owner);
size_t e2b_on_read(char *data, size_t size, size_t count, void *owner);

/* ---- poller (poller.c): sockets behind one descriptor ---- */

#define E2B_WANT_IN 1
#define E2B_WANT_OUT 2
#define E2B_WANT_ERROR 4

typedef struct e2b_poller {
    int fd;        /* epoll or kqueue; -1: closed */
    int wake[2];   /* eventfd twice, or a pipe */
    int waked;
} e2b_poller;

typedef struct e2b_ready {
    int fd, what;
} e2b_ready;

int e2b_poller_open(e2b_poller *p); /* 0 or an errno */
void e2b_poller_close(e2b_poller *p);
void e2b_poller_forked(e2b_poller *p); /* closes the copies a forked child has, without touching the parent's */
int e2b_poller_set(e2b_poller *p, int fd, int had, int want); /* 0 or an errno */
int e2b_poller_ready(e2b_poller *p, e2b_ready *ready, int max);
void e2b_poller_wake(e2b_poller *p); /* readable until the next rest */
void e2b_poller_rest(e2b_poller *p);

/* ---- bridge (bridge.c): a thread that watches the poller for a host that can't ---- */

int e2b_bridge_open(lua_State *L);
void e2b_bridge_end(e2b_engine *engine); /* the thread is joined; before the poller goes */

/* ---- sockets (socket.c): every open one is known, so that a forked child can close its copies ---- */

curl_socket_t e2b_on_opensocket(void *owner, curlsocktype purpose, struct curl_sockaddr *address);
int e2b_on_closesocket(void *owner, curl_socket_t fd);
int e2b_on_socket(CURL *easy, curl_socket_t fd, int what, void *owner, void *of_socket);
int e2b_sockets_register(e2b_engine *engine); /* what was asked for before there was a poller */
size_t e2b_sockets_count(const e2b_engine *engine);
void e2b_sockets_forked(e2b_engine *engine);

/* ---- process (process.c) ---- */

void e2b_process_own(e2b_engine *engine);            /* the engine's handles are this process's */
int e2b_process_is_other(const e2b_engine *engine);  /* they are the parent's: it has forked since */
void e2b_process_free(e2b_engine *engine);

/* ---- engine ---- */

struct e2b_engine {
    int refs;
    int closed;
    pid_t pid;           /* of the process that owns multi; 0: no multi yet */
    volatile unsigned char *mark; /* 1 in that process, 0 in its children (process.c); NULL: not to be had here */
    size_t mark_size;
    unsigned generation; /* counts forks */
    unsigned version;    /* of libcurl, at run time */
    int has_prereq, has_quick_exit, has_http2, has_gzip;

    CURLM *multi;
    int socket_mode; /* for good */
    int recording;   /* the socket callback is installed */
    e2b_poller poller;
    e2b_bridge *bridge; /* that watches the poller, or NULL */
    double timer_at;   /* when libcurl wants to be called */
    double kick_at;    /* when it is called anyway, in case its timer was lost */
    double next_check; /* no clock of ours runs out before this */
    long connections;

    e2b_transfer *running;
    e2b_transfer *news_first, *news_last;
    size_t in_flight, streams, transfers, targets, easies;
    size_t serials; /* of targets, given so far */

    e2b_slot *idle;
    size_t idle_count;
    e2b_buffer scratch; /* what connect.c decodes into */
    unsigned scratch_uses;
    unsigned char scratch_busy; /* a string is made of it, which may run finalizers */
    e2b_socket *fds; /* by descriptor (socket.c) */
    size_t fds_cap;
};

double e2b_now(void); /* monotonic, seconds */

/* drive.c */
void e2b_engine_init(e2b_engine *engine);
void e2b_engine_unref(e2b_engine *engine);
void e2b_engine_check_pid(e2b_engine *engine);
void e2b_engine_send(e2b_transfer *t);
void e2b_engine_finish(e2b_transfer *t, CURLcode code);
void e2b_engine_news(e2b_transfer *t, unsigned events);
void e2b_engine_quiet(e2b_transfer *t); /* no news of this one any more */
void e2b_engine_clock(e2b_engine *engine, double at);
void e2b_engine_drive(e2b_engine *engine);
int e2b_engine_sleep(e2b_engine *engine, double now, double seconds, int fd);
void e2b_engine_wake(e2b_engine *engine);
void e2b_engine_before_pause(e2b_engine *engine);
int e2b_engine_switch(e2b_engine *engine);
double e2b_engine_timeout(e2b_engine *engine);
void e2b_engine_connections(e2b_engine *engine, long n);
void e2b_engine_stop(e2b_engine *engine);

/* engine.c */
e2b_engine *e2b_engine_of(lua_State *L); /* of the running method, by its upvalue; NULL at the end of the state */
int e2b_upvalues(lua_State *L);          /* pushes what luaL_setfuncs gives every method */

/* module.c */
void e2b_type(lua_State *L, const char *name, const luaL_Reg *methods, const luaL_Reg *meta);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#endif
