#!/usr/bin/env bash
# The C kernels, concurrent answers and the parsers under sanitizers. Fails on the first report.
#   scripts/sanitize.sh [PART…]      all parts, or these:
#     kernels   the thread pool under ThreadSanitizer; it, and products, attention and elementwise operations of odd sizes, under AddressSanitizer and
#               UndefinedBehaviorSanitizer, by every instruction set of this machine (1.5 minutes)
#     arm       all but ThreadSanitizer for the NEON kernels, in qemu-user, on processors with and without dot products (4 minutes)
#     answers   answers of the embedded model at the same time, under ThreadSanitizer (0.5 minutes, and 6 the first time, to build)
#     parsers   suites of hostile and damaged files, under AddressSanitizer, leaks included (3 minutes, and 9 the first time, to build)
# Times are of a busy machine with two x86 cores. arm installs qemu and a cross compiler where they are missing, as scripts/setup.sh installs packages.
set -euo pipefail
cd "$(dirname "$0")/.."
sources=Sources/AdaKernels
tools=Tests/Tools/sanitizers
build=build/sanitizers
mkdir -p "$build"
compiler=${CC:-clang}
fail() { echo "sanitize: $1" >&2; exit 1; }
command -v "$compiler" > /dev/null || fail "no $compiler; set CC to a clang (it comes with Swift)"
flags=(-g -O1 -fno-omit-frame-pointer -D_GNU_SOURCE -I "$sources" -I "$sources/include")
libraries=(-lm -lpthread)
memory=(-fsanitize=address,undefined -fno-sanitize-recover=all)

kernels() {
  local linker=() thread=(-fsanitize=thread)
  "$compiler" -fuse-ld=lld -x c -o "$build/probe" - <<< 'int main(void) { return 0; }' 2> /dev/null && linker=(-fuse-ld=lld)
  # Swift's clang links ThreadSanitizer against libdispatch, which lies among Swift's libraries; an ordinary clang or gcc does without.
  if ! "$compiler" "${thread[@]}" -x c -o "$build/probe" - -lpthread <<< 'int main(void) { return 0; }' 2> /dev/null; then
    local runtime
    runtime=$(dirname "$(dirname "$(readlink -f "$(command -v "$compiler")")")")/lib/swift/linux
    thread+=(-L "$runtime" "-Wl,-rpath,$runtime" -ldispatch -lBlocksRuntime)
  fi

  echo "sanitize: the thread pool, ThreadSanitizer" >&2
  "$compiler" "${flags[@]}" "$tools/pool_stress.c" "$sources/pool.c" "$sources/processors.c" -o "$build/pool-thread" "${thread[@]}" "${libraries[@]}"
  local moves
  for moves in 1 0; do ADALLAVA_MOVES=$moves TSAN_OPTIONS=halt_on_error=1 "$build/pool-thread"; done

  echo "sanitize: the thread pool and the kernels, AddressSanitizer and UndefinedBehaviorSanitizer" >&2
  "$compiler" "${flags[@]}" "${memory[@]}" "${linker[@]}" "$tools/pool_stress.c" "$sources/pool.c" "$sources/processors.c" -o "$build/pool-memory" "${libraries[@]}"
  "$build/pool-memory"
  # Not optimized: tiles are long straight lines of code, which takes minutes to optimize with its checks.
  "$compiler" "${flags[@]}" -O0 "${memory[@]}" "${linker[@]}" "$tools/kernels_odd_sizes.c" "$sources"/*.c -o "$build/kernels-memory" "${libraries[@]}"
  "$build/kernels-memory"
}

arm() {
  scripts/setup.sh qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross
  local tool
  for tool in qemu-aarch64 aarch64-linux-gnu-gcc; do
    command -v $tool > /dev/null || fail "no $tool: install qemu-user and gcc-aarch64-linux-gnu with libasan and the C library's headers for arm64"
  done
  echo "sanitize: the thread pool and the NEON kernels, AddressSanitizer and UndefinedBehaviorSanitizer, in qemu" >&2
  # clang compiles, as for an arm machine with Swift; the sanitizers' library for arm is the cross compiler's,
  # which does not know clang's check of function types.
  local source objects=() folder=$build/arm
  mkdir -p "$folder"
  for source in "$sources"/*.c "$tools"/*.c; do
    objects+=("$folder/$(basename "$source" .c).o")
    "$compiler" --target=aarch64-linux-gnu "${flags[@]}" "${memory[@]}" -fno-sanitize=function -c "$source" -o "${objects[-1]}"
  done
  link() { aarch64-linux-gnu-gcc -fsanitize=address,undefined "${@:2}" -o "$1" "${libraries[@]}"; }
  link "$folder/pool" "$folder/pool_stress.o" "$folder/pool.o" "$folder/processors.o"
  local kernel_objects=()
  for source in "${objects[@]}"; do [[ $source == */pool_stress.o ]] || kernel_objects+=("$source"); done
  link "$folder/kernels" "${kernel_objects[@]}"
  local processor
  # cortex-a72 has no dot products. Leaks are looked for by tracing the process, which qemu does not do.
  for processor in max cortex-a72; do
    echo "sanitize: $processor" >&2
    for tool in pool kernels; do
      ASAN_OPTIONS=detect_leaks=0 qemu-aarch64 -cpu $processor -L /usr/aarch64-linux-gnu "$folder/$tool"
    done
  done
}

# Suites of the package's tests under a sanitizer, not optimized: every access is seen. Fails if one of them did not run.
suites() { # SANITIZER SUITE…
  local sanitizer=$1 output=$build/$1.log suite
  shift
  swift test --sanitize="$sanitizer" --scratch-path "build/${sanitizer:0:1}san" --disable-xctest --filter "/?($(IFS='|'; echo "$*"))/" 2>&1 | tee "$output" >&2
  for suite in "$@"; do grep -q "Suite $suite passed" "$output" || fail "$suite did not run: is there such a suite in Tests?"; done
}

answers() {
  echo "sanitize: answers at the same time, ThreadSanitizer" >&2
  TSAN_OPTIONS=halt_on_error=1 suites thread TwoAnswersTests
}

parsers() {
  echo "sanitize: hostile and damaged files, AddressSanitizer" >&2
  LSAN_OPTIONS="suppressions=$PWD/$tools/leak-suppressions.txt" suites address CheckpointFuzzTests CheckpointGGUFTests CheckpointSafetensorsTests CheckpointJSONTests TorchArchiveTests \
    TokenizerFuzzTests TokenizerErrorTests TokenizerPipelineTests JinjaLimitTests JinjaLanguageTests HostileImageTests ImageDecoderTests ImageSourceTests
}

[ $# -gt 0 ] || set -- kernels arm answers parsers
for part in "$@"; do
  case $part in
    kernels | arm | answers | parsers) "$part" ;;
    *) fail "no part $part: expected kernels, arm, answers or parsers" ;;
  esac
done
