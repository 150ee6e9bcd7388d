/* What the files with rows of REST calls share: calls.c has those of the platform, calls_envd.c those of a sandbox. */
#ifndef E2B_CALLS_H
#define E2B_CALLS_H

#include "shape.h"

#define FIELD(wire, name, shape, flags) {wire, name, sizeof wire - 1, &shape, flags}
#define END {NULL, NULL, 0, NULL, 0}

/* A field of answers only that is of no use to anyone. */
#define DROP(wire) {wire, NULL, sizeof wire - 1, &any, E2B_DROPPED}

#define any e2b_shape_any

/* Objects that answers contain; each has a number of its own, below E2B_OBJECTS. */
enum {
    ENABLED,
    HEADERS_TRANSFORM,
    RULE,
    EGRESS_PROXY,
    NETWORK,
    LIFECYCLE,
    VOLUME_MOUNT,
    SANDBOX,
    METRIC,
    USER,
    TEMPLATE,
    PROCESS_CONFIG,
    PROCESS,
    PROCESS_END,
    ENTRY,
    WATCH_EVENT,
    WATCHER,
    WRITE_INFO,
    ENVD_METRICS
};

#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif

extern const e2b_call e2b_envd_calls[];
extern const size_t e2b_envd_calls_count;

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#endif
