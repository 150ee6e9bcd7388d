/* Driving libcurl. In perform mode by curl_multi_perform and curl_multi_poll, which costs half as much per call; in
 * socket mode by poll(2) on the poller's descriptor and curl_multi_socket_action. Never both on one multi handle after
 * the switch. */
#include "engine.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define DEFAULT_CONNECTIONS 100L
#define EXTRA_CONNECTIONS 400u
#define KICK_EVERY 1.0 /* seconds */

double e2b_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double earlier(double a, double b)
{
    return a < b ? a : b;
}

/* ---- running transfers ---- */

/* Streams of events stay open for as long as a program likes, and the calls beside them have to get through. So they
 * don't count; not those beyond EXTRA_CONNECTIONS, lest a process runs out of descriptors. */
static void set_connections(e2b_engine *engine)
{
    size_t extra = engine->streams < EXTRA_CONNECTIONS ? engine->streams : EXTRA_CONNECTIONS;
    long most = engine->connections + (long)extra;
    if (engine->multi == NULL)
        return;
    curl_multi_setopt(engine->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, most);
    curl_multi_setopt(engine->multi, CURLMOPT_MAXCONNECTS, most);
}

static int is_event_stream(const e2b_transfer *t)
{
    return (t->call->flags & E2B_STREAM) != 0;
}

static void link_running(e2b_transfer *t)
{
    e2b_engine *engine = t->engine;
    t->prev = NULL;
    t->next = engine->running;
    if (engine->running != NULL)
        engine->running->prev = t;
    engine->running = t;
    engine->in_flight++;
    t->state = E2B_RUNNING;
    if (is_event_stream(t) && engine->streams++ < EXTRA_CONNECTIONS)
        set_connections(engine);
}

static void unlink_running(e2b_transfer *t)
{
    e2b_engine *engine = t->engine;
    if (t->prev != NULL)
        t->prev->next = t->next;
    else
        engine->running = t->next;
    if (t->next != NULL)
        t->next->prev = t->prev;
    t->prev = t->next = NULL;
    engine->in_flight--;
    t->state = E2B_DONE;
    if (is_event_stream(t) && --engine->streams < EXTRA_CONNECTIONS)
        set_connections(engine);
}

/* Takes a running transfer out of libcurl, whatever it was doing, and tells of it. */
void e2b_engine_finish(e2b_transfer *t, CURLcode code)
{
    e2b_engine *engine = t->engine;
    if (t->state != E2B_RUNNING)
        return;
    if (t->added && engine->multi != NULL)
        curl_multi_remove_handle(engine->multi, t->slot->easy);
    unlink_running(t);
    t->code = code;
    t->deadline_at = t->connect_at = t->idle_at = E2B_NEVER;
    e2b_engine_news(t, E2B_EVENT_DONE);
}

static void finish_all(e2b_engine *engine, e2b_cause cause, CURLMcode multi_code)
{
    while (engine->running != NULL) {
        e2b_transfer *t = engine->running;
        t->cause = cause;
        t->multi_code = multi_code;
        e2b_engine_finish(t, CURLE_ABORTED_BY_CALLBACK);
    }
}

static void drop_multi(e2b_engine *engine)
{
    if (engine->multi != NULL)
        curl_multi_cleanup(engine->multi);
    engine->multi = NULL;
    engine->recording = 0;
    engine->timer_at = engine->kick_at = engine->next_check = E2B_NEVER;
}

/* libcurl gave up on the multi handle as a whole. */
static void broken(e2b_engine *engine, CURLMcode code)
{
    finish_all(engine, E2B_CAUSE_MULTI, code);
    drop_multi(engine);
}

/* In a forked child: what runs belongs to the parent. Its descriptors are closed here without a word to anybody, its
 * libcurl handles are left alone for ever, and its transfers answer "cancelled". */
static void forked(e2b_engine *engine)
{
    engine->pid = 0;
    engine->generation++;
    e2b_sockets_forked(engine);
    e2b_bridge_end(engine);
    e2b_poller_forked(&engine->poller);
    engine->multi = NULL;
    engine->recording = 0;
    engine->easies = 0;
    engine->timer_at = engine->kick_at = engine->next_check = E2B_NEVER;
    finish_all(engine, E2B_CAUSE_CANCELLED, CURLM_OK);
}

