// The thread pool; ak_pool.h has its contract.
//
// Each thread has a share of a run's items: adjacent ones, so that the hardware's prefetchers follow its reads, and threads rarely contend for an item.
// A thread that has finished its share steals items of the others'.
//
// A share is one 64-bit ticket: the run's number in the upper half, the items that nobody has taken yet in the lower. A thread takes
// an item by lowering the ticket by one with a compare-and-swap, so it can only ever take an item of the run whose number it has
// read: a thread that wakes up late finds either nothing left or a newer run, and nobody waits for it.
#include "ak_pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "pool_place.h"
#include "pool_wait.h"

// How long a thread spins before it sleeps: longer than the serial work between two tokens, sampling and streaming the first. PATIENCE, longer than most
// waits, is the time between two looks whether the thread it waits for has been preempted.
enum { SPIN_MICROSECONDS = 100, PATIENCE_MICROSECONDS = 20, CACHE_LINE = 64 };
// Bytes that a waiting thread prefetches, a fraction of its second-level cache, in steps so short that it notices in time that it is needed.
enum { PREFETCH_BYTES = 256 * 1024, PREFETCH_STEP = 4 * CACHE_LINE };

typedef void (*work_function)(void *context, int32_t item, int32_t worker);

typedef struct {
    ak_pool *pool;
    int32_t worker;
    pthread_t thread;
} pool_thread;

typedef struct {
    _Alignas(CACHE_LINE) _Atomic uint64_t ticket;
    _Atomic int32_t end;                       // the first item after the share
    _Alignas(CACHE_LINE) ak_place place;       // of the thread
} pool_share;

struct ak_pool {
    // The run. Written, like the shares' ends, before a share's ticket is published and read before an item of it is taken: a compare-and-swap
    // that succeeds proves that the run was still open, and so that the values belong to it.
    _Alignas(CACHE_LINE) _Atomic(work_function) work;
    _Atomic(void *) context;

    // Memory that is read after the run: written between runs, read by threads that hold an item.
    ak_prefetch_ranges prefetches[AK_MOST_PREFETCHES];
    int32_t prefetch_count;

    _Alignas(CACHE_LINE) ak_signal finished;   // counts items that are not done; the caller waits for zero
    _Alignas(CACHE_LINE) ak_signal started;    // changes with every run; idle workers wait for a change
    _Atomic int32_t sleeping;                  // workers that wait, or are about to
    _Atomic int stopping;

    // Read while waiting and written once a computation, so that it stays in every thread's cache.
    _Alignas(CACHE_LINE) _Atomic int running;  // whether it is counted in `threads_of_all`

    _Alignas(CACHE_LINE) _Atomic uint32_t moves;   // times that a waiting thread gave up its processor, or left it

    _Alignas(CACHE_LINE) atomic_flag busy;
    int moves_threads;                         // whether waiting threads give their processors to preempted ones
    int32_t thread_count;                      // threads without the caller; written before the first one starts
    int32_t started_threads;                   // how many of them have been started: fewer only if one could not be
    uint32_t process;                          // forks before this pool was made
    pool_thread *threads;
    pool_share *shares;                        // one for each thread, the caller's first
};

// Threads of all pools of this process that are inside a run, working or waiting, and the processors for them. With too few processors a spinning thread
// would delay another pool's work, so it sleeps.
static struct {
    _Alignas(CACHE_LINE) _Atomic int32_t running;
    _Atomic int32_t processors;
} threads_of_all;

// A child process has the pool's memory but not its threads.
static _Atomic uint32_t fork_count;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;
static void count_fork(void) {
    atomic_fetch_add_explicit(&fork_count, 1, memory_order_relaxed);
    atomic_store_explicit(&threads_of_all.running, 0, memory_order_relaxed);
    ak_place_forget();
}
static void watch_forks(void) { pthread_atfork(NULL, NULL, count_fork); }
static int is_forked(const ak_pool *pool) { return atomic_load_explicit(&fork_count, memory_order_relaxed) != pool->process; }

