/* What an easy handle is told before it goes into the multi handle. Nothing here may call Lua. */
#include "engine.h"

#include <string.h>

/* Options newer than the oldest libcurl this builds with; whether they work is asked at run time. */
#if LIBCURL_VERSION_NUM < 0x075000
#define CURLOPT_PREREQFUNCTION ((CURLoption)(CURLOPTTYPE_FUNCTIONPOINT + 312))
#define CURLOPT_PREREQDATA ((CURLoption)(CURLOPTTYPE_OBJECTPOINT + 313))
#define CURLOPT_MAXLIFETIME_CONN ((CURLoption)(CURLOPTTYPE_LONG + 314))
#define CURL_PREREQFUNC_OK 0
#define CURL_PREREQFUNC_ABORT 1
#endif
#if LIBCURL_VERSION_NUM < 0x075500
#define CURLOPT_PROTOCOLS_STR ((CURLoption)(CURLOPTTYPE_OBJECTPOINT + 318))
#endif
#if LIBCURL_VERSION_NUM < 0x075700
#define CURLOPT_QUICK_EXIT ((CURLoption)(CURLOPTTYPE_LONG + 322))
#endif

#define MAX_AGE_SECONDS 55L       /* balancers drop idle connections after 60 s */
#define MAX_LIFETIME_SECONDS 900L /* then names are resolved and certificates checked anew */
#define STREAM_BUFFER_BYTES 131072L
#define LARGE_UPLOAD 8388608 /* from here on a larger buffer is worth its memory */
#define UPLOAD_BUFFER_BYTES 262144L
#define FOREVER_MS 2000000000L

/* Called when name, TCP and TLS are done and before the first byte of each attempt, hidden ones too. */
static int on_prereq(void *owner, char *remote_ip, char *local_ip, int remote_port, int local_port)
{
    e2b_transfer *t = owner;
    (void)remote_ip;
    (void)local_ip;
    (void)remote_port;
    (void)local_port;
    t->connect_at = E2B_NEVER;
    if (t->attempts > 0 && !t->idempotent) {
        t->replay = 1; /* libcurl wants to send it again: the server may have seen the first one */
        return CURL_PREREQFUNC_ABORT;
    }
    t->attempts++;
    return CURL_PREREQFUNC_OK;
}

/* The connect clock starts with the first lookup or socket of the transfer's own: time in the queue behind other
 * connections is not connecting (libcurl's own clock counts it). */
static void connecting(e2b_transfer *t)
{
    if (t->connect_at == E2B_NEVER && t->connect_timeout > 0 && t->engine->has_prereq) {
        t->connect_at = e2b_now() + t->connect_timeout;
        e2b_engine_clock(t->engine, t->connect_at);
    }
}

static int on_resolve(void *resolver, void *reserved, void *owner)
{
    (void)resolver;
    (void)reserved;
    connecting(owner);
    return 0;
}

static curl_socket_t on_open(void *owner, curlsocktype purpose, struct curl_sockaddr *address)
{
    e2b_transfer *t = owner;
    connecting(t);
    return e2b_on_opensocket(t->engine, purpose, address);
}