void e2b_engine_check_pid(e2b_engine *engine)
{
    if (e2b_process_is_other(engine))
        forked(engine);
}

/* ---- clocks ---- */

void e2b_engine_clock(e2b_engine *engine, double at)
{
    if (at < engine->next_check)
        engine->next_check = at;
}

static void run_out(e2b_transfer *t, int clock)
{
    t->cause = E2B_CAUSE_DEADLINE;
    t->clock = clock;
    e2b_engine_finish(t, CURLE_OPERATION_TIMEDOUT);
}

/* Looks at the transfers only when the earliest of their clocks may have run out: clocks that are set again only move
 * away. */
static void check_clocks(e2b_engine *engine)
{
    e2b_transfer *t, *next;
    double now, earliest = E2B_NEVER;
    if (engine->next_check == E2B_NEVER)
        return;
    now = e2b_now();
    if (now < engine->next_check)
        return;
    for (t = engine->running; t != NULL; t = next) {
        next = t->next;
        if (now >= t->deadline_at) {
            run_out(t, E2B_CLOCK_REQUEST);
        } else if (now >= t->connect_at) {
            run_out(t, E2B_CLOCK_CONNECT);
        } else if (now >= t->idle_at) {
            if (t->end != E2B_GOES_ON)
                e2b_engine_finish(t, CURLE_OK); /* all was said; only the body does not end */
            else
                run_out(t, E2B_CLOCK_IDLE);
        } else {
            earliest = earlier(earliest, earlier(t->deadline_at, earlier(t->connect_at, t->idle_at)));
        }
    }
    engine->next_check = earliest;
}

/* ---- libcurl ---- */

static int on_timer(CURLM *multi, long ms, void *owner)
{
    e2b_engine *engine = owner;
    (void)multi;
    engine->timer_at = ms < 0 ? E2B_NEVER : e2b_now() + (double)ms * 1e-3;
    return 0;
}

static void install_socket_callback(e2b_engine *engine)
{
    if (engine->multi == NULL || engine->recording)
        return;
    curl_multi_setopt(engine->multi, CURLMOPT_SOCKETFUNCTION, e2b_on_socket);
    curl_multi_setopt(engine->multi, CURLMOPT_SOCKETDATA, engine);
    engine->recording = 1;
}

static void install_callbacks(e2b_engine *engine)
{
    install_socket_callback(engine);
    curl_multi_setopt(engine->multi, CURLMOPT_TIMERFUNCTION, on_timer);
    curl_multi_setopt(engine->multi, CURLMOPT_TIMERDATA, engine);
}

/* curl_easy_pause tells which sockets matter even in perform mode, and never again unless that changes. So somebody has
 * to listen from then on, or a later switch to socket mode would not know of them. */
void e2b_engine_before_pause(e2b_engine *engine)
{
    install_socket_callback(engine);
}

static int open_poller(e2b_engine *engine)
{
    if (engine->poller.fd >= 0)
        return 0;
    e2b_process_own(engine);
    return e2b_poller_open(&engine->poller);
}

static CURLcode open_multi(e2b_engine *engine)
{
    if (engine->socket_mode && open_poller(engine) != 0)
        return CURLE_FAILED_INIT;
    if (engine->multi != NULL)
        return CURLE_OK;
    engine->multi = curl_multi_init();
    if (engine->multi == NULL)
        return CURLE_OUT_OF_MEMORY;
    e2b_process_own(engine);
    set_connections(engine);
    if (engine->socket_mode)
        install_callbacks(engine);
    return CURLE_OK;
}

static void drain(e2b_engine *engine)
{
    CURLMsg *message;
    int left;
    if (engine->multi == NULL)
        return;
    while ((message = curl_multi_info_read(engine->multi, &left)) != NULL) {
        char *owner = NULL;
        CURLcode code = message->data.result;
        if (message->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &owner);
        if (owner != NULL)
            e2b_engine_finish((e2b_transfer *)(void *)owner, code);
    }
}

