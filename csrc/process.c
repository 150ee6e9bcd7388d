/* Whether this is still the process that the engine's handles belong to. It is asked at every step, and getpid() is a
 * system call: so the answer is a page that the kernel zeroes in a forked child, where it can do that. */
#include "engine.h"

#include <sys/mman.h>
#include <unistd.h>

#if defined(__linux__) && !defined(MADV_WIPEONFORK)
#define MADV_WIPEONFORK 18
#endif

#if defined(__linux__)
/* An emulated kernel may say yes to anything. */
static int zero_in_children(void *page, size_t size)
{
    return madvise(page, size, -1) != 0 && madvise(page, size, MADV_WIPEONFORK) == 0;
}
#elif defined(INHERIT_ZERO)
static int zero_in_children(void *page, size_t size)
{
    return minherit(page, size, INHERIT_ZERO) == 0;
}
#else
static int zero_in_children(void *page, size_t size)
{
    (void)page;
    (void)size;
    return 0;
}
#endif

#if !defined(MAP_ANONYMOUS)
#define MAP_ANONYMOUS MAP_ANON
#endif

static unsigned char *make_mark(size_t size)
{
    void *page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return NULL;
    if (zero_in_children(page, size))
        return page;
    munmap(page, size);
    return NULL;
}

void e2b_process_own(e2b_engine *engine)
{
    if (engine->mark_size == 0) {
        engine->mark_size = (size_t)sysconf(_SC_PAGESIZE);
        engine->mark = make_mark(engine->mark_size);
    }
    if (engine->mark != NULL)
        *engine->mark = 1;
    engine->pid = getpid();
}

int e2b_process_is_other(const e2b_engine *engine)
{
    if (engine->pid == 0)
        return 0; /* nothing is owned yet */
    return engine->mark != NULL ? *engine->mark == 0 : engine->pid != getpid();
}

void e2b_process_free(e2b_engine *engine)
{
    if (engine->mark != NULL)
        munmap((void *)engine->mark, engine->mark_size);
    engine->mark = NULL;
}
