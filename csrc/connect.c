/* Streams of events as Connect sends them: envelopes of one byte of flags, four of length and that much JSON. Output of
 * a process, which is nearly all there ever is, goes from the buffer to a Lua string without a parser of JSON; any other
 * spelling of it, and every other event, is parsed. An envelope leaves the buffer when its event has become Lua values,
 * so that a lack of memory loses none. */
#include "engine.h"
#include "shape.h"

#include <string.h>

#define PREFIX 5
#define END_OF_STREAM 2
#define LONGEST (16u << 20)  /* of one envelope */
#define JOINED 65536         /* bytes of consecutive chunks that are handed over as one */
#define KEPT_SCRATCH 262144
#define GRACE 1.0            /* seconds that a body may take to end after its stream has */

static const char *const outputs[] = { "stdout", "stderr", "pty" };
#define OUTPUTS 3

typedef struct envelope {
    unsigned flags;
    size_t len;
    const char *payload;
} envelope;

/* ---- envelopes ---- */

static size_t length_at(const char *prefix)
{
    const unsigned char *p = (const unsigned char *)prefix;
    return (size_t)p[1] << 24 | (size_t)p[2] << 16 | (size_t)p[3] << 8 | p[4];
}

/* The one that begins so many bytes into the buffer. 0: it is not whole. */
static int envelope_at(const e2b_buffer *b, size_t offset, envelope *e)
{
    const char *at = b->data + b->head + offset;
    size_t left = b->len - offset;
    if (left < PREFIX)
        return 0;
    e->flags = (unsigned char)at[0];
    e->len = length_at(at);
    e->payload = at + PREFIX;
    return e->len <= left - PREFIX;
}

static int is_flag(unsigned flags)
{
    return flags == 0 || flags == END_OF_STREAM;
}

int e2b_stream_ready(const e2b_transfer *t)
{
    const e2b_buffer *b = &t->slot->answer;
    envelope e;
    if (b->len == 0)
        return 0;
    return !is_flag((unsigned char)b->data[b->head]) || envelope_at(b, 0, &e);
}

int e2b_stream_too_large(e2b_transfer *t)
{
    const e2b_buffer *b = &t->slot->answer;
    const char *at = b->data + b->head;
    if (b->len < PREFIX || !is_flag((unsigned char)at[0]) || length_at(at) <= LONGEST)
        return 0;
    t->what = "an event of the stream is larger than 16 MiB";
    t->cause = E2B_CAUSE_TOO_LARGE;
    return 1;
}

/* The stream can't be read any further. Answers what next() does then. */
static int fail(e2b_transfer *t, const char *what)
{
    if (t->cause == E2B_CAUSE_NONE) {
        t->cause = E2B_CAUSE_CONNECT;
        t->what = what;
    }
    e2b_buffer_drop(&t->slot->answer, t->slot->answer.len);
    e2b_engine_finish(t, CURLE_WRITE_ERROR);
    return 0;
}

static void consume(e2b_transfer *t, size_t len)
{
    e2b_buffer *b = &t->slot->answer;
    e2b_buffer_drop(b, len);
    if (b->len == 0)
        e2b_buffer_reset(b, 0); /* of one that was large nothing is kept */
    if (t->read_paused && t->state == E2B_RUNNING && (b->len <= t->high_water / 2 || !e2b_stream_ready(t))) {
        t->read_paused = 0;
        e2b_transfer_unpause(t);
    }
}

/* ---- the JSON of an envelope, through the parser ---- */

/* Pushes the object that the text holds. 0: it holds none, and nothing is pushed. */
static int push_object(lua_State *L, const char *text, size_t len)
{
    int top = lua_gettop(L);
    size_t i = 0;
    while (i < len && (text[i] == ' ' || text[i] == '\t' || text[i] == '\n' || text[i] == '\r'))
        i++;
    if (i < len && text[i] == '{' && e2b_json_parse(L, text, len) && lua_istable(L, -1))
        return 1;
    lua_settop(L, top);
    return 0;
}

/* Pushes the one of the named fields that the object on top has, and answers its place in `names`; -1, and nothing:
 * it has none; -2: more than one. A null is none. */
