#include "bindings.h"
#include "computing.h"

#include <attend/tasks/translator.h>

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <utility>

namespace attend::python {

namespace nb = nanobind;

void bind_translator(nb::module_& module) {
    using nb::arg;
    nb::class_<Translation>(module, "Translation", "One translation.")
        .def_ro("text", &Translation::text, "Of the target language.")
        .def_ro("ids", &Translation::ids, "Of its pieces, the end's included.")
        .def_ro("score", &Translation::score, "Log-probability of a piece, by default.")
        .def_ro("others", &Translation::others, "With n_best: the next best ones.")
        .def("__repr__", [](const Translation& self) {
            return "Translation(" + nb::cast<std::string>(nb::repr(nb::cast(self.text))) + ")";
        });
    nb::class_<Translator>(module, "Translator", "A translation model with its vocabularies.")
        .def_static(
            "from_pretrained",
            [](nb::object path, const std::string& compute_type, bool shortlist) {
                TranslatorOptions options;
                if (compute_type == "float32") {
                    options.compute_type = models::ComputeType::float32;
                } else if (compute_type == "bfloat16") {
                    options.compute_type = models::ComputeType::bfloat16;
                } else if (compute_type != "int8" && compute_type != "auto") {
                    throw nb::value_error(("[Translator] expected compute_type of 'float32', 'bfloat16', 'int8' or "
                                           "'auto', found '" +
                                           compute_type + "'")
                                              .c_str());
                }
                options.shortlist = shortlist;
                const std::string folder = nb::cast<std::string>(nb::module_::import_("os").attr("fspath")(path));
                const Computing computing;
                return Translator::from_pretrained(folder, options);
            },
            arg("path"), nb::kw_only(), arg("compute_type") = "auto", arg("shortlist") = true,
            "Loads a folder as Mozilla publishes it.")
        .def(
            "translate",
            [](const Translator& self, nb::object texts, std::optional<std::int64_t> beam_size, std::int64_t n_best,
               std::optional<double> length_penalty, std::optional<double> word_penalty,
               std::optional<double> max_length_factor, std::optional<std::int64_t> max_new_tokens,
               std::int64_t batch_tokens, bool scores, bool split) -> nb::object {
                TranslationOptions options;
                options.beam_size = beam_size;
                options.n_best = n_best;
                options.length_penalty = length_penalty;
                options.word_penalty = word_penalty;
                options.max_length_factor = max_length_factor;
                options.max_new_tokens = max_new_tokens;
                options.batch_tokens = batch_tokens;
                options.scores = scores;
                std::string one;
                const bool single = nb::try_cast(texts, one);
                std::vector<std::string> lines;
                if (single) {
                    lines.push_back(one);
                } else if (!nb::try_cast(texts, lines)) {
                    throw nb::type_error("[Translator] expected a str or a list of str, found others");
                }
                TranslatedLines found;
                {
                    const Computing computing;
                    found = self.translate_lines(lines, split, options);
                }
                if (single) return nb::cast(std::move(found.lines.front()));
                return nb::cast(std::move(found.lines));
            },
            arg("texts"), nb::kw_only(), arg("beam_size") = nb::none(), arg("n_best") = 1,
            arg("length_penalty") = nb::none(), arg("word_penalty") = nb::none(), arg("max_length_factor") = nb::none(),
            arg("max_new_tokens") = nb::none(), arg("batch_tokens") = TranslationOptions().batch_tokens,
            arg("scores") = false, arg("split") = true,
            "Translates a text, or each of a list: a Translation, or a list of them. Sentences of all texts are worked "
            "on together; each has the same bits as alone.")
        .def("pieces", &Translator::pieces, arg("ids"), "Pieces as the target's vocabulary spells them.");
}

}  // namespace attend::python
