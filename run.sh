#!/usr/bin/env bash
# The whole pipeline on rendered faces: points on pictures within two minutes, a model of your own after about six.
set -euo pipefail
cd "$(dirname "$0")"

. .ci/environment.sh
pip install --quiet -r requirements.txt

python test_pb.py --pb models/landmark.pb --output drawn/shipped  # what the shipped model finds

[ -d data/sample ] || python data/make_sample.py

# With the real photos in data/300W_LP these are the four lines to type, without their options. The recipe suits
# rendered faces, whose labels are exact: landmark/README.md, "Training".
python prepare_tfrecords.py --data data/sample --out data/sample
python train.py --data data/sample --models models/sample --recipe rendered --steps 600
python freeze_graph.py --data data/sample --models models/sample --output models/sample/landmark.pb
python test_pb.py --pb models/sample/landmark.pb --output drawn/sample
