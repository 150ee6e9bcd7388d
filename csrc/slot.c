/* Byte buffers, and slots: an easy handle with the memory of one call. A new easy handle costs more than a call on
 * loopback, so finished ones are reset and kept. */
#include "engine.h"

#include <stdlib.h>
#include <string.h>

void e2b_wipe(void *data, size_t len)
{
    if (len == 0)
        return;
    memset(data, 0, len);
#if defined(__GNUC__)
    __asm__ __volatile__("" : : "r"(data) : "memory"); /* a store that nobody reads must not be optimised away */
#endif
}

int e2b_buffer_room(e2b_buffer *b, size_t extra)
{
    size_t need, cap;
    char *data;
    if (extra > (size_t)-1 / 4 - b->len)
        return 0;
    need = b->len + extra;
    if (b->head + need <= b->cap)
        return 1;
    if (need <= b->cap && b->head >= b->len) { /* moves no byte more often than it was appended */
        memmove(b->data, b->data + b->head, b->len);
        b->head = 0;
        return 1;
    }
    cap = b->cap > 0 ? b->cap : 1024;
    while (cap < need)
        cap *= 2;
    if (cap < 2 * b->len)
        cap = 2 * b->len;
    data = malloc(cap);
    if (data == NULL)
        return 0;
    if (b->len > 0)
        memcpy(data, b->data + b->head, b->len);
    if (b->len > 0)
        e2b_wipe(b->data + b->head, b->len);
    free(b->data);
    b->data = data;
    b->head = 0;
    b->cap = cap;
    return 1;
}

int e2b_buffer_add(e2b_buffer *b, const char *data, size_t len)
{
    if (len == 0)
        return 1;
    if (!e2b_buffer_room(b, len))
        return 0;
    memcpy(b->data + b->head + b->len, data, len);
    b->len += len;
    return 1;
}

void e2b_buffer_drop(e2b_buffer *b, size_t len)
{
    b->len -= len;
    b->head = b->len > 0 ? b->head + len : 0;
}

void e2b_buffer_reset(e2b_buffer *b, int wipe)
{
    if (wipe && b->data != NULL)
        e2b_wipe(b->data + b->head, b->len);
    if (b->cap > E2B_KEEP_BYTES) {
        free(b->data);
        b->data = NULL;
        b->cap = 0;
    }
    b->head = b->len = 0;
}

static void slot_free(e2b_engine *engine, e2b_slot *slot)
{
    e2b_buffer *all[4];
    size_t i;
    if (slot->easy != NULL && slot->generation == engine->generation) {
        curl_easy_cleanup(slot->easy);
        engine->easies--;
    }
    all[0] = &slot->request;
    all[1] = &slot->answer;
    all[2] = &slot->upload;
    all[3] = &slot->meta;
    for (i = 0; i < 4; i++)
        free(all[i]->data);
    free(slot);
}

/* NULL: out of memory. */
e2b_slot *e2b_slot_get(e2b_engine *engine)
{
    e2b_slot *slot = engine->idle;
    if (slot != NULL) {
        engine->idle = slot->next;
        engine->idle_count--;
        slot->next = NULL;
        return slot;
    }
    return calloc(1, sizeof *slot);
}

/* The easy handle must be out of the multi. */
void e2b_slot_put(e2b_engine *engine, e2b_slot *slot)
{
    e2b_buffer_reset(&slot->request, 1);
    e2b_buffer_reset(&slot->answer, 1);
    e2b_buffer_reset(&slot->upload, 1);
    e2b_buffer_reset(&slot->meta, 1);
    slot->error[0] = '\0';
    if (engine->closed || engine->multi == NULL || engine->idle_count >= E2B_KEEP_SLOTS) {
        slot_free(engine, slot);
        return;
    }
    if (slot->easy != NULL && slot->generation != engine->generation)
        slot->easy = NULL; /* the parent's, lost on purpose: threads that this process lacks may be part of it */
    slot->next = engine->idle;
    engine->idle = slot;
    engine->idle_count++;
}

void e2b_slots_free(e2b_engine *engine)
{
    while (engine->idle != NULL) {
        e2b_slot *slot = engine->idle;
        engine->idle = slot->next;
        slot_free(engine, slot);
    }
    engine->idle_count = 0;
}
