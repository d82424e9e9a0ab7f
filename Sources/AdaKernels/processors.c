// How many processors this process may run on: a container or taskset may allow fewer than the machine has.
#include <unistd.h>

#include "ak_pool.h"

#if defined(__linux__)
#include <sched.h>
#endif

int32_t ak_processor_count(void) {
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
    long count = sysconf(_SC_NPROCESSORS_ONLN);
    return count > 0 ? (int32_t)count : 1;
}
