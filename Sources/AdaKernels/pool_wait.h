// Waiting for a 32-bit value to change: futexes on Linux, a condition variable elsewhere. Only this file knows which.
#pragma once
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

#if defined(__linux__)
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

typedef struct {
    _Atomic uint32_t value;
    _Atomic int waiting;       // a thread waits for zero
#if !defined(__linux__)
    pthread_mutex_t mutex;
    pthread_cond_t condition;
#endif
} ak_signal;

#if defined(__linux__)

static inline int ak_signal_init(ak_signal *signal) {
    atomic_store(&signal->value, 0);
    return 0;
}
static inline void ak_signal_destroy(ak_signal *signal) { (void)signal; }

// Returns when the value is not `seen`, or earlier.
static inline void ak_signal_wait(ak_signal *signal, uint32_t seen) {
    syscall(SYS_futex, &signal->value, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}
static inline void ak_signal_wake(ak_signal *signal, int32_t count) {
    syscall(SYS_futex, &signal->value, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

#else

static inline int ak_signal_init(ak_signal *signal) {
    atomic_store(&signal->value, 0);
    if (pthread_mutex_init(&signal->mutex, NULL) != 0) return -1;
    if (pthread_cond_init(&signal->condition, NULL) == 0) return 0;
    pthread_mutex_destroy(&signal->mutex);
    return -1;
}
static inline void ak_signal_destroy(ak_signal *signal) {
    pthread_cond_destroy(&signal->condition);
    pthread_mutex_destroy(&signal->mutex);
}

// Returns when the value is not `seen`, or earlier. The value changes outside the mutex, but always before a wake, which takes it.
static inline void ak_signal_wait(ak_signal *signal, uint32_t seen) {
    pthread_mutex_lock(&signal->mutex);
    if (atomic_load(&signal->value) == seen) pthread_cond_wait(&signal->condition, &signal->mutex);
    pthread_mutex_unlock(&signal->mutex);
}
static inline void ak_signal_wake(ak_signal *signal, int32_t count) {
    pthread_mutex_lock(&signal->mutex);
    if (count == 1) pthread_cond_signal(&signal->condition);
    else pthread_cond_broadcast(&signal->condition);
    pthread_mutex_unlock(&signal->mutex);
}

#endif

static inline void ak_signal_wake_all(ak_signal *signal) { ak_signal_wake(signal, INT32_MAX); }

// Waits until the value is zero. The thread that sets it to zero calls ak_signal_wake_waiter; both use sequentially consistent operations.
static inline void ak_signal_wait_zero(ak_signal *signal) {
    atomic_store(&signal->waiting, 1);
    uint32_t value;
    while ((value = atomic_load(&signal->value)) != 0) ak_signal_wait(signal, value);
    atomic_store(&signal->waiting, 0);
}
static inline void ak_signal_wake_waiter(ak_signal *signal) {
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load(&signal->waiting)) ak_signal_wake(signal, 1);
}

// ------------------------------------------------------------------------------------------------------------------ spinning

static inline void ak_pause(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb");   // `yield` is too short to give the core's other hardware threads execution slots
#endif
}

static inline uint64_t ak_microseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

// A short step of useful work while waiting. Returns 0 when nothing is left.
typedef int (*ak_idle_step)(void *context);

// Checks `done` for about the given time, with steps of `idle` in between. Returns whether it came true.
static inline int ak_spin(int (*done)(const void *), const void *context, uint64_t microseconds, ak_idle_step idle, void *idle_context) {
    const uint64_t start = ak_microseconds();
    do {
        for (int i = 0; i < 16; i++) {
            if (done(context)) return 1;
            if (idle == NULL || !idle(idle_context)) {
                idle = NULL;
                ak_pause();
            }
        }
    } while (ak_microseconds() - start < microseconds);
    return done(context);
}
