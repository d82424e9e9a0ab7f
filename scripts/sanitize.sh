#!/usr/bin/env bash
# The C kernels under sanitizers: the thread pool under ThreadSanitizer, and products and attention of odd sizes under AddressSanitizer and
# UndefinedBehaviorSanitizer, by every instruction set of this machine. Fails on the first report. Takes about two minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
sources=Sources/AdaKernels
tools=Tests/Tools/sanitizers
build=build/sanitizers
mkdir -p "$build"
compiler=${CC:-clang}
command -v "$compiler" > /dev/null || { echo "sanitize: no $compiler; set CC to a clang (it comes with Swift)" >&2; exit 1; }
flags=(-g -O1 -fno-omit-frame-pointer -D_GNU_SOURCE -I "$sources" -I "$sources/include")
libraries=(-lm -lpthread)
linker=(); "$compiler" -fuse-ld=lld -x c -o "$build/probe" - <<< 'int main(void) { return 0; }' 2> /dev/null && linker=(-fuse-ld=lld)

# Swift's clang links ThreadSanitizer against libdispatch, which lies among Swift's libraries; an ordinary clang or gcc does without.
thread=(-fsanitize=thread)
if ! "$compiler" "${thread[@]}" -x c -o "$build/probe" - -lpthread <<< 'int main(void) { return 0; }' 2> /dev/null; then
  runtime=$(dirname "$(dirname "$(readlink -f "$(command -v "$compiler")")")")/lib/swift/linux
  thread+=(-L "$runtime" "-Wl,-rpath,$runtime" -ldispatch -lBlocksRuntime)
fi

echo "sanitize: the thread pool, ThreadSanitizer" >&2
"$compiler" "${flags[@]}" "$tools/pool_stress.c" "$sources/pool.c" "$sources/processors.c" -o "$build/pool-thread" "${thread[@]}" "${libraries[@]}"
for moves in 1 0; do ADALLAVA_MOVES=$moves TSAN_OPTIONS=halt_on_error=1 "$build/pool-thread"; done

echo "sanitize: the thread pool, products and attention, AddressSanitizer and UndefinedBehaviorSanitizer" >&2
memory=(-fsanitize=address,undefined -fno-sanitize-recover=all "${linker[@]}")
"$compiler" "${flags[@]}" "${memory[@]}" "$tools/pool_stress.c" "$sources/pool.c" "$sources/processors.c" -o "$build/pool-memory" "${libraries[@]}"
"$build/pool-memory"
# Not optimized: tiles are long straight lines of code, which takes minutes to optimize with its checks.
"$compiler" "${flags[@]}" -O0 "${memory[@]}" "$tools/kernels_odd_sizes.c" "$sources"/*.c -o "$build/kernels-memory" "${libraries[@]}"
"$build/kernels-memory"
