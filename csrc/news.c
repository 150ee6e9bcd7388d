/* News: what engine:finished() will tell, in the order in which it happened. */
#include "engine.h"

void e2b_engine_news(e2b_transfer *t, unsigned events)
{
    e2b_engine *engine = t->engine;
    t->events |= (unsigned char)events; /* told one at a time; after "done" none */
    if (t->queued)
        return;
    t->queued = 1;
    t->news_next = NULL;
    t->news_prev = engine->news_last;
    if (engine->news_last != NULL)
        engine->news_last->news_next = t;
    else
        engine->news_first = t;
    engine->news_last = t;
}

void e2b_engine_quiet(e2b_transfer *t)
{
    e2b_engine *engine = t->engine;
    t->events = 0;
    if (!t->queued)
        return;
    if (t->news_prev != NULL)
        t->news_prev->news_next = t->news_next;
    else
        engine->news_first = t->news_next;
    if (t->news_next != NULL)
        t->news_next->news_prev = t->news_prev;
    else
        engine->news_last = t->news_prev;
    t->news_prev = t->news_next = NULL;
    t->queued = 0;
}
