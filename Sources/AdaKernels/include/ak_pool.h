// A thread pool with work stealing: a worker runs the work items of its share, then items of others' shares. So a preempted thread delays a run by one
// item at most, and not for long, because a waiting thread gives its processor to a preempted one (`pool_place.h`).
// Several pools may run at once: while they have more threads than there are processors, waiting threads sleep immediately.
#pragma once
#include <stddef.h>
#include <stdint.h>

typedef struct ak_pool ak_pool;

// Threads including the caller (at least 1). NULL if they could not be started.
ak_pool *ak_pool_create(int32_t threads);
void ak_pool_destroy(ak_pool *pool);
int32_t ak_pool_threads(const ak_pool *pool);

// Calls work(context, item, worker) for every item in 0 ..< items, each once, and returns when all are done. worker is in
// 0 ..< threads and no two calls run at once with the same worker, so it can index per-thread scratch. The caller takes part.
// One run at a time: a nested or concurrent call runs all its items on its caller, as worker 0, so callers must serialize runs that share scratch.
//   ends (threads): the share of worker w is the items from ends[w - 1] (or 0) to ends[w]; the last share ends with the last item. NULL: equal
//   shares, give or take one item.
void ak_pool_run(ak_pool *pool, int32_t items, const int32_t *ends, void (*work)(void *context, int32_t item, int32_t worker), void *context);

// Marks the begin and the end of a computation of many runs: other pools' waiting threads leave the processors to it between its runs too. Not nested;
// a run outside of such a computation marks itself, at a small cost.
void ak_pool_enter(ak_pool *pool);
void ak_pool_leave(ak_pool *pool);

// Memory that will probably be read right after a run: `count` ranges of `bytes` bytes each, `stride` bytes apart. Each worker reads an equal number of
// adjacent ranges.
typedef struct {
    const void *base;
    size_t stride, bytes;
    int32_t count;
} ak_prefetch_ranges;

#define AK_MOST_PREFETCHES 6   // of one ak_pool_prefetch

// Announces memory that is read after the next ak_pool_run (and only that). Threads that wait for its end, or for the run after it, prefetch this
// memory, up to the size of a second-level cache, so that memory bandwidth is used while threads wait.
// Never changes a result; the memory may have been freed by then. Called by the caller of ak_pool_run.
void ak_pool_prefetch(ak_pool *pool, const ak_prefetch_ranges *ranges, int32_t count);

// Prefetches cache lines that the calling thread reads soon.
static inline void ak_prefetch(const void *const *lines, int32_t count) {
    for (int32_t i = 0; i < count; i++) __builtin_prefetch(lines[i], 0, 3);
}

// How often a waiting thread gave its processor to another of the pool, or left it, since the pool was created: a measure of how often other programs
// preempt the pool's threads.
uint32_t ak_pool_moves(const ak_pool *pool);

// Processors that this process may keep busy, at least 1: those of its affinity mask, or fewer if a container's CPU quota (rounded up) allows less.
int32_t ak_processor_count(void);
// The CPU quota of this process's cgroups (v1 and v2) and their parents in processors, rounded up; 0 if there is none. Reads the files under `root`:
// "" for this machine's.
int32_t ak_processor_quota(const char *root);
