#!/usr/bin/env bash
# Copies the page, the runtime and the models into a folder for any static server: bash examples/web/build.sh site
set -euo pipefail
site=$(realpath -m "${1:?"usage: bash examples/web/build.sh FOLDER"}")
cd "$(dirname "$0")"
[ -f node_modules/.package-lock.json ] || npm install --no-audit --no-fund --fetch-retries=0
mkdir -p "$site/runtime" "$site/models"
cp index.html style.css ./*.js ../photos/astronaut.jpg "$site"
cp node_modules/onnxruntime-web/dist/ort{.wasm.bundle.min.mjs,-wasm-simd-threaded.wasm} "$site/runtime"
cp ../../models/{landmark*,retinaface}.onnx "$site/models"
echo "$site is ready: python3 -m http.server -d $site, then open http://localhost:8000"