static void perform(e2b_engine *engine)
{
    int running = 0;
    CURLMcode code;
    if (engine->in_flight == 0)
        return;
    code = curl_multi_perform(engine->multi, &running);
    drain(engine);
    if (code != CURLM_OK && code != CURLM_CALL_MULTI_PERFORM)
        broken(engine, code);
}

/* Returns 0 when the multi handle had to be dropped. */
static int socket_action(e2b_engine *engine, curl_socket_t fd, int what)
{
    int running = 0;
    CURLMcode code = curl_multi_socket_action(engine->multi, fd, what, &running);
    if (code == CURLM_OK || code == CURLM_BAD_SOCKET || code == CURLM_CALL_MULTI_PERFORM)
        return 1;
    drain(engine);
    broken(engine, code);
    return 0;
}

static void step_sockets(e2b_engine *engine)
{
    e2b_ready ready[64];
    int i, n, rounds = 0;
    double now;
    e2b_poller_rest(&engine->poller);
    if (engine->multi == NULL)
        return;
    do {
        n = e2b_poller_ready(&engine->poller, ready, 64);
        for (i = 0; i < n; i++) {
            int what = ((ready[i].what & E2B_WANT_IN) ? CURL_CSELECT_IN : 0) |
                       ((ready[i].what & E2B_WANT_OUT) ? CURL_CSELECT_OUT : 0) |
                       ((ready[i].what & E2B_WANT_ERROR) ? CURL_CSELECT_ERR : 0);
            if (!socket_action(engine, ready[i].fd, what))
                return;
        }
    } while (n == 64 && ++rounds < 16);
    now = e2b_now();
    if (now >= engine->timer_at || now >= engine->kick_at) {
        if (now >= engine->timer_at)
            engine->timer_at = E2B_NEVER; /* one shot: the callback sets it again */
        engine->kick_at = now + KICK_EVERY;
        if (!socket_action(engine, CURL_SOCKET_TIMEOUT, 0))
            return;
    }
    drain(engine);
    if (engine->in_flight == 0)
        engine->kick_at = E2B_NEVER;
}

void e2b_engine_drive(e2b_engine *engine)
{
    if (engine->socket_mode)
        step_sockets(engine);
    else
        perform(engine);
    check_clocks(engine);
}

void e2b_engine_wake(e2b_engine *engine)
{
    if (engine->socket_mode)
        e2b_poller_wake(&engine->poller);
}

/* ---- waiting ---- */

static int milliseconds(double seconds)
{
    return seconds <= 0 ? 0 : (int)(seconds * 1000) + 1; /* never early: nothing would have run out yet */
}

/* Sleeps until there is something to do, fd (-1: none) is readable, or seconds are over. 0: a signal came. */
int e2b_engine_sleep(e2b_engine *engine, double now, double seconds, int fd)
{
    double until = now + seconds;
    struct pollfd fds[2];
    struct curl_waitfd extra;
    int n = 0;
    until = earlier(until, engine->next_check);
    fds[0].fd = fd;
    fds[0].events = fds[1].events = POLLIN;
    if (engine->socket_mode && engine->poller.fd >= 0) {
        if (engine->multi != NULL)
            until = earlier(until, earlier(engine->timer_at, engine->kick_at));
        fds[1].fd = engine->poller.fd;
        return poll(fds, 2, milliseconds(until - now)) >= 0 || errno != EINTR; /* one below 0 is left out */
    }
    if (engine->in_flight == 0)
        return poll(fds, 1, milliseconds(until - now)) >= 0 || errno != EINTR;
    extra.fd = fd;
    extra.events = CURL_WAIT_POLLIN;
    extra.revents = 0;
    if (curl_multi_poll(engine->multi, &extra, fd >= 0, milliseconds(until - now), &n) != CURLM_OK)
        return 1;
    if (n == 0 && e2b_now() < until - 2e-3) { /* back early without a socket: a timer of libcurl's, or a signal */
        long left = -1;
        curl_multi_timeout(engine->multi, &left);
        return left == 0;
    }
    return 1;
}

/* ---- start, switch, stop ---- */

