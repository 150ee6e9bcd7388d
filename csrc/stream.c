/* Bodies in pieces: transfer:read and transfer:write. A transfer over its high-water mark is paused in libcurl and goes
 * on when the buffer has been half emptied. */
#include "engine.h"

/* Takes back the pauses that no longer have a reason. libcurl may call the body's callback from in here. */
void e2b_transfer_unpause(e2b_transfer *t)
{
    int mask = CURLPAUSE_CONT;
    CURLcode code;
    e2b_engine_before_pause(t->engine);
    if (t->read_paused)
        mask |= CURLPAUSE_RECV;
    if (t->write_paused)
        mask |= CURLPAUSE_SEND;
    if (mask == CURLPAUSE_CONT)
        e2b_idle_from_now(t);
    code = curl_easy_pause(t->slot->easy, mask);
    if (code != CURLE_OK)
        e2b_engine_finish(t, code);
    e2b_engine_wake(t->engine); /* whoever waits on the descriptor has an old timeout */
}

/* transfer:read([max]) -> string | false (nothing yet) | nil (ended) */
int e2b_transfer_read(lua_State *L)
{
    e2b_transfer *t = e2b_transfer_check(L, 1);
    lua_Number max = luaL_optnumber(L, 2, 0);
    e2b_buffer *b;
    size_t n;
    if (t->to != E2B_TO_READER)
        return luaL_error(L, "this transfer's body is not read in pieces");
    if (t->call->flags & E2B_STREAM)
        return luaL_error(L, "this transfer's body is a stream of events: event() reads it");
    luaL_argcheck(L, lua_isnoneornil(L, 2) || max >= 1, 2, "must be 1 or more");
    if (t->slot == NULL || (t->state == E2B_DONE && !t->success)) {
        lua_pushnil(L);
        return 1;
    }
    b = &t->slot->answer;
    n = t->success ? b->len : 0;
    if (n == 0) {
        if (t->state == E2B_DONE) {
            lua_pushnil(L);
        } else {
            t->want_read = 1;
            lua_pushboolean(L, 0);
        }
        return 1;
    }
    if (max >= 1 && max < (lua_Number)n)
        n = (size_t)max;
    lua_pushlstring(L, b->data + b->head, n);
#if LUA_VERSION_NUM < 502
    /* These collectors take the same small step for a large string as for a small one and fall behind: 30 MB in a stream. */
    lua_gc(L, LUA_GCSTEP, (int)(n >> 10) + 1);
#endif
    e2b_buffer_drop(b, n);
    if (t->read_paused && t->state == E2B_RUNNING && b->len <= t->high_water / 2) {
        t->read_paused = 0;
        e2b_transfer_unpause(t);
    }
    return 1;
}

static void more_to_send(e2b_transfer *t)
{
    if (t->write_paused && t->state == E2B_RUNNING) {
        t->write_paused = 0;
        e2b_transfer_unpause(t);
    }
}

static e2b_transfer *check_writable(lua_State *L)
{
    e2b_transfer *t = e2b_transfer_check(L, 1);
    if (t->from != E2B_FROM_CHUNKS)
        luaL_error(L, "this transfer's request is not written in pieces");
    return t;
}

/* transfer:write(data) -> true | false (full: wait for "write") | nil (the transfer has ended) */
int e2b_transfer_write(lua_State *L)
{
    e2b_transfer *t = check_writable(L);
    size_t len;
    const char *data = luaL_checklstring(L, 2, &len);
    e2b_buffer *b;
    if (t->write_closed)
        return luaL_error(L, "attempt to write after close_write()");
    if (t->state >= E2B_DONE) {
        lua_pushnil(L);
        return 1;
    }
    b = &t->slot->upload;
    if (b->len > 0 && b->len + len > t->high_water) {
        t->want_write = 1;
        lua_pushboolean(L, 0);
        return 1;
    }
    if (!e2b_buffer_add(b, data, len))
        return luaL_error(L, "not enough memory");
    if (len > 0)
        more_to_send(t);
    lua_pushboolean(L, 1);
    return 1;
}

int e2b_transfer_close_write(lua_State *L)
{
    e2b_transfer *t = check_writable(L);
    if (!t->write_closed) {
        t->write_closed = 1;
        more_to_send(t);
    }
    return 0;
}
