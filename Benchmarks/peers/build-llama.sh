#!/bin/sh
# Builds llama.cpp, the engine that ours is measured against, and the tools of this folder that use it.
#
#     build-llama.sh DIR
#
# Afterwards DIR/bin holds llama-quantize, llama-bench, llama-batched-bench, llama-mtmd-cli, greedy_tokens and encode_image, DIR/build-avx2/bin a llama-bench that
# uses no AVX-512 (on x86), DIR/sources llama.cpp's sources.
# DIR must lie outside the repository. The sources come from the source distribution of the Python package llama-cpp-python,
# whose version is fixed here, so that everyone measures the same thing. Needs a C++ compiler, cmake, ninja and Python with pip
# (Debian: apt-get install g++ cmake ninja-build python3-pip). About eight minutes on two cores.
set -eu

version=0.3.36
here=$(cd "$(dirname "$0")" && pwd)

if [ $# -ne 1 ]; then
    echo "usage: build-llama.sh DIR" >&2
    exit 64
fi
for tool in c++ cmake ninja python3 tar; do
    if ! command -v "$tool" >/dev/null; then
        echo "build-llama.sh: $tool is missing; on Debian: apt-get install g++ cmake ninja-build python3-pip" >&2
        exit 69
    fi
done
mkdir -p "$1"
directory=$(cd "$1" && pwd)
repository=$(cd "$here/../.." && pwd)
case "$directory/" in
    "$repository"/*) echo "build-llama.sh: $directory lies inside the repository; choose a folder outside it" >&2; exit 64 ;;
esac

sources=$directory/llama_cpp_python-$version/vendor/llama.cpp
if [ ! -f "$sources/CMakeLists.txt" ]; then
    echo "downloading llama-cpp-python $version (77 MB) ..." >&2
    (cd "$directory" && python3 -m pip download --quiet --no-deps --no-binary :all: "llama-cpp-python==$version")
    tar -xzf "$directory/llama_cpp_python-$version.tar.gz" -C "$directory"
fi
ln -sfn "$sources" "$directory/sources"

# gcc 12 takes _tile_loadconfig to read eight bytes and leaves out what llama.cpp writes behind them: its AMX products then stop with an illegal
# instruction. Saying that all of it is read mends that.
amx=$sources/ggml/src/ggml-cpu/amx/mmq.cpp
if [ -f "$amx" ] && ! grep -q '__asm__ volatile.*&tc' "$amx"; then
    sed -i 's/^\( *\)_tile_loadconfig(&tc);/\1__asm__ volatile("" : : "r"(\&tc) : "memory"); _tile_loadconfig(\&tc);/' "$amx"
fi

# build FOLDER TARGETS OPTIONS: no network access, no server, no web interface.
build() {
    folder=$directory/$1 targets=$2
    shift 2
    cmake -S "$sources" -B "$folder" -G Ninja -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=ON "$@" \
        -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
        -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_BUILD_TOOLS=ON >"$folder.configure.log" 2>&1 || {
        tail -n 20 "$folder.configure.log" >&2
        exit 70
    }
    # shellcheck disable=SC2086
    cmake --build "$folder" --target $targets
}
# Tools are built for the processor they run on, as ours are.
build build "llama llama-quantize llama-bench llama-batched-bench llama-mtmd-cli" -DGGML_NATIVE=ON
case "$(uname -m)" in x86_64 | amd64)
    if [ -r /proc/cpuinfo ] && ! grep -q avx512f /proc/cpuinfo; then
        ln -sfn "$directory/build" "$directory/build-avx2"  # would be the same program
    else
        build build-avx2 llama-bench -DGGML_NATIVE=OFF -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON
    fi ;;
esac
ln -sfn "$directory/build/bin" "$directory/bin"

c++ -std=c++17 -O2 -Wall -Wextra "$here/greedy_tokens.cpp" -o "$directory/bin/greedy_tokens" \
    -I"$sources/include" -I"$sources/ggml/include" \
    -L"$directory/bin" -Wl,-rpath,"$directory/bin" -lllama -lggml -lggml-base
c++ -std=c++17 -O2 -Wall -Wextra "$here/encode_image.cpp" -o "$directory/bin/encode_image" \
    -I"$sources/include" -I"$sources/ggml/include" -I"$sources/tools/mtmd" \
    -L"$directory/bin" -Wl,-rpath,"$directory/bin" -lmtmd -lllama -lggml -lggml-base
echo "built: $directory/bin" >&2