static int push_member(lua_State *L, const char *const *names, int count)
{
    int object = lua_gettop(L), i, found = -1;
    for (i = 0; i < count; i++) {
        lua_getfield(L, object, names[i]);
        if (lua_isnil(L, -1) || lua_type(L, -1) == LUA_TLIGHTUSERDATA) {
            lua_pop(L, 1);
        } else if (found >= 0) {
            lua_settop(L, object);
            return -2;
        } else {
            found = i;
        }
    }
    return found;
}

static int is_object(lua_State *L)
{
    return lua_istable(L, -1) && lua_rawlen(L, -1) == 0;
}

#define TWO "an event of the stream is of two kinds at once"
#define SHAPE "an event of the stream has the wrong shape"

/* The value on top is base64; pushes its bytes. 0: it is not. */
static int push_decoded(lua_State *L)
{
    size_t len, size;
    const char *s;
    char *to;
    if (lua_type(L, -1) != LUA_TSTRING)
        return 0;
    s = lua_tolstring(L, -1, &len);
    to = e2b_newuserdata(L, len / 4 * 3 + 3 + E2B_BASE64_SLACK);
    size = e2b_base64_decode(s, len, to);
    if (size == E2B_BASE64_BAD)
        return 0;
    lua_pushlstring(L, to, size);
    return 1;
}

/* Replaces the kind and the value on top by what event() returns of a start, and answers how many that are. */
static int push_start(lua_State *L, e2b_transfer *t)
{
    double pid;
    lua_getfield(L, -1, "pid");
    pid = lua_type(L, -1) == LUA_TNUMBER || lua_type(L, -1) == LUA_TSTRING ? (double)lua_tonumber(L, -1) : 0;
    if (!(pid >= 1 && pid <= 4294967295.0) || pid != (double)(unsigned long)pid)
        return fail(t, "a process of the stream has an impossible id");
    lua_pushliteral(L, "start");
    e2b_pushwhole(L, (long long)pid);
    return 2;
}

static int push_shaped(lua_State *L, e2b_transfer *t, const e2b_shape *shape, const char *kind)
{
    if (!e2b_shape_read(L, shape))
        return fail(t, SHAPE);
    lua_pushstring(L, kind);
    lua_insert(L, -2);
    return 2;
}

/* The object of an envelope is on top. Pushes what event() returns for it, and answers how much that is; 0: nothing is
 * to be told, or the transfer has failed. */
static int push_process(lua_State *L, e2b_transfer *t)
{
    static const char *const outer[] = { "event" }, *const kinds[] = { "start", "data", "end", "keepalive" };
    int which;
    if (push_member(L, outer, 1) < 0)
        return 0;
    if (!is_object(L))
        return fail(t, SHAPE);
    which = push_member(L, kinds, 4);
    if (which == -2)
        return fail(t, TWO);
    if (which == -1)
        return 0;
    if (!is_object(L))
        return fail(t, SHAPE);
    if (which == 0)
        return push_start(L, t);
    if (which == 2)
        return push_shaped(L, t, &e2b_process_end, "end");
    if (which == 3)
        return 0;
    which = push_member(L, outputs, OUTPUTS);
    if (which == -2)
        return fail(t, TWO);
    if (which == -1)
        return 0;
    if (!push_decoded(L))
        return fail(t, "the output of a process is not base64");
    if (lua_rawlen(L, -1) == 0)
        return 0;
    lua_pushstring(L, outputs[which]);
    lua_insert(L, -2);
    return 2;
}

static int push_watch(lua_State *L, e2b_transfer *t)
{
    static const char *const kinds[] = { "start", "filesystem", "keepalive" };
    int which = push_member(L, kinds, 3);
    if (which == -2)
        return fail(t, TWO);
    if (which == -1)
        return 0;
    if (!is_object(L))
        return fail(t, SHAPE);
    if (which == 1)
        return push_shaped(L, t, &e2b_watch_event, "filesystem");
    if (which == 2)
        return 0;
    lua_pushliteral(L, "start");
    return 1;
}

