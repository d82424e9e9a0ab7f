// Thread migration: a waiting thread gives its processor to a preempted thread that it waits for.
//
// Another program can preempt a thread of the pool for a time slice, 4 ms on most systems, in which decode would make a hundred runs. The system does
// not migrate a thread that ran a moment ago, so all others wait for it next to idle processors: one busy program, which took 35 % of the machine, cost
// decode 63 % of its speed.
// Therefore a thread that has waited for a while checks whether the threads it waits for are running (otherwise their processor-time clocks do not
// advance), and moves a preempted one to its own processor.
//
// A move sets the thread's affinity mask to one processor and back: threads stay free to run where they may. A mask that somebody else sets between
// the two steps is overwritten, and a thread that was moved once no longer follows a container whose processors become more. Linux only, where
// thread clocks are exact, and not with ADALLAVA_MOVES=0 (for sandboxes that end programs which set their affinity); elsewhere nobody is moved.
#pragma once
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "pool_wait.h"

#if defined(__linux__)
#include <sched.h>
#endif

typedef struct {
    _Atomic int32_t thread;      // the system's number of the thread; 0: not known
    _Atomic int32_t processor;   // where it was seen last
    _Atomic int32_t needed;      // whether others wait for it: it has an item, or is the caller of a run
    _Atomic int32_t home;        // 1 + the processor that it returns to after its item; 0: it stays
    _Atomic int32_t moving;      // another thread moves it
#if defined(__linux__)
    _Atomic int32_t narrow;      // AK_MASK_…: whether its mask may be narrower than `mask`, and which thread may access that
    cpu_set_t mask;
#endif
} ak_place;

enum { AK_MASK_NONE = 0, AK_MASK_KEPT = 1, AK_MASK_IN_USE = 2 };   // IN_USE: one thread reads or writes `mask`; nobody waits for it

static inline int ak_place_is_needed(const ak_place *place) { return atomic_load_explicit(&place->needed, memory_order_relaxed); }
static inline void ak_place_set_needed(ak_place *place, int needed) { atomic_store_explicit(&place->needed, needed, memory_order_relaxed); }
static inline int32_t ak_place_processor(const ak_place *place) { return atomic_load_explicit(&place->processor, memory_order_relaxed); }
static inline void ak_place_set_processor(ak_place *place, int32_t processor) {
    atomic_store_explicit(&place->processor, processor, memory_order_relaxed);
}

#if defined(__linux__)

static _Thread_local int32_t ak_own_thread;   // invalid in a child process: see ak_place_forget

static inline void ak_place_forget(void) { ak_own_thread = 0; }
static inline int32_t ak_this_processor(void) { return sched_getcpu(); }

// Processor time of a thread of this process in nanoseconds; -1: this process has no thread of this number.
static inline int64_t ak_thread_time(int32_t thread) {
    struct timespec time;
    const clockid_t clock = (clockid_t)(~(uint32_t)thread << 3 | 6);   // as pthread_getcpuclockid returns for a pthread_t
    return clock_gettime(clock, &time) == 0 ? (int64_t)time.tv_sec * 1000000000 + time.tv_nsec : -1;
}

static inline int ak_never(const void *context) { (void)context; return 0; }

// Whether threads can be watched and moved here.
static inline int ak_places_work(void) {
    const char *choice = getenv("ADALLAVA_MOVES");
    if (choice != NULL && strcmp(choice, "0") == 0) return 0;
    const int32_t thread = (int32_t)syscall(SYS_gettid);
    int exact = 0;
    for (int i = 0; i < 3; i++) {   // with a clock that advances in ticks every thread would seem preempted
        const int64_t time = ak_thread_time(thread);
        ak_spin(ak_never, NULL, 5, NULL, NULL);
        exact += time >= 0 && ak_thread_time(thread) > time;
    }
    return exact == 3;
}

// Registers the calling thread as the one of this place.
static inline void ak_place_enter(ak_place *place) {
    if (ak_own_thread == 0) ak_own_thread = (int32_t)syscall(SYS_gettid);
    ak_place_set_processor(place, ak_this_processor());
    atomic_store_explicit(&place->thread, ak_own_thread, memory_order_relaxed);
}

// Moves a thread (0: the calling one) to a processor. Returns whether it did: not if the thread may not run there, or only there. A mask that another
// move has narrowed temporarily is not changed, so that no order of two moves leaves a thread with a narrower mask than before.
//   place: the thread's, where it finds its mask if it resumes before the mover does. NULL: the calling thread.
static inline int ak_move_thread(int32_t thread, ak_place *place, int32_t processor) {
    cpu_set_t mask, one;
    if (processor < 0 || processor >= CPU_SETSIZE || sched_getaffinity(thread, sizeof mask, &mask) != 0) return 0;
    if (!CPU_ISSET(processor, &mask) || CPU_COUNT(&mask) < 2) return 0;
    CPU_ZERO(&one);
    CPU_SET(processor, &one);
    if (place != NULL) {
        int32_t narrow = atomic_load_explicit(&place->narrow, memory_order_relaxed);
        if (narrow == AK_MASK_IN_USE) return 0;   // the thread is running: it takes its mask back
        if (!atomic_compare_exchange_strong_explicit(&place->narrow, &narrow, AK_MASK_IN_USE, memory_order_acquire, memory_order_relaxed)) return 0;
        place->mask = mask;
        atomic_store_explicit(&place->narrow, AK_MASK_KEPT, memory_order_release);
    }
    const int moved = sched_setaffinity(thread, sizeof one, &one) == 0;
    for (int tries = 0; moved && tries < 3 && sched_setaffinity(thread, sizeof mask, &mask) != 0; tries++) {}
    return moved;
}

