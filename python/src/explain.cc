#include "arrays.h"
#include "bindings.h"
#include "computing.h"
#include "seed.h"

#include <attend/core/error.h>
#include <attend/tasks/explain.h>

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <utility>

namespace attend::python {

namespace {

using tasks::Explanation;

text::Vocabulary vocabulary_of(nb::handle dictionary) {
    if (dictionary.is_none()) return text::Vocabulary::article();
    std::vector<std::pair<std::string, std::int64_t>> words;
    nb::dict entries;
    if (!nb::try_cast(dictionary, entries)) {
        throw nb::type_error("[explain] expected a dictionary of words and their indices, found something else");
    }
    for (const auto& [word, index] : entries) {
        std::pair<std::string, std::int64_t> entry;
        if (!nb::try_cast(word, entry.first) || !nb::try_cast(index, entry.second)) {
            throw nb::type_error("[explain] expected a dictionary from str to int, found other keys or values");
        }
        words.push_back(std::move(entry));
    }
    return text::Vocabulary(words);
}

template <Tensor Explanation::*Step>
nb::object step(const Explanation& self) {
    return as_array(Tensor(self.*Step), Family::numpy);
}

}  // namespace

void bind_explain(nb::module_& module) {
    using nb::arg;
    nb::class_<Explanation>(module, "Explanation",
                            "The walk from a sentence of n words to its attention. str() is what PyTorch's program "
                            "prints; each array is a copy.")
        .def_ro("words", &Explanation::words, "Of the sentence.")
        .def_prop_ro("ids", &step<&Explanation::ids>, "int64 [n].")
        .def_prop_ro("embedded", &step<&Explanation::embedded>, "X, float32 [n, embedding_dim].")
        .def_prop_ro("query_weight", &step<&Explanation::query_weight>, "W_q, float32 [embedding_dim, head_dim].")
        .def_prop_ro("key_weight", &step<&Explanation::key_weight>, "W_k, float32 [embedding_dim, head_dim].")
        .def_prop_ro("value_weight", &step<&Explanation::value_weight>, "W_v, float32 [embedding_dim, head_dim].")
        .def_prop_ro("query", &step<&Explanation::query>, "Q = X W_q, float32 [n, head_dim].")
        .def_prop_ro("key", &step<&Explanation::key>, "K = X W_k, float32 [n, head_dim].")
        .def_prop_ro("value", &step<&Explanation::value>, "V = X W_v, float32 [n, head_dim].")
        .def_prop_ro("scores", &step<&Explanation::scores>, "Q K^T, float32 [n, n].")
        .def_prop_ro("scaled_scores", &step<&Explanation::scaled_scores>, "Q K^T / sqrt(head_dim), float32 [n, n].")
        .def_prop_ro("weights", &step<&Explanation::weights>, "Softmax of each row, float32 [n, n].")
        .def_prop_ro("output", &step<&Explanation::output>, "weights V, float32 [n, head_dim].")
        .def("__str__", &tasks::explanation_text)
        .def("__repr__",
             [](const Explanation& self) {
                 return "Explanation(" + nb::cast<std::string>(nb::repr(nb::cast(self.words))) + ")";
             })
        .def(
            "narrate",
            [](const Explanation& self, const std::string& language) {
                if (language != "en" && language != "zh") {
                    throw ValueError("explain", "expected language of 'en' or 'zh', found '" + language + "'");
                }
                return tasks::narrated_text(self,
                                            language == "zh" ? tasks::Language::chinese : tasks::Language::english);
            },
            arg("language") = "en",
            "The walk with, before the numbers of each step, its equation, its shapes and what it means, in English "
            "('en') or Chinese ('zh').");

    module.def(
        "explain",
        [](const std::string& sentence, nb::object dictionary, const Seed& seed,
           std::optional<std::int64_t> vocabulary_size, std::int64_t embedding_dim, std::int64_t head_dim) {
            const text::Vocabulary vocabulary = vocabulary_of(dictionary);
            const std::uint64_t number = seed.value();
            const Computing computing;
            return tasks::explain(sentence, vocabulary, {number, vocabulary_size, embedding_dim, head_dim});
        },
        arg("sentence") = "I Like Machine Learning And Deep Learning", nb::kw_only(), arg("dictionary") = nb::none(),
        arg("seed") = 12, arg("vocabulary_size") = nb::none(), arg("embedding_dim") = 4, arg("head_dim") = 3,
        R"(Walks from a sentence to its attention, with the numbers of PyTorch's program for the same seed.

sentence: words between single spaces. dictionary: their indices; by default the article's 23 words. seed: as
torch.manual_seed. vocabulary_size: rows of the embedding; by default the number of words. Returns an Explanation, whose
arrays are float32.

Raises ValueError for an unknown word, sizes below 1, or an index without a row in the embedding; TypeError for types.

>>> import attend
>>> walk = attend.explain("I Like Deep Learning")
>>> walk.weights.shape, walk.output.shape
((4, 4), (4, 3))
>>> print(attend.explain().words[2])
Machine
)");
}

}  // namespace attend::python
