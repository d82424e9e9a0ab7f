// Which kernels this processor runs.
#include <string.h>

#include "internal.h"

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#if AK_X86
#include <cpuid.h>

#include "avx2.h"
#include "amx.h"

int ak_avx2_available(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}

// Asked once, because a virtual machine's host answers cpuid: 0 not yet, 1 no, 2 yes.
static _Atomic int known_avxvnni;

int ak_has_avxvnni(void) {
    if (known_avxvnni == 0) {
        unsigned eax = 0, ebx, ecx, edx;
        enum { AVX_VNNI = 1 << 4 };   // leaf 7, subleaf 1, eax
        const int can = ak_avx2_available() && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax & AVX_VNNI) != 0;
        known_avxvnni = can ? 2 : 1;
    }
    return known_avxvnni == 2;
}

int ak_avxvnni_available(void) { return ak_has_avxvnni() || (ak_avx512_available() && ak_avx512_has_vnni()); }

int ak_avx512_available(void) {
    return ak_avx2_available() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
        && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

int ak_avx512_has_vnni(void) { return __builtin_cpu_supports("avx512vnni") != 0; }
int ak_avx512_has_bf16(void) { return __builtin_cpu_supports("avx512bf16") != 0; }

// Asked once: 0 not yet, 1 no, 2 yes.
static _Atomic int known_amx;

int ak_amx_available(void) {
    if (known_amx == 0) {
        int can = ak_avx512_available() && ak_avx512_has_bf16() && __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-bf16");
#if defined(__linux__)
        // Tile registers are 8 KB that the system saves for a thread: a process asks for them, once for all its threads.
        enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };   // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
        can = can && syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
        can = 0;
#endif
        known_amx = can ? 2 : 1;
    }
    return known_amx == 2;
}

int ak_amx_has_int8(void) { return __builtin_cpu_supports("amx-int8") != 0; }

int ak_avx512_multiplies_rows(void) { return ak_avx512_has_vnni() && __builtin_cpu_supports("avx512vbmi"); }

int ak_has_int8_dot(void) { return ak_avx512_available() && ak_avx512_has_vnni(); }
int ak_has_bf16_dot(void) { return ak_avx512_available() && ak_avx512_has_bf16(); }
#elif AK_ARM
#include "neon.h"

#if defined(__linux__)
#include <sys/auxv.h>

int ak_neon_has_dot(void) {
    enum { ASIMD_DOT_PRODUCT = 1 << 20 };   // HWCAP_ASIMDDP
    return (getauxval(AT_HWCAP) & ASIMD_DOT_PRODUCT) != 0;
}
#elif defined(__APPLE__)
#include <sys/sysctl.h>

// Asked once: 0 not yet, 1 no, 2 yes.
static _Atomic int known_dot;

int ak_neon_has_dot(void) {
    if (known_dot == 0) {
        int value = 0;
        size_t size = sizeof value;
        known_dot = sysctlbyname("hw.optional.arm.FEAT_DotProd", &value, &size, NULL, 0) == 0 && value != 0 ? 2 : 1;
    }
    return known_dot == 2;
}
#elif defined(__ARM_FEATURE_DOTPROD)
int ak_neon_has_dot(void) { return 1; }
#else
int ak_neon_has_dot(void) { return 0; }
#endif

int ak_has_int8_dot(void) { return ak_neon_has_dot(); }
int ak_has_bf16_dot(void) { return 0; }
#else
int ak_has_int8_dot(void) { return 0; }
int ak_has_bf16_dot(void) { return 0; }
#endif

const ak_kernels *ak_kernels_named(const char *name) {
    if (name == NULL) return NULL;
#if AK_X86
    if (strcmp(name, ak_amx_kernels.name) == 0) return ak_amx_available() ? &ak_amx_kernels : NULL;
    if (strcmp(name, ak_avx512_kernels.name) == 0) return ak_avx512_available() ? &ak_avx512_kernels : NULL;
    if (strcmp(name, ak_avxvnni_kernels.name) == 0) return ak_avxvnni_available() ? &ak_avxvnni_kernels : NULL;
    if (strcmp(name, ak_avx2_kernels.name) == 0) return ak_avx2_available() ? &ak_avx2_kernels : NULL;
#elif AK_ARM
    if (strcmp(name, ak_neon_kernels.name) == 0) return &ak_neon_kernels;
#endif
    return strcmp(name, ak_portable_kernels.name) == 0 ? &ak_portable_kernels : NULL;
}

const ak_kernels *ak_kernels_best(void) {
    static const char *const names[] = {"amx", "avx512", "avxvnni", "avx2", "neon"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const ak_kernels *kernels = ak_kernels_named(names[i]);
        if (kernels) return kernels;
    }
    return &ak_portable_kernels;
}

ak_tuning ak_kernels_tuning(const ak_kernels *kernels) {
    // By name: a caller may hold a copy of the table.
    ak_tuning tuning = ak_portable_tuning;
#if AK_X86
    if (strcmp(kernels->name, ak_avx2_kernels.name) == 0 || strcmp(kernels->name, ak_avxvnni_kernels.name) == 0) return ak_avx2_tuning;
    const int is_amx = strcmp(kernels->name, ak_amx_kernels.name) == 0;
    if (!is_amx && strcmp(kernels->name, ak_avx512_kernels.name) != 0) return tuning;
    // The AMX kernels are the AVX-512 ones except for products of BF16 and I8 and attention in BF16.
    tuning = is_amx ? ak_amx_tuning : ak_avx512_tuning;
    tuning.bf16_dot &= ak_avx512_has_bf16();
    tuning.int8_tiles &= ak_amx_has_int8();
    tuning.mapped_rows &= ak_avx512_multiplies_rows();
    if (!ak_avx512_has_vnni()) tuning.bundle_panels = AK_TILE_PANELS;
#elif AK_ARM
    if (strcmp(kernels->name, ak_neon_kernels.name) == 0) tuning = ak_neon_tuning;
#endif
    return tuning;
}

int ak_has_int8_tiles(const ak_kernels *kernels) { return ak_kernels_tuning(kernels).int8_tiles; }
int ak_multiplies_rows(const ak_kernels *kernels) { return ak_kernels_tuning(kernels).mapped_rows; }
int32_t ak_bundle_panels(const ak_kernels *kernels, ak_type type) {
    return ak_block_scale_bytes(type) > 0 ? ak_kernels_tuning(kernels).bundle_panels : AK_TILE_PANELS;
}
