#!/bin/sh
# The main job on real input: a sentence from words to attention, its weights drawn.
#
#     scripts/demo.sh COMMAND FOLDER
set -eu
attend=$1
folder=$2
mkdir -p "$folder"

echo "== From a sentence to its attention: attend explain"
"$attend" explain --heatmap "$folder/attention.png"
"$attend" explain --heatmap "$folder/attention.svg" >/dev/null

echo
echo "== The same walk, told step by step: attend explain --narrate en (the first lines)"
"$attend" explain --narrate en | head -n 12

echo
echo "== A causal mask: each word sees itself and those before it"
"$attend" explain --json | "$attend" compute --causal top-left --weights --from-explanation - --output "$folder/causal.safetensors"
"$attend" plot "$folder/causal.safetensors" --output "$folder/causal.png" --title "Causal Attention Weights"
"$attend" plot "$folder/causal.safetensors" --terminal

echo
echo "Pictures: $folder/attention.png, $folder/attention.svg, $folder/causal.png"
echo "Next:     $attend explain \"Deep Learning And Machine Learning\" --seed 1 --narrate zh"
echo "          $attend explain --help; $attend compute --help; $attend plot --help"
echo "          examples/01_attention.cc, and README.md"