static void set_running(ak_pool *pool, int running) {
    const int32_t threads = pool->thread_count + 1;
    // The pool's own flag is set as long as its threads are in the sum.
    if (running) atomic_store_explicit(&pool->running, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&threads_of_all.running, running ? threads : -threads, memory_order_acq_rel);
    if (!running) atomic_store_explicit(&pool->running, 0, memory_order_release);
}

void ak_pool_enter(ak_pool *pool) { if (pool->thread_count > 0 && !is_forked(pool)) set_running(pool, 1); }
void ak_pool_leave(ak_pool *pool) { if (atomic_load_explicit(&pool->running, memory_order_relaxed)) set_running(pool, 0); }

// Whether other pools' threads leave too few processors for this pool's to spin on.
static int is_crowded(const ak_pool *pool) {
    // Equal before and after, so that a pool which begins or ends a run at this moment does not take itself for another.
    const int running = atomic_load_explicit(&pool->running, memory_order_acquire);
    const int32_t all = atomic_load_explicit(&threads_of_all.running, memory_order_acquire), threads = pool->thread_count + 1;
    const int32_t others = all - (running ? threads : 0);
    return others > 0 && others + threads > atomic_load_explicit(&threads_of_all.processors, memory_order_relaxed)
        && atomic_load_explicit(&pool->running, memory_order_relaxed) == running;
}

static uint32_t items_left(uint64_t ticket) { return (uint32_t)ticket; }

// The end of thread `worker`'s share, if shares are equal; for -1 the first item.
static int32_t share_end(int32_t items, int32_t worker, int32_t threads) { return (int32_t)((int64_t)items * (worker + 1) / threads); }

// ------------------------------------------------------------------------------------------------------ prefetch while waiting

// The state of one thread's prefetch.
typedef struct {
    ak_prefetch_ranges prefetches[AK_MOST_PREFETCHES];
    int32_t count, threads;
    int32_t worker;
    int32_t at, range;   // the entry and its range that are being prefetched; -1: none yet
    size_t offset;       // within the range
    size_t left;         // bytes that may still be prefetched
} prefetch_state;

static void start_prefetch(prefetch_state *ahead, const ak_pool *pool, int32_t worker) {
    ahead->count = pool->prefetch_count;
    for (int32_t i = 0; i < ahead->count; i++) ahead->prefetches[i] = pool->prefetches[i];
    ahead->threads = pool->thread_count + 1;
    ahead->worker = worker;
    ahead->at = 0;
    ahead->range = -1;
    ahead->offset = 0;
    ahead->left = PREFETCH_BYTES;
}

static int prefetch_some(void *context) {
    prefetch_state *ahead = context;
    while (ahead->at < ahead->count && ahead->left > 0) {
        const ak_prefetch_ranges *ranges = &ahead->prefetches[ahead->at];
        if (ahead->range < 0) ahead->range = share_end(ranges->count, ahead->worker - 1, ahead->threads);
        if (ahead->range >= share_end(ranges->count, ahead->worker, ahead->threads)) {
            ahead->at++;
            ahead->range = -1;
            ahead->offset = 0;
            continue;
        }
        if (ahead->offset >= ranges->bytes) {
            ahead->range++;
            ahead->offset = 0;
            continue;
        }
        const char *from = (const char *)ranges->base + (size_t)ahead->range * ranges->stride + ahead->offset;
        for (size_t line = 0; line < PREFETCH_STEP; line += CACHE_LINE) __builtin_prefetch(from + line, 0, 2);
        ahead->offset += PREFETCH_STEP;
        ahead->left -= ahead->left < PREFETCH_STEP ? ahead->left : PREFETCH_STEP;
        return 1;
    }
    return 0;
}

// ------------------------------------------------------------------------------------------------------------------ the runs