/* The envelope with the end stays in the buffer: result() may need what it says. */
static void on_end(lua_State *L, e2b_transfer *t, const envelope *e)
{
    static const char *const error[] = { "error" };
    int top = lua_gettop(L), which, is_shaped;
    if (!push_object(L, e->payload, e->len)) {
        fail(t, "the end of the stream is not a JSON object");
        return;
    }
    which = push_member(L, error, 1);
    is_shaped = is_object(L); /* the error, or without one the whole */
    lua_settop(L, top);
    if (!is_shaped) {
        fail(t, "the end of the stream has the wrong shape");
        return;
    }
    if (t->slot->answer.len > PREFIX + e->len) {
        fail(t, E2B_BYTES_AFTER_END);
        return;
    }
    t->end = which == 0 ? E2B_ENDED_WITH_ERROR : E2B_ENDED;
    if (t->state != E2B_RUNNING)
        return;
    if (t->read_paused) {
        t->read_paused = 0;
        e2b_transfer_unpause(t);
    }
    if (t->state == E2B_RUNNING) {
        t->idle_at = e2b_now() + GRACE;
        e2b_engine_clock(t->engine, t->idle_at);
    }
}

/* ---- output, without the parser ---- */

typedef struct scan {
    const char *at, *end;
} scan;

