#include <attend/tasks/explain.h>

#include <attend/core/error.h>
#include <attend/core/print.h>
#include <attend/core/torch_random.h>
#include <attend/nn/embedding.h>
#include <attend/tasks/torch_arithmetic.h>

#include <cmath>

namespace attend::tasks {

namespace {

void check_size(const char* name, std::int64_t size) {
    if (size < 1) {
        throw ValueError("explain", std::string("expected ") + name + " of at least 1, found " + std::to_string(size));
    }
}

Tensor ids_of(const std::vector<std::string>& words, const text::Vocabulary& vocabulary, std::int64_t rows) {
    Tensor ids = Tensor::empty({static_cast<std::int64_t>(words.size())}, DType::int64);
    for (std::size_t i = 0; i < words.size(); ++i) {
        if (words[i].empty()) {
            throw ValueError("explain", words.size() == 1
                                            ? "expected a sentence of at least one word, found none"
                                            : "expected single spaces between words, found an empty word");
        }
        const std::int64_t id = vocabulary.index_of(words[i]);
        if (id >= rows) {
            // Nobody wants a table for an index that is out of all proportion.
            constexpr std::int64_t kMostRows = 100'000'000;
            const std::string advice =
                id < kMostRows ? "; --vocabulary-size " + std::to_string(id + 1) + " gives it a row" : "";
            throw ValueError("explain", "expected an index below the " + std::to_string(rows) +
                                            " rows of the embedding, found " + std::to_string(id) + " for '" +
                                            words[i] + "'" + advice);
        }
        ids.data<std::int64_t>()[i] = id;
    }
    return ids;
}

detail::TorchMachine machine_of(TorchProcessor processor) {
    if (processor == TorchProcessor::here) return detail::this_machine();
    return processor == TorchProcessor::intel ? detail::TorchMachine{.intel = true, .lanes = 16}
                                              : detail::TorchMachine{.intel = false, .lanes = 8};
}

}  // namespace

Explanation explain(const std::string& sentence, const text::Vocabulary& vocabulary, const ExplainOptions& options) {
    const std::int64_t rows = options.vocabulary_size.value_or(vocabulary.size());
    check_size("a vocabulary size", rows);
    check_size("an embedding dimension", options.embedding_dim);
    check_size("a head dimension", options.head_dim);

    Explanation e;
    e.words = text::split_at_spaces(sentence);
    e.ids = ids_of(e.words, vocabulary, rows);
    TorchGenerator generator(options.seed);
    const nn::Embedding embedding({.num_embeddings = rows, .embedding_dim = options.embedding_dim}, generator);
    e.embedded = embedding.forward(e.ids);
    e.query_weight = generator.randn({options.embedding_dim, options.head_dim});
    e.key_weight = generator.randn({options.embedding_dim, options.head_dim});
    e.value_weight = generator.randn({options.embedding_dim, options.head_dim});
    const detail::TorchMachine machine = machine_of(options.processor);
    e.query = detail::torch_product(e.embedded, e.query_weight, machine);
    e.key = detail::torch_product(e.embedded, e.key_weight, machine);
    e.value = detail::torch_product(e.embedded, e.value_weight, machine);
    e.scores = detail::torch_product(e.query, e.key.view().transpose(0, 1), machine);
    e.scaled_scores = e.scores;
    const float root = detail::torch_sqrt(options.head_dim, machine);
    for (std::int64_t i = 0; i < e.scores.numel(); ++i) e.scaled_scores.data<float>()[i] /= root;
    e.weights = detail::torch_softmax(e.scaled_scores, machine);
    e.output = detail::torch_product(e.weights, e.value, machine);
    return e;
}

std::string explanation_text(const Explanation& e) {
    const PrintOptions pytorch{.dtype_prefix = "torch."};
    std::string text = "sentence as a tensor: " + to_string(e.ids, pytorch) + "\n";
    text += "shape of embedded tensor: torch.Size(" + to_string(e.embedded.shape()) + ")\n";
    text += "sequence length: " + std::to_string(e.embedded.size(0)) + " tokens\n";
    text += "dimension (d) of each token: " + std::to_string(e.embedded.size(1)) + "\n";
    const auto add = [&](const std::string& title, const Tensor& tensor) {
        text.append(title).append(":\n ").append(to_string(tensor, pytorch)).append("\n");
    };
    add("Weight matrix W_q", e.query_weight);
    add("Weight matrix W_k", e.key_weight);
    add("Weight matrix W_v", e.value_weight);
    add("Query matrix Q", e.query);
    add("Key matrix K", e.key);
    add("Value matrix V", e.value);
    add("Scores", e.scores);
    add("Scaled Scores", e.scaled_scores);
    add("Attention Weights", e.weights);
    add("Attention Output", e.output);
    return text;
}

}  // namespace attend::tasks