// Takes and runs items of one share until none is left. Returns whether it ran one.
static int take_share(ak_pool *pool, pool_share *share, int32_t worker, prefetch_state *ahead, int any) {
    uint64_t ticket = atomic_load_explicit(&share->ticket, memory_order_acquire);
    ak_place *place = &pool->shares[worker].place;
    while (items_left(ticket) > 0) {
        work_function work = atomic_load_explicit(&pool->work, memory_order_relaxed);
        void *context = atomic_load_explicit(&pool->context, memory_order_relaxed);
        const int32_t end = atomic_load_explicit(&share->end, memory_order_relaxed);
        // Acquire and release: the loads above cannot move below this, and the item's own work cannot move above it.
        if (!atomic_compare_exchange_weak_explicit(&share->ticket, &ticket, ticket - 1, memory_order_acq_rel, memory_order_acquire))
            continue;
        if (!any) start_prefetch(ahead, pool, worker);
        ak_place_set_processor(place, ak_this_processor());
        if (worker > 0) ak_place_set_needed(place, 1);
        work(context, end - (int32_t)items_left(ticket), worker);
        if (worker > 0) ak_place_set_needed(place, 0);
        any = 1;
        if (atomic_fetch_sub_explicit(&pool->finished.value, 1, memory_order_acq_rel) == 1) ak_signal_wake_waiter(&pool->finished);
        if (worker > 0) ak_place_return(place);
        ticket = atomic_load_explicit(&share->ticket, memory_order_acquire);
    }
    return any;
}

// Takes and runs items, first of the thread's own share, until none is left. Returns whether it ran one.
static int take_items(ak_pool *pool, int32_t worker, prefetch_state *ahead) {
    const int32_t threads = pool->thread_count + 1;
    int any = 0;
    for (int32_t i = 0; i < threads; i++) any = take_share(pool, &pool->shares[(worker + i) % threads], worker, ahead, any);
    return any;
}

static int is_taken(const void *context, int32_t processor) {
    const ak_pool *pool = context;
    for (int32_t i = 0; i <= pool->thread_count; i++)
        if (ak_place_processor(&pool->shares[i].place) == processor) return 1;
    return 0;
}

// A needed thread that a waiting one observes: its processor time at the first look.
typedef struct {
    int32_t worker, thread;
    int64_t time;
} look;

// Looks for a preempted thread among the needed ones, or only those last seen on this processor, and moves it to a processor where it can run. Returns
// whether the calling thread has to sleep now, because it was on the processor that the other needs.
static int help_others(ak_pool *pool, int32_t worker, int only_here, int (*done)(const void *), const void *context) {
    enum { LOOKS = 8, LOOK_MICROSECONDS = 5 };
    if (!pool->moves_threads) return 0;
    const int32_t here = ak_this_processor();
    look looks[LOOKS];
    int count = 0;
    for (int32_t i = pool->thread_count; i >= 0 && count < LOOKS; i--) {   // the caller of the run last: threads with items keep it waiting
        ak_place *place = &pool->shares[i].place;
        if (i == worker || !ak_place_is_needed(place) || (only_here && ak_place_processor(place) != here)) continue;
        const int32_t thread = atomic_load_explicit(&place->thread, memory_order_relaxed);
        const int64_t time = thread != 0 ? ak_thread_time(thread) : -1;
        if (time >= 0) looks[count++] = (look){i, thread, time};
    }
    if (count == 0 || ak_spin(done, context, LOOK_MICROSECONDS, NULL, NULL)) return 0;
    for (int k = 0; k < count; k++) {
        ak_place *place = &pool->shares[looks[k].worker].place, *own = &pool->shares[worker].place;
        if (ak_thread_time(looks[k].thread) != looks[k].time || !ak_place_is_needed(place)) continue;
        int moved, sleeps = 0;
        if (looks[k].worker > 0) moved = sleeps = ak_place_lend(place, looks[k].thread);
        else if (ak_place_processor(place) != here) moved = ak_place_exchange(place, looks[k].thread, own, &sleeps);
        else sleeps = !(moved = ak_place_leave(own, is_taken, pool));
        if (moved) atomic_fetch_add_explicit(&pool->moves, 1, memory_order_relaxed);
        if (moved || sleeps) return sleeps;
    }
    return 0;
}

// The conditions that end a wait: `done`, or too few processors to spin on.
typedef struct {
    const ak_pool *pool;
    int (*done)(const void *);
    const void *context;
} wait_watch;

static int is_over(const void *context) {
    const wait_watch *watch = context;
    return watch->done(watch->context) || is_crowded(watch->pool);
}

