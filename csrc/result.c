/* transfer:result(): what became of it, as Lua values. */
#include "engine.h"
#include "shape.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* A text this close to the size of libcurl's buffer may lack its end. */
#define CUT_BYTES 16

static void push_header(lua_State *L, const e2b_transfer *t, int which)
{
    const e2b_span *span = &t->header[which];
    if (span->at == 0 || span->len == 0)
        lua_pushnil(L);
    else
        lua_pushlstring(L, t->slot->meta.data + span->at - 1, span->len);
}

static void push_date(lua_State *L, const e2b_transfer *t)
{
    const e2b_span *span = &t->header[E2B_H_DATE];
    long long seconds = -1;
    if (span->at != 0) {
        const char *date = t->slot->meta.data + span->at - 1;
        char text[64];
        if (!e2b_time_http(date, span->len, &seconds) && span->len < sizeof text) {
            memcpy(text, date, span->len);
            text[span->len] = '\0';
            seconds = (long long)curl_getdate(text, NULL); /* knows every form there is, and takes its time */
        }
    }
    if (seconds == -1)
        lua_pushnil(L);
    else
        e2b_pushwhole(L, seconds);
}

static void push_total(lua_State *L, const e2b_transfer *t)
{
    const e2b_span *span = &t->header[E2B_H_TOTAL];
    long long n = 0;
    size_t i;
    if (span->at == 0 || span->len == 0 || span->len > 15) {
        lua_pushnil(L);
        return;
    }
    for (i = 0; i < span->len; i++) {
        char c = t->slot->meta.data[span->at - 1 + i];
        if (c < '0' || c > '9') {
            lua_pushnil(L);
            return;
        }
        n = n * 10 + (c - '0');
    }
    e2b_pushwhole(L, n);
}

/* The host of "https://user@host:port/path"; nothing for a path alone. */
static int push_location_host(lua_State *L, const e2b_transfer *t)
{
    const e2b_span *span = &t->header[E2B_H_LOCATION];
    const char *text, *end, *at;
    if (span->at == 0)
        return 0;
    text = t->slot->meta.data + span->at - 1;
    end = text + span->len;
    for (at = text; at + 1 < end && !(at[0] == '/' && at[1] == '/'); at++)
        if (at[0] == '?' || at[0] == '#')
            return 0;
    if (at + 2 >= end)
        return 0;
    text = at + 2;
    for (at = text; at < end && *at != '/' && *at != '?' && *at != '#'; at++)
        if (*at == '@')
            text = at + 1;
    if (at == text || at - text > 255)
        return 0;
    lua_pushlstring(L, text, (size_t)(at - text));
    return 1;
}

/* "no": surely nothing of the request has left; "yes": a whole head of an answer came back. */
static const char *sent(const e2b_transfer *t)
{
    const e2b_slot *slot = t->slot;
    curl_off_t us = 0;
    if (t->replay)
        return "maybe";
    if (t->headers_done)
        return "yes";
    if (t->engine->has_prereq)
        return t->attempts > 0 ? "maybe" : "no";
    if (!t->added || slot->easy == NULL || slot->generation != t->engine->generation)
        return t->added ? "maybe" : "no";
    curl_easy_getinfo(slot->easy, CURLINFO_PRETRANSFER_TIME_T, &us);
    return us > 0 ? "maybe" : "no";
}

static void push_errno(lua_State *L, const char *what, int os_errno)
{
    lua_pushfstring(L, "%s: %s", what, strerror(os_errno));
}

/* Pushes what libcurl says. It quotes a proxy's URL that it can't read, and the environment's is never seen here before,
 * so whatever may be user and password is left out: from the beginning of the URL to the last '@', or to the end of a
 * text that libcurl had to cut. */
static void push_curl_text(lua_State *L, const char *text)
{
    const char *at = strrchr(text, '@'), *from, *quote = strchr(text, '\''), *end;
    size_t len = strlen(text);
    if (len + CUT_BYTES >= CURL_ERROR_SIZE && (quote != NULL || strstr(text, "://") != NULL))
        at = text + len;
    if (at == NULL) {
        lua_pushlstring(L, text, len);
        return;
    }
    from = text;
    if (quote != NULL && quote < at)
        from = quote + 1;
    else if ((end = strstr(text, ": ")) != NULL && end < at)
        from = end + 2;
    for (end = from; end < at && isalnum((unsigned char)*end); end++)
        ;
    if (at - end > 3 && memcmp(end, "://", 3) == 0)
        from = end + 3;
    lua_pushlstring(L, text, (size_t)(from - text));
    lua_pushliteral(L, "***");
    lua_pushstring(L, at);
    lua_concat(L, 3);
}

