"""Translation: options, what is shown of a translation, and folders in fewer bytes."""
import math
import pathlib

import numpy as np
import pytest

import attend

DATA = pathlib.Path(__file__).parents[2] / "tests" / "data"
TEXT = "Hello, world."


@pytest.fixture(scope="module")
def marian():
    return attend.Translator.from_pretrained(DATA / "marian" / "tiny", compute_type="float32")


@pytest.fixture(scope="module")
def hugging_face():
    return attend.Translator.from_pretrained(DATA / "hugging_face" / "tiny", compute_type="float32")


def pieces_without_repetition(ids, n):
    grams = [tuple(ids[i:i + n]) for i in range(len(ids) - n + 1)]
    return len(grams) == len(set(grams))


def test_languages_and_pieces(marian, hugging_face):
    assert (marian.source_language, marian.target_language) == ("xx", "yy")
    assert hugging_face.source_language == "en"
    found = hugging_face.translate(TEXT, alignment=True)
    assert "".join(hugging_face.source_pieces(found.source_ids)).startswith("\u2581")
    assert hugging_face.source_pieces(found.source_ids)[-1] == "</s>"
    for pieces in (hugging_face.pieces, hugging_face.source_pieces):
        assert pieces([1 << 30]) == ["<unk>"]  # a model may have rows that no word has
        with pytest.raises(ValueError, match="expected"):
            pieces([-1])
    with pytest.raises(ValueError, match="expected"):
        marian.pieces([1 << 30])


def test_paths_and_texts_of_other_kinds(hugging_face):
    same = attend.Translator.from_pretrained(b"tests/data/hugging_face/tiny")
    assert same.translate(TEXT).text == hugging_face.translate(TEXT).text
    with pytest.raises(ValueError, match="surrogate"):
        same.translate("a\udc80b")
    for given, found in ((["a", 1], "int at index 1"), (["a\udc80b"], "half of a surrogate pair at index 0"), ((x for x in "ab"), "generator")):
        with pytest.raises(TypeError, match=f"expected a str or a list of str, found .*{found}"):
            same.translate(given)


def test_scores_of_firefox_models(marian):
    quiet, told = marian.translate(TEXT), marian.translate(TEXT, scores=True)
    assert quiet.ids == told.ids
    assert (quiet.score, quiet.log_probability) == (0.0, 0.0)
    assert told.log_probability < 0.0
    beams = marian.translate(TEXT, beam_size=3, n_best=2, length_penalty=0.5, word_penalty=0.25)
    for one in (beams, beams.others[0]):
        n = len(one.ids)
        assert one.score == pytest.approx((one.log_probability - 0.25 * n) / n**0.5, rel=1e-5)
    assert beams.score >= beams.others[0].score


def test_scores_of_hugging_face_models(hugging_face):
    found = hugging_face.translate(TEXT, max_new_tokens=5, length_penalty=2.0)
    assert found.log_probability < 0.0
    assert found.score == pytest.approx(found.log_probability / len(found.ids)**2, rel=1e-5)


