#include <attend/tasks/translation_batch.h>

#include <attend/core/error.h>
#include <attend/tasks/vocabulary_logits.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <numeric>
#include <optional>
#include <utility>

namespace attend {

namespace {

constexpr std::int64_t kMostLogits = std::int64_t{16} << 20;  // that are there at once, 64 MB

/// The output layer for one sequence and the ids of its columns; all columns: no ids.
struct Output {
    std::optional<nn::Linear> some = {};
    std::vector<std::int64_t> ids = {};
};

Output output_for(const nn::EncoderDecoder& model, const TranslationSequence& sequence,
                  const TranslationBatchOptions& options) {
    if (options.shortlist == nullptr) return {};
    std::vector<std::int64_t> ids =
        options.shortlist->candidates(sequence.ids, options.shared_vocabulary, model.target_size());
    nn::Linear some = model.output().select(ids);
    return {std::move(some), std::move(ids)};
}

[[noreturn]] void refuse_damaged(const std::string& model) {
    throw ValueError("Translator", "expected finite numbers from the model in '" + model +
                                       "', found NaN or infinity: its weights are damaged");
}

/// @throws ValueError: a search among NaN would end at once, with nothing
void check_finite(const Tensor& rows, const std::string& model) {
    const auto* values = rows.data<float>();
    std::uint32_t largest = 0;  // magnitudes have the order of their bits
    for (std::int64_t i = 0; i < rows.numel(); ++i) {
        std::uint32_t bits = 0;
        std::memcpy(&bits, values + i, sizeof bits);
        largest = std::max(largest, bits & 0x7FFFFFFFU);
    }
    if (largest >= 0x7F800000U) refuse_damaged(model);
}

/// Advances the searches of the active sequences, in order, and calls take(sequence, next step) for each.
class Steps {
public:
    Steps(const nn::EncoderDecoder& model, const std::vector<Output>& outputs,
          const std::vector<std::unique_ptr<search::Search>>& searches)
        : model_(model), outputs_(outputs), searches_(searches) {}

    /// @throws search::LogitsError: rows may be finite where the output layer's weights are not
    template <typename Take>
    void run(const Tensor& rows, const nn::DecoderState& state, const std::vector<std::size_t>& active,
             const Take& take) const {
        for (std::size_t first = 0; first < active.size();) {
            // Alone or beside others, a sequence takes the same way.
            const bool best = best_of(active[first]) > 0;
            std::size_t last = first + 1;
            while (last < active.size() && (best_of(active[last]) > 0) == best) ++last;
            if (best) {
                run_best(rows, state, active, first, last, take);
            } else {
                run_whole(rows, state, active, first, last, take);
            }
            first = last;
        }
    }

private:
    /// How many logits of a row are as good as all; 0: none.
    std::int64_t best_of(std::size_t sequence) const {
        return outputs_[sequence].some || model_.output().in_double() ? 0 : searches_[sequence]->best_logits();
    }

    /// Of active sequences [first, last).
    template <typename Take>
    void run_best(const Tensor& rows, const nn::DecoderState& state, const std::vector<std::size_t>& active,
                  std::size_t first, std::size_t last, const Take& take) const {
        std::int64_t most = 0;
        for (std::size_t i = first; i < last; ++i) most = std::max(most, best_of(active[i]));
        const std::int64_t begin = state.row_starts[first];
        const auto best =
            best_logits(model_.output(), rows.view().select(0, 0).slice(0, begin, state.row_starts[last]), most);
        for (std::size_t i = first; i < last; ++i) {
            const auto own = static_cast<std::size_t>(state.row_starts[i] - begin);
            const auto count = static_cast<std::size_t>(state.row_starts[i + 1] - state.row_starts[i]);
            take(i, searches_[active[i]]->advance_best(std::span(best).subspan(own, count)));
        }
    }

    /// Of active sequences [first, last). Where all have the whole output layer, it reads its weights once for as many
    /// rows as there is room for.
    template <typename Take>
    void run_whole(const Tensor& rows, const nn::DecoderState& state, const std::vector<std::size_t>& active,
                   std::size_t first, std::size_t last, const Take& take) const {
        const std::int64_t most = std::max<std::int64_t>(1, kMostLogits / model_.target_size());
        const auto starts = [&](std::size_t i) { return state.row_starts[i]; };
        while (first < last) {
            std::size_t end = first + 1;
            const Output& output = outputs_[active[first]];
            while (!output.some && end < last && starts(end + 1) - starts(first) <= most) ++end;
            const nn::Linear& layer = output.some ? *output.some : model_.output();
            Tensor logits = layer.forward(rows.view().slice(1, starts(first), starts(end)));
            auto* values = logits.data<float>();
            const std::int64_t width = logits.size(2);
            for (; first < end; ++first) {
                const Shape shape = {starts(first + 1) - starts(first), width};
                const std::size_t sequence = active[first];
                take(first, searches_[sequence]->advance(MutableTensorView(values, shape), outputs_[sequence].ids));
                values += shape.numel();
            }
        }
    }