// Waits until `done`. Returns 0 if the calling thread has to sleep now, because the time is over or another thread needs its processor.
static int wait_for(ak_pool *pool, int32_t worker, int (*done)(const void *), const void *context, prefetch_state *ahead) {
    if (done(context)) return 1;
    if (is_crowded(pool)) return 0;
    const wait_watch watch = {pool, done, context};
    const uint64_t end = ak_microseconds() + SPIN_MICROSECONDS;
    if (help_others(pool, worker, 1, is_over, &watch)) return 0;
    do {
        if (ak_spin(is_over, &watch, PATIENCE_MICROSECONDS, prefetch_some, ahead)) return done(context);
        if (help_others(pool, worker, 0, is_over, &watch)) return 0;
    } while (ak_microseconds() < end);
    return done(context);
}

typedef struct { const ak_pool *pool; uint32_t seen; } run_watch;

static int has_run(const void *context) {
    const run_watch *watch = context;
    return atomic_load_explicit(&watch->pool->started.value, memory_order_relaxed) != watch->seen
        || atomic_load_explicit(&watch->pool->stopping, memory_order_relaxed);
}

static void *run_worker(void *argument) {
    const pool_thread *thread = argument;
    ak_pool *pool = thread->pool;
    prefetch_state ahead = {.count = 0};
    ak_place_enter(&pool->shares[thread->worker].place);
    while (!atomic_load_explicit(&pool->stopping, memory_order_acquire)) {
        // Shares are published before the run's start, so a thread that has seen the start finds their items, and one that finds none sees the next.
        const run_watch watch = {pool, atomic_load(&pool->started.value)};
        if (take_items(pool, thread->worker, &ahead)) continue;
        if (wait_for(pool, thread->worker, has_run, &watch, &ahead)) continue;
        // Announce the sleep, then look once more; the caller starts a run, then looks for sleepers. So one of the two sees the other.
        atomic_fetch_add(&pool->sleeping, 1);
        if (atomic_load(&pool->started.value) == watch.seen && !atomic_load(&pool->stopping)) ak_signal_wait(&pool->started, watch.seen);
        atomic_fetch_sub(&pool->sleeping, 1);
    }
    return NULL;
}

static void free_pool(ak_pool *pool) {
    if (!is_forked(pool)) {   // destroying a condition would wait for waiters that do not exist in the child
        ak_signal_destroy(&pool->started);
        ak_signal_destroy(&pool->finished);
    }
    free(pool->shares);
    free(pool->threads);
    free(pool);
}

ak_pool *ak_pool_create(int32_t threads) {
    if (threads < 1) return NULL;
    pthread_once(&fork_once, watch_forks);
    atomic_store_explicit(&threads_of_all.processors, ak_processor_count(), memory_order_relaxed);
    void *memory = NULL;
    if (posix_memalign(&memory, CACHE_LINE, sizeof(ak_pool)) != 0) return NULL;
    ak_pool *pool = memory;
    *pool = (ak_pool){.busy = ATOMIC_FLAG_INIT, .process = atomic_load(&fork_count)};
    if (ak_signal_init(&pool->started) != 0) {
        free(pool);
        return NULL;
    }
    if (ak_signal_init(&pool->finished) != 0) {
        ak_signal_destroy(&pool->started);
        free(pool);
        return NULL;
    }
    if (threads == 1) return pool;
    pool->moves_threads = ak_places_work();
    pool->threads = calloc((size_t)threads - 1, sizeof *pool->threads);
    if (posix_memalign(&memory, CACHE_LINE, (size_t)threads * sizeof(pool_share)) == 0) pool->shares = memory;
    if (pool->threads == NULL || pool->shares == NULL) {
        free_pool(pool);
        return NULL;
    }
    for (int32_t i = 0; i < threads; i++) {
        atomic_init(&pool->shares[i].ticket, 0);
        atomic_init(&pool->shares[i].end, 0);
        memset(&pool->shares[i].place, 0, sizeof pool->shares[i].place);
    }
    pool->thread_count = threads - 1;
    for (int32_t i = 0; i < threads - 1; i++) {
        pool_thread *thread = &pool->threads[i];
        thread->pool = pool;
        thread->worker = i + 1;
        if (pthread_create(&thread->thread, NULL, run_worker, thread) != 0) {
            ak_pool_destroy(pool);
            return NULL;
        }
        pool->started_threads++;
    }
    return pool;
}

