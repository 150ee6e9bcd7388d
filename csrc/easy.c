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

/* The connect clock starts with the first lookup or socket of the transfer's own: time in the queue behind other connections
 * is not connecting (libcurl's own clock counts it). */
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

static CURLcode set_method(e2b_transfer *t, CURL *easy)
{
    CURLcode code = CURLE_OK;
    int is_post = strcmp(t->method, "POST") == 0;
    if (t->from != E2B_FROM_BYTES) {
        SET(UPLOAD, 1L);
        SET(READFUNCTION, e2b_on_read);
        SET(READDATA, t);
        SET(INFILESIZE_LARGE, t->source_size);
        SET(CUSTOMREQUEST, t->method);
    } else if (t->body != NULL || is_post) {
        SET(POST, 1L);
        SET(POSTFIELDS, t->body != NULL ? t->body : "");
        SET(POSTFIELDSIZE_LARGE, (curl_off_t)t->body_len);
        if (!is_post)
            SET(CUSTOMREQUEST, t->method);
    } else if (strcmp(t->method, "HEAD") == 0) {
        SET(NOBODY, 1L);
    } else if (strcmp(t->method, "GET") != 0) {
        SET(CUSTOMREQUEST, t->method);
    }
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
        SET(PREREQDATA, t);
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
        SET(NOPROXY, target->proxy[0] != '\0' ? "" : "*"); /* what was said here wins over the environment's exceptions */
    }
    if (target->ca_file != NULL)
        SET(CAINFO, target->ca_file);
    SET(RESOLVER_START_FUNCTION, on_resolve);
    SET(RESOLVER_START_DATA, t);
    SET(OPENSOCKETFUNCTION, on_open);
    SET(OPENSOCKETDATA, t);
    SET(CLOSESOCKETFUNCTION, e2b_on_closesocket);
    SET(CLOSESOCKETDATA, t->engine); /* a connection outlives its transfer */
    return code;
}

CURLcode e2b_easy_setup(e2b_transfer *t)
{
    e2b_engine *engine = t->engine;
    e2b_slot *slot = t->slot;
    CURL *easy;
    CURLcode code = CURLE_OK;
    if (slot->easy != NULL && slot->generation != engine->generation)
        slot->easy = NULL;
    if (slot->easy == NULL) {
        slot->easy = curl_easy_init();
        if (slot->easy == NULL)
            return CURLE_OUT_OF_MEMORY;
        slot->generation = engine->generation;
        engine->easies++;
    } else {
        curl_easy_reset(slot->easy);
    }
    easy = slot->easy;
    slot->error[0] = '\0';
    SET(ERRORBUFFER, slot->error);
    SET(PRIVATE, t);
    SET(URL, t->url);
    SET(PATH_AS_IS, 1L);
    SET(HTTPHEADER, t->headers);
    SET(HEADERFUNCTION, e2b_on_header);
    SET(HEADERDATA, t);
    SET(SUPPRESS_CONNECT_HEADERS, 1L);
    SET(WRITEFUNCTION, e2b_on_body);
    SET(WRITEDATA, t);
    if ((t->call->flags & E2B_GZIP) && engine->has_gzip)
        SET(ACCEPT_ENCODING, "gzip, deflate");
    if (t->to != E2B_TO_BUFFER)
        SET(BUFFERSIZE, STREAM_BUFFER_BYTES);
    if (code == CURLE_OK)
        code = set_method(t, easy);
    if (code == CURLE_OK)
        code = set_connection(t, easy);
    return code;
}
