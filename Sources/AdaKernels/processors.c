// How many processors this process may keep busy: taskset or a container may allow fewer than the machine has, and a container's quota may allow less
// of their time.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ak_pool.h"

#if defined(__linux__)
#include <sched.h>

enum { PATH_BYTES = 4096, MOST_PROCESSORS = 1 << 20 };

// Whether a list of names with commas between them holds `name`.
static int lists(const char *list, const char *name) {
    const size_t length = strlen(name);
    for (const char *at = list; (at = strstr(at, name)) != NULL; at += length) {
        if ((at == list || at[-1] == ',') && (at[length] == 0 || at[length] == ',')) return 1;
    }
    return 0;
}

static FILE *open_under(const char *root, const char *path) {
    char full[PATH_BYTES];
    const int length = snprintf(full, sizeof full, "%s%s", root, path);
    return length > 0 && length < PATH_BYTES ? fopen(full, "re") : NULL;
}

// The two numbers of a file, or the first of each of two files. Returns how many of them are there; "max" is none.
static int read_numbers(const char *root, const char *folder, const char *name, const char *second, long long out[2]) {
    char path[PATH_BYTES];
    int found = 0;
    for (int i = 0; i < (second ? 2 : 1); i++) {
        const int length = snprintf(path, sizeof path, "%s/%s", folder, i == 0 ? name : second);
        FILE *file = length > 0 && length < PATH_BYTES ? open_under(root, path) : NULL;
        if (file == NULL) return 0;
        found += second ? fscanf(file, "%lld", &out[i]) == 1 : fscanf(file, "%lld %lld", &out[0], &out[1]);
        fclose(file);
    }
    return found;
}

// The least quota of a cgroup and its parents up to the mount point, in processors; `least` where there is none or a larger one.
static int32_t smallest_quota(const char *root, const char *mount, const char *group, int is_v2, int32_t least) {
    char folder[PATH_BYTES];
    // The cgroup is outside the mount ("/.."): the mount's root is the nearest that can be read.
    const int length = snprintf(folder, sizeof folder, "%s%s", mount, strstr(group, "/..") ? "" : group);
    if (length < 0 || length >= PATH_BYTES) return least;
    for (;;) {
        long long numbers[2] = {0, 0};
        const int found = is_v2 ? read_numbers(root, folder, "cpu.max", NULL, numbers)
                                : read_numbers(root, folder, "cpu.cfs_quota_us", "cpu.cfs_period_us", numbers);
        if (found == 2 && numbers[0] > 0 && numbers[1] > 0) {
            const long long processors = (numbers[0] - 1) / numbers[1] + 1;
            if (processors <= MOST_PROCESSORS && (least == 0 || processors < least)) least = (int32_t)processors;
        }
        char *slash = strrchr(folder, '/');
        if (slash == NULL || strlen(folder) <= strlen(mount)) return least;
        *slash = 0;
    }
}

// The path of this process in the hierarchy of `line`, a line of /proc/self/cgroup, if that has the processors: "0::/a/b" or "4:cpu,cpuacct:/a/b".
static const char *group_of(char *line, int *is_v2) {
    line[strcspn(line, "\n")] = 0;
    char *controllers = strchr(line, ':');
    char *group = controllers ? strchr(controllers + 1, ':') : NULL;
    if (group == NULL) return NULL;
    *group++ = 0;
    *is_v2 = strcmp(line, "0:") == 0;
    return *is_v2 || lists(controllers + 1, "cpu") ? group : NULL;
}

// Decodes "\040" and the like, the escapes of blanks in a mount's names.
static void unescape(char *name) {
    char *to = name;
    for (const char *from = name; *from != 0; to++) {
        if (from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] >= '0' && from[2] <= '7' && from[3] >= '0' && from[3] <= '7') {
            *to = (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0'));
            from += 4;
        } else {
            *to = *from++;
        }
    }
    *to = 0;
}

// The quotas of the cgroup in every place where its hierarchy is mounted: lines of /proc/self/mountinfo, "36 35 98:0 /group /mount options … - cgroup2
// source options".
static int32_t mounted_quota(const char *root, const char *group, int is_v2, int32_t least) {
    FILE *file = open_under(root, "/proc/self/mountinfo");
    if (file == NULL) return least;
    char *line = NULL;
    size_t room = 0;
    while (getline(&line, &room, file) > 0) {
        char *rest = strstr(line, " - ");
        if (rest == NULL) continue;
        *rest = 0;
        char type[32], options[1024], inner[PATH_BYTES], mount[PATH_BYTES];
        if (sscanf(rest + 3, "%31s %*s %1023s", type, options) != 2 || sscanf(line, "%*s %*s %*s %4095s %4095s", inner, mount) != 2) continue;
        if (strcmp(type, is_v2 ? "cgroup2" : "cgroup") != 0 || (!is_v2 && !lists(options, "cpu"))) continue;
        unescape(inner);
        unescape(mount);
        // `inner` is the cgroup at the mount's root: the whole hierarchy ("/"), or the container's.
        const size_t length = strcmp(inner, "/") == 0 ? 0 : strlen(inner);
        const int is_inside = strncmp(group, inner, length) == 0 && (group[length] == '/' || group[length] == 0);
        const char *below = is_inside ? group + length : "";
        least = smallest_quota(root, mount, strcmp(below, "/") == 0 ? "" : below, is_v2, least);
    }
    free(line);
    fclose(file);
    return least;
}

int32_t ak_processor_quota(const char *root) {
    FILE *file = open_under(root, "/proc/self/cgroup");
    if (file == NULL) return 0;
    char *line = NULL;
    size_t room = 0;
    int32_t least = 0;
    while (getline(&line, &room, file) > 0) {
        int is_v2 = 0;
        const char *group = group_of(line, &is_v2);
        if (group != NULL) least = mounted_quota(root, group, is_v2, least);
    }
    free(line);
    fclose(file);
    return least;
}
#else
int32_t ak_processor_quota(const char *root) {
    (void)root;
    return 0;
}
#endif

int32_t ak_processor_count(void) {
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    int32_t count = online > 0 ? (int32_t)online : 1;
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) count = CPU_COUNT(&set);
#endif
    const int32_t quota = ak_processor_quota("");
    return quota > 0 && quota < count ? quota : count > 0 ? count : 1;
}
