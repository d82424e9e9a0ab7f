// Where the threads of a pool run, and how one that waits gives its processor to one that it waits for.
//
// Another program that takes a processor takes a thread of the pool off it for a time slice, 4 ms on most systems, in which a decode would make
// a hundred runs. If that thread holds an item, all others wait for it beside processors that stand idle: the system does not move a thread that
// ran a moment ago, and a decode beside one busy program lost 63 % of its speed where 35 % of the machine was taken. So a thread that has waited
// for a while looks whether the one it waits for is running (the clock of its processor time stands still if not) and puts it on its own processor.
//
// A move sets the thread's affinity mask to one processor and back: threads stay free to run where they may. Linux only; elsewhere nobody is moved.
#pragma once
#include <stdatomic.h>
#include <stdint.h>

#include "pool_wait.h"

#if defined(__linux__)
#include <sched.h>
#endif

typedef struct {
    _Atomic int32_t thread;      // the system's number of the thread; 0: not known
    _Atomic int32_t processor;   // where it took its last item
    _Atomic int32_t holds;       // whether it has an item
    _Atomic int32_t home;        // 1 + the processor that it returns to when it has done its item; 0: it stays
} ak_place;

static inline int ak_place_holds(const ak_place *place) { return atomic_load_explicit(&place->holds, memory_order_relaxed); }
static inline void ak_place_let_go(ak_place *place) { atomic_store_explicit(&place->holds, 0, memory_order_relaxed); }

static inline int32_t ak_place_processor(const ak_place *place) { return atomic_load_explicit(&place->processor, memory_order_relaxed); }

#if defined(__linux__)

static inline int32_t ak_this_processor(void) { return sched_getcpu(); }

// Says that the calling thread is the one that runs here from now on.
static inline void ak_place_enter(ak_place *place) {
    static _Thread_local int32_t thread;
    if (thread == 0) thread = (int32_t)syscall(SYS_gettid);
    atomic_store_explicit(&place->thread, thread, memory_order_relaxed);
    atomic_store_explicit(&place->processor, ak_this_processor(), memory_order_relaxed);
}

// Says that it has an item.
static inline void ak_place_hold(ak_place *place) {
    atomic_store_explicit(&place->processor, ak_this_processor(), memory_order_relaxed);
    atomic_store_explicit(&place->holds, 1, memory_order_relaxed);
}

// Nanoseconds that a thread of this process has run; -1: there is none of this number, or not in this process.
static inline int64_t ak_thread_time(int32_t thread) {
    struct timespec time;
    const clockid_t clock = (clockid_t)(~(uint32_t)thread << 3 | 6);   // what pthread_getcpuclockid makes of a pthread_t
    return clock_gettime(clock, &time) == 0 ? (int64_t)time.tv_sec * 1000000000 + time.tv_nsec : -1;
}

// Whether the thread does not run: it waits for a processor, or sleeps. Looks for some microseconds, no longer than until `done`.
static inline int ak_place_is_off(const ak_place *place, int (*done)(const void *), const void *context) {
    const int32_t thread = atomic_load_explicit(&place->thread, memory_order_relaxed);
    if (thread == 0) return 0;
    const int64_t time = ak_thread_time(thread);
    return time >= 0 && !ak_spin(done, context, 5, NULL, NULL) && ak_thread_time(thread) == time;
}

// Puts a thread (0: the caller) on a processor. Returns whether it was done: not if it may not run there, or on that one only. A mask that another
// move has narrowed for the moment is left alone, so that no order of two moves leaves a thread with less than it had.
static inline int ak_move_thread(int32_t thread, int32_t processor) {
    cpu_set_t mask, one;
    if (processor < 0 || processor >= CPU_SETSIZE || sched_getaffinity(thread, sizeof mask, &mask) != 0) return 0;
    if (!CPU_ISSET(processor, &mask) || CPU_COUNT(&mask) < 2) return 0;
    CPU_ZERO(&one);
    CPU_SET(processor, &one);
    if (sched_setaffinity(thread, sizeof one, &one) != 0) return 0;
    sched_setaffinity(thread, sizeof mask, &mask);
    return 1;
}

// Puts a thread that has an item on the processor of the caller, who is to sleep until the item is done. Returns whether it did: one thread lends.
static inline int ak_place_lend(ak_place *place) {
    const int32_t from = ak_place_processor(place), here = ak_this_processor();
    int32_t home = 0;
    if (from == here) return 1;   // it waits for this processor already
    if (!atomic_compare_exchange_strong(&place->home, &home, from + 1)) return 0;
    return ak_move_thread(atomic_load_explicit(&place->thread, memory_order_relaxed), here);
}

// Puts the calling thread, if it was lent a processor, back on its own: the lender goes on at once.
static inline void ak_place_return(ak_place *place) {
    const int32_t home = atomic_load_explicit(&place->home, memory_order_relaxed);
    if (home == 0) return;
    atomic_store_explicit(&place->home, 0, memory_order_relaxed);
    ak_move_thread(0, home - 1);
}

// Puts a thread on the processor of the caller and the caller, who has nothing to do, on that thread's. Returns whether it did. A thread that
// sleeps is not disturbed: it wakes up where the system likes.
static inline int ak_place_exchange(const ak_place *place) {
    const int32_t there = ak_place_processor(place), here = ak_this_processor();
    return there != here && ak_move_thread(atomic_load_explicit(&place->thread, memory_order_relaxed), here) && ak_move_thread(0, there);
}

// Puts the calling thread, which has nothing to do, on the first processor where it may run and of which `taken` says no. Returns whether there is one.
static inline int ak_place_leave(int (*taken)(const void *, int32_t processor), const void *context) {
    cpu_set_t mask;
    if (sched_getaffinity(0, sizeof mask, &mask) != 0) return 0;
    for (int32_t processor = 0; processor < CPU_SETSIZE; processor++)
        if (CPU_ISSET(processor, &mask) && !taken(context, processor)) return ak_move_thread(0, processor);
    return 0;
}

#else

static inline int32_t ak_this_processor(void) { return -1; }
static inline void ak_place_enter(ak_place *place) { (void)place; }
static inline void ak_place_hold(ak_place *place) { (void)place; }
static inline int ak_place_is_off(const ak_place *place, int (*done)(const void *), const void *context) {
    (void)place, (void)done, (void)context;
    return 0;
}
static inline int ak_place_lend(ak_place *place) { (void)place; return 0; }
static inline void ak_place_return(ak_place *place) { (void)place; }
static inline int ak_place_exchange(const ak_place *place) { (void)place; return 0; }
static inline int ak_place_leave(int (*taken)(const void *, int32_t processor), const void *context) {
    (void)taken, (void)context;
    return 0;
}

#endif