/* Pushes the cause and then a text about it. */
static void push_cause(lua_State *L, const e2b_transfer *t)
{
    static const char *const clocks[] = { "no answer in the time given", "no connection in the time given",
                                          "no byte in the time given" };
    char number[64];
    switch (t->cause) {
    case E2B_CAUSE_DEADLINE:
        lua_pushliteral(L, "deadline");
        lua_pushstring(L, clocks[t->clock]);
        return;
    case E2B_CAUSE_CANCELLED:
        lua_pushliteral(L, "cancelled");
        lua_pushliteral(L, "cancelled");
        return;
    case E2B_CAUSE_TOO_LARGE:
        lua_pushliteral(L, "too_large");
        if (t->what != NULL) {
            lua_pushstring(L, t->what);
            return;
        }
        if (t->header_bytes > E2B_HEADER_BYTES) {
            lua_pushliteral(L, "the answer's headers are too large");
            return;
        }
        snprintf(number, sizeof number, "the answer is larger than %.0f bytes", (double)t->max_bytes);
        lua_pushstring(L, number);
        return;
    case E2B_CAUSE_SINK:
        lua_pushliteral(L, "sink");
        push_errno(L, "the answer could not be written", t->os_errno);
        return;
    case E2B_CAUSE_SOURCE:
        lua_pushliteral(L, "source");
        if (t->os_errno != 0)
            push_errno(L, "the request's body could not be read", t->os_errno);
        else
            lua_pushliteral(L, "the request's body is not of the announced size");
        return;
    case E2B_CAUSE_MEMORY:
        lua_pushliteral(L, "curl");
        lua_pushliteral(L, "out of memory");
        return;
    case E2B_CAUSE_MULTI:
        lua_pushliteral(L, "curl");
        lua_pushstring(L, curl_multi_strerror(t->multi_code));
        return;
    case E2B_CAUSE_CONNECT:
        lua_pushliteral(L, "connect");
        lua_pushstring(L, t->what != NULL ? t->what : "the server ended the stream with an error");
        return;
    case E2B_CAUSE_CUT:
        lua_pushliteral(L, "cut");
        lua_pushstring(L, t->slot->answer.len > 0 ? "the stream was cut in the middle of an envelope"
                                                  : "the stream was cut: it has no end");
        return;
    case E2B_CAUSE_NONE:
        break;
    }
    if (t->code == CURLE_OK || t->cut) {
        lua_pushliteral(L, "http");
        lua_pushfstring(L, "HTTP status %d", (int)t->status);
    } else {
        lua_pushliteral(L, "curl");
        push_curl_text(L, t->slot->error[0] != '\0' ? t->slot->error : curl_easy_strerror(t->code));
    }
}

static void set_text(lua_State *L, int facts, const char *name, const char *text)
{
    lua_pushstring(L, text);
    lua_setfield(L, facts, name);
}

static void set_header(lua_State *L, int facts, const char *name, const e2b_transfer *t, int which)
{
    push_header(L, t, which);
    lua_setfield(L, facts, name);
}

