/*
 * The floor: what libcurl itself costs. One kept-alive handle (50 on one multi for `concurrent`), bodies counted and
 * dropped, nothing decoded. No client on libcurl can do with less.
 *
 *   floor URL start|get|concurrent|pages|cycle COUNT
 */
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define AT_ONCE 50

static const char *base;
static struct curl_slist *headers;
static struct curl_slist *json_headers;
static char next_token[128];

static size_t drop(char *data, size_t size, size_t count, void *total)
{
    (void)data;
    *(size_t *)total += size * count;
    return size * count;
}

static size_t keep_token(char *line, size_t size, size_t count, void *unused)
{
    static const char name[] = "X-Next-Token: ";
    const size_t bytes = size * count, skip = sizeof name - 1;

    (void)unused;
    if (bytes > skip + 2 && bytes - skip < sizeof next_token && strncasecmp(line, name, skip) == 0) {
        memcpy(next_token, line + skip, bytes - skip - 2);
        next_token[bytes - skip - 2] = '\0';
    }
    return bytes;
}

static void fail(const char *what)
{
    fprintf(stderr, "floor: %s\n", what);
    exit(1);
}

static CURL *handle(size_t *total)
{
    CURL *easy = curl_easy_init();
    if (easy == NULL)
        fail("no handle");
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, drop);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, total);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT, 60L);
    return easy;
}

static void perform(CURL *easy, const char *path, long expected)
{
    char url[512];
    long status = 0;
    CURLcode code;

    snprintf(url, sizeof url, "%s%s", base, path);
    curl_easy_setopt(easy, CURLOPT_URL, url);
    code = curl_easy_perform(easy);
    if (code != CURLE_OK)
        fail(curl_easy_strerror(code));
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    if (status != expected)
        fail("unexpected status");
}

static void concurrent(long count, size_t *total)
{
    CURLM *multi = curl_multi_init();
    CURL *easies[AT_ONCE];
    char url[512];
    long started = 0, finished = 0;
    int running, left, i;
    CURLMsg *message;

    snprintf(url, sizeof url, "%s/sandboxes/ibench0000000000000001", base);
    for (i = 0; i < AT_ONCE; i++) {
        easies[i] = handle(total);
        curl_easy_setopt(easies[i], CURLOPT_URL, url);
        if (started < count) {
            curl_multi_add_handle(multi, easies[i]);
            started++;
        }
    }
    while (finished < count) {
        curl_multi_perform(multi, &running);
        while ((message = curl_multi_info_read(multi, &left)) != NULL) {
            CURL *easy = message->easy_handle;
            if (message->data.result != CURLE_OK)
                fail(curl_easy_strerror(message->data.result));
            finished++;
            curl_multi_remove_handle(multi, easy);
            if (started < count) {
                curl_multi_add_handle(multi, easy);
                started++;
            }
        }
        if (finished < count)
            curl_multi_poll(multi, NULL, 0, 1000, NULL);
    }
    for (i = 0; i < AT_ONCE; i++)
        curl_easy_cleanup(easies[i]);
    curl_multi_cleanup(multi);
}

static void pages(CURL *easy, long count)
{
    char path[256] = "/v2/sandboxes?limit=100";
    long seen = 0;

    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, keep_token);
    do {
        next_token[0] = '\0';
        perform(easy, path, 200);
        snprintf(path, sizeof path, "/v2/sandboxes?limit=100&nextToken=%s", next_token);
        seen++;
    } while (next_token[0] != '\0');
    if (seen != count)
        fail("unexpected number of pages");
}

static void cycle(CURL *easy, long count)
{
    while (count-- > 0) {
        curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, NULL);
        curl_easy_setopt(easy, CURLOPT_HTTPHEADER, json_headers);
        curl_easy_setopt(easy, CURLOPT_COPYPOSTFIELDS, "{\"templateID\":\"base\",\"timeout\":300}");
        perform(easy, "/v2/sandboxes", 201);
        curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
        curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, "DELETE");
        curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
        perform(easy, "/sandboxes/ibench0000000000000001", 204);
    }
}

int main(int argc, char **argv)
{
    CURL *easy;
    size_t total = 0;
    long count;

    if (argc != 4)
        fail("usage: floor URL start|get|concurrent|pages|cycle COUNT");
    base = argv[1];
    count = atol(argv[3]);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    headers = curl_slist_append(NULL, "X-API-Key: e2b_0000000000000000000000000000000000000000");
    headers = curl_slist_append(headers, "User-Agent: floor");
    json_headers = curl_slist_append(NULL, "X-API-Key: e2b_0000000000000000000000000000000000000000");
    json_headers = curl_slist_append(json_headers, "User-Agent: floor");
    json_headers = curl_slist_append(json_headers, "Content-Type: application/json");
    if (strcmp(argv[2], "concurrent") == 0) {
        concurrent(count, &total);
    } else {
        easy = handle(&total);
        if (strcmp(argv[2], "start") == 0 || strcmp(argv[2], "get") == 0)
            while (count-- > 0)
                perform(easy, "/sandboxes/ibench0000000000000001", 200);
        else if (strcmp(argv[2], "pages") == 0)
            pages(easy, count);
        else if (strcmp(argv[2], "cycle") == 0)
            cycle(easy, count);
        else
            fail("no such workload");
        curl_easy_cleanup(easy);
    }
    curl_slist_free_all(headers);
    curl_slist_free_all(json_headers);
    curl_global_cleanup();
    return total > 0 ? 0 : 1;
}
