// The thread pool under ThreadSanitizer: pools that come and go, two of them at once, one used by several threads, threads that are moved.
// scripts/sanitize.sh builds and runs it.
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "ak_pool.h"
#include "pool_place.h"

enum { MOST_ITEMS = 64, CALLERS = 3 };

static _Atomic int failures;

// Every item is run once; what it reads and writes is plain memory, which the pool must hand from thread to thread.
typedef struct {
    int input;
    int runs[MOST_ITEMS];
    int by_worker[8];   // scratch of one worker
} job;

static void item_of(void *context, int32_t item, int32_t worker) {
    job *shared = context;
    shared->runs[item] += shared->input;
    shared->by_worker[worker]++;
    for (volatile int i = 0; i < item % 7 * 50; i++) {}
}

static void run_jobs(ak_pool *pool, int rounds, int is_shared) {
    static const char memory[1 << 12];
    for (int round = 0; round < rounds; round++) {
        job own = {.input = round + 1};
        const int items = round % MOST_ITEMS;
        int32_t ends[8];
        for (int i = 0; i < 8; i++) ends[i] = rand() % (MOST_ITEMS + 1);
        if (!is_shared && round % 3 == 0) {
            const ak_prefetch_ranges expected = {memory, 64, 64, 64};
            ak_pool_prefetch(pool, &expected, 1);
        }
        ak_pool_run(pool, items, round % 2 ? ends : NULL, item_of, &own);
        int count = 0;
        for (int i = 0; i < MOST_ITEMS; i++) failures += own.runs[i] != (i < items ? own.input : 0);
        for (int i = 0; i < 8; i++) count += own.by_worker[i];
        failures += count != items;
        if (round % 50 == 0) for (volatile int i = 0; i < 300000; i++) {}   // longer than threads spin
    }
}

static void *own_pools(void *argument) {
    (void)argument;
    for (int round = 0; round < 40; round++) {
        ak_pool *pool = ak_pool_create(1 + round % 4);
        if (pool == NULL) {
            failures++;
            continue;
        }
        run_jobs(pool, 150, 0);
        ak_pool_destroy(pool);
    }
    return NULL;
}

static void *shared_pool(void *pool) {
    run_jobs(pool, 2000, 1);
    return NULL;
}

#if defined(__linux__)
// A thread that gives itself its mask back while another moves it.
static ak_place place;
static _Atomic int ready, stop;

static void *moved_thread(void *argument) {
    (void)argument;
    ak_place_enter(&place);
    ready = 1;
    while (!stop) {
        ak_place_set_needed(&place, 1);
        for (volatile int i = 0; i < 200; i++) {}
        ak_place_set_needed(&place, 0);
        ak_place_return(&place);
    }
    return NULL;
}

static void move_a_thread(void) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, moved_thread, NULL) != 0) abort();
    while (!ready) {}
    for (int i = 0; i < 20000; i++) ak_place_fetch(&place, place.thread, ak_this_processor());
    stop = 1;
    pthread_join(thread, NULL);
}
#else
static void move_a_thread(void) {}
#endif

int main(void) {
    pthread_t threads[2 * CALLERS];
    ak_pool *pool = ak_pool_create(3);
    if (pool == NULL) return 1;
    for (int i = 0; i < CALLERS; i++) {
        if (pthread_create(&threads[i], NULL, own_pools, NULL) != 0) abort();
        if (pthread_create(&threads[CALLERS + i], NULL, shared_pool, pool) != 0) abort();
    }
    for (int i = 0; i < 2 * CALLERS; i++) pthread_join(threads[i], NULL);
    ak_pool_destroy(pool);
    move_a_thread();
    printf("pool_stress: %d failures\n", failures);
    return failures != 0;
}