// Moves a needed thread to the processor of the calling one, unless another thread moves it.
static inline int ak_place_fetch(ak_place *place, int32_t thread, int32_t here) {
    int32_t free = 0;
    if (!atomic_compare_exchange_strong(&place->moving, &free, 1)) return 0;
    const int moved = ak_place_is_needed(place) && ak_move_thread(thread, place, here);
    if (moved) ak_place_set_processor(place, here);
    atomic_store(&place->moving, 0);
    return moved;
}

// Lends the processor of the calling thread, which then sleeps, to a thread with an item, which returns to its own processor after the item. Returns
// whether it did.
static inline int ak_place_lend(ak_place *place, int32_t thread) {
    const int32_t from = ak_place_processor(place), here = ak_this_processor();
    int32_t none = 0;
    if (from == here) return 1;   // it waits for this processor already
    if (!atomic_compare_exchange_strong(&place->home, &none, from + 1)) return 0;
    if (ak_place_fetch(place, thread, here)) return 1;
    atomic_store_explicit(&place->home, 0, memory_order_relaxed);
    return 0;
}

// Restores the mask of the calling thread, which was needed, if it was moved and resumed before its mover did, and its processor if it was lent another.
static inline void ak_place_return(ak_place *place) {
    int32_t kept = AK_MASK_KEPT;
    if (atomic_load_explicit(&place->narrow, memory_order_relaxed) == AK_MASK_KEPT
        && atomic_compare_exchange_strong_explicit(&place->narrow, &kept, AK_MASK_IN_USE, memory_order_acquire, memory_order_relaxed)) {
        const cpu_set_t mask = place->mask;
        atomic_store_explicit(&place->narrow, AK_MASK_NONE, memory_order_release);
        sched_setaffinity(0, sizeof mask, &mask);
    }
    const int32_t home = atomic_load_explicit(&place->home, memory_order_relaxed);
    if (home == 0) return;
    atomic_store_explicit(&place->home, 0, memory_order_relaxed);
    if (ak_move_thread(0, NULL, home - 1)) ak_place_set_processor(place, home - 1);
}

// Exchanges the processors of the caller of a run and of the calling thread, which has nothing to do. Returns whether the caller was moved; then
// `sleeps` is 1 if the calling thread was not.
static inline int ak_place_exchange(ak_place *place, int32_t thread, ak_place *own, int *sleeps) {
    const int32_t there = ak_place_processor(place), here = ak_this_processor();
    if (!ak_place_fetch(place, thread, here)) return 0;
    *sleeps = !ak_move_thread(0, NULL, there);
    if (!*sleeps) ak_place_set_processor(own, there);
    return 1;
}

// Moves the calling thread, which has nothing to do, to the next processor where it may run and for which `taken` is 0. Returns whether there is one.
static inline int ak_place_leave(ak_place *own, int (*taken)(const void *, int32_t processor), const void *context) {
    cpu_set_t mask;
    const int32_t here = ak_this_processor();
    if (here < 0 || sched_getaffinity(0, sizeof mask, &mask) != 0) return 0;
    for (int32_t i = 1; i < CPU_SETSIZE; i++) {
        const int32_t processor = (here + i) % CPU_SETSIZE;
        if (!CPU_ISSET(processor, &mask) || taken(context, processor)) continue;
        if (!ak_move_thread(0, NULL, processor)) return 0;
        ak_place_set_processor(own, processor);
        return 1;
    }
    return 0;
}

#else

static inline void ak_place_forget(void) {}
static inline int32_t ak_this_processor(void) { return -1; }
static inline int64_t ak_thread_time(int32_t thread) { (void)thread; return -1; }
static inline int ak_places_work(void) { return 0; }
static inline void ak_place_enter(ak_place *place) { (void)place; }
static inline int ak_place_lend(ak_place *place, int32_t thread) { (void)place, (void)thread; return 0; }
static inline void ak_place_return(ak_place *place) { (void)place; }
static inline int ak_place_exchange(ak_place *place, int32_t thread, ak_place *own, int *sleeps) {
    (void)place, (void)thread, (void)own, (void)sleeps;
    return 0;
}
static inline int ak_place_leave(ak_place *own, int (*taken)(const void *, int32_t processor), const void *context) {
    (void)own, (void)taken, (void)context;
    return 0;
}

#endif
