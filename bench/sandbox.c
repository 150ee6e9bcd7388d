/*
 * A canned sandbox on loopback that costs next to nothing, so that what is measured is its client: the create call of
 * the platform, and of a sandbox commands, their output, and files. One thread a connection, HTTP/1.1 only.
 *
 *   sandbox PORT
 *
 *   POST /v2/sandboxes, DELETE and GET of one     answers of the usual size
 *   POST /process.Process/Start                   output by a word in the command: "lines" 100,000 lines in pieces of
 *                                                 4 KiB, "flushed" the same a line at a time, "output" 256 MiB in pieces
 *                                                 of 32 KiB, else none; then the end
 *   POST /process.Process/<any other>             {}
 *   POST /filesystem.Filesystem/<any>             the entry of a directory
 *   GET /files?path=%2F<n>                        n bytes
 *   POST /files                                   reads the body; the answer's name is how many bytes it had
 */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define HEAD_SIZE 65536
#define BLOCK_SIZE (1 << 20)
#define LINES 100000
#define OUTPUT_PIECES 8192

typedef struct frames {
    char *data;
    size_t *ends; /* of each frame in data */
    size_t count, len, cap;
} frames;

typedef struct conn {
    int fd;
    char *in;
    size_t start, end; /* what was read and not used */
} conn;

typedef struct request {
    char method[16], path[2048];
    long long length; /* of the body; -1: chunked */
    int expects;
} request;

static char block[BLOCK_SIZE];
static frames lines, flushed, piece;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

/* ---- output, made once ---- */

static size_t base64(char *to, const unsigned char *data, size_t len)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *p = to;
    size_t i;
    for (i = 0; i < len; i += 3) {
        unsigned long bits = (unsigned long)data[i] << 16;
        if (i + 1 < len)
            bits |= (unsigned long)data[i + 1] << 8;
        if (i + 2 < len)
            bits |= data[i + 2];
        *p++ = digits[bits >> 18];
        *p++ = digits[bits >> 12 & 63];
        *p++ = i + 1 < len ? digits[bits >> 6 & 63] : '=';
        *p++ = i + 2 < len ? digits[bits & 63] : '=';
    }
    return (size_t)(p - to);
}

/* One HTTP chunk that holds one envelope. */
static size_t frame(char *to, int flags, const char *text, size_t len)
{
    size_t at = (size_t)sprintf(to, "%zx\r\n", len + 5);
    to[at++] = (char)flags;
    to[at++] = (char)(len >> 24);
    to[at++] = (char)(len >> 16);
    to[at++] = (char)(len >> 8);
    to[at++] = (char)len;
    memcpy(to + at, text, len);
    memcpy(to + at + len, "\r\n", 2);
    return at + len + 2;
}

static void add_output(frames *f, const unsigned char *data, size_t len)
{
    static char text[65536];
    size_t at = (size_t)sprintf(text, "{\"event\":{\"data\":{\"stdout\":\"");
    at += base64(text + at, data, len);
    at += (size_t)sprintf(text + at, "\"}}}");
    if (f->cap - f->len < at + 64) {
        f->cap = f->cap * 2 + 65536;
        f->data = realloc(f->data, f->cap);
        if (f->data == NULL)
            die("sandbox");
    }
    f->len += frame(f->data + f->len, 0, text, at);
    f->ends = realloc(f->ends, (f->count + 1) * sizeof *f->ends);
    if (f->ends == NULL)
        die("sandbox");
    f->ends[f->count++] = f->len;
}

static void make_output(void)
{
    static unsigned char all[LINES * 81];
    size_t i, len = sizeof all - LINES; /* 80 bytes a line */
    char line[96];
    for (i = 0; i < LINES; i++) {
        sprintf(line, "line %06zu of one hundred thousand, as long as those of a build or a test run are.", i + 1);
        memset(line + strlen(line), '.', 79 - (strlen(line) < 79 ? strlen(line) : 79));
        line[79] = '\n';
        memcpy(all + i * 80, line, 80);
        add_output(&flushed, all + i * 80, 80);
    }
    for (i = 0; i < len; i += 4096)
        add_output(&lines, all + i, len - i < 4096 ? len - i : 4096);
    add_output(&piece, all, 32768);
}

/* ---- HTTP ---- */

static int send_all(conn *c, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(c->fd, data, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return 0;
        data += n;
        len -= (size_t)n;
    }
    return 1;
}

