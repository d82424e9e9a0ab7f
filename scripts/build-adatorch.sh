#!/usr/bin/env bash
# Builds build/adatorch/libAdaTorch.so, which `adallava train` loads. Needs a C++ compiler and libtorch, nothing else.
#   scripts/build-adatorch.sh                    Debian's libtorch: apt-get install g++ libtorch-dev libgloo-dev libopenblas0-pthread
#   TORCH_DIR=/path scripts/build-adatorch.sh    another: an unpacked libtorch, or the `torch` folder of a pip-installed PyTorch (2.6 or newer)
# CXX names the compiler. Only files that changed are compiled again.
set -euo pipefail
cd "$(dirname "$0")/.."
out=build/adatorch
mkdir -p "$out"

if [ -n "${CXX:-}" ]; then compiler=$CXX
elif command -v clang++ > /dev/null; then compiler=clang++
elif command -v g++ > /dev/null; then compiler=g++
else
  echo "build-adatorch: no C++ compiler: apt-get install g++" >&2
  exit 69
fi

flags=(-O2 -fPIC -fvisibility=hidden -Wall -Wextra -Wno-unused-parameter -Wno-deprecated-declarations -ISources/AdaTorch/include)
if [ -n "${TORCH_DIR:-}" ]; then
  version_header=$TORCH_DIR/include/torch/csrc/api/include/torch/version.h
  library_dir=$TORCH_DIR/lib
  flags+=("-isystem" "$TORCH_DIR/include" "-isystem" "$TORCH_DIR/include/torch/csrc/api/include")
else
  version_header=/usr/include/torch/csrc/api/include/torch/version.h
  library_dir=$(dirname "$(find /usr/lib -name libtorch_cpu.so -print -quit 2> /dev/null)")
  flags+=("-isystem" /usr/include/torch/csrc/api/include)
fi
if [ ! -f "$version_header" ] || [ ! -e "$library_dir/libtorch_cpu.so" ]; then
  echo "build-adatorch: no libtorch found${TORCH_DIR:+ in $TORCH_DIR}: apt-get install libtorch-dev libgloo-dev libopenblas0-pthread, or set TORCH_DIR" >&2
  exit 69
fi
major=$(sed -n 's/^#define TORCH_VERSION_MAJOR \([0-9]*\).*/\1/p' "$version_header")
if [ "${major:-1}" -ge 2 ]; then flags+=(-std=c++20); else flags+=(-std=c++17); fi

libraries=(-ltorch_cpu -lc10)
# Gloo's own headers come with Debian's libgloo-dev; a pip-installed PyTorch has none and trains on several CUDA devices through NCCL.
if [ -z "${TORCH_DIR:-}" ] && [ -f /usr/include/gloo/rendezvous/store.h ]; then
  flags+=(-DUSE_DISTRIBUTED -DUSE_C10D -DUSE_C10D_GLOO)
  libraries+=(-lgloo)
fi
if [ -e "$library_dir/libtorch_cuda.so" ]; then
  libraries+=(-ltorch_cuda -lc10_cuda)
  flags+=(-DADATORCH_CUDA)
  cuda=${CUDA_HOME:-/usr/local/cuda}
  # A pip-installed PyTorch brings CUDA's headers, and NCCL's, as packages beside it.
  for folder in "$cuda/include" "$library_dir"/../../nvidia/*/include; do
    if [ -d "$folder" ]; then flags+=("-isystem" "$folder"); fi
  done
  if compgen -G "$library_dir/../../nvidia/nccl/include/nccl.h" > /dev/null || [ -f /usr/include/nccl.h ]; then flags+=(-DUSE_DISTRIBUTED -DUSE_C10D -DUSE_C10D_NCCL); fi
fi
# libtorch from pip before 2.6 has another C++ ABI than the compiler's.
if grep -aq '_ZN3c105ErrorC1ENS_14SourceLocationESs' "$library_dir/libc10.so"; then flags+=(-D_GLIBCXX_USE_CXX11_ABI=0); fi

stamp="$compiler ${flags[*]} $library_dir"
if [ "$(cat "$out/flags" 2> /dev/null)" != "$stamp" ]; then
  rm -f "$out"/*.o
  echo "$stamp" > "$out/flags"
fi
pids=()
limit=${ADATORCH_JOBS:-2}
for source in Sources/AdaTorch/*.cpp; do
  object=$out/$(basename "$source" .cpp).o
  if [ -f "$object" ] && [ -z "$(find Sources/AdaTorch -newer "$object" \( -name '*.h' -o -path "$source" \))" ]; then continue; fi
  echo "build-adatorch: $source" >&2
  "$compiler" "${flags[@]}" -c "$source" -o "$object.partial" && mv "$object.partial" "$object" &
  pids+=($!)
  if [ ${#pids[@]} -ge "$limit" ]; then
    wait "${pids[0]}"
    pids=("${pids[@]:1}")
  fi
done
for pid in "${pids[@]}"; do wait "$pid"; done
"$compiler" -shared -o "$out/libAdaTorch.so.partial" "$out"/*.o -L"$library_dir" -Wl,--no-as-needed "${libraries[@]}" \
  -Wl,-rpath,"$library_dir" -Wl,-z,defs
mv "$out/libAdaTorch.so.partial" "$out/libAdaTorch.so"
echo "build-adatorch: $out/libAdaTorch.so" >&2