#define SET(option, value)                                            \
    do {                                                              \
        if (code == CURLE_OK)                                         \
            code = curl_easy_setopt(easy, CURLOPT_##option, (value)); \
    } while (0)

/* Larger buffers are a wish: a handle that was taken back while it waited for a connection still has its old ones, and
 * libcurl then refuses. */
#define WISH(option, value)                                              \
    do {                                                                 \
        if (code == CURLE_OK)                                            \
            (void)curl_easy_setopt(easy, CURLOPT_##option, (value));     \
    } while (0)

/* Says the whole of it each time: an earlier call of the handle may have said something else. */
static CURLcode set_method(e2b_transfer *t, CURL *easy)
{
    CURLcode code = CURLE_OK;
    const char *custom = t->method;
    if (t->from != E2B_FROM_BYTES) {
        SET(UPLOAD, 1L);
        SET(READFUNCTION, e2b_on_read);
        SET(READDATA, t);
        SET(INFILESIZE_LARGE, t->source_size);
        if (t->from == E2B_FROM_FD && t->source_size >= LARGE_UPLOAD)
            WISH(UPLOAD_BUFFERSIZE, UPLOAD_BUFFER_BYTES);
    } else if (t->body != NULL || strcmp(t->method, "POST") == 0) {
        SET(POST, 1L);
        SET(POSTFIELDS, t->body != NULL ? t->body : "");
        SET(POSTFIELDSIZE_LARGE, (curl_off_t)t->body_len);
        if (strcmp(t->method, "POST") == 0)
            custom = NULL;
    } else {
        SET(HTTPGET, 1L);
        if (strcmp(t->method, "HEAD") == 0)
            SET(NOBODY, 1L);
        if (strcmp(t->method, "HEAD") == 0 || strcmp(t->method, "GET") == 0)
            custom = NULL;
    }
    SET(CUSTOMREQUEST, custom);
    return code;
}

static CURLcode set_protocols(const e2b_engine *engine, CURL *easy)
{
    CURLcode code = CURLE_OK;
    if (engine->version >= 0x075500) {
        SET(PROTOCOLS_STR, "http,https");
        return code;
    }
#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
#endif
    SET(PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif
    return code;
}

static CURLcode set_connection(e2b_transfer *t, CURL *easy)
{
    const e2b_engine *engine = t->engine;
    const e2b_target *target = t->target;
    CURLcode code = set_protocols(engine, easy);
    SET(NOSIGNAL, 1L);
    SET(TCP_KEEPALIVE, 1L);
    SET(MAXAGE_CONN, MAX_AGE_SECONDS);
    if (engine->version >= 0x075000)
        SET(MAXLIFETIME_CONN, MAX_LIFETIME_SECONDS);
    if (engine->has_quick_exit)
        SET(QUICK_EXIT, 1L);
    if (engine->has_prereq) {
        SET(PREREQFUNCTION, on_prereq);
    } else if (!t->idempotent) {
        SET(FRESH_CONNECT, 1L); /* only reused connections make libcurl send a request again */
    }
    if (target->https && engine->has_http2) {
        SET(HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
        SET(PIPEWAIT, 1L);
    } else {
        SET(HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    }
    if (engine->has_prereq || t->connect_timeout <= 0)
        SET(CONNECTTIMEOUT_MS, FOREVER_MS); /* the clock is ours; libcurl's default of 300 s would cut a longer one */
    else
        SET(CONNECTTIMEOUT_MS, t->connect_timeout < 2e6 ? (long)(t->connect_timeout * 1000) + 1 : FOREVER_MS);
    if (target->proxy != NULL) {
        SET(PROXY, target->proxy);
        SET(NOPROXY, target->proxy[0] != '\0' ? "" : "*"); /* wins over the environment's exceptions */
    }
    if (target->ca_file != NULL)
        SET(CAINFO, target->ca_file);
    SET(RESOLVER_START_FUNCTION, on_resolve);
    SET(OPENSOCKETFUNCTION, on_open);
    SET(CLOSESOCKETFUNCTION, e2b_on_closesocket);
    SET(CLOSESOCKETDATA, t->engine); /* a connection outlives its transfer */
    return code;
}

/* What is the same for all calls to one target. */
static CURLcode set_all(e2b_transfer *t, CURL *easy)
{
    CURLcode code = CURLE_OK;
    SET(ERRORBUFFER, t->slot->error);
    SET(PATH_AS_IS, 1L);
    SET(HEADERFUNCTION, e2b_on_header);
    SET(SUPPRESS_CONNECT_HEADERS, 1L);
    SET(WRITEFUNCTION, e2b_on_body);
    if (t->to != E2B_TO_BUFFER)
        WISH(BUFFERSIZE, STREAM_BUFFER_BYTES);
    return code == CURLE_OK ? set_connection(t, easy) : code;
}

/* What every call has of its own. */
static CURLcode set_call(e2b_transfer *t, CURL *easy)
{
    CURLcode code = set_method(t, easy);
    int gzip = ((t->call->flags & E2B_GZIP) || t->gzip) && t->engine->has_gzip;
    SET(URL, t->url);
    SET(HTTPHEADER, t->headers);
    SET(PRIVATE, t);
    SET(HEADERDATA, t);
    SET(WRITEDATA, t);
    SET(RESOLVER_START_DATA, t);
    SET(OPENSOCKETDATA, t);
    if (t->engine->has_prereq)
        SET(PREREQDATA, t);
    if (gzip != t->slot->kept_gzip)
        SET(ACCEPT_ENCODING, gzip ? "gzip, deflate" : NULL);
    t->slot->kept_gzip = gzip;
    return code;
}

static CURLcode get_easy(e2b_engine *engine, e2b_slot *slot)
{
    if (slot->easy != NULL && slot->generation == engine->generation) {
        curl_easy_reset(slot->easy);
        return CURLE_OK;
    }
    slot->easy = curl_easy_init();
    if (slot->easy == NULL)
        return CURLE_OUT_OF_MEMORY;
    slot->generation = engine->generation;
    engine->easies++;
    return CURLE_OK;
}

CURLcode e2b_easy_setup(e2b_transfer *t)
{
    e2b_engine *engine = t->engine;
    e2b_slot *slot = t->slot;
    /* Most calls go where the last one of their handle went, and setting everything anew costs some microseconds. */
    int plain = engine->has_prereq && t->to == E2B_TO_BUFFER && t->from == E2B_FROM_BYTES &&
                strcmp(t->method, "HEAD") != 0;
    int kept = plain && slot->kept == t->target->serial && slot->easy != NULL &&
               slot->generation == engine->generation;
    CURLcode code = CURLE_OK;
    slot->error[0] = '\0';
    if (!kept) {
        slot->kept = 0;
        slot->kept_gzip = 0;
        code = get_easy(engine, slot);
        if (code == CURLE_OK)
            code = set_all(t, slot->easy);
    }
    if (code == CURLE_OK)
        code = set_call(t, slot->easy);
    slot->kept = code == CURLE_OK && plain ? t->target->serial : 0;
    return code;
}
