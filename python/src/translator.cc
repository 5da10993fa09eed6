#include "arrays.h"
#include "bindings.h"
#include "computing.h"
#include "seed.h"

#include <attend/core/error.h>
#include <attend/tasks/conversion.h>
#include <attend/tasks/translator.h>

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <utility>

namespace attend::python {

namespace nb = nanobind;

namespace {

models::ComputeType compute_type_of(const std::string& name, const char* operation, bool automatic) {
    if (const auto type = models::compute_type_named(name)) return *type;
    if (automatic && name == "auto") return models::ComputeType::int8;
    throw ValueError(operation, std::string("expected compute_type of 'float32', 'bfloat16'") +
                                    (automatic ? ", 'int8' or 'auto'" : " or 'int8'") + ", found '" + name + "'");
}

std::optional<search::EarlyStopping> early_stopping_of(nb::handle object) {
    if (object.is_none()) return std::nullopt;
    if (nb::isinstance<nb::bool_>(object)) {
        return nb::cast<bool>(object) ? search::EarlyStopping::yes : search::EarlyStopping::heuristic;
    }
    std::string name;
    if (nb::try_cast(object, name) && name == "never") return search::EarlyStopping::never;
    throw ValueError("Translator", "expected early_stopping of True, False or 'never', found " +
                                       nb::cast<std::string>(nb::repr(object)));
}

nb::list links_of(const std::vector<AlignmentLink>& links) {
    nb::list result;
    for (const AlignmentLink& link : links) result.append(nb::make_tuple(link.source, link.target, link.weight));
    return result;
}

nb::list ranges_of(const std::vector<text::TextRange>& ranges) {
    nb::list result;
    for (const text::TextRange& range : ranges) result.append(nb::make_tuple(range.begin, range.end));
    return result;
}

nb::object words_of(const Translation& self) {
    return word_alignment_type()(ranges_of(self.words.source), ranges_of(self.words.target),
                                 links_of(self.words.links));
}

nb::list attention_of(const Translation& self) {
    nb::list result;
    for (const TranslationAttention& one : self.attention) {
        result.append(translation_attention_type()(one.source_tokens, one.target_tokens,
                                                   as_array(Tensor(one.encoder), Family::numpy),
                                                   as_array(Tensor(one.cross), Family::numpy), one.decoder_tokens,
                                                   as_array(Tensor(one.decoder), Family::numpy)));
    }
    return result;
}

/// What was given in place of text.
std::string name_of_others(nb::handle texts) {
    if (PySequence_Check(texts.ptr()) == 0 || PyBytes_Check(texts.ptr()) != 0) return name_of_type(texts);
    std::size_t i = 0;
    for (nb::handle item : nb::iter(texts)) {
        std::string text;
        if (!nb::try_cast(item, text)) {
            const bool broken = PyUnicode_Check(item.ptr()) != 0;
            return (broken ? "a str with half of a surrogate pair" : name_of_type(item)) + " at index " +
                   std::to_string(i);
        }
        ++i;
    }
    return name_of_type(texts);
}

/// One line, told while it grows. @param on_text called with each piece of text
TranslatedLines stream(const Translator& self, const std::string& line, bool split, const TranslationOptions& options,
                       nb::handle on_text) {
    const Computing computing;
    return self.stream_line(line, split, options, [on_text](const std::string& text) {
        const nb::gil_scoped_acquire lock;
        on_text(text);
    });
}

nb::object translate(const Translator& self, nb::handle texts, const TranslationOptions& options, bool split,
                     nb::handle on_text) {
    std::string one;
    const bool single = nb::try_cast(texts, one);
    if (!single && PyUnicode_Check(texts.ptr()) != 0) {
        throw ValueError("Translator", "expected text, found a str with half of a surrogate pair");
    }
    if (!on_text.is_none()) {
        if (PyCallable_Check(on_text.ptr()) == 0) {
            throw nb::type_error(
                ("[Translator] expected on_text to be callable, found " + name_of_type(on_text)).c_str());
        }
        if (!single) {
            throw nb::type_error(("[Translator] expected a str with on_text, found " + name_of_others(texts)).c_str());
        }
        return nb::cast(std::move(stream(self, one, split, options, on_text).lines.front()));
    }
    std::vector<std::string> lines;
    if (single) {
        lines.push_back(one);
    } else if (!nb::try_cast(texts, lines)) {
        throw nb::type_error(("[Translator] expected a str or a list of str, found " + name_of_others(texts)).c_str());
    }
    TranslatedLines found;
    {
        const Computing computing;
        found = self.translate_lines(lines, split, options);
    }
    if (single) return nb::cast(std::move(found.lines.front()));
    return nb::cast(std::move(found.lines));
}

void bind_translation(nb::module_& module) {
    nb::class_<Translation>(module, "Translation", R"(One translation, of a text: what Translator.translate returns.

What the call did not ask for is an empty list. Each access to a list or an array copies it.)")
        .def_ro("text", &Translation::text, "Of the target language, a str.")
        .def_ro("ids", &Translation::ids, "Of its pieces, a list of int, the end's included.")
        .def_ro(
            "log_probability", &Translation::log_probability,
            "Sum over the pieces (with Firefox's models, among those of the shortlist), a float. 0 where scores were "
            "not computed: greedy search with Firefox's models, unless scores=True.")
        .def_ro("score", &Translation::score,
                "What beams are ranked by, a float: log_probability, less word_penalty for each of ids, over their "
                "number to "
                "the power of length_penalty; of several sentences, their mean. 0 where log_probability is.")
        .def_ro("source_ids", &Translation::source_ids,
                "With alignment: of the source's pieces, a list of int, each sentence's end included.")
        .def_prop_ro(
            "alignment", [](const Translation& self) { return links_of(self.tokens); },
            "With alignment: (source, target, weight), a list: an index into source_ids, one into ids, and the share "
            "of "
            "the target's attention, 0 to 1; all shares from 0.2 on, and the largest of each target.")
        .def_prop_ro(
            "words", &words_of,
            "With alignment: a named tuple of source and target, lists of (begin, end), the bytes of each word "
            "in the UTF-8 of the text; and links, as in alignment, between indices into the two.")
        .def_prop_ro(
            "attention", &attention_of,
            "With attention: a list with a named tuple for each sentence (or part of a long one): source_tokens "
            "and target_tokens, lists of str with the end; encoder, float32 [layers, heads, source, source]; "
            "cross, float32 [layers, heads, target, source]; decoder_tokens, what the decoder read for each of "
            "target_tokens, and decoder, float32 [layers, heads, target, target], its self-attention (Firefox's "
            "decoders are recurrent: no elements).")
        .def_ro("others", &Translation::others, "With n_best: a list of the next best ones, best first.")
        .def("__repr__", [](const Translation& self) {
            return "Translation(" + nb::cast<std::string>(nb::repr(nb::cast(self.text))) + ")";
        });
}

void bind_conversion(nb::module_& module) {
    using nb::arg;
    module.def(
        "convert",
        [](nb::object model, nb::object output, const std::string& compute_type) {
            const models::ComputeType type = compute_type_of(compute_type, "convert", false);
            const std::string from = path_of(model);
            const std::string to = path_of(output);
            const Computing computing;
            convert_folder(from, to, type);
        },
        arg("model"), arg("output"), arg("compute_type") = "int8",
        R"(Writes an OPUS-MT folder of Hugging Face again with its weights rounded, in a half or a quarter of the bytes.

model: the folder (config.json of model_type "marian"). output: the new one, which Translator.from_pretrained takes; there
must be nothing yet. compute_type: "int8", a scale for each row of the matrices of products; "bfloat16", those matrices;
"float32", one file of what may have come in parts. Translations computed in that type have the same bits as from the
folder itself. Returns None.

Raises OSError where model is no such folder or output is there; ValueError for another compute_type.

>>> import attend, tempfile
>>> with tempfile.TemporaryDirectory() as folder:
...     attend.convert("tests/data/hugging_face/tiny", folder + "/int8")
...     smaller = attend.Translator.from_pretrained(folder + "/int8")
>>> model = attend.Translator.from_pretrained("tests/data/hugging_face/tiny")
>>> smaller.translate("Hello, world.").text == model.translate("Hello, world.").text
True
)");
}

}  // namespace

void bind_translator(nb::module_& module) {
    using nb::arg;
    bind_translation(module);
    nb::class_<Translator>(module, "Translator",
                           "A translation model with its vocabularies. Objects may be shared by threads.")
        .def_static(
            "from_pretrained",
            [](nb::object path, const std::string& compute_type, bool shortlist) {
                TranslatorOptions options;
                options.compute_type = compute_type_of(compute_type, "Translator", true);
                options.shortlist = shortlist;
                const std::string folder = path_of(path);
                const Computing computing;
                return Translator::from_pretrained(folder, options);
            },
            arg("path"), nb::kw_only(), arg("compute_type") = "auto", arg("shortlist") = true,
            R"(Loads a folder as Mozilla publishes it (Firefox's models), or an OPUS-MT one of Hugging Face.

compute_type: how products are computed, "float32", "bfloat16" or "int8" ("auto"). shortlist: take the folder's lexical
shortlist, where it has one.

Raises OSError naming the file, and what was expected and found; ValueError for another compute_type.

>>> import attend
>>> model = attend.Translator.from_pretrained("tests/data/marian/tiny", compute_type="float32")
>>> model.source_language, model.target_language
('xx', 'yy')
)")
        .def(
            "translate",
            [](const Translator& self, nb::object texts, std::optional<std::int64_t> beam_size,
               std::optional<std::int64_t> n_best, std::optional<double> length_penalty,
               std::optional<double> word_penalty, std::optional<double> max_length_factor,
               std::optional<std::int64_t> max_new_tokens, std::optional<std::int64_t> max_length,
               std::optional<std::int64_t> min_length, nb::object early_stopping,
               std::optional<std::int64_t> no_repeat_ngram_size, std::optional<double> repetition_penalty,
               std::optional<bool> renormalize_logits, std::optional<bool> sampling, std::optional<double> temperature,
               std::optional<std::int64_t> top_k, std::optional<double> top_p, const std::optional<Seed>& seed,
               const std::string& target_prefix, std::optional<std::string> target_language, std::int64_t batch_tokens,
               std::optional<std::int64_t> max_source_tokens, bool scores, bool alignment, bool attention, bool split,
               nb::object on_text) {
                TranslationOptions options;
                options.beam_size = beam_size;
                options.n_best = n_best;
                options.length_penalty = length_penalty;
                options.word_penalty = word_penalty;
                options.max_length_factor = max_length_factor;
                options.max_new_tokens = max_new_tokens;
                options.max_length = max_length;
                options.min_length = min_length;
                options.early_stopping = early_stopping_of(early_stopping);
                options.no_repeat_ngram_size = no_repeat_ngram_size;
                options.repetition_penalty = repetition_penalty;
                options.renormalize_logits = renormalize_logits;
                options.sampling = sampling;
                options.temperature = temperature;
                options.top_k = top_k;
                options.top_p = top_p;
                if (seed) options.seed = seed->value();
                options.target_prefix = target_prefix;
                options.target_language = std::move(target_language);
                options.batch_tokens = batch_tokens;
                options.max_source_tokens = max_source_tokens;
                options.scores = scores;
                options.alignment = alignment;
                options.attention = attention;
                return translate(self, texts, options, split, on_text);
            },
            arg("texts"), nb::kw_only(), arg("beam_size") = nb::none(), arg("n_best") = nb::none(),
            arg("length_penalty") = nb::none(), arg("word_penalty") = nb::none(), arg("max_length_factor") = nb::none(),
            arg("max_new_tokens") = nb::none(), arg("max_length") = nb::none(), arg("min_length") = nb::none(),
            arg("early_stopping") = nb::none(), arg("no_repeat_ngram_size") = nb::none(),
            arg("repetition_penalty") = nb::none(), arg("renormalize_logits") = nb::none(),
            arg("sampling") = nb::none(), arg("temperature") = nb::none(), arg("top_k") = nb::none(),
            arg("top_p") = nb::none(), arg("seed") = nb::none(), arg("target_prefix") = "",
            arg("target_language") = nb::none(), arg("batch_tokens") = TranslationOptions().batch_tokens,
            arg("max_source_tokens") = nb::none(), arg("scores") = false, arg("alignment") = false,
            arg("attention") = false, arg("split") = true, arg("on_text") = nb::none(),
            R"(Translates a text, or each of a list: a Translation, or a list of them.

Sentences of all texts are worked on together; each has the same bits as alone. What is None comes from the folder, or
else is as said here.

texts: a str or a sequence of str. split: texts are lines, whose sentences are found; False: each is one sentence.
beam_size: hypotheses that are followed; 1: greedy (else 1). n_best: translations of each text, up to beam_size (else
1). length_penalty: exponent of the length that scores are divided by (else 1). max_new_tokens: of a sentence, at most,
the end included. target_prefix: every translation of a sentence begins with it. batch_tokens: source tokens that are
worked on at once. max_source_tokens: longer sentences are cut and translated in parts.

For Firefox's models, as Marian has them: word_penalty, taken off a score for each token (else 0); max_length_factor,
tokens for each of the source, at most (else 3).

For Hugging Face's: target_language, "de" puts the mark ">>de<<" of models of several languages in front of each sentence
that has none. By the names of generate: max_length and min_length, counted with the start; early_stopping, a bool or
"never"; no_repeat_ngram_size; repetition_penalty; renormalize_logits; sampling (there do_sample) with temperature (else
1), top_k (0: all tokens; else 50), top_p (else 1) and seed (else 0): the same seed, the same texts, n_best of them.

scores: also compute them where a search does not need to. alignment: also Translation.source_ids, alignment and words.
attention: also Translation.attention. on_text: a callable that is told the translation of one text while it grows: each
time some whole words, with the spaces before them, or with beams a sentence; together they are Translation.text, which has
the same bits. What it raises ends the call.

Raises ValueError for numbers out of range and options of the other kind of model; TypeError for types.

>>> import attend
>>> model = attend.Translator.from_pretrained("tests/data/hugging_face/tiny")
>>> found = model.translate("Hello, world.", max_new_tokens=4, alignment=True, attention=True)
>>> len(found.ids), found.attention[0].cross.shape
(4, (2, 2, 4, 14))
>>> source, target, weight = found.alignment[0]
>>> model.source_pieces([found.source_ids[source]]), model.pieces([found.ids[target]])
(['e'], ['nd'])
>>> drawn = model.translate("Hello, world.", sampling=True, temperature=2.0, seed=7, n_best=3, max_new_tokens=4)
>>> len(drawn.others)
2
>>> told = []
>>> model.translate("Hello, world.", max_new_tokens=4, on_text=told.append).text == "".join(told)
True
)")
        .def("pieces", &Translator::pieces, arg("ids"),
             "Pieces as the target's vocabulary spells them, a list of str; of Hugging Face's, '<unk>' for an id "
             "without one. "
             "Raises ValueError for an id that is none.")
        .def("source_pieces", &Translator::source_pieces, arg("ids"),
             "Pieces as the source's vocabulary spells them, a list of str; of Hugging Face's, '<unk>' for an id "
             "without one. "
             "Raises ValueError for an id that is none.")
        .def_prop_ro("source_language", &Translator::source_language,
                     "Of the texts, two letters; empty where the model's file name does not tell.")
        .def_prop_ro("target_language", &Translator::target_language, "Of the translations, likewise.");
    bind_conversion(module);
}

}  // namespace attend::python