static int is_blank(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

static int skip(scan *s, const char *word, size_t len)
{
    while (s->at < s->end && is_blank(*s->at))
        s->at++;
    if ((size_t)(s->end - s->at) < len || memcmp(s->at, word, len) != 0)
        return 0;
    s->at += len;
    return 1;
}

static int skip_back(scan *s, char c)
{
    while (s->at < s->end && is_blank(s->end[-1]))
        s->end--;
    if (s->at == s->end || s->end[-1] != c)
        return 0;
    s->end--;
    return 1;
}

#define SKIP(s, word) skip(s, word, sizeof word - 1)

/* Is this {"event":{"data":{"stdout":"…"}}}? Answers which output it is, and where its text; -1: no. A text that holds
 * more than one string is not base64. */
static int find_output(const envelope *e, scan *text)
{
    scan s;
    int which, i;
    s.at = e->payload;
    s.end = e->payload + e->len;
    if (!SKIP(&s, "{") || !SKIP(&s, "\"event\"") || !SKIP(&s, ":") || !SKIP(&s, "{") || !SKIP(&s, "\"data\"") ||
        !SKIP(&s, ":") || !SKIP(&s, "{"))
        return -1;
    which = SKIP(&s, "\"stdout\"") ? 0 : SKIP(&s, "\"stderr\"") ? 1 : SKIP(&s, "\"pty\"") ? 2 : -1;
    if (which < 0 || !SKIP(&s, ":") || !SKIP(&s, "\""))
        return -1;
    for (i = 0; i < 3; i++) {
        if (!skip_back(&s, '}'))
            return -1;
    }
    if (!skip_back(&s, '"'))
        return -1;
    *text = s;
    return which;
}

/* Pushes the output at the head of the buffer, as many chunks of one kind as are there and fit. 2: pushed; 1: nothing,
 * to be tried again; 0: there is none that can be read like this. */
static int push_output(lua_State *L, e2b_transfer *t)
{
    e2b_buffer *scratch = &t->engine->scratch;
    size_t raw = 0, size;
    unsigned use = ++t->engine->scratch_uses;
    int kind = -1;
    envelope e;
    if (t->engine->scratch_busy) /* by whoever this finalizer has interrupted: the parser does it, too */
        return 0;
    scratch->head = scratch->len = 0;
    while (envelope_at(&t->slot->answer, raw, &e) && e.flags == 0) {
        scan text;
        int which = find_output(&e, &text);
        if (which < 0 || (kind >= 0 && which != kind))
            break;
        size = (size_t)(text.end - text.at) / 4 * 3 + 3;
        if (scratch->len > 0 && scratch->len + size > JOINED)
            break;
        if (!e2b_buffer_room(scratch, size + E2B_BASE64_SLACK))
            return luaL_error(L, "not enough memory");
        size = e2b_base64_decode(text.at, (size_t)(text.end - text.at), scratch->data + scratch->len);
        if (size == E2B_BASE64_BAD)
            break;
        scratch->len += size;
        kind = which;
        raw += PREFIX + e.len;
    }
    if (raw == 0)
        return 0;
    size = scratch->len;
    scratch->len = 0;
    if (size > 0) {
        t->engine->scratch_busy = 1;
        lua_pushstring(L, outputs[kind]);
        lua_pushlstring(L, scratch->data, size);
        t->engine->scratch_busy = 0;
#if LUA_VERSION_NUM < 502
        lua_gc(L, LUA_GCSTEP, (int)(size >> 10) + 1); /* as in e2b_transfer_read */
#endif
        if (t->engine->scratch_uses != use) { /* by a finalizer that read from a stream */
            lua_settop(L, 1);
            return 1;
        }
    }
    consume(t, raw);
    return size > 0 ? 2 : 1;
}

/* ---- events ---- */

/* Pushes the next event and answers how many values it has. 0: none is there. */
static int next(lua_State *L, e2b_transfer *t)
{
    e2b_buffer *b = &t->slot->answer;
    envelope e;
    int n;
    while (t->end == E2B_GOES_ON && b->len > 0) {
        if (!is_flag((unsigned char)b->data[b->head]))
            return fail(t, (b->data[b->head] & 1) ? "the stream is compressed" : "the stream is not one of envelopes");
        if (e2b_stream_too_large(t)) {
            e2b_buffer_drop(b, b->len);
            e2b_engine_finish(t, CURLE_WRITE_ERROR);
            return 0;
        }
        if (!envelope_at(b, 0, &e))
            return 0;
        if (e.flags == END_OF_STREAM) {
            on_end(L, t, &e);
            return 0;
        }
        n = push_output(L, t);
        if (n == 2)
            return 2;
        if (n == 1)
            continue;
        if (e.len > 0) {
            if (!push_object(L, e.payload, e.len))
                return fail(t, "an event of the stream is not a JSON object");
            n = (t->call->flags & E2B_WATCH) ? push_watch(L, t) : push_process(L, t);
        }
        if (b->len == 0) /* failed */
            return 0;
        consume(t, PREFIX + e.len);
        if (n > 0)
            return n;
        lua_settop(L, 1);
    }
    return 0;
}

/* transfer:event() -> kind, values | false (nothing yet) | nil (ended) */
int e2b_transfer_event(lua_State *L)
{
    e2b_transfer *t = e2b_transfer_check(L, 1);
    e2b_buffer *scratch;
    int n;
    if (!(t->call->flags & E2B_STREAM))
        return luaL_error(L, "this transfer's answer is not a stream of events");
    lua_settop(L, 1);
    luaL_checkstack(L, 20, "no room for an event");
    if (t->slot == NULL) {
        lua_pushnil(L);
        return 1;
    }
    n = t->success ? next(L, t) : 0;
    scratch = &t->engine->scratch;
    if (scratch->cap > KEPT_SCRATCH && !t->engine->scratch_busy) {
        scratch->len = scratch->head = 0;
        e2b_buffer_reset(scratch, 0);
    }
    if (n > 0)
        return n;
    if (t->state == E2B_DONE) {
        lua_pushnil(L);
    } else {
        t->want_read = 1;
        lua_pushboolean(L, 0);
    }
    return 1;
}

/* What was not read of a stream is looked through for its end. */
void e2b_stream_settle(lua_State *L, e2b_transfer *t)
{
    e2b_buffer *b = &t->slot->answer;
    envelope e;
    while (t->end == E2B_GOES_ON && b->len > 0 && is_flag((unsigned char)b->data[b->head]) && envelope_at(b, 0, &e)) {
        if (e.flags == END_OF_STREAM)
            on_end(L, t, &e);
        else
            e2b_buffer_drop(b, PREFIX + e.len);
    }
    if (t->end != E2B_GOES_ON && (t->cause == E2B_CAUSE_NONE || t->cause == E2B_CAUSE_DEADLINE)) {
        t->cause = t->end == E2B_ENDED ? E2B_CAUSE_NONE : E2B_CAUSE_CONNECT; /* however the body ended after it */
        t->code = CURLE_OK;
    } else if (t->cause == E2B_CAUSE_NONE && t->code == CURLE_OK) {
        if (b->len > 0 && !is_flag((unsigned char)b->data[b->head]))
            fail(t, "the stream is not one of envelopes");
        else
            t->cause = E2B_CAUSE_CUT;
    }
}

void e2b_stream_error(lua_State *L, int facts, const e2b_transfer *t)
{
    const e2b_buffer *b = &t->slot->answer;
    int top = lua_gettop(L);
    envelope e;
    if (envelope_at(b, 0, &e) && push_object(L, e.payload, e.len)) {
        lua_getfield(L, -1, "error");
        if (lua_istable(L, -1))
            e2b_error_object(L, facts);
    }
    lua_settop(L, top);
}
