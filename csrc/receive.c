/* libcurl's callbacks for the bytes of a transfer. They touch C memory and the caller's descriptors only. */
#include "engine.h"

#include <errno.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

/* Both make libcurl end the transfer. */
#define STOP_WRITING 0

static size_t stop(e2b_transfer *t, e2b_cause cause, int os_errno)
{
    t->cause = cause;
    t->os_errno = os_errno;
    return STOP_WRITING;
}

void e2b_idle_from_now(e2b_transfer *t)
{
    if (t->idle_timeout > 0) {
        t->idle_at = e2b_now() + t->idle_timeout;
        e2b_engine_clock(t->engine, t->idle_at);
    }
}

/* ---- headers ---- */

static const struct {
    const char *name;
    size_t len;
} kept[E2B_H_COUNT] = {
    { "Date", 4 },           { "X-Next-Token", 12 }, { "X-Total-Running", 15 }, { "Retry-After", 11 },
    { "X-E2B-Trace-ID", 14 }, { "Content-Type", 12 }, { "Location", 8 },
};

static int keep(e2b_transfer *t, int which, const char *value, size_t len)
{
    e2b_buffer *meta = &t->slot->meta;
    size_t i;
    if (!e2b_buffer_add(meta, value, len))
        return 0;
    t->header[which].at = meta->len - len + 1;
    t->header[which].len = len;
    for (i = meta->len - len; i < meta->len; i++)
        if ((unsigned char)meta->data[i] < 32 || meta->data[i] == 127)
            meta->data[i] = '?'; /* such values get into messages and logs */
    return 1;
}

static void forget_headers(e2b_transfer *t)
{
    memset(t->header, 0, sizeof t->header);
    e2b_buffer_drop(&t->slot->meta, t->slot->meta.len);
    t->headers_done = 0;
    t->success = 0;
    t->encoded = 0;
    t->total_down = -1;
    t->status = 0;
}

static void on_headers_end(e2b_transfer *t)
{
    if (t->status < 200)
        return; /* 100 Continue and the like: the answer is still to come */
    t->headers_done = 1;
    t->success = (unsigned char)e2b_call_success(t->call, t->status);
    e2b_idle_from_now(t);
    if (t->to == E2B_TO_READER && t->want_read) {
        t->want_read = 0;
        e2b_engine_news(t, E2B_EVENT_READ);
    }
}

static curl_off_t length_of(const char *value, size_t len)
{
    curl_off_t n = 0;
    size_t i;
    for (i = 0; i < len && value[i] >= '0' && value[i] <= '9'; i++) {
        if (n > (curl_off_t)1 << 58)
            return -1;
        n = n * 10 + (value[i] - '0');
    }
    return i > 0 ? n : -1;
}

static int on_field(e2b_transfer *t, const char *line, size_t len)
{
    const char *colon = memchr(line, ':', len), *value;
    size_t name_len, value_len;
    int i;
    if (colon == NULL)
        return 1;
    name_len = (size_t)(colon - line);
    value = colon + 1;
    value_len = len - name_len - 1;
    while (value_len > 0 && (*value == ' ' || *value == '\t')) {
        value++;
        value_len--;
    }
    while (value_len > 0 && (value[value_len - 1] == ' ' || value[value_len - 1] == '\t'))
        value_len--;
    for (i = 0; i < E2B_H_COUNT; i++)
        if (kept[i].len == name_len && strncasecmp(kept[i].name, line, name_len) == 0)
            return keep(t, i, value, value_len);
    if (name_len == 14 && strncasecmp("Content-Length", line, 14) == 0)
        t->total_down = length_of(value, value_len);
    else if (name_len == 16 && strncasecmp("Content-Encoding", line, 16) == 0)
        t->encoded = !(value_len == 8 && strncasecmp("identity", value, 8) == 0);
    return 1;
}

size_t e2b_on_header(char *data, size_t size, size_t count, void *owner)
{
    e2b_transfer *t = owner;
    size_t bytes = size * count, len = bytes;
    t->header_bytes += bytes;
    if (t->header_bytes > E2B_HEADER_BYTES)
        return stop(t, E2B_CAUSE_TOO_LARGE, 0);
    while (len > 0 && (data[len - 1] == '\r' || data[len - 1] == '\n'))
        len--;
    if (len > 5 && memcmp(data, "HTTP/", 5) == 0) {
        const char *space = memchr(data, ' ', len);
        forget_headers(t);
        if (space != NULL && data + len - space > 3)
            t->status = (space[1] - '0') * 100 + (space[2] - '0') * 10 + (space[3] - '0');
    } else if (t->headers_done) {
        return bytes; /* a trailer */
    } else if (len == 0) {
        on_headers_end(t);
    } else if (!on_field(t, data, len)) {
        return stop(t, E2B_CAUSE_MEMORY, 0);
    }
    return bytes;
}

/* ---- the answer's body ---- */