@pytest.mark.parametrize("model", ["marian", "hugging_face"])
def test_attention_and_alignment(model, request):
    model = request.getfixturevalue(model)
    plain = model.translate(TEXT)
    assert plain.source_ids == plain.alignment == plain.attention == plain.words.links == []
    found = model.translate(TEXT, target_prefix="a", alignment=True, attention=True)
    (attention,) = found.attention
    assert isinstance(attention, attend.TranslationAttention)
    assert attention.source_tokens == model.source_pieces(found.source_ids)
    assert attention.target_tokens == model.pieces(found.ids)
    sources, targets = len(found.source_ids), len(found.ids)
    assert attention.cross.dtype == attention.encoder.dtype == np.float32
    assert attention.cross.shape[2:] == (targets, sources)
    assert attention.encoder.shape[2:] == (sources, sources)
    assert attention.cross.shape[1] == attention.encoder.shape[1] == 2
    assert attention.decoder_tokens[1:] == attention.target_tokens[:-1]
    if attention.decoder.size:
        assert attention.decoder.shape[2:] == (targets, targets)
        np.testing.assert_allclose(attention.decoder.sum(-1), 1.0, atol=targets * 2.0**-23)
        assert not np.triu(attention.decoder, 1).any()
    # Rows of a softmax of n float32 terms.
    np.testing.assert_allclose(attention.cross.sum(-1), 1.0, atol=sources * 2.0**-23)
    np.testing.assert_allclose(attention.encoder.sum(-1), 1.0, atol=sources * 2.0**-23)
    # Links are the large weights of the first head of the last layer, and the largest of each target.
    weights = attention.cross[-1, 0]
    expected = [(s, t) for t in range(targets) for s in range(sources)
                if weights[t, s] >= 0.2 or s == weights[t].argmax()]
    assert [(s, t) for s, t, _ in found.alignment] == expected
    for s, t, weight in found.alignment:
        assert weight == weights[t, s]
    words = found.words
    assert isinstance(words, attend.WordAlignment)
    assert [TEXT.encode()[a:b].decode() for a, b in words.source] == ["Hello", ",", "world", "."]
    assert all(0 <= a < b <= len(found.text.encode()) for a, b in words.target)
    assert {t for _, t, _ in words.links} == set(range(len(words.target)))
    assert all(0 <= s < len(words.source) and 0.0 <= weight <= 1.00001 for s, _, weight in words.links)


def test_words_are_bytes_of_the_whole_line(hugging_face):
    text = "Olá. Hello."
    found = hugging_face.translate(text, alignment=True, attention=True)
    assert [text.encode()[a:b].decode() for a, b in found.words.source] == ["Olá", ".", "Hello", "."]
    assert len(found.attention) == 2
    assert len(hugging_face.translate(text, attention=True, split=False).attention) == 1


def test_lengths(hugging_face):
    assert len(hugging_face.translate(TEXT, max_length=4).ids) == 3  # the start counts
    assert len(hugging_face.translate(TEXT, max_new_tokens=4).ids) == 4
    assert len(hugging_face.translate(TEXT, min_length=9, max_length=10, beam_size=2).ids) in (8, 9)
    assert len(hugging_face.translate("a b c d e f g h", max_source_tokens=4, attention=True).attention) > 1


def test_processors(hugging_face):
    options = {"max_new_tokens": 8}
    plain = hugging_face.translate(TEXT, **options)
    assert not pieces_without_repetition(plain.ids, 2)
    assert pieces_without_repetition(hugging_face.translate(TEXT, no_repeat_ngram_size=2, **options).ids, 2)
    assert hugging_face.translate(TEXT, repetition_penalty=50.0, **options).ids != plain.ids
    # Probabilities of what is left once repetitions are forbidden add up to 1 again, so they are larger.
    kept, normal = (hugging_face.translate(TEXT, no_repeat_ngram_size=1, renormalize_logits=x, **options)
                    for x in (False, True))
    assert normal.log_probability > kept.log_probability


def test_early_stopping(hugging_face):
    options = {"beam_size": 2, "max_new_tokens": 8, "length_penalty": 2.0, "no_repeat_ngram_size": 1}
    default, no, yes, never = (hugging_face.translate(TEXT, early_stopping=x, **options)
                               for x in (None, False, True, "never"))
    assert default.ids == no.ids
    assert never.score > no.score > yes.score
    for wrong in ("always", 1, 0.5):
        with pytest.raises(ValueError, match=r"expected early_stopping of True, False or 'never', found "):
            hugging_face.translate(TEXT, early_stopping=wrong)


def test_sampling(hugging_face):
    options = {"sampling": True, "max_new_tokens": 8, "n_best": 4}

    def drawn(**more):
        found = hugging_face.translate(TEXT, **{**options, **more})
        return [found.ids, *(other.ids for other in found.others)]

    assert drawn(seed=1) == drawn(seed=1) != drawn(seed=2)
    greedy = hugging_face.translate(TEXT, max_new_tokens=8, beam_size=1).ids
    assert drawn(top_k=1) == [greedy] * 4
    assert drawn(top_p=1e-6) == [greedy] * 4
    assert drawn(temperature=1e-4, seed=3) == [greedy] * 4
    assert drawn(temperature=5.0, top_k=0, seed=3) != [greedy] * 4