void ak_pool_destroy(ak_pool *pool) {
    if (pool == NULL) return;
    if (!is_forked(pool)) {
        atomic_store(&pool->stopping, 1);
        atomic_fetch_add(&pool->started.value, 1);
        ak_signal_wake_all(&pool->started);
        for (int32_t i = 0; i < pool->started_threads; i++) pthread_join(pool->threads[i].thread, NULL);
    }
    free_pool(pool);
}

int32_t ak_pool_threads(const ak_pool *pool) { return pool->thread_count + 1; }
uint32_t ak_pool_moves(const ak_pool *pool) { return atomic_load_explicit(&pool->moves, memory_order_relaxed); }

static int is_finished(const void *context) {
    return atomic_load_explicit(&((const ak_pool *)context)->finished.value, memory_order_acquire) == 0;
}

void ak_pool_prefetch(ak_pool *pool, const ak_prefetch_ranges *ranges, int32_t count) {
    if (pool->thread_count == 0 || atomic_flag_test_and_set_explicit(&pool->busy, memory_order_acquire)) return;
    pool->prefetch_count = 0;
    for (int32_t i = 0; i < count && pool->prefetch_count < AK_MOST_PREFETCHES; i++) {
        if (ranges[i].bytes == 0 || ranges[i].count <= 0) continue;
        ak_prefetch_ranges *kept = &pool->prefetches[pool->prefetch_count++];
        *kept = ranges[i];
        if (kept->count > PREFETCH_BYTES) kept->count = PREFETCH_BYTES;   // more are not prefetched, and none overflows
    }
    atomic_flag_clear_explicit(&pool->busy, memory_order_release);
}

void ak_pool_run(ak_pool *pool, int32_t items, const int32_t *ends, work_function work, void *context) {
    if (items <= 0) return;
    if (items == 1 || pool->thread_count == 0 || is_forked(pool)
        || atomic_flag_test_and_set_explicit(&pool->busy, memory_order_acquire)) {
        for (int32_t item = 0; item < items; item++) work(context, item, 0);
        return;
    }
    ak_place *place = &pool->shares[0].place;
    const int is_entered = atomic_load_explicit(&pool->running, memory_order_relaxed);
    if (!is_entered) set_running(pool, 1);
    ak_place_enter(place);
    ak_place_set_needed(place, 1);
    atomic_store_explicit(&pool->work, work, memory_order_relaxed);
    atomic_store_explicit(&pool->context, context, memory_order_relaxed);
    atomic_store_explicit(&pool->finished.value, (uint32_t)items, memory_order_relaxed);
    const int32_t threads = pool->thread_count + 1;
    const uint64_t run = (atomic_load_explicit(&pool->shares[0].ticket, memory_order_relaxed) >> 32) + 1;
    int32_t begin = 0;
    for (int32_t i = 0; i < threads; i++) {
        int32_t end = i == threads - 1 ? items : ends ? ends[i] : share_end(items, i, threads);
        if (end < begin || end > items) end = begin;   // every item is in one share, whatever `ends` holds
        atomic_store_explicit(&pool->shares[i].end, end, memory_order_relaxed);
        atomic_store_explicit(&pool->shares[i].ticket, run << 32 | (uint32_t)(end - begin), memory_order_release);
        begin = end;
    }
    atomic_fetch_add(&pool->started.value, 1);
    const int32_t sleeping = atomic_load(&pool->sleeping);
    if (sleeping > 0) ak_signal_wake(&pool->started, sleeping < items - 1 ? sleeping : items - 1);

    prefetch_state ahead = {.count = 0};
    take_items(pool, 0, &ahead);
    if (!wait_for(pool, 0, is_finished, pool, &ahead)) {
        ak_place_set_needed(place, 0);   // no other thread waits for a sleeping caller
        ak_signal_wait_zero(&pool->finished);
    }
    ak_place_set_needed(place, 0);
    ak_place_return(place);
    pool->prefetch_count = 0;
    if (!is_entered) set_running(pool, 0);
    atomic_flag_clear_explicit(&pool->busy, memory_order_release);
}