    const nn::EncoderDecoder& model_;
    const std::vector<Output>& outputs_;
    const std::vector<std::unique_ptr<search::Search>>& searches_;
};

/// Its own block of weights [1, heads, all queries, all keys], as [heads, queries, keys].
Tensor block_of(const Tensor& weights, std::int64_t query, std::int64_t query_end, std::int64_t key,
                std::int64_t key_end) {
    return weights.view().select(0, 0).slice(1, query, query_end).slice(2, key, key_end).clone();
}

/// Tensors of one shape [heads, queries, keys] as one with a dimension in front.
Tensor stacked(const std::vector<Tensor>& all) {
    const Tensor& first = all.front();
    Tensor result = Tensor::empty({static_cast<std::int64_t>(all.size()), first.size(0), first.size(1), first.size(2)});
    float* to = result.data<float>();
    for (const Tensor& one : all) to = std::copy_n(one.data<float>(), one.numel(), to);
    return result;
}

/// Its own rows of weights of self-attention [rows, heads, 1, keys], as [heads, rows, keys].
Tensor rows_of(const Tensor& weights, std::int64_t begin, std::int64_t end) {
    return weights.view().slice(0, begin, end).select(2, 0).transpose(0, 1).clone();
}

/// The rows of weights that a hypothesis went through, [blocks, heads, tokens, keys]; behind the keys of a step 0.
Tensor on_the_way(const std::vector<std::vector<Tensor>>& steps, const search::Hypothesis& hypothesis,
                  std::int64_t keys) {
    if (steps.empty() || steps.front().empty()) return {};
    const auto blocks = static_cast<std::int64_t>(steps.front().size());
    const std::int64_t heads = steps.front().front().size(0);
    const auto tokens = static_cast<std::int64_t>(hypothesis.tokens.size());
    Tensor result({blocks, heads, tokens, keys});
    for (std::int64_t b = 0; b < blocks; ++b) {
        for (std::int64_t h = 0; h < heads; ++h) {
            for (std::int64_t t = 0; t < tokens; ++t) {
                const auto step = static_cast<std::size_t>(t);
                const Tensor& weights = steps[step][static_cast<std::size_t>(b)];
                const std::int64_t row = h * weights.size(1) + hypothesis.rows[step];
                std::copy_n(weights.data<float>() + row * weights.size(2), weights.size(2),
                            result.data<float>() + ((b * heads + h) * tokens + t) * keys);
            }
        }
    }
    return result;
}

}  // namespace

void translate_batch(const nn::EncoderDecoder& model, std::span<TranslationSequence*> batch,
                     const TranslationBatchOptions& options) {
    std::vector<std::int64_t> ids;
    std::vector<std::int64_t> starts = {0};
    std::vector<Output> outputs;
    std::vector<std::unique_ptr<search::Search>> searches;
    for (const TranslationSequence* sequence : batch) {
        ids.insert(ids.end(), sequence->ids.begin(), sequence->ids.end());
        starts.push_back(static_cast<std::int64_t>(ids.size()));
        outputs.push_back(output_for(model, *sequence, options));
        searches.push_back(options.search(static_cast<std::int64_t>(sequence->ids.size())));
    }
    nn::AttentionRecord record;
    const Tensor encoded = model.encode(ids, starts, options.all_weights ? &record : nullptr);
    check_finite(encoded, options.model);
    nn::DecoderState state = model.start(encoded, starts);
    for (std::size_t i = 0; i < batch.size() && options.all_weights; ++i) {
        std::vector<Tensor> blocks;
        for (const Tensor& weights : record.weights) {
            blocks.push_back(block_of(weights, starts[i], starts[i + 1], starts[i], starts[i + 1]));
        }
        batch[i]->encoder_weights = stacked(blocks);
    }

    const bool recorded = options.all_weights || options.alignment_weights;
    if (!options.all_weights) record.only = model.alignment_block();
    nn::AttentionRecord own;
    nn::DecoderRecords records;
    if (recorded) records.cross = &record;
    if (options.all_weights) records.self = &own;
    std::vector<std::size_t> active(batch.size());
    std::iota(active.begin(), active.end(), std::size_t{0});
    std::vector<std::int64_t> previous(batch.size(), options.start);
    while (!active.empty()) {
        const Tensor rows = model.step(state, previous, records);
        check_finite(rows, options.model);
        std::vector<std::int64_t> parents;
        std::vector<std::int64_t> counts;
        std::vector<std::size_t> left;
        previous.clear();
        const auto take = [&](std::size_t i, const search::NextStep& next) {
            const std::int64_t begin = state.row_starts[i];
            const std::int64_t end = state.row_starts[i + 1];
            if (recorded) {
                batch[active[i]]->cross_steps.emplace_back();
                for (const Tensor& weights : record.weights) {
                    batch[active[i]]->cross_steps.back().push_back(
                        block_of(weights, begin, end, state.starts[i], state.starts[i + 1]));
                }
                batch[active[i]]->self_steps.emplace_back();
                for (const Tensor& weights : own.weights) {
                    if (weights.numel() == 0) continue;  // of a recurrence
                    batch[active[i]]->self_steps.back().push_back(rows_of(weights, begin, end));
                }
            }
            for (const std::int64_t parent : next.parents) parents.push_back(begin + parent);
            previous.insert(previous.end(), next.tokens.begin(), next.tokens.end());
            counts.push_back(static_cast<std::int64_t>(next.tokens.size()));
            if (!next.tokens.empty()) left.push_back(active[i]);
            if (options.on_token && !next.tokens.empty()) options.on_token(*batch[active[i]], next.tokens.front());
        };
        try {
            Steps(model, outputs, searches).run(rows, state, active, take);
        } catch (const search::LogitsError&) {
            refuse_damaged(options.model);
        }
        if (!left.empty()) model.choose(state, parents, counts);
        active = std::move(left);
    }
    for (std::size_t i = 0; i < batch.size(); ++i) batch[i]->hypotheses = searches[i]->best(options.n_best);
}

Tensor cross_weights(const TranslationSequence& sequence, const search::Hypothesis& hypothesis) {
    return on_the_way(sequence.cross_steps, hypothesis, static_cast<std::int64_t>(sequence.ids.size()));
}

Tensor decoder_weights(const TranslationSequence& sequence, const search::Hypothesis& hypothesis) {
    return on_the_way(sequence.self_steps, hypothesis, static_cast<std::int64_t>(hypothesis.tokens.size()));
}

}  // namespace attend