static int fill(conn *c)
{
    ssize_t n;
    if (c->start == c->end)
        c->start = c->end = 0;
    if (c->start > 0 && c->end == BLOCK_SIZE) {
        memmove(c->in, c->in + c->start, c->end - c->start);
        c->end -= c->start;
        c->start = 0;
    }
    do
        n = read(c->fd, c->in + c->end, BLOCK_SIZE - c->end);
    while (n < 0 && errno == EINTR);
    if (n <= 0)
        return 0;
    c->end += (size_t)n;
    return 1;
}

/* A line without its end, or NULL. */
static char *take_line(conn *c)
{
    for (;;) {
        char *from = c->in + c->start, *end = memchr(from, '\n', c->end - c->start);
        if (end != NULL) {
            c->start = (size_t)(end + 1 - c->in);
            if (end > from && end[-1] == '\r')
                end--;
            *end = '\0';
            return from;
        }
        if (c->end - c->start > HEAD_SIZE || !fill(c))
            return NULL;
    }
}

static int take_head(conn *c, request *r)
{
    char *text = take_line(c);
    if (text == NULL || sscanf(text, "%15s %2047s", r->method, r->path) != 2)
        return 0;
    r->length = 0;
    r->expects = 0;
    while ((text = take_line(c)) != NULL && text[0] != '\0') {
        if (strncasecmp(text, "content-length:", 15) == 0)
            r->length = atoll(text + 15);
        else if (strncasecmp(text, "transfer-encoding:", 18) == 0)
            r->length = -1;
        else if (strncasecmp(text, "expect:", 7) == 0)
            r->expects = 1;
    }
    return text != NULL;
}

/* Reads n bytes of a body and keeps the beginning in text. */
static int take_bytes(conn *c, long long n, char *text, size_t *kept)
{
    while (n > 0) {
        size_t got = c->end - c->start;
        if (got == 0) {
            if (!fill(c))
                return 0;
            continue;
        }
        if ((long long)got > n)
            got = (size_t)n;
        if (*kept < HEAD_SIZE - 1) {
            size_t keep = got < HEAD_SIZE - 1 - *kept ? got : HEAD_SIZE - 1 - *kept;
            memcpy(text + *kept, c->in + c->start, keep);
            *kept += keep;
        }
        c->start += got;
        n -= (long long)got;
    }
    return 1;
}

/* The whole body; *total counts it, text (HEAD_SIZE) holds its beginning. */
static int take_body(conn *c, const request *r, char *text, size_t *kept, long long *total)
{
    *kept = 0;
    *total = 0;
    if (r->expects && !send_all(c, "HTTP/1.1 100 Continue\r\n\r\n", 25))
        return 0;
    if (r->length >= 0) {
        *total = r->length;
        if (!take_bytes(c, r->length, text, kept))
            return 0;
    } else {
        for (;;) {
            char *line = take_line(c);
            long long size = line != NULL ? strtoll(line, NULL, 16) : 0;
            if (line == NULL)
                return 0;
            if (size == 0)
                break;
            *total += size;
            if (!take_bytes(c, size, text, kept) || take_line(c) == NULL)
                return 0;
        }
        if (take_line(c) == NULL)
            return 0;
    }
    text[*kept] = '\0';
    return 1;
}

static int answer(conn *c, const char *status, const char *type, const char *body)
{
    char head[2048];
    int len = snprintf(head, sizeof head, "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n%s", status, type,
                       strlen(body), body);
    return send_all(c, head, (size_t)len);
}

/* ---- what a sandbox answers ---- */

static int send_event(conn *c, int flags, const char *text)
{
    char frame_text[512];
    return send_all(c, frame_text, frame(frame_text, flags, text, strlen(text)));
}

static int send_frames(conn *c, const frames *f)
{
    size_t i, at = 0;
    for (i = 0; i < f->count; at = f->ends[i++])
        if (!send_all(c, f->data + at, f->ends[i] - at))
            return 0;
    return 1;
}

/* Zeroes inside an envelope's head would end a search for text. */
static int mentions(const char *text, size_t len, const char *word)
{
    return memmem(text, len, word, strlen(word)) != NULL;
}

