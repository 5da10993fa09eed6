#!/bin/sh
# The main jobs on real input: a sentence from words to attention, its weights drawn; paragraphs translated.
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

if [ -d models/pt-en ] && [ -d models/en-pt ]; then
    cat >"$folder/portuguese.txt" <<'END'
A biblioteca da cidade abriu ontem depois de dois anos de obras. O Sr. Almeida, que a dirige, diz que há agora espaço
para cem leitores. As crianças gostaram mais da sala de leitura no jardim. Quem quiser visitar pode entrar sem pagar.
END
    cat >"$folder/english.txt" <<'END'
Attention lets a model look at every word of a sentence at once. Each word asks a question, and the others answer
according to how well they fit. Dr. Smith said it was simple... but it took years to find.
END
    for direction in pt-en en-pt; do
        case $direction in
            pt-en) text=portuguese ;;
            *) text=english ;;
        esac
        # A paragraph on one line, as sentences may go over line breaks.
        tr '\n' ' ' <"$folder/$text.txt" | sed 's/ *$//' >"$folder/$text.line.txt"
        echo >>"$folder/$text.line.txt"
        echo
        echo "== A paragraph through Firefox's model: attend translate --model models/$direction"
        cat "$folder/$text.txt"
        echo "--"
        "$attend" translate --model "models/$direction" --input "$folder/$text.line.txt" | fold -s -w 118
    done
    echo
    echo "== Which word comes from which: attend translate --plot"
    sentence="The red sofa was bought by my old uncle."
    echo "$sentence"
    echo "--"
    "$attend" translate --model models/en-pt --plot "$folder/cross.png" --attention "$folder/cross.safetensors" "$sentence"
    "$attend" plot "$folder/cross.safetensors" --tensor 0.cross_attention --layer 1 --head 0 --title "Cross Attention" \
        --terminal
else
    echo
    echo "== Translation is left out: there are no models in models/ (make models fetches them)"
fi

echo
echo "Pictures:  $folder/attention.png"
echo "           $folder/causal.png"
[ ! -f "$folder/cross.png" ] || echo "           $folder/cross.png"
echo "Next:      $attend explain \"Deep Learning And Machine Learning\" --narrate zh"
echo "           $attend plot $folder/causal.safetensors --output map.svg --size 10x10"
echo "           $attend compute --help; $attend translate --help"
echo "           README.md, README.zh-CN.md; examples/01_attention.cc"