/* Hands a prepared transfer to libcurl. What libcurl refuses is finished at once. */
void e2b_engine_send(e2b_transfer *t)
{
    e2b_engine *engine = t->engine;
    CURLcode code = open_multi(engine);
    CURLMcode multi_code;
    double now;
    link_running(t);
    if (code == CURLE_OK)
        code = e2b_easy_setup(t);
    if (code == CURLE_OK) {
        multi_code = curl_multi_add_handle(engine->multi, t->slot->easy);
        t->added = multi_code == CURLM_OK;
        if (!t->added) {
            t->cause = E2B_CAUSE_MULTI;
            t->multi_code = multi_code;
            code = CURLE_FAILED_INIT;
        }
    }
    if (code != CURLE_OK) {
        e2b_engine_finish(t, code);
    } else {
        now = e2b_now();
        if (t->timeout > 0) {
            t->deadline_at = now + t->timeout;
            e2b_engine_clock(engine, t->deadline_at);
        }
        if (engine->kick_at == E2B_NEVER)
            engine->kick_at = now + KICK_EVERY;
    }
    e2b_engine_wake(engine);
}

/* To socket mode, for good. 0 or an errno. */
int e2b_engine_switch(e2b_engine *engine)
{
    int first = engine->poller.fd < 0, error = open_poller(engine), running = 0;
    CURLMcode code = CURLM_OK;
    if (error != 0)
        return error;
    if (!engine->socket_mode) {
        engine->socket_mode = 1;
        if (engine->multi != NULL) {
            install_callbacks(engine);
            error = e2b_sockets_register(engine);
#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
#endif
            if (error == 0) /* registers what is in flight: nothing else would */
                code = curl_multi_socket_all(engine->multi, &running);
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif
            drain(engine);
            if (error != 0 || (code != CURLM_OK && code != CURLM_CALL_MULTI_PERFORM))
                broken(engine, error != 0 ? CURLM_OUT_OF_MEMORY : code);
        }
    }
    if (first)
        e2b_engine_wake(engine);
    return 0;
}

/* Seconds until the engine has to be driven, or -1. */
double e2b_engine_timeout(e2b_engine *engine)
{
    double now = e2b_now(), at = engine->next_check;
    if (engine->news_first != NULL || engine->poller.waked)
        return 0;
    if (engine->in_flight == 0)
        return -1;
    if (engine->socket_mode) {
        at = earlier(at, earlier(engine->timer_at, engine->kick_at));
    } else {
        long ms = -1;
        curl_multi_timeout(engine->multi, &ms);
        at = earlier(at, now + (ms < 0 ? KICK_EVERY : (double)ms * 1e-3));
    }
    return at > now ? at - now : 0;
}

void e2b_engine_connections(e2b_engine *engine, long n)
{
    engine->connections = n;
    set_connections(engine);
}

/* Cancels what runs, drops pooled connections and handles. The descriptor stays: somebody may be waiting on it. */
void e2b_engine_stop(e2b_engine *engine)
{
    finish_all(engine, E2B_CAUSE_CANCELLED, CURLM_OK);
    engine->scratch_busy = 0; /* still set after a lack of memory */
    e2b_slots_free(engine);
    drop_multi(engine);
    e2b_engine_wake(engine);
}

/* All that an engine needs to know before its first start. */
void e2b_engine_init(e2b_engine *engine)
{
    const curl_version_info_data *info = curl_version_info(CURLVERSION_NOW);
    memset(engine, 0, sizeof *engine);
    engine->refs = 1;
    engine->connections = DEFAULT_CONNECTIONS;
    engine->poller.fd = engine->poller.wake[0] = engine->poller.wake[1] = -1;
    engine->timer_at = engine->kick_at = engine->next_check = E2B_NEVER;
    engine->version = info->version_num;
    engine->has_prereq = info->version_num >= 0x075000;
    engine->has_quick_exit = info->version_num >= 0x075700;
    engine->has_http2 = (info->features & CURL_VERSION_HTTP2) != 0;
    engine->has_gzip = (info->features & CURL_VERSION_LIBZ) != 0;
}

void e2b_engine_unref(e2b_engine *engine)
{
    if (--engine->refs == 0) {
        free(engine->scratch.data);
        free(engine->fds);
        e2b_process_free(engine);
        free(engine);
    }
}

