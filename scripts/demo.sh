#!/bin/sh
# The main job on real input: a sentence from words to attention, its weights drawn.
#
#     scripts/demo.sh COMMAND FOLDER
set -eu
attend=$1
folder=$2
mkdir -p "$folder"

echo "== From a sentence to its attention: attend explain"
"$attend" explain --heatmap "$folder/attention.png" --tensors "$folder/walk.safetensors"

echo
echo "== The same, told step by step: attend explain --narrate en (how it begins)"
"$attend" explain --narrate en >"$folder/narration.txt"
head -n 12 "$folder/narration.txt"

echo
echo "== Each word sees itself and those before it: attend compute --causal top-left; attend plot"
"$attend" compute "$folder/walk.safetensors" --causal top-left --weights --write-mask --output "$folder/causal.safetensors"
"$attend" plot "$folder/causal.safetensors" --title "Causal Attention Weights" --output "$folder/causal.png"
"$attend" plot "$folder/causal.safetensors" --title "Causal Attention Weights" --terminal

echo
echo "Pictures:  $folder/attention.png"
echo "           $folder/causal.png"
echo "Next:      $attend explain \"Deep Learning And Machine Learning\" --narrate zh"
echo "           $attend plot $folder/causal.safetensors --output map.svg --size 10x10"
echo "           $attend compute --help"
echo "           README.md, README.zh-CN.md; examples/01_attention.cc"