static int run(conn *c, const char *body, size_t len)
{
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: application/connect+json\r\n"
                               "Transfer-Encoding: chunked\r\n\r\n";
    int i;
    if (!send_all(c, head, sizeof head - 1) || !send_event(c, 0, "{\"event\":{\"start\":{\"pid\":1234}}}"))
        return 0;
    if (mentions(body, len, "flushed")) {
        if (!send_frames(c, &flushed))
            return 0;
    } else if (mentions(body, len, "lines")) {
        if (!send_frames(c, &lines))
            return 0;
    } else if (mentions(body, len, "output")) {
        for (i = 0; i < OUTPUT_PIECES; i++)
            if (!send_frames(c, &piece))
                return 0;
    }
    return send_event(c, 0, "{\"event\":{\"end\":{\"exited\":true,\"status\":\"exit status 0\"}}}")
           && send_event(c, 2, "{}") && send_all(c, "0\r\n\r\n", 5);
}

static int download(conn *c, const char *path)
{
    const char *number = strstr(path, "path=%2F");
    long long left = number != NULL ? atoll(number + 8) : 0;
    char head[256];
    int len = snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
                                          "Content-Length: %lld\r\n\r\n", left);
    if (!send_all(c, head, (size_t)len))
        return 0;
    while (left > 0) {
        size_t n = left < BLOCK_SIZE ? (size_t)left : BLOCK_SIZE;
        if (!send_all(c, block, n))
            return 0;
        left -= (long long)n;
    }
    return 1;
}

static int serve(conn *c, const request *r, const char *body, size_t kept, long long total)
{
    static const char created[] = "{\"alias\":\"base\",\"clientID\":\"6532622b\",\"domain\":null,"
                                  "\"envdAccessToken\":\"0b1f5e0c3a7d4f27b9d86e1c2a5f4e3d7c6b5a49\","
                                  "\"envdVersion\":\"0.6.13\",\"sandboxID\":\"ibench0000000000000001\","
                                  "\"templateID\":\"rki5dems9wqfm4r03t7g\",\"trafficAccessToken\":null}";
    static const char entry[] = "{\"entry\":{\"name\":\"many\",\"type\":\"FILE_TYPE_DIRECTORY\","
                                "\"path\":\"/home/user/many\"}}";
    char written[128];
    int post = strcmp(r->method, "POST") == 0;
    if (strcmp(r->path, "/process.Process/Start") == 0)
        return run(c, body, kept);
    if (strncmp(r->path, "/process.Process/", 17) == 0)
        return answer(c, "200 OK", "application/json", "{}");
    if (strncmp(r->path, "/filesystem.", 12) == 0)
        return answer(c, "200 OK", "application/json", entry);
    if (strncmp(r->path, "/files", 6) == 0 && post) {
        sprintf(written, "[{\"name\":\"%lld\",\"path\":\"/home/user/file\",\"type\":\"file\"}]", total);
        return answer(c, "200 OK", "text/plain; charset=utf-8", written);
    }
    if (strncmp(r->path, "/files", 6) == 0)
        return download(c, r->path);
    if (strcmp(r->path, "/health") == 0 || strcmp(r->method, "DELETE") == 0)
        return send_all(c, "HTTP/1.1 204 No Content\r\n\r\n", 27);
    if (post)
        return answer(c, "201 Created", "application/json", created);
    return answer(c, "404 Not Found", "application/json", "{\"code\":404,\"message\":\"not here\"}");
}

static void *talk(void *given)
{
    conn *c = given;
    char *body = malloc(HEAD_SIZE);
    request r;
    size_t kept;
    long long total;
    c->in = malloc(BLOCK_SIZE);
    if (body == NULL || c->in == NULL)
        die("sandbox");
    while (take_head(c, &r) && take_body(c, &r, body, &kept, &total) && serve(c, &r, body, kept, total)) {
    }
    close(c->fd);
    free(c->in);
    free(body);
    free(c);
    return NULL;
}

int main(int argc, char **argv)
{
    struct sockaddr_in address;
    pthread_attr_t attributes;
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    unsigned seed = 1;
    size_t i;

    if (argc != 2) {
        fprintf(stderr, "usage: sandbox PORT\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    for (i = 0; i < sizeof block; i++) {
        seed = seed * 1664525u + 1013904223u;
        block[i] = (char)(seed >> 24);
    }
    make_output();
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons((unsigned short)atoi(argv[1]));
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 256) != 0)
        die("sandbox");
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    for (;;) {
        pthread_t thread;
        conn *c = calloc(1, sizeof *c);
        if (c == NULL)
            die("sandbox");
        c->fd = accept(fd, NULL, NULL);
        if (c->fd < 0) {
            free(c);
            continue;
        }
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (pthread_create(&thread, &attributes, talk, c) != 0)
            die("sandbox");
    }
}
