/* When the machine itself was busy: the run time of the kernel's memory reclaim, as windows of time.
 *
 * Such a thread (run.py finds them by name) takes a core for milliseconds, whoever is measured. The windows it ran in
 * tell the machine's stalls from the gateway's; nothing else opens one, so that what a gateway does to itself (a sweep, a
 * garbage collection, a disk sync) stays in its figures.
 *
 * Run times come from /proc/PID/schedstat, whose first field the kernel brings up to date on every tick and when the
 * thread leaves its core: between two looks it grows late, by no more than it then grows.
 */
#ifndef FAREGATE_BENCH_RECLAIM_H
#define FAREGATE_BENCH_RECLAIM_H

#include "wire.h"

#define RECLAIM_THREADS_MAX 64
#define RECLAIM_WINDOWS_MAX 4096
/* A look costs about 1 us a thread. */
#define RECLAIM_LOOK_NANOS (2 * NANOS_PER_MILLI)
/* Growth this soon after the last one is one run seen in parts: ticks are up to 10 ms apart. */
#define RECLAIM_JOIN_NANOS (11 * NANOS_PER_MILLI)
/* Shorter runs open no window. */
#define RECLAIM_RUN_NANOS_MIN NANOS_PER_MILLI
/* What was due this shortly before a window was still under way in it. */
#define RECLAIM_UNDER_WAY_NANOS (2 * NANOS_PER_MILLI)

struct reclaim_window {
    int64_t from, to, ran;
};

static int reclaim_files[RECLAIM_THREADS_MAX];
static size_t reclaim_files_n;
static int64_t reclaim_seen, reclaim_looked, reclaim_ran;
static struct reclaim_window reclaim_windows[RECLAIM_WINDOWS_MAX];
static size_t reclaim_windows_n;

static inline int64_t reclaim_run_time(void)
{
    int64_t sum = 0;
    for (size_t i = 0; i < reclaim_files_n; i++) {
        char text[96];
        ssize_t n = pread(reclaim_files[i], text, sizeof text - 1, 0);
        if (n > 0) {
            text[n] = 0;
            sum += strtoll(text, NULL, 10);
        }
    }
    return sum;
}

/* `pids` are thread ids, separated by commas. */
static inline void reclaim_watch(const char *pids)
{
    char *end;
    for (const char *p = pids; *p && reclaim_files_n < RECLAIM_THREADS_MAX; p = *end ? end + 1 : end) {
        char path[64];
        snprintf(path, sizeof path, "/proc/%ld/schedstat", strtol(p, &end, 10));
        if (end == p)
            die("--watch wants thread ids");
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            die(path);
        reclaim_files[reclaim_files_n++] = fd;
    }
    reclaim_seen = reclaim_run_time();
    reclaim_looked = now_nanos();
}

/* Look, if it is time to; call it often. */
static inline void reclaim_look(int64_t now)
{
    if (reclaim_files_n == 0 || now - reclaim_looked < RECLAIM_LOOK_NANOS)
        return;
    int64_t seen = reclaim_run_time(), grown = seen - reclaim_seen;
    now = now_nanos();
    if (grown > 0) {
        struct reclaim_window *last = reclaim_windows_n ? &reclaim_windows[reclaim_windows_n - 1] : NULL;
        reclaim_ran += grown;
        if (last && now - last->to < RECLAIM_JOIN_NANOS) {
            last->to = now;
            last->ran += grown;
        } else {
            if (last && last->ran < RECLAIM_RUN_NANOS_MIN)
                reclaim_windows_n--; /* too short a run: its place is free */
            if (reclaim_windows_n < RECLAIM_WINDOWS_MAX)
                reclaim_windows[reclaim_windows_n++] = (struct reclaim_window){reclaim_looked - grown, now, grown};
        }
    }
    reclaim_seen = seen;
    reclaim_looked = now;
}

/* Whether what was due `at` was due in a window, just before it, or in the `drain` after it, when its backlog is worked
 * off. The clock alone decides, and never how long it took: else the slower gateway would have more left out. */
static inline bool reclaim_met(int64_t at, int64_t drain)
{
    for (size_t i = 0; i < reclaim_windows_n; i++) {
        const struct reclaim_window *w = &reclaim_windows[i];
        if (w->ran >= RECLAIM_RUN_NANOS_MIN && at >= w->from - RECLAIM_UNDER_WAY_NANOS && at <= w->to + drain)
            return true;
    }
    return false;
}

#endif