/* The cause and its text are on top of the stack; puts the table of facts in their place. */
static void push_facts(lua_State *L, const e2b_transfer *t)
{
    static const char *const clocks[] = { "request_timeout", "connect_timeout", "idle_timeout" };
    const e2b_slot *slot = t->slot;
    int facts;
    lua_createtable(L, 0, 12);
    facts = lua_gettop(L);
    lua_insert(L, facts - 2);
    lua_setfield(L, facts - 2, "text");
    lua_setfield(L, facts - 2, "cause");
    facts -= 2;
    set_text(L, facts, "sent", sent(t));
    if (t->replay) {
        lua_pushboolean(L, 1);
        lua_setfield(L, facts, "replay");
    }
    if (t->cause == E2B_CAUSE_DEADLINE)
        set_text(L, facts, "deadline", clocks[t->clock]);
    if (t->code != CURLE_OK && (t->cause == E2B_CAUSE_NONE || t->cause == E2B_CAUSE_MEMORY) && !t->cut) {
        lua_pushinteger(L, (lua_Integer)t->code);
        lua_setfield(L, facts, "curl");
    }
    if (t->os_errno != 0) {
        lua_pushinteger(L, (lua_Integer)t->os_errno);
        lua_setfield(L, facts, "os_errno");
    }
    if (t->added && slot->easy != NULL && slot->generation == t->engine->generation) {
        char *ip = NULL;
        if (curl_easy_getinfo(slot->easy, CURLINFO_PRIMARY_IP, &ip) == CURLE_OK && ip != NULL && ip[0] != '\0')
            set_text(L, facts, "primary_ip", ip);
    }
    if (!t->headers_done)
        return;
    e2b_target_mask(t->target, slot->meta.data, slot->meta.len);
    lua_pushinteger(L, (lua_Integer)t->status);
    lua_setfield(L, facts, "status");
    push_date(L, t);
    lua_setfield(L, facts, "date");
    set_header(L, facts, "retry_after", t, E2B_H_RETRY);
    set_header(L, facts, "request_id", t, E2B_H_REQUEST);
    set_header(L, facts, "content_type", t, E2B_H_TYPE);
    if (t->status >= 300 && t->status < 400 && push_location_host(L, t))
        lua_setfield(L, facts, "location_host");
    if (!t->success && slot->answer.len > 0) {
        char *body = slot->answer.data + slot->answer.head;
        e2b_target_mask(t->target, body, slot->answer.len);
        e2b_error_body(L, facts, body, slot->answer.len);
    }
    if (t->end == E2B_ENDED_WITH_ERROR) {
        e2b_target_mask(t->target, slot->answer.data + slot->answer.head, slot->answer.len);
        e2b_stream_error(L, facts, t);
    }
}

/* transfer:result() -> true, value, date, status, next_token, total_running, request_id | false, facts
 * Gives the slot back last: when something raises on the way, the result can be asked for again. */
int e2b_transfer_result(lua_State *L)
{
    e2b_transfer *t = e2b_transfer_check(L, 1);
    int answer = E2B_ANSWER_OK;
    lua_settop(L, 1);
    luaL_checkstack(L, 20, "no room for a result");
    if (t->state == E2B_TAKEN)
        return luaL_error(L, "the result of this transfer was taken already");
    if (t->state != E2B_DONE)
        return luaL_error(L, "this transfer is not done");
    if (t->code == CURLE_OPERATION_TIMEDOUT && t->cause == E2B_CAUSE_NONE) {
        t->cause = E2B_CAUSE_DEADLINE; /* the only clock of libcurl's that is set */
        t->clock = E2B_CLOCK_CONNECT;
    }
    if (t->code == CURLE_OK && t->cause == E2B_CAUSE_NONE && !t->headers_done)
        t->code = CURLE_RECV_ERROR; /* cut in the headers: to libcurl the end of an answer without a body */
    if ((t->call->flags & E2B_STREAM) && t->success)
        e2b_stream_settle(L, t);
    if (t->cause != E2B_CAUSE_NONE || t->code != CURLE_OK || !t->success) {
        lua_pushboolean(L, 0);
        push_cause(L, t);
        push_facts(L, t);
        e2b_transfer_release(t);
        return 2;
    }
    lua_pushboolean(L, 1);
    if (t->to == E2B_TO_BUFFER) {
        const e2b_buffer *b = &t->slot->answer;
        answer = e2b_call_answer(L, t->call, t->status, b->len > 0 ? b->data + b->head : NULL, b->len);
    } else {
        lua_pushboolean(L, 1);
    }
    if (answer != E2B_ANSWER_OK) { /* a message is on top */
        lua_settop(L, 3);
        lua_pushboolean(L, 0);
        lua_replace(L, 2);
        lua_pushstring(L, answer == E2B_ANSWER_JSON ? "json" : "shape");
        lua_insert(L, 3);
        push_facts(L, t);
        e2b_transfer_release(t);
        return 2;
    }
    push_date(L, t);
    lua_pushinteger(L, (lua_Integer)t->status);
    push_header(L, t, E2B_H_NEXT);
    push_total(L, t);
    if (t->header[E2B_H_REQUEST].at != 0) {
        const e2b_span *span = &t->header[E2B_H_REQUEST];
        e2b_target_mask(t->target, t->slot->meta.data + span->at - 1, span->len);
    }
    push_header(L, t, E2B_H_REQUEST);
    e2b_transfer_release(t);
    return 7;
}
