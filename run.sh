#!/usr/bin/env bash
# The whole pipeline on rendered faces, from nothing to points drawn on pictures, in eight to twelve minutes on 2 cores.
set -euo pipefail
cd "$(dirname "$0")"

[ -f .venv/bin/activate ] || python3 -m venv --clear .venv  # that file comes last: without it .venv is half made
. .venv/bin/activate
pip install --quiet -r requirements.txt

[ -d data/sample ] || python data/make_sample.py

# With the real photos in data/300W_LP these are the four lines to type, without their options.
python prepare_tfrecords.py --data data/sample --out data/sample
python train.py --data data/sample --models models/sample --steps 1800
python freeze_graph.py --data data/sample --models models/sample
python test_pb.py