static size_t to_buffer(e2b_transfer *t, const char *data, size_t len)
{
    e2b_buffer *answer = &t->slot->answer;
    if (t->to == E2B_TO_BUFFER && answer->len == 0 && t->total_down > (curl_off_t)len &&
        t->total_down < E2B_KEEP_BYTES && !t->encoded)
        if (!e2b_buffer_room(answer, (size_t)t->total_down))
            return stop(t, E2B_CAUSE_MEMORY, 0);
    if (!e2b_buffer_add(answer, data, len))
        return stop(t, E2B_CAUSE_MEMORY, 0);
    return len;
}

/* Of an answer that says what went wrong the beginning is enough. */
static size_t to_error(e2b_transfer *t, const char *data, size_t len)
{
    size_t left = E2B_ERROR_BYTES - t->slot->answer.len;
    if (!e2b_buffer_add(&t->slot->answer, data, len < left ? len : left))
        return stop(t, E2B_CAUSE_MEMORY, 0);
    if (len <= left)
        return len;
    t->cut = 1;
    return STOP_WRITING;
}

static size_t to_sink(e2b_transfer *t, const char *data, size_t len)
{
    size_t done = 0;
    while (done < len) {
        ssize_t n = write(t->sink, data + done, len - done);
        if (n >= 0)
            done += (size_t)n;
        else if (errno != EINTR)
            return stop(t, E2B_CAUSE_SINK, errno);
    }
    return len;
}

size_t e2b_on_body(char *data, size_t size, size_t count, void *owner)
{
    e2b_transfer *t = owner;
    size_t len = size * count, taken;
    int is_stream = t->to != E2B_TO_BUFFER && t->success;
    int is_events = is_stream && (t->call->flags & E2B_STREAM);
    if (t->end != E2B_GOES_ON) {
        t->what = E2B_BYTES_AFTER_END;
        return stop(t, E2B_CAUSE_CONNECT, 0);
    }
    /* Of an envelope that is not whole yet the rest is taken, whatever its size: a reader can't make room before. */
    if (t->to == E2B_TO_READER && t->success && t->slot->answer.len > 0 &&
        t->slot->answer.len + len > t->high_water && (!is_events || e2b_stream_ready(t))) {
        t->read_paused = 1; /* the same bytes come again when the reader has taken some */
        t->idle_at = E2B_NEVER;
        return CURL_WRITEFUNC_PAUSE;
    }
    t->down += (curl_off_t)len;
    if (t->max_bytes >= 0 && t->down > t->max_bytes && (is_stream || t->to == E2B_TO_BUFFER))
        return stop(t, E2B_CAUSE_TOO_LARGE, 0);
    if (!is_stream)
        taken = t->to == E2B_TO_BUFFER ? to_buffer(t, data, len) : to_error(t, data, len);
    else
        taken = t->to == E2B_TO_SINK ? to_sink(t, data, len) : to_buffer(t, data, len);
    e2b_idle_from_now(t);
    if (is_events && e2b_stream_too_large(t))
        return STOP_WRITING;
    if (is_events && !e2b_stream_ready(t))
        return taken;
    if (t->want_read && is_stream && t->to == E2B_TO_READER) {
        t->want_read = 0;
        e2b_engine_news(t, E2B_EVENT_READ);
    }
    return taken;
}

/* ---- the request's body ---- */

static size_t give_up(e2b_transfer *t, int os_errno)
{
    t->cause = E2B_CAUSE_SOURCE;
    t->os_errno = os_errno;
    return CURL_READFUNC_ABORT;
}

static size_t source_end(e2b_transfer *t)
{
    if (t->source_size >= 0 && t->up < t->source_size)
        return give_up(t, 0); /* the server would wait for the rest for ever */
    e2b_idle_from_now(t); /* the answer may be long in coming, but not for ever */
    t->source_ended = 1;
    return 0;
}

size_t e2b_on_read(char *data, size_t size, size_t count, void *owner)
{
    e2b_transfer *t = owner;
    size_t room = size * count;
    if (t->source_size >= 0 && (curl_off_t)room > t->source_size - t->up)
        room = (size_t)(t->source_size - t->up);
    if (t->from == E2B_FROM_FD) {
        ssize_t n;
        if (room == 0)
            return source_end(t);
        do
            n = read(t->source, data, room);
        while (n < 0 && errno == EINTR);
        if (n < 0)
            return give_up(t, errno);
        if (n == 0)
            return source_end(t);
        room = (size_t)n;
    } else {
        e2b_buffer *upload = &t->slot->upload;
        if (upload->len == 0) {
            if (t->write_closed)
                return source_end(t);
            t->write_paused = 1;
            t->idle_at = E2B_NEVER;
            return CURL_READFUNC_PAUSE;
        }
        if (room == 0)
            return give_up(t, 0); /* more than was announced */
        if (room > upload->len)
            room = upload->len;
        memcpy(data, upload->data + upload->head, room);
        e2b_buffer_drop(upload, room);
        if (t->want_write && upload->len <= t->high_water / 2) {
            t->want_write = 0;
            e2b_engine_news(t, E2B_EVENT_WRITE);
        }
    }
    t->up += (curl_off_t)room;
    e2b_idle_from_now(t);
    return room;
}
