// A pool of threads that shares out numbered pieces of work dynamically: a worker takes the next piece of its share when it is done with its
// last, and then pieces of the others' shares, so a core that another program has taken slows the whole by its share and no more than one piece
// is waited for. And that not for long: a waiting thread gives its processor to one that the system has taken off its own (`pool_place.h`).
// Several pools may run at once: while their threads are more than the processors, those that wait sleep at once.
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
// One run at a time; a nested or concurrent call runs all its items on the caller, as worker 0 of nobody else's run:
// callers must serialize runs that share scratch.
//   ends: worker w begins with the items from ends[w - 1] (or 0) to ends[w], of which there are as many as threads; the last share goes to the
//   last item. NULL: as many items for each, give or take one.
void ak_pool_run(ak_pool *pool, int32_t items, const int32_t *ends, void (*work)(void *context, int32_t item, int32_t worker), void *context);

// Says that a computation of many runs begins, and ends: other pools' waiting threads leave the processors to it also between its runs. Not nested; a run
// outside of it says so by itself, which costs it a little.
void ak_pool_enter(ak_pool *pool);
void ak_pool_leave(ak_pool *pool);

// Memory that will probably be read right after a run: `pieces` of `bytes` bytes each, `stride` bytes apart, of which each worker is going to read
// its share: as many as the others, side by side.
typedef struct {
    const void *base;
    size_t stride, bytes;
    int32_t pieces;
} ak_expected;

#define AK_EXPECTED 6   // at most

// Says what comes after the next ak_pool_run (and only that). Threads that wait for its end, or for the one after it, ask for this memory
// meanwhile, as much as a second-level cache has room for, so that it does not stand idle while threads meet. Never changes a result, and the
// memory may be gone when it is asked for. Called by whoever calls ak_pool_run.
void ak_pool_expect(ak_pool *pool, const ak_expected *expected, int32_t count);

// Asks for cache lines that the calling thread reads soon.
static inline void ak_prefetch(const void *const *lines, int32_t count) {
    for (int32_t i = 0; i < count; i++) __builtin_prefetch(lines[i], 0, 3);
}

// How often a waiting thread gave its processor to another of the pool, or left it, since the pool was made: how much other programs get in the way.
uint32_t ak_pool_moves(const ak_pool *pool);

// Processors that this process may keep busy, at least 1: those of its affinity mask, or fewer if a container's CPU quota (rounded up) allows less.
int32_t ak_processor_count(void);
// The CPU quota of this process's cgroups (v1 and v2) and their parents in processors, rounded up; 0 if there is none. Reads the files under `root`:
// "" for this machine's.
int32_t ak_processor_quota(const char *root);