def test_target_prefix(marian, hugging_face):
    assert marian.translate(TEXT, target_prefix="ab").text.startswith("ab")
    assert hugging_face.translate(TEXT, target_prefix="world", max_new_tokens=3).text.startswith("world")


def test_options_of_the_other_kind_are_refused(marian, hugging_face):
    for option in ({"max_length": 9}, {"min_length": 1}, {"early_stopping": True}, {"no_repeat_ngram_size": 2},
                   {"repetition_penalty": 1.5}, {"renormalize_logits": True}, {"sampling": True}, {"temperature": 1.0},
                   {"top_k": 5}, {"top_p": 0.5}):
        with pytest.raises(ValueError, match="expected options of Marian's search"):
            marian.translate(TEXT, **option)
    for option in ({"word_penalty": 0.5}, {"max_length_factor": 2.0}):
        with pytest.raises(ValueError, match="expected options of Hugging Face's search"):
            hugging_face.translate(TEXT, **option)
    for option in ({"top_p": 0.5}, {"sampling": True, "top_p": math.nan}, {"n_best": 0}, {"max_new_tokens": 0}):
        with pytest.raises(ValueError, match="expected"):
            hugging_face.translate(TEXT, **option)
    for option in ({"seed": 1.5}, {"target_prefix": 1}, {"sampling": "yes"}):
        with pytest.raises(TypeError):
            hugging_face.translate(TEXT, **option)


@pytest.mark.parametrize("compute_type", ["int8", "bfloat16", "float32"])
def test_converted_folders_translate_alike(tmp_path, compute_type):
    source, output = DATA / "hugging_face" / "tiny", tmp_path / "smaller"
    assert attend.convert(source, output, compute_type=compute_type) is None
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (source, output)]
    assert (sizes[1] < sizes[0]) == (compute_type != "float32")
    before, after = (attend.Translator.from_pretrained(folder, compute_type=compute_type).translate(
        TEXT, attention=True, max_new_tokens=6) for folder in (source, output))
    assert before.ids == after.ids
    assert before.score == after.score
    np.testing.assert_array_equal(before.attention[0].cross, after.attention[0].cross)


def test_conversion_is_int8_unless_told(tmp_path):
    attend.convert(DATA / "hugging_face" / "tiny", str(tmp_path / "smaller"))
    assert "attend_int8" in (tmp_path / "smaller" / "config.json").read_text()


def test_conversion_refuses(tmp_path):
    source = DATA / "hugging_face" / "tiny"
    with pytest.raises(OSError, match="expected nothing at"):
        attend.convert(source, tmp_path)
    with pytest.raises(OSError, match="expected"):
        attend.convert(DATA / "marian" / "tiny", tmp_path / "smaller")
    for name in ("auto", "int4"):
        with pytest.raises(ValueError, match=f"expected compute_type of 'float32', 'bfloat16' or 'int8', found '{name}'"):
            attend.convert(source, tmp_path / "smaller", compute_type=name)
    assert not (tmp_path / "smaller").exists()


def test_text_is_told_while_it_grows(marian, hugging_face):
    line = "  - Hello, world. A second sentence, of some words more."
    for model, options in ((marian, {}), (hugging_face, {"max_new_tokens": 8}), (marian, {"beam_size": 2, "alignment": True})):
        told = []
        found = model.translate(line, on_text=told.append, **options)
        whole = model.translate(line, **options)
        assert found.text == whole.text == "".join(told) and found.ids == whole.ids and len(told) > 1
        assert found.words.links == whole.words.links
    assert marian.translate("", on_text=pytest.fail).text == ""


def test_what_is_told_may_end_the_call(marian):
    def refuse(text):
        raise KeyError(text)

    with pytest.raises(KeyError):
        marian.translate("- Hello, world.", on_text=refuse)
    with pytest.raises(TypeError, match="expected on_text to be callable, found int"):
        marian.translate(TEXT, on_text=1)
    for texts, found in (([TEXT], "list"), (3, "int")):
        with pytest.raises(TypeError, match="expected a str with on_text, found " + found):
            marian.translate(texts, on_text=print)
